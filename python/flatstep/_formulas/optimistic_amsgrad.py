"""Optimistic Adam (Daskalakis et al., 2018) whose denominator is AMSGrad's (Reddi, Kale and Kumar, 2018)."""

from __future__ import annotations

from typing import Any

from .coefficients import Coefficients
from .terms import (
    Array,
    Result,
    State,
    average,
    average_of_squares,
    descent,
    direction,
    gradient,
    maximum,
    momentum,
    optimism,
)


def update(xp: Any, param: Array, grad: Array, state: State, c: Coefficients) -> Result:
    g = gradient(xp, c, param, grad)
    mu = average(xp, c.b1, state["mu"], g)
    nu = average_of_squares(xp, c.b2, state["nu"], g)
    nu_max = maximum(xp, state["nu_max"], c.correction("b2") * nu if c.is_on("correct_nu_before") else nu)
    nu_hat = c.correction("b2") * nu_max if c.is_on("correct_nu_after") else nu_max
    r = direction(xp, c, momentum(xp, c, mu, g), nu_hat)
    u = optimism(xp, c, r, state["previous"])
    return descent(xp, c, param, u), {"mu": mu, "nu": nu, "nu_max": nu_max, "previous": r}
