"""Each rule in NumPy, written from its definition: what the accuracy of every contender is held against.

It computes in what it is given: longer than float64 where the machine has that, so that float64 can be judged too. Used
by accuracy.py. b1, b2 and eps are those that all contenders take.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
State = dict[str, Any]


class Formula(NamedTuple):
    """Which rule; AMSGrad in which convention; and the learning rate."""

    rule: str
    convention: str
    rate: float


RULES = ("adam", "amsgrad", "optimistic_adam", "optimistic_adam_two_slots", "optimistic_gradient_descent")
B1, B2, EPS = 0.9, 0.999, 1e-8


def step(formula: Formula, param: Array, grad: Array, state: State, t: int) -> Array:
    """The parameter after update ``t``, which counts from 1. The state is empty at first."""
    rule, convention, rate = formula
    if rule not in RULES:
        raise ValueError(f"{rule} has no formula here to hold an accuracy against")
    if rule == "optimistic_gradient_descent":
        moved, state["previous"] = 2 * grad - state.get("previous", grad), grad.copy()
        return np.asarray(param - rate * moved)
    mu = state["mu"] = B1 * state.get("mu", 0.0) + (1 - B1) * grad
    nu = state["nu"] = B2 * state.get("nu", 0.0) + (1 - B2) * grad**2
    mu_hat, nu_hat = mu / (1 - B1**t), nu / (1 - B2**t)
    if rule == "amsgrad":
        largest = nu_hat if convention == "optax" else nu
        largest = state["largest"] = np.maximum(state.get("largest", 0.0), largest)
        nu_hat = largest if convention == "optax" else largest / (1 - B2**t)
    if rule == "optimistic_adam":
        mu_hat = B1 * mu / (1 - B1 ** (t + 1)) + (1 - B1) * grad / (1 - B1**t)
    direction = mu_hat / (np.sqrt(nu_hat) + EPS)
    if not rule.startswith("optimistic_adam"):
        return np.asarray(param - rate * direction)
    moved, state["previous"] = 2 * direction - state.get("previous", direction), direction
    return np.asarray(param - rate * moved)
