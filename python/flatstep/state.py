"""What an optimizer remembers: one flat buffer a slot, and how often each leaf was updated.

For the package's own use.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import repeat
from typing import Any, TypeVar

from . import _core
from .arrays import Array, aligned_zeros, view

_slot_dtypes = cache(_core.slot_dtypes)


class State:
    """The slots of a rule for some parameters: a flat, aligned buffer each, zero at first, one view a parameter.

    Places each slot where the stepper wants it, and keeps it alive.
    """

    def __init__(self, rule: str, params: Sequence[Array], first_moment: str, stepper: _core.Stepper) -> None:
        self.params = params
        # As the parameters are now: whoever reshapes one later is refused, and its state stays whole.
        self._forms = [_form(param) for param in params]
        self._shapes = [(p.shape, tuple([s // p.itemsize for s in p.strides])) for p in params]
        self._dtypes = [_slot_dtypes(rule, param.dtype.name, first_moment) for param in params]
        self._offsets: list[list[int]] = []
        self.buffers: list[Array] = []
        self.slots = _core.slots(rule)
        for slot in range(len(self.slots)):
            offsets, length = stepper.state_layout(slot)
            self._offsets.append(offsets)
            self.buffers.append(aligned_zeros(length))
            stepper.place_state(slot, self.buffers[slot])

    def first_changed(self) -> int | None:
        """The first parameter that has another form by now; a step asks the compiled core instead."""
        return next((i for i, param in enumerate(self.params) if _form(param) != self._forms[i]), None)

    def views(self, slot: str) -> list[Array]:
        """The slot's part of each parameter, as arrays over the buffer."""
        index = self.slots.index(slot)
        rows = zip(self._shapes, self._offsets[index], self._dtypes, strict=True)
        return [view(shape, self.buffers[index], offset, dtypes[index]) for shape, offset, dtypes in rows]


def _form(param: Array) -> tuple[Any, ...]:
    return param.shape, param.strides, param.dtype


Key = TypeVar("Key", bound=Hashable)
Past = tuple[int, tuple[float, ...]]
"""Of one leaf: its updates so far, and those numbers of the last one that the rule wants back."""


def number_off(keys: Iterable[Key]) -> tuple[list[Key], list[int]]:
    """The different keys, in the order in which they come, and the index of each among them."""
    numbers: dict[Key, int] = {}
    index = [numbers.setdefault(key, len(numbers)) for key in keys]
    return list(numbers), index


class History:
    """The past of each leaf, at one moment. As long as all share one, it is kept once."""

    __slots__ = ("_each", "_leaves", "_shared")

    def __init__(self, each: Sequence[Past]) -> None:
        self._leaves = len(each)
        all_alike = not each or each.count(each[0]) == len(each)
        self._shared: Past | None = (each[0] if each else (0, ())) if all_alike else None
        self._each = () if all_alike else each

    def each(self) -> Sequence[Past]:
        """The past of each leaf, in order."""
        return self._each if self._shared is None else [self._shared] * self._leaves

    def groups(self) -> tuple[list[Past], list[int] | None]:
        """The different pasts, and the index of each leaf's among them; None where there is but one."""
        if self._shared is not None:
            return [self._shared], None
        return number_off(self._each)

    def advanced(self, updated: Sequence[bool] | None, remembered: tuple[float, ...]) -> History:
        """The history after an update, with these numbers, of leaves for which ``updated`` is true; None: of all."""
        if updated is None and self._shared is not None:
            after = History.__new__(History)
            after._leaves, after._shared, after._each = self._leaves, (self._shared[0] + 1, remembered), ()
            return after
        pairs = zip(self.each(), updated or repeat(True, self._leaves), strict=True)
        return History([(past[0] + 1, remembered) if is_updated else past for past, is_updated in pairs])


@dataclass(slots=True)
class Progress:
    """How far an optimizer has come: replaced as a whole, by the step itself."""

    count: int
    history: History
