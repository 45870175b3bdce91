"""Each rule's formula in long double: what the accuracy of every contender is measured against.

Where the machine's long double is longer than float64, float64 can be judged too. Used by accuracy.py.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, NamedTuple

import numpy as np

from .._formulas import formula
from .._formulas.coefficients import Coefficients
from .rules import RULES

Array = np.ndarray[Any, Any]
State = dict[str, Any]


class Formula(NamedTuple):
    """Which rule; AMSGrad in which convention; and the learning rate."""

    rule: str
    convention: str
    rate: float


# What a contender is given where its optimizer has no default of its own.
SETTINGS = dict(b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0, alpha=1.0, beta=1.0, grad_scale=1.0, weight_decay=0.0)


class InLongDouble(Coefficients):
    def __init__(self, given: Formula, t: int) -> None:
        declared = RULES[given.rule].value
        options = {
            "decoupled_weight_decay": bool(declared("decoupled_weight_decay")),
            "maximize": False,
            "nesterov": declared("nesterov"),
            "correct_mu": True,
            "correct_nu_before": given.convention == "optax",
            "correct_nu_after": given.convention == "torch",
            "is_initial_step": t == 1,
        }
        own = {name: x if declared(name) is None else declared(name) for name, x in SETTINGS.items()}
        numbers = {name: np.longdouble(x) for name, x in {**own, "learning_rate": given.rate}.items()}
        super().__init__({**numbers, **options})
        self._t = t

    def rounded(self, number: Any) -> Any:
        return np.longdouble(number)

    def exact_correction(self, b: Any, ahead: int = 0) -> Any:
        return 1 / (1 - b ** (self._t + ahead))


def step(given: Formula, param: Array, grad: Array, state: State, t: int) -> Array:
    """The parameter after update ``t``, which counts from 1. The state is empty at first, and is replaced in place."""
    before = defaultdict(lambda: np.zeros_like(param), state)
    param, made = formula(given.rule)(np, param, grad, before, InLongDouble(given, t))
    state.update(made)
    return param
