"""Optimistic gradient descent (Rakhlin and Sridharan, 2013): steps along the gradient and along its change."""

from __future__ import annotations

from typing import Any

from .coefficients import Coefficients
from .terms import Array, Result, State, descent, gradient, optimism


def update(xp: Any, param: Array, grad: Array, state: State, c: Coefficients) -> Result:
    g = gradient(xp, c, param, grad)
    u = optimism(xp, c, g, state["previous"])
    return descent(xp, c, param, u), {"previous": g}
