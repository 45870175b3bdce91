"""A small network on scikit-learn's handwritten digits, in NumPy. Used by the demo and tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from .. import Adam, AMSGrad, Optimizer

Floats = NDArray[np.float32]
Params = dict[str, Floats]

SEED = 0
HIDDEN = 256
BATCH = 64
LEARNING_RATE = 2e-3

OPTIMIZERS: dict[str, Callable[[Params], Optimizer]] = {
    "AMSGrad": lambda params: AMSGrad(params, learning_rate=LEARNING_RATE),
    "Adam": lambda params: Adam(params, learning_rate=LEARNING_RATE),
}


class Labelled(NamedTuple):
    """Images, a row of 64 pixels in [0, 1] each, and the digits that they show."""

    images: Floats
    labels: NDArray[np.int64]


class Digits(NamedTuple):
    """The data set, split."""

    train: Labelled
    test: Labelled


class Epoch(NamedTuple):
    """How good the network is after a pass over the training images."""

    train_loss: float
    test_loss: float
    test_accuracy: float


def load() -> Digits:
    """The 1,797 images that ship with scikit-learn, a fifth of them for the test."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    parts = train_test_split(images, labels, test_size=0.2, stratify=labels, random_state=SEED)
    train_images, test_images, train_labels, test_labels = parts
    return Digits(Labelled(train_images, train_labels), Labelled(test_images, test_labels))


def train(make_optimizer: Callable[[Params], Optimizer], data: Digits, epochs: int) -> Iterator[Epoch]:
    """Yields where things stand before training and after each epoch; the same start and batches for any optimizer."""
    rng = np.random.default_rng(SEED)
    params = initial_params(rng)
    optimizer = make_optimizer(params)
    yield evaluate(params, data)
    for _ in range(epochs):
        order = rng.permutation(len(data.train.labels))
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            optimizer.step(gradients(params, Labelled(data.train.images[batch], data.train.labels[batch])))
        yield evaluate(params, data)


def initial_params(rng: np.random.Generator) -> Params:
    """He's initialization: weights that keep the variance of what passes through the layers."""
    sizes = [(64, HIDDEN), (HIDDEN, 10)]
    first, second = [(rng.standard_normal(size) * np.sqrt(2 / size[0])).astype(np.float32) for size in sizes]
    return {"w1": first, "b1": np.zeros(HIDDEN, np.float32), "w2": second, "b2": np.zeros(10, np.float32)}


def forward(params: Params, images: Floats) -> tuple[Floats, Floats]:
    """The hidden layer, and the logarithms of the probabilities of the ten digits."""
    hidden: Floats = np.maximum(images @ params["w1"] + params["b1"], 0)
    logits: Floats = hidden @ params["w2"] + params["b2"]
    logits -= logits.max(axis=1, keepdims=True)  # exp cannot overflow then
    return hidden, logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def gradients(params: Params, batch: Labelled) -> Params:
    """The gradients of the mean cross-entropy, by backpropagation."""
    hidden, log_probabilities = forward(params, batch.images)
    to_logits = np.exp(log_probabilities)
    to_logits[np.arange(len(batch.labels)), batch.labels] -= 1
    to_logits /= len(batch.labels)
    to_hidden = to_logits @ params["w2"].T * (hidden > 0)
    return {
        "w1": batch.images.T @ to_hidden,
        "b1": to_hidden.sum(axis=0),
        "w2": hidden.T @ to_logits,
        "b2": to_logits.sum(axis=0),
    }


def evaluate(params: Params, data: Digits) -> Epoch:
    """Losses and accuracy over all images."""
    train_loss, _ = loss_and_accuracy(params, data.train)
    return Epoch(train_loss, *loss_and_accuracy(params, data.test))


def loss_and_accuracy(params: Params, part: Labelled) -> tuple[float, float]:
    """The mean cross-entropy, and the share of images whose likeliest digit is the right one."""
    _, log_probabilities = forward(params, part.images)
    loss = -log_probabilities[np.arange(len(part.labels)), part.labels].mean()
    accuracy = (log_probabilities.argmax(axis=1) == part.labels).mean()
    return float(loss), float(accuracy)
