"""The bilinear game f(x, y) = x y: x descends, y ascends, the solution is the origin. Used by the demo and tests."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .. import Adam, OptimisticAdam, Optimizer

START = (1.0, 2.0)
STEPS = 1024

PUBLISHED = {1: 2.243, 4: 2.195, 16: 2.161, 64: 2.055, 256: 0.796, 1024: 0.001}
"""The distance from the origin after this number of steps, in the docstring of optax.optimistic_adam_v2."""

TOLERANCE = 0.001

OPTIMIZERS: dict[str, Callable[[NDArray[np.float64]], Optimizer]] = {
    "OptimisticAdam": lambda point: OptimisticAdam(point, learning_rate=1.0, alpha=1e-2, beta=1.0),
    "Adam": lambda point: Adam(point, learning_rate=1e-2),
}


def play(make_optimizer: Callable[[NDArray[np.float64]], Optimizer], steps: int = STEPS) -> NDArray[np.float64]:
    """The distances from the origin: at the start, and after each step."""
    point = np.array(START)
    optimizer = make_optimizer(point)
    distances = [np.hypot(*point)]
    for _ in range(steps):
        x, y = point
        optimizer.step(np.array([y, -x]))  # what each would descend along: y ascends, hence the sign
        distances.append(np.hypot(*point))
    return np.array(distances)


def is_close(distance: float, step: int) -> bool:
    """Whether the distance after a step is the published one."""
    return abs(distance - PUBLISHED[step]) <= TOLERANCE


def is_as_published(distances: NDArray[np.float64]) -> bool:
    """Whether all published distances are met."""
    return all(is_close(distances[step], step) for step in PUBLISHED)
