"""The numbers that formulas multiply with, by the symbols of the papers. For formulas and for those who call them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

Number = Any  # a float or a NumPy scalar, which is known, or an array that broadcasts with the parameter


class Weights(NamedTuple):
    """b and 1 - b: the weights of the old and of the new in a moving average."""

    old: Number
    new: Number


def is_known(number: Number) -> bool:
    return isinstance(number, (float, np.floating))


class Coefficients(ABC):
    """One step's coefficients, made of its numbers: the scalars that all rules have, and the rule's hyperparameters.

    Each is made without rounding first, and then rounded once. How powers are made and numbers rounded depends on the
    caller, who derives a class. Options are numbers too: 1 where they are on.
    """

    def __init__(self, numbers: Mapping[str, Number]) -> None:
        self.numbers = numbers

    @abstractmethod
    def rounded(self, number: Number) -> Number:
        """The number in the type that the formula computes in."""

    @abstractmethod
    def exact_correction(self, b: Number, ahead: int = 0) -> Number:
        """1 / (1 - b^(t + ahead)), not rounded yet; t counts the parameter's updates from 1."""

    def select(self, condition: Number, one: Number, other: Number) -> Number:
        return one if condition else other

    def is_on(self, option: str) -> bool:
        return bool(self.numbers[option])

    def number(self, name: str) -> Number:
        return self.rounded(self.numbers[name])

    def positive(self, name: str) -> Number:
        """The number; the smallest normal number where rounding would make zero of a positive one."""
        number = self.number(name)
        if is_known(number) and number == 0 and self.numbers[name] > 0:
            return np.finfo(type(number)).smallest_normal
        return number

    def weights(self, name: str) -> Weights:
        b = self.numbers[name]
        return Weights(self.rounded(b), self.rounded(1 - b))

    def correction(self, name: str) -> Number:
        """1 / (1 - b^t), which undoes an average's start at zero."""
        return self.rounded(self.exact_correction(self.numbers[name]))

    @property
    def b1(self) -> Weights:
        return self.weights("b1")

    @property
    def b2(self) -> Weights:
        return self.weights("b2")

    @property
    def learning_rate(self) -> Number:
        return self.number("learning_rate")

    @property
    def scale(self) -> Number:
        """What the gradient is multiplied with."""
        scale = self.numbers["grad_scale"]
        return self.rounded(-scale if self.is_on("maximize") else scale)

    @property
    def coupled_decay(self) -> Number:
        """The weight decay that is part of the gradient."""
        return self.rounded(0.0) if self.is_on("decoupled_weight_decay") else self.number("weight_decay")

    @property
    def decoupled_decay(self) -> Number:
        """The weight decay that is not part of the gradient."""
        return self.number("weight_decay") if self.is_on("decoupled_weight_decay") else self.rounded(0.0)

    @property
    def momentum(self) -> tuple[Number, Number]:
        """The factors of mu and of g in mu_hat."""
        b1 = self.numbers["b1"]
        if not self.numbers.get("nesterov"):
            return self.correction("b1"), self.rounded(0.0)
        of_mu = b1 * self.exact_correction(b1, ahead=1)
        return self.rounded(of_mu), self.rounded((1 - b1) * self.exact_correction(b1))

    @property
    def optimism(self) -> tuple[Number, Number]:
        """The factors of the direction and of the previous one. The first step has no previous one."""
        alpha, beta, is_first = (self.numbers[name] for name in ("alpha", "beta", "is_initial_step"))
        of_r = self.select(is_first, alpha, alpha + beta)
        return self.rounded(of_r), self.rounded(self.select(is_first, 0.0, -beta))
