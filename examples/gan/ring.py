"""A generator and a critic of a ring of eight Gaussians. Used by train.py and seeds.py."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from flatstep.torch import Adam, OptimisticAdam

MODES, RADIUS, SPREAD = 8, 2.0, 0.05
BATCH, LATENT, WIDTH = 128, 8, 64
SEED = 1

NUMBERS: dict[str, Any] = {"lr": 1e-3, "betas": (0.5, 0.9)}


class Setting(NamedTuple):
    """The optimizer of both networks, and the decay rate of an average (EMA) of the generator's parameters."""

    optimizer: Callable[..., Adam | OptimisticAdam]
    ema_decay: float | None = None  # None: no average


SETTINGS = {
    "Adam": Setting(partial(Adam, **NUMBERS)),
    "OptimisticAdam": Setting(partial(OptimisticAdam, **NUMBERS)),
    "OptimisticAdam, averaged": Setting(partial(OptimisticAdam, **NUMBERS, max_norm=10.0), ema_decay=0.99),
}


def centers() -> Tensor:
    """Where the Gaussians stand."""
    angles = torch.arange(MODES) * (2 * math.pi / MODES)
    return RADIUS * torch.stack([angles.cos(), angles.sin()], dim=1)


def network(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(inputs, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, outputs)
    )


def train(setting: Setting, steps: int, progress: Callable[[], None] = lambda: None, *, seed: int = SEED) -> Tensor:
    """Takes this number of steps, both networks at once, and returns samples of the generator.

    The generator has the averages of its parameters for the samples, where there are averages: they move less from one
    step to the next than parameters, which follow the critic.
    """
    torch.manual_seed(seed)
    generator, critic = network(LATENT, 2), network(2, 1)
    of_generator = setting.optimizer(generator.parameters(), ema_decay=setting.ema_decay)
    optimizers = of_generator, setting.optimizer(critic.parameters())
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
    if setting.ema_decay is not None:
        of_generator.swap_ema()
    with torch.no_grad():
        samples: Tensor = generator(torch.randn(2000, LATENT))
    return samples


def quality(samples: Tensor) -> tuple[int, float]:
    """How many Gaussians have their share of samples, a fifth at least, and the share of samples that lie on one."""
    distance, nearest = torch.cdist(samples, centers()).min(dim=1)
    on_one = distance < 5 * SPREAD
    found = torch.bincount(nearest[on_one], minlength=MODES) >= len(samples) / MODES / 5
    return int(found.sum()), float(on_one.float().mean())
