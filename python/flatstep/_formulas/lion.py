"""Lion (Chen et al., 2023): steps of one size, along the sign of an average."""

from __future__ import annotations

from typing import Any

from .coefficients import Coefficients
from .terms import Array, Result, State, average, descent, gradient


def update(xp: Any, param: Array, grad: Array, state: State, c: Coefficients) -> Result:
    g = gradient(xp, c, param, grad)
    r = average(xp, c.b1, state["mu"], g)  # flushed: never -0.0
    mu = average(xp, c.b2, state["mu"], g)
    return descent(xp, c, param, xp.sign(r)), {"mu": mu}  # the sign of a complex r is r / abs(r), as in optax
