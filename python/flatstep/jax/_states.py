"""Where optax keeps the state of its optimizers: read and put back, so that either library goes on from the other.

For flatstep.jax only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from .. import _core
from .._rules import DECAY_STATE, RATE_STATE, Part

Array = Any
PyTree = Any

# What the parts of weight decay and of the learning rate are, masked or not.
_TYPES_OF_OTHERS = {"EmptyState", "ScaleByScheduleState", "WeightDecaySchedule"}
_OTHERS = (RATE_STATE, DECAY_STATE)


class State(NamedTuple):
    """One state of optax's, read: its counts are those of steps done."""

    declared: tuple[Part, ...]
    parts: tuple[Any, ...]

    @classmethod
    def read(cls, declared: tuple[Part, ...], state: Any) -> State:
        """TypeError where the state is not one that ``init`` makes."""
        is_chain = isinstance(state, (tuple, list)) and not hasattr(state, "_fields")
        if not is_chain or not _fits(declared, state):
            found = [type(part).__name__ for part in state] if is_chain else type(state).__name__
            own = [part.type for part in declared if part not in _OTHERS]
            raise TypeError(
                f"state is {found}, expected {', '.join(own)} and {len(declared) - len(own)} more; give what this "
                "optimizer's init or step returned, or the same optimizer of optax"
            )
        return cls(declared, tuple(state))

    def field(self, name: str) -> Array | None:
        """A field of the rule's own parts; None where none has it."""
        own = [part for part, kind in zip(self.parts, self.declared, strict=True) if kind not in _OTHERS]
        return next((getattr(part, name) for part in own if name in part._fields), None)

    @property
    def _places(self) -> dict[str, tuple[int, str]]:
        """Each slot's part and field."""
        return {slot: (i, name) for i, part in enumerate(self.declared) for slot, name in part.slots.items()}

    def slots(self, rule: str) -> dict[str, tuple[str, PyTree]]:
        """Each slot of a rule, in order: its name in a message, and its tree."""
        places = [(slot, *self._places[slot]) for slot in _core.slots(rule)]
        return {slot: (f"state[{part}].{name}", getattr(self.parts[part], name)) for slot, part, name in places}

    def schedule_count(self, kind: Part) -> Array:
        """What the schedule that this part of the chain belongs to is called with."""
        at = self.declared.index(kind)
        holder = _inner(self.parts[at])
        if "count" not in getattr(holder, "_fields", ()):  # every tuple has a method of that name
            raise TypeError(
                f"state[{at}] is {type(holder).__name__}, without the count that a schedule needs; make the state "
                "with an optimizer that has a schedule too"
            )
        return holder.count

    def after(self, slots: Mapping[str, PyTree], skip: Array | None) -> tuple[Any, ...]:
        """The state after a step that made these slots; ``skip`` says whether it was one, if that may be."""
        parts = [_advanced(part, skip) for part in self.parts]
        for slot, tree in slots.items():
            at, name = self._places[slot]
            parts[at] = parts[at]._replace(**{name: tree})
        return tuple(parts)


def _fits(declared: Sequence[Part], state: Sequence[Any]) -> bool:
    """Whether the parts of a chain's state are of the declared types."""
    return len(state) == len(declared) and all(map(_is_of, state, declared))


def _is_of(part: Any, kind: Part) -> bool:
    if kind in _OTHERS:
        return type(_inner(part)).__name__ in _TYPES_OF_OTHERS
    return type(part).__name__ == kind.type


def _inner(part: Any) -> Any:
    return part.inner_state if isinstance(part, optax.MaskedState) else part


def _advanced(part: Any, skip: Array | None) -> Any:
    """A part with its counter counted on, unless the step is skipped."""
    if isinstance(part, optax.MaskedState):
        return part._replace(inner_state=_advanced(part.inner_state, skip))
    fields = getattr(part, "_fields", ())
    if "count" in fields:
        return part._replace(count=next_count(part.count, skip))
    if "is_initial_step" in fields:
        return part._replace(is_initial_step=_unless(skip, part.is_initial_step, jnp.zeros_like(part.is_initial_step)))
    return part


def next_count(count: Array, skip: Array | None) -> Array:
    """A count after a step."""
    return _unless(skip, count, optax.safe_increment(count))


def _unless(skip: Array | None, old: Array, new: Array) -> Array:
    return new if skip is None else jnp.where(skip, old, new)
