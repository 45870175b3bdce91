"""Adam (Kingma and Ba, 2015), and with decoupled weight decay AdamW (Loshchilov and Hutter, 2019)."""

from __future__ import annotations

from typing import Any

from .coefficients import Coefficients
from .terms import Array, Result, State, average, average_of_squares, descent, direction, gradient, momentum


def update(xp: Any, param: Array, grad: Array, state: State, c: Coefficients) -> Result:
    g = gradient(xp, c, param, grad)
    mu = average(xp, c.b1, state["mu"], g)
    nu = average_of_squares(xp, c.b2, state["nu"], g)
    mu_hat = momentum(xp, c, mu, g)
    nu_hat = c.correction("b2") * nu
    r = direction(xp, c, mu_hat, nu_hat)
    return descent(xp, c, param, r), {"mu": mu, "nu": nu}
