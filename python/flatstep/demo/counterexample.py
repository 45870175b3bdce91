"""A problem on which Adam walks to the worst point and AMSGrad to the best one. Used by the demo, tests and gallery.

Reddi, Kale and Kumar, "On the Convergence of Adam and Beyond", ICLR 2018, section 5: x lies in [-1, 1]. One loss in 101
is 1010 x, each of the others is -10 x. Their sum is 10 x, so that -1 is best. The large gradient is rare. Adam has
forgotten its square when the next ones come, and follows the many small ones to +1.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .. import Adam, AMSGrad, Optimizer

PERIOD = 101
LARGE, SMALL = 1010.0, -10.0  # gradients: one of the first in each period, then the second
BEST = -1.0
STEPS = 20_000
LEARNING_RATE = 0.05
B2 = 0.99

Point = NDArray[np.float64]
OPTIMIZERS: dict[str, Callable[[Point], Optimizer]] = {
    "AMSGrad": lambda x: AMSGrad(x, LEARNING_RATE, b2=B2, convention="paper"),
    "Adam": lambda x: Adam(x, LEARNING_RATE, b2=B2),
}


def play(make_optimizer: Callable[[Point], Optimizer], steps: int = STEPS) -> Point:
    """Where x is: at the start, 0, and after each step. A step that leaves [-1, 1] ends at its edge."""
    x = np.zeros(1)
    optimizer = make_optimizer(x)
    gradients = np.array([LARGE]), np.array([SMALL])
    path = [0.0]
    for step in range(steps):
        optimizer.step(gradients[step % PERIOD > 0])
        x[0] = min(max(x[0], -1.0), 1.0)
        path.append(float(x[0]))
    return np.array(path)


def by_period(path: Point) -> Point:
    """The mean of x over each period, which leaves out the jump of the large gradient."""
    whole = (len(path) - 1) // PERIOD
    means: Point = path[1 : 1 + whole * PERIOD].reshape(whole, PERIOD).mean(axis=1)
    return means
