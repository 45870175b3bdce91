"""Where optax keeps the state of its optimizers: read and put back, so that either library goes on from the other.

For flatstep.jax only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

Array = Any
PyTree = Any

# The parts of the chain's state that are the rule's own; weight decay's and the learning rate's follow.
_PARTS = {
    "adam": ("ScaleByAdamState",),
    "amsgrad": ("ScaleByAmsgradState",),
    "optimistic_adam": ("ScaleByAdamState", "ScaleByOptimisticGradientState"),
    "optimistic_gradient_descent": ("ScaleByOptimisticGradientState",),
}
# The fields that hold a rule's slots: which part of the chain's state, and the name in it.
_SLOTS = {
    "adam": ((0, "mu"), (0, "nu")),
    "amsgrad": ((0, "mu"), (0, "nu"), (0, "nu_max")),
    "optimistic_adam": ((0, "mu"), (0, "nu"), (1, "previous_gradient")),
    "optimistic_gradient_descent": ((0, "previous_gradient"),),
}
# What those that follow are, masked or not.
_OTHERS = {"EmptyState", "ScaleByScheduleState", "WeightDecaySchedule"}
# Averages of abs(g)^2: real where g is complex, too, though optax stores them as the parameter is.
REAL_SLOTS = ("nu", "nu_max")


class State(NamedTuple):
    """One state of optax's, read: its counts are those of steps done."""

    rule: str
    parts: tuple[Any, ...]

    @classmethod
    def read(cls, rule: str, state: Any, others: int) -> State:
        """TypeError where the state is not one that ``init`` makes, with ``others`` parts after the rule's own."""
        is_chain = isinstance(state, (tuple, list)) and not hasattr(state, "_fields")
        found = [type(part).__name__ for part in state] if is_chain else type(state).__name__
        own = list(_PARTS[rule])
        rest = {type(_inner(part)).__name__ for part in state[len(own) :]} if is_chain else set()
        if not is_chain or found[: len(own)] != own or len(found) != len(own) + others or not rest <= _OTHERS:
            raise TypeError(
                f"state is {found}, expected {', '.join(own)} and {others} more; give what this optimizer's init or "
                "step returned, or the same optimizer of optax"
            )
        return cls(rule, tuple(state))

    @property
    def count(self) -> Array:
        """How many steps drive the corrections of bias; None where the rule has none."""
        return self._of_rule("count")

    @property
    def is_initial_step(self) -> Array | None:
        return self._of_rule("is_initial_step")

    def _of_rule(self, field: str) -> Any:
        """What the first part has that is the rule's own and has such a field; None where there is none."""
        own = self.parts[: len(_PARTS[self.rule])]
        return next((getattr(part, field) for part in own if field in part._fields), None)

    @property
    def slots(self) -> list[tuple[str, PyTree]]:
        """Each slot's name in a message, and its tree."""
        return [(f"state[{part}].{name}", getattr(self.parts[part], name)) for part, name in _SLOTS[self.rule]]

    def schedule_count(self, part: int) -> Array:
        """What the schedule that this part of the chain belongs to is called with."""
        holder = _inner(self.parts[part])
        if "count" not in getattr(holder, "_fields", ()):  # every tuple has a method of that name
            raise TypeError(
                f"state[{part}] is {type(holder).__name__}, without the count that a schedule needs; make the state "
                "with an optimizer that has a schedule too"
            )
        return holder.count

    def after(self, slots: Sequence[PyTree]) -> tuple[Any, ...]:
        """The state after a step that made these slots."""
        parts = [_advanced(part) for part in self.parts]
        for (part, name), tree in zip(_SLOTS[self.rule], slots, strict=True):
            parts[part] = parts[part]._replace(**{name: tree})
        return tuple(parts)


def _inner(part: Any) -> Any:
    return part.inner_state if isinstance(part, optax.MaskedState) else part


def _advanced(part: Any) -> Any:
    """A part with its counter counted on."""
    if isinstance(part, optax.MaskedState):
        return part._replace(inner_state=_advanced(part.inner_state))
    fields = getattr(part, "_fields", ())
    if "count" in fields:
        return part._replace(count=optax.safe_increment(part.count))
    if "is_initial_step" in fields:
        return part._replace(is_initial_step=jnp.zeros_like(part.is_initial_step))
    return part
