"""Each rule's formula in long double: what the accuracy of every contender is measured against.

Where the machine's long double is longer than float64, float64 can be judged too. Used by accuracy.py.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, NamedTuple

import numpy as np

from .. import _core
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


class InLongDouble(Coefficients):
    def __init__(self, given: Formula, t: int) -> None:
        chosen = RULES[given.rule]
        arguments = {**chosen.arguments, "convention": given.convention, "learning_rate": given.rate}
        settled = chosen.optimizer.settled(arguments)
        common = {"grad_scale": 1.0, "is_initial_step": t == 1}
        numbers = {**common, **settled, **chosen.optimizer.flags(settled)}
        super().__init__({name: np.longdouble(x) if type(x) is float else x for name, x in numbers.items()})
        self._t = t

    def rounded(self, number: Any) -> Any:
        return np.longdouble(number)

    def exact_correction(self, b: Any, ahead: int = 0) -> Any:
        return 1 / (1 - b ** (self._t + ahead))


def step(given: Formula, param: Array, grad: Array, state: State, t: int) -> Array:
    """The parameter after update ``t``, which counts from 1. The state is empty at first, and is replaced in place."""
    zeros = np.zeros_like(param)
    before = defaultdict(lambda: zeros, dict.fromkeys(_core.slots(given.rule), zeros), **state)
    param, made = formula(given.rule)(np, param, grad, before, InLongDouble(given, t))
    state.update(made)
    return param
