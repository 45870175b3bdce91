"""Hyperparameters as attributes: each a number or a schedule, checked when it is set. For the package's own use."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import numpy as np

from ._arrays import dtype_name
from ._read_only import read_only
from ._rules.declaration import Bounds
from ._trees import Tree

_COPY = (
    "this is a copy of what the optimizer holds; set the attribute as a whole, as in "
    'opt.learning_rate = {**opt.learning_rate, "w": 0.1}'
)
Schedule = Callable[[int], float]
Scalar = float | np.floating[Any] | np.integer[Any] | Schedule
PerLeaf = Scalar | list[Any] | tuple[Any, ...] | dict[Any, Any]
"""A Scalar, or a structure of them like the parameters."""


def finite(name: str, value: Any, largest: float = sys.float_info.max) -> float:
    """The value as a finite float, up to the largest; TypeError or ValueError in terms of ``name``."""
    number: float = value if type(value) is float else _as_float(name, value)
    if not -largest <= number <= largest:
        if math.isfinite(number):
            raise ValueError(f"{name} is {number:g}, infinite at these parameters' precision; the limit is {largest:g}")
        raise ValueError(f"{name} is {number}, expected a finite number")
    return number


def _as_float(name: str, value: Any) -> float:
    try:
        is_number = hasattr(value, "__float__") or hasattr(value, "__index__")
        kind = getattr(getattr(value, "dtype", None), "kind", "f")  # V is ml_dtypes', and so some of JAX's
        if not is_number or isinstance(value, (bool, str, bytes)) or kind not in "iufV":
            raise TypeError  # float() would take truth values, text of all kinds, and half of a complex number
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} is {value!r}, expected a number") from None
    except OverflowError:  # a whole number that no float can hold
        return math.inf


class Number:
    """An attribute of an optimizer: a number within bounds, or a schedule (count -> number).

    With ``per_leaf`` it may also be a structure of those like the parameters'. With ``may_be_none`` it is None if the
    optimizer is made with None, with ``may_be_unset`` at any time. With ``may_be_infinite`` it is compared alone, and
    may be any number that is not NaN. With ``is_fixed`` it is a number, and read-only after the optimizer is made.
    """

    def __init__(
        self,
        at_least: float = -math.inf,
        below: float = math.inf,
        *,
        per_leaf: bool = False,
        may_be_none: bool = False,
        may_be_unset: bool = False,
        may_be_infinite: bool = False,
        is_around: bool = False,
        is_fixed: bool = False,
    ) -> None:
        self._bounds = Bounds(at_least=at_least, below=below)
        self.per_leaf = per_leaf
        self.may_be_none = may_be_none
        self.may_be_unset = may_be_unset
        self.may_be_infinite = may_be_infinite
        self.is_around = is_around  # left out of state_dicts and texts where it is None
        self.is_fixed = is_fixed

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else read_only(instance._numbers.get(self._name), _COPY)

    def __set__(self, instance: Any, value: PerLeaf | None) -> None:
        if self.is_fixed:
            raise AttributeError(_fixed(self._name))
        instance._numbers.set(self._name, value)

    def __delete__(self, instance: Any) -> NoReturn:
        raise AttributeError(f"{self._name} cannot be deleted; set it to another number or to a schedule")

    def check(self, name: str, value: Any, largest: float = sys.float_info.max) -> float:
        """The value as a float within bounds, up to the largest; TypeError or ValueError in terms of ``name``."""
        number = finite(name, value, math.inf if self.may_be_infinite else largest)
        if not self._bounds.is_within(number):
            raise ValueError(f"{name} is {number:g}, expected {self._bounds.expected}")
        return number


def _fixed(name: str) -> str:
    return f"{name} is fixed when the optimizer is made; to change it, make another"


class Option:
    """An attribute of an optimizer, chosen when that is made and read-only after: a bool, a choice, or a dtype."""

    def __init__(self, *choices: str, is_dtype: bool = False) -> None:
        self._choices = choices
        self._is_dtype = is_dtype

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        return (instance._around if self._name in instance._around else instance._options)[self._name]

    def __set__(self, instance: Any, value: NoReturn) -> None:
        raise AttributeError(_fixed(self._name))

    def __delete__(self, instance: Any) -> NoReturn:
        raise AttributeError(f"{self._name} cannot be deleted; it is fixed when the optimizer is made")

    def check(self, value: Any) -> bool | str | None:
        """The value, if it is one of the choices; else TypeError or ValueError."""
        if self._is_dtype:
            return dtype_name(self._name, value)
        if self._choices:
            if value not in self._choices:
                raise ValueError(f"{self._name} is {value!r}, expected one of {', '.join(map(repr, self._choices))}")
            return str(value)
        if not isinstance(value, (bool, np.bool_)):
            raise TypeError(f"{self._name} is {value!r}, expected True or False")
        return bool(value)


class Held:
    """What ``Numbers`` holds: replaced as a whole, so that a signal can strike before or after, but not in between."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values
        self.has_schedules = any(map(_has_schedule, values.values()))


def declared(owner: type, name: str) -> Any:
    """The Number or Option of that name. TypeError where a derived class has put something else in its place."""
    found = getattr(owner, name)
    if not isinstance(found, (Number, Option)):
        raise TypeError(
            f"{owner.__name__}.{name} = {found!r} hides the optimizer's own {name}; pass it to super().__init__()"
        )
    return found


class Numbers:
    """The hyperparameters of one optimizer by name, checked by the ``Number`` of that name in its class.

    One that differs by leaf is held as a tuple, in the tree's order. None is beyond ``largest``, which is the largest
    number of the type that steps compute in.
    """

    def __init__(self, owner: type, tree: Tree, largest: float, values: Mapping[str, Any]) -> None:
        self._owner = owner
        self._tree = tree
        self.largest = largest
        self._none = {name for name, value in values.items() if value is None}
        self.held = Held({name: self.check(name, name, value) for name, value in values.items()})

    def __iter__(self) -> Iterator[str]:
        return iter(self.held.values)

    def in_use(self) -> Iterator[str]:
        """Their names, without those of what a step does around its update where that is off."""
        values = self.held.values
        return (name for name in values if values[name] is not None or not getattr(self._owner, name).is_around)

    def get(self, name: str) -> Any:
        """The number or schedule, or the structure of them, as it was set."""
        value = self.held.values[name]
        return self._tree.build(value) if isinstance(value, tuple) else value

    def set(self, name: str, value: Any) -> None:
        self.held = Held({**self.held.values, name: self.check(name, name, value)})

    def loaded(self, values: Mapping[str, Any]) -> Held:
        """What to hold with other values, which are checked, in place of all but the schedules."""
        taken = {name: value for name, value in values.items() if not self.has_schedule(name)}
        return Held({**self.held.values, **taken})

    def has_schedule(self, name: str) -> bool:
        return _has_schedule(self.held.values[name])

    def check(self, attribute: str, name: str, value: Any) -> Any:
        """The value as it is held; TypeError or ValueError in terms of ``name``."""
        number, largest = declared(self._owner, attribute), self.largest
        if number.may_be_unset and value is None:
            return None
        if number.may_be_none and (value is None or attribute in self._none):
            return self._check_none(attribute, name, value)
        if callable(value) and not number.is_fixed:
            return value
        if not (number.per_leaf and isinstance(value, (list, tuple, dict))):
            return number.check(name, value, largest)
        leaves = zip(self._tree.match(value, name), self._tree.paths(), strict=True)
        return tuple([leaf if callable(leaf) else number.check(name + path, leaf, largest) for leaf, path in leaves])

    def _check_none(self, attribute: str, name: str, value: Any) -> None:
        """ValueError where None is to become a number, or a number None: what the state holds follows from it."""
        if value is not None or attribute not in self._none:
            made = "None" if attribute in self._none else "a number"
            raise ValueError(
                f"{name} is {value!r}, but the optimizer was made with {made}; to change that, make another"
            )

    def check_one(self, attribute: str, name: str, value: Any) -> float:
        """The value as one number, neither a schedule nor a structure."""
        number: Number = declared(self._owner, attribute)
        return number.check(name, value, self.largest)

    def at(self, count: int) -> Mapping[str, Any]:
        """All of them as numbers, schedules at the given count. The same object as long as nothing changes."""
        held = self.held
        if not held.has_schedules:
            return held.values
        return {name: self._at(name, value, count) for name, value in held.values.items()}

    def _at(self, name: str, value: Any, count: int) -> Any:
        number, largest = getattr(self._owner, name), self.largest
        if callable(value):
            return number.check(f"{name}({count})", value(count), largest)
        if not _has_schedule(value):
            return value
        called = [(f"{name}{path}({count})", v) for v, path in zip(value, self._tree.paths(), strict=True)]
        return tuple([number.check(call, v(count), largest) if callable(v) else v for call, v in called])


def _has_schedule(value: Any) -> bool:
    return callable(value) or (isinstance(value, tuple) and any(map(callable, value)))
