"""Hyperparameters as attributes: each a number or a schedule, checked when it is set. For the package's own use."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Schedule = Callable[[int], float]
Scalar = float | Schedule


def finite(name: str, value: Any) -> float:
    """The value as a finite float; TypeError or ValueError in terms of ``name``."""
    try:
        if isinstance(value, (bool, np.bool_, str, bytes)):
            raise TypeError  # float() would take them
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} is {value!r}, expected a number") from None
    except OverflowError:  # a whole number that no float can hold
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name} is {number}, expected a finite number")
    return number


class Number:
    """An attribute of an optimizer: a number within bounds, or a schedule (count -> number)."""

    def __init__(self, at_least: float = -math.inf, below: float = math.inf) -> None:
        self._at_least = at_least
        self._below = below

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else instance._numbers.values[self._name]

    def __set__(self, instance: Any, value: Scalar) -> None:
        instance._numbers.set(self._name, value)

    def check(self, name: str, value: Any) -> float:
        """The value as a float within bounds; TypeError or ValueError in terms of ``name``."""
        number = finite(name, value)
        if not self._at_least <= number < self._below:
            bounds = f"at least {self._at_least:g}" if self._at_least > -math.inf else ""
            bounds += f" and below {self._below:g}" if self._below < math.inf else ""
            raise ValueError(f"{name} is {number:g}, expected a number {bounds}")
        return number


class Option:
    """An attribute of an optimizer, chosen when that is made and read-only after: a bool, or one of ``choices``."""

    def __init__(self, *choices: str) -> None:
        self._choices = choices

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else instance._options[self._name]

    def __set__(self, instance: Any, value: Any) -> None:
        raise AttributeError(f"{self._name} is fixed when the optimizer is made; to change it, make another")

    def check(self, value: Any) -> bool | str:
        """The value, if it is one of the choices; else TypeError or ValueError."""
        if self._choices:
            if value not in self._choices:
                raise ValueError(f"{self._name} is {value!r}, expected one of {', '.join(map(repr, self._choices))}")
            return str(value)
        if not isinstance(value, (bool, np.bool_)):
            raise TypeError(f"{self._name} is {value!r}, expected True or False")
        return bool(value)


class Numbers:
    """The hyperparameters of one optimizer by name, checked by the ``Number`` of that name in its class."""

    def __init__(self, owner: type, values: Mapping[str, Scalar]) -> None:
        self._owner = owner
        self.values: Mapping[str, Any] = {}
        self._has_schedules = False
        for name, value in values.items():
            self.set(name, value)

    def set(self, name: str, value: Scalar) -> None:
        self.values = {**self.values, name: value if callable(value) else self.check(name, name, value)}
        self._has_schedules = any(map(callable, self.values.values()))

    def check(self, attribute: str, name: str, value: Any) -> float:
        descriptor: Number = getattr(self._owner, attribute)
        return descriptor.check(name, value)

    def at(self, count: int) -> Mapping[str, float]:
        """All of them as numbers, schedules at the given count. The same object as long as nothing changes."""
        if not self._has_schedules:
            return self.values
        return {
            name: self.check(name, f"{name}({count})", value(count)) if callable(value) else value
            for name, value in self.values.items()
        }
