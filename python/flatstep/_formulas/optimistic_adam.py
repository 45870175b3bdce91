"""Optimistic Adam (Daskalakis et al., 2018): steps along Adam's direction and along its change."""

from __future__ import annotations

from typing import Any

from .coefficients import Coefficients
from .terms import Array, Result, State, average, average_of_squares, descent, direction, gradient, momentum, optimism


def update(xp: Any, param: Array, grad: Array, state: State, c: Coefficients) -> Result:
    g = gradient(xp, c, param, grad)
    mu = average(xp, c.b1, state["mu"], g)
    nu = average_of_squares(xp, c.b2, state["nu"], g)
    mu_hat = momentum(xp, c, mu, g)
    nu_hat = c.correction("b2") * nu
    r = direction(xp, c, mu_hat, nu_hat)
    u = optimism(xp, c, r, state["previous"])
    return descent(xp, c, param, u), {"mu": mu, "nu": nu, "previous": r}
