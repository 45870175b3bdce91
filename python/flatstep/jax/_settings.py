"""What an optimizer was made with: its arguments, checked, by declared names. Used by _transformation.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from .. import _core
from .._numbers import Number as NumberCheck
from .._rules import DECAY_STATE, Declaration, Jax, Option, Part

Array = Any
PyTree = Any
Number = ArrayLike
"""A number, or an array of no axes, which may be traced."""
ScalarOrSchedule = ArrayLike | Callable[[Any], ArrayLike]
"""A Number, or a function of the count that returns one."""
Mask = PyTree | Callable[[PyTree], PyTree]
"""Which weights decay: a tree of bools, or a function that makes one from the parameters."""

_ANY = NumberCheck()


@dataclass(frozen=True)
class Decay:
    """Weight decay: its strength, whether it bypasses the moments, and of which leaves."""

    strength: ScalarOrSchedule
    decoupled: bool = False
    mask: Mask | None = None
    has_state: bool = False  # of its own in optax's chain, where a schedule counts

    @property
    def is_off(self) -> bool:
        return isinstance(self.strength, (int, float, np.number)) and self.strength == 0


@dataclass(frozen=True)
class Settings:
    """What an optimizer was made with. Numbers are floats where they are known, arrays where they are traced."""

    rule: str
    parts: tuple[Part, ...]  # of the state
    squares: tuple[str, ...]  # slots that average abs(g)^2
    learning_rate: ScalarOrSchedule
    hyperparameters: Mapping[str, Any]
    bounds: Mapping[str, NumberCheck]
    decay: Decay
    maximize: bool

    def number(self, name: str, value: Any) -> Any:
        """A float where the number is known, an array where it is traced or may be."""
        return as_number(name, value, self.bounds.get(name, _ANY))


def checked(declaration: Declaration, face: Jax, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """The arguments. TypeError or ValueError where an option has no meaning."""
    options = [a for a in declaration.arguments if isinstance(a, Option) and a.name in arguments]
    known = {option.name: _checked_option(option, face, arguments[option.name]) for option in options}
    return {**arguments, **known}


def _checked_option(option: Option, face: Jax, value: Any) -> Any:
    if option.is_dtype:
        return checked_dtype(option.name, value)
    if option.is_flag:
        return checked_flag(option.name, value)
    choices = face.choices.get(option.name, option.choices)
    if value not in choices:
        also = f"; {face.instead[value]}" if value in face.instead else ""
        raise ValueError(f"{option.name} is {value!r}, expected {' or '.join(map(repr, choices))}{also}")
    return value


def checked_flag(name: str, value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} is {value!r}, expected True or False")
    return bool(value)


def checked_dtype(name: str, value: Any) -> Any:
    try:
        if value is None or jnp.issubdtype(jnp.dtype(value), jnp.inexact):
            return value
    except TypeError:
        pass
    raise TypeError(f"{name} is {value!r}, expected None or a floating-point dtype")


def settings_of(declaration: Declaration, face: Jax, arguments: Mapping[str, Any]) -> Settings:
    settled = declaration.settled(arguments)
    flags = {name: float(value) for name, value in settled.items() if isinstance(value, bool)}
    values = {**settled, **flags, **declaration.flags(settled)}
    rule, parts = declaration.rule(arguments), face.parts(arguments)
    numbers = [argument for argument in declaration.arguments if not isinstance(argument, Option)]
    return Settings(
        rule,
        parts,
        declaration.squares,
        arguments["learning_rate"],
        {name: values[name] for name in _core.hyperparameters(rule)},
        {number.name: NumberCheck(number.at_least, number.below) for number in numbers},
        _decay(declaration, parts, arguments),
        arguments["maximize"],
    )


def _decay(declaration: Declaration, parts: tuple[Part, ...], arguments: Mapping[str, Any]) -> Decay:
    strength = arguments["weight_decay"]
    default = declaration.argument("decoupled_weight_decay").default
    decoupled = bool(arguments.get("decoupled_weight_decay", default))
    return Decay(0.0 if strength is None else strength, decoupled, arguments.get("mask"), DECAY_STATE in parts)


def as_number(name: str, value: Any, bounds: NumberCheck = _ANY) -> Any:
    if isinstance(value, (jax.Array, np.ndarray)):
        return as_operand(name, value)
    return bounds.check(name, value)


def as_operand(name: str, value: Any) -> Array:
    array = jnp.asarray(value)
    is_real = any(jnp.issubdtype(array.dtype, kind) for kind in (jnp.floating, jnp.integer))
    if array.shape != () or not is_real:
        raise ValueError(f"{name} has shape {array.shape} and dtype {array.dtype}, expected one real number")
    return array.astype(jnp.result_type(float))
