"""AMSGrad (Reddi, Kale and Kumar, 2018): Adam that divides by the largest second moment so far.

Conventions differ in where nu's bias is corrected: before the maximum, after it, or nowhere.
"""

from __future__ import annotations

from typing import Any

from .coefficients import Coefficients
from .terms import Array, Result, State, average, average_of_squares, descent, direction, gradient, maximum


def update(xp: Any, param: Array, grad: Array, state: State, c: Coefficients) -> Result:
    g = gradient(xp, c, param, grad)
    mu = average(xp, c.b1, state["mu"], g)
    nu = average_of_squares(xp, c.b2, state["nu"], g)
    mu_hat = c.correction("b1") * mu if c.is_on("correct_mu") else mu
    nu_max = maximum(xp, state["nu_max"], c.correction("b2") * nu if c.is_on("correct_nu_before") else nu)
    nu_hat = c.correction("b2") * nu_max if c.is_on("correct_nu_after") else nu_max
    r = direction(xp, c, mu_hat, nu_hat)
    return descent(xp, c, param, r), {"mu": mu, "nu": nu, "nu_max": nu_max}
