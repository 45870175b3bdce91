"""The terms of which formulas are put together, operation by operation as in csrc/rules/terms.h. For formulas.

``c`` is the step's Coefficients.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .coefficients import Coefficients, Number, Weights, is_known

Array = Any
State = Mapping[str, Array]  # by slot
Result = tuple[Array, dict[str, Array]]  # the parameter and the state


def gradient(xp: Any, c: Coefficients, param: Array, grad: Array) -> Array:
    """scale grad [+ weight_decay param]: the gradient that the rule works with."""
    return plus(xp, c.scale * grad, c.coupled_decay, param)


def average(xp: Any, b: Weights, old: Array, x: Array) -> Array:
    """b old + (1 - b) x"""
    return flush(xp, b.old * old + b.new * x)


def average_of_squares(xp: Any, b: Weights, old: Array, x: Array) -> Array:
    """b old + (1 - b) abs(x)^2. It is real, also where it comes out of a complex array."""
    return average(xp, b, xp.real(old), square(xp, x))


def square(xp: Any, x: Array) -> Array:
    """abs(x)^2"""
    return x.real * x.real + x.imag * x.imag if xp.iscomplexobj(x) else x * x


def momentum(xp: Any, c: Coefficients, mu: Array, g: Array) -> Array:
    """mu / (1 - b1^t), or with Nesterov's momentum b1 mu / (1 - b1^(t+1)) + (1 - b1) g / (1 - b1^t)"""
    of_mu, of_g = c.momentum
    return plus(xp, of_mu * mu, of_g, g)


def direction(xp: Any, c: Coefficients, mu_hat: Array, nu_hat: Array) -> Array:
    """mu_hat / (sqrt(nu_hat + eps_root) + eps)"""
    return mu_hat / (xp.sqrt(nu_hat + c.positive("eps_root")) + c.positive("eps"))


def optimism(xp: Any, c: Coefficients, r: Array, previous: Array) -> Array:
    """(alpha + beta) r - beta previous: the direction and its change. In the first step alpha r."""
    of_r, of_previous = c.optimism
    return plus(xp, of_r * r, of_previous, previous)


def descent(xp: Any, c: Coefficients, param: Array, u: Array) -> Array:
    """param - learning_rate (u [+ weight_decay param]); without a parameter what is added to it."""
    moved = c.learning_rate * plus(xp, u, c.decoupled_decay, param)
    return -moved if param is None else param - moved


def maximum(xp: Any, old: Array, x: Array) -> Array:
    """The larger of two, NaN if either is. It is real, also where the old one comes out of a complex array."""
    old = xp.real(old)
    return xp.where((old > x) | xp.isnan(old), old, x)


def flush(xp: Any, x: Array) -> Array:
    """x, and zero where x is below the smallest normal number."""
    return xp.where(xp.abs(x) < np.finfo(x.dtype).smallest_normal, xp.zeros_like(x), x)


def plus(xp: Any, x: Array, factor: Number, y: Array) -> Array:
    """x + factor y, and x alone where the factor is zero: a zero product changes -0.0, and is NaN for infinities."""
    if is_known(factor):
        return x if factor == 0 else x + factor * y
    return xp.where(factor != 0, x + factor * y, x)
