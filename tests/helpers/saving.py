"""What the tests of saving and loading share: a model that has everything, and all of it that should be kept."""

from __future__ import annotations

from enum import Enum
from typing import Any

import numpy as np

import flatstep
from cases import CASES, numbers
from flatstep._trees import Tree

STEPS = 8


def params(seed: int) -> dict[Any, Any]:
    """Leaves of both dtypes, 0-d, empty, in Fortran order and in another, under keys of several types."""
    rng = np.random.default_rng(seed)
    return {
        "w": numbers(rng, (5, 7), np.float32),
        3: [numbers(rng, (70,), np.float64), numbers(rng, (), np.float32)],
        "a.b/c": (np.zeros((0, 3)), {(1, "x"): np.asfortranarray(numbers(rng, (4, 6), np.float32))}),
        None: numbers(rng, (2, 3, 4), np.float64).transpose(2, 0, 1),
    }


def gradients() -> list[dict[Any, Any]]:
    steps = [params(seed) for seed in range(100, 100 + STEPS)]
    steps[1]["w"] = steps[4][3][1] = steps[6][None] = None
    return steps


def content(opt: flatstep.Optimizer) -> dict[str, Any]:
    """All that a file should keep, to the bit."""
    saved = opt.state_dict()
    slots = {slot: content_of(value) for slot, value in saved.pop("state").items()}
    if "ema" in saved:
        saved["ema"] = content_of(opt.ema)  # corrected
    return {**saved, "params": content_of(opt.params), "state": slots}


def content_of(tree: Any) -> list[bytes]:
    return [leaf.tobytes() for leaf in Tree(tree).leaves]


def stepped(opt: flatstep.Optimizer, first: int, last: int) -> flatstep.Optimizer:
    for grads in gradients()[first:last]:
        opt.step(grads)
    return opt


def sample(seed: int = 0, **more: Any) -> flatstep.Optimizer:
    return stepped(flatstep.AMSGrad(params(seed), **{"learning_rate": 0.1, **more}), 0, 3)


def large(value: float) -> flatstep.Optimizer:
    """Larger than any buffer on the way."""
    opt = flatstep.Adam([np.full(20_000, value, np.float32), np.full(3, value, np.float64)], learning_rate=0.1)
    opt.step([np.full(20_000, value, np.float32), np.full(3, value, np.float64)])
    return opt


class Part(Enum):
    HEAD = frozenset({"a", "b"})  # which prints in another order in another process
    TAIL = object()


ODD_KEYS: list[Any] = [
    Part.HEAD,
    Part.TAIL,
    (Part.HEAD, ("x", None)),
    float("nan"),
    float("inf"),
    "é\ud800",
    b"\xff",
    (),
]


def go_on(folder: str) -> None:
    """What the new process does."""
    for index, case in enumerate(CASES):
        opt = case.make(params(1))
        opt.load(f"{folder}/{index}")
        stepped(opt, 5, STEPS).save(f"{folder}/{index}")
