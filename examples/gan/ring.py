"""A generator and a critic of a ring of eight Gaussians. Used by train.py and seeds.py."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from flatstep.torch import Adam, OptimisticAdam

MODES, RADIUS, SPREAD = 8, 2.0, 0.05
BATCH, LATENT, WIDTH = 128, 8, 64
SEED = 1

Optimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
OPTIMIZERS: dict[str, Optimizer] = {
    "Adam": lambda params: Adam(params, lr=1e-3, betas=(0.5, 0.9)),
    "OptimisticAdam": lambda params: OptimisticAdam(params, lr=1e-3, betas=(0.5, 0.9)),
}


def centers() -> Tensor:
    """Where the Gaussians stand."""
    angles = torch.arange(MODES) * (2 * math.pi / MODES)
    return RADIUS * torch.stack([angles.cos(), angles.sin()], dim=1)


def network(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(inputs, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, outputs)
    )


def train(optimizer: Optimizer, steps: int, progress: Callable[[], None] = lambda: None, *, seed: int = SEED) -> Tensor:
    """Takes this number of steps, both networks at once, and returns samples of the generator."""
    torch.manual_seed(seed)
    generator, critic = network(LATENT, 2), network(2, 1)
    optimizers = optimizer(generator.parameters()), optimizer(critic.parameters())
    where = centers()
    for _ in range(steps):
        real = where[torch.randint(MODES, (BATCH,))] + SPREAD * torch.randn(BATCH, 2)
        fake = generator(torch.randn(BATCH, LATENT))
        for each in optimizers:
            each.zero_grad()
        torch.autograd.backward(softplus(-critic(fake)).mean())  # the generator's loss: to be found out
        critic.zero_grad()
        torch.autograd.backward(softplus(-critic(real)).mean() + softplus(critic(fake.detach())).mean())  # the critic's
        for each in optimizers:
            each.step()
        progress()
    with torch.no_grad():
        samples: Tensor = generator(torch.randn(2000, LATENT))
    return samples


def quality(samples: Tensor) -> tuple[int, float]:
    """How many Gaussians have their share of samples, a fifth at least, and the share of samples that lie on one."""
    distance, nearest = torch.cdist(samples, centers()).min(dim=1)
    on_one = distance < 5 * SPREAD
    found = torch.bincount(nearest[on_one], minlength=MODES) >= len(samples) / MODES / 5
    return int(found.sum()), float(on_one.float().mean())
