"""The words in which an optimizer is declared: plain data. For the files beside this one and the front ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Arguments = Mapping[str, Any]
"""Arguments of an optimizer by the names of the declaration. A front end may use other names."""
Flags = Mapping[str, float]
"""Hyperparameters of a rule that follow from options, 1.0 or 0.0, by the catalogue's names."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """The bounds of a number: at least the one, and below the other."""

    at_least: float = -math.inf
    below: float = math.inf

    def is_within(self, value: float) -> bool:
        """Whether the bounds hold. NaN is out of all bounds; an infinite number is out of bounds where none are set."""
        if self.at_least == -math.inf and self.below == math.inf:
            return math.isfinite(value)
        return self.at_least <= value and (value < self.below or self.below == math.inf)

    @property
    def expected(self) -> str:
        """The bounds in a message."""
        bounds = f"at least {self.at_least:g}" if self.at_least > -math.inf else ""
        bounds += f" and below {self.below:g}" if self.below < math.inf else ""
        return f"a number {bounds}" if bounds else "a finite number"


@dataclass(frozen=True, kw_only=True)
class Number(Bounds):
    """A number of an optimizer: ``default`` is that of the NumPy class, ``meaning`` one line without bounds."""

    name: str
    default: float | None
    meaning: str
    more: str = ""  # what the line goes on with, after the bounds
    per_leaf: bool = False  # the NumPy class takes a structure of such numbers too
    if_none: str = ""  # what None stands for, where the number may be None; then it is fixed whether it is
    may_be_unset: bool = False  # the NumPy class takes None for it at any time
    is_fixed: bool = False  # the NumPy class does not let it be set later


@dataclass(frozen=True, kw_only=True)
class Option:
    """A choice that is made with the optimizer: a truth value, one of ``choices``, or a dtype."""

    name: str
    default: bool | str | None
    meaning: str
    more: str = ""
    if_none: str = ""  # what None stands for
    choices: tuple[str, ...] = ()
    is_dtype: bool = False

    @property
    def is_flag(self) -> bool:
        return not self.choices and not self.is_dtype


@dataclass(frozen=True, kw_only=True)
class Numpy:
    """The class in ``flatstep``. Its signature follows from the arguments."""

    notes: str = ""  # behind the maths
    example: str
    see: str  # in the references: where else the optimizer is defined
    table: tuple[tuple[str, str, str], ...]  # rows in the docs: settings, rule, what defines them


@dataclass(frozen=True, kw_only=True)
class Torch:
    """The class in ``flatstep.torch``, where it differs from the declaration."""

    name: str = ""  # of the class; else the declaration's
    signature: str  # as Python writes it
    keys: Mapping[str, str]  # slot -> key in a parameter's state
    names: Mapping[str, str]  # number -> where a group has it: "lr", "betas[0]"
    numbers: tuple[Number, ...] = ()  # those whose bounds differ when torch makes an optimizer
    fixed: Arguments = field(default_factory=dict)  # keys of every group that are no arguments
    forced: Arguments = field(default_factory=dict)  # of these, those that replace what a loaded group says
    older: Arguments = field(default_factory=dict)  # what torch takes for an argument that an old group lacks
    unsaid: Arguments = field(default_factory=dict)  # what gives torch's behaviour and so stays out of groups
    shared: tuple[str, ...] = ()  # arguments in which all groups agree: they give the state its meaning
    needs_count: bool = True  # else a state may lack "step": its count then starts at 0
    foreach_takes_tensors: bool = False  # whether torch's foreach form takes tensors as numbers
    rules: tuple[str, ...] = ()  # in the catalogue; else the declaration's
    choose: Callable[[Arguments], str] | None = None
    flags: Callable[[Arguments], Flags] | None = None
    meanings: Mapping[str, str] = field(default_factory=dict)  # of arguments that mean something else here
    summary: str = ""
    maths: str = ""  # where it is not the declaration's
    example: str
    see: str


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of the state of optax's chain: the name of its type, and slot -> field."""

    type: str
    slots: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Jax:
    """The function in ``flatstep.jax``, which takes the place of optax's of the same name."""

    name: str
    signature: str  # optax 0.2.8's, then by keyword what it lacks
    state: tuple[Part, ...] | Callable[[Arguments], tuple[Part, ...]]  # of optax's chain, in its order
    to_optax: tuple[str, ...] = ()  # arguments that give optax's state its form
    reference: Callable[[Arguments], Any] | None = None  # makes optax's form; else its function of the same name
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # where fewer than the declaration's
    instead: Mapping[str, str] = field(default_factory=dict)  # what to pass instead of a choice that is left out
    meanings: Mapping[str, str] = field(default_factory=dict)
    summary: str = ""
    example: str
    see: str

    def parts(self, arguments: Arguments) -> tuple[Part, ...]:
        """The parts of the state of an optimizer with these arguments."""
        return self.state(arguments) if callable(self.state) else self.state


RATE_STATE = Part(type="learning_rate")
"""The part in which optax counts for a schedule of the learning rate."""
DECAY_STATE = Part(type="weight_decay")
"""The part in which optax counts for a schedule of weight decay, and masks it."""


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """An optimizer: all that stands once, and beside it what is particular to each front end."""

    name: str
    base: str = ""  # the class from which its classes are derived
    rules: tuple[str, ...]  # of the catalogue; arguments choose one
    arguments: tuple[Number | Option, ...]  # in the order of the NumPy class
    squares: tuple[str, ...] = ()  # slots that average abs(g)^2, which is real
    initial: Mapping[str, str] = field(default_factory=dict)  # slot -> the number that it is filled with; else zero
    summary: str
    maths: str
    references: str
    raises: str = "a number is out of bounds"
    choose: Callable[[Arguments], str] | None = None  # arguments as given -> rule; else the first
    settled: Callable[[Arguments], Arguments] = dict  # arguments -> the same, with no default left open
    flags: Callable[[Arguments], Flags] = lambda _: {}
    numpy: Numpy
    torch: Torch | None = None
    jax: Jax | None = None

    def argument(self, name: str) -> Number | Option:
        """The argument of that name; KeyError where there is none."""
        return {argument.name: argument for argument in self.arguments}[name]

    def rule(self, arguments: Arguments) -> str:
        """The rule of the catalogue that the arguments choose."""
        return self.choose(arguments) if self.choose else self.rules[0]
