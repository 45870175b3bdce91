"""Long runs of one optimizer against another: their gradients, their start, and how far apart they come."""

from __future__ import annotations

import numpy as np

STEPS = 220
SIZE = 203
# Of the largest value that the element has had. Measured over these steps: 1.9e-14 for optax and 9.5e-15 for torch,
# from roundings in another order. A coefficient made in float32 would be seen: it is off by 1e-8 and more.
PEER_TOLERANCE = 1e-11


def gradients(dtype=np.float64, size: int = SIZE) -> np.ndarray:
    """One row a step: each element has a scale and a drift of its own, and is 100 times larger early on; some are 0."""
    rng = np.random.default_rng(7)
    scale, drift = 10.0 ** rng.uniform(-4, 2, size), rng.uniform(-1, 1, size)
    grads = scale * (rng.standard_normal((STEPS, size)) + drift)
    grads[:10] *= 100
    grads[:, :7] *= rng.random((STEPS, 7)) < 0.5
    return grads.astype(dtype)


def start(dtype=np.float64, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(8).uniform(-2, 2, size).astype(dtype)


def distance(actual: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, relative to the largest value that the element has had."""
    return float(np.max(np.abs(actual - expected) / np.max(np.abs(expected), axis=0)))
