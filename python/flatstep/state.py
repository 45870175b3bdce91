"""What an optimizer remembers: one flat buffer a slot, and how often each leaf was updated.

For the package's own use.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from . import _core
from .arrays import aligned_zeros, view_like

Array = np.ndarray[Any, Any]


@cache
def _slot_dtypes(rule: str, param: str) -> list[str]:
    return [dtype for _, dtype, _ in _core.slot_formats(rule, param, "")]


class State:
    """The slots of a rule for some parameters: a flat, aligned buffer each, zero at first, one view a parameter.

    Places each slot where the stepper wants it, and keeps it alive.
    """

    def __init__(self, rule: str, params: Sequence[Array], stepper: _core.Stepper) -> None:
        self.params = params
        self._dtypes = [_slot_dtypes(rule, param.dtype.name) for param in params]
        self._offsets: list[list[int]] = []
        self._buffers: list[Array] = []
        self.slots = _core.slots(rule)
        for slot in range(len(self.slots)):
            offsets, length = stepper.state_layout(slot)
            self._offsets.append(offsets)
            self._buffers.append(aligned_zeros(length))
            stepper.place_state(slot, self._buffers[slot])

    def views(self, slot: str) -> list[Array]:
        """The slot's part of each parameter, as arrays over the buffer."""
        index = self.slots.index(slot)
        rows = zip(self.params, self._offsets[index], self._dtypes, strict=True)
        return [view_like(param, self._buffers[index], offset, dtypes[index]) for param, offset, dtypes in rows]


Past = tuple[int, tuple[float, ...]]
"""Of one leaf: its updates so far, and those numbers of the last one that the rule wants back."""


class History:
    """The past of each leaf. As long as all share one, it is kept once."""

    def __init__(self, leaves: int) -> None:
        self._leaves = leaves
        self._shared: Past | None = (0, ())
        self._each: list[Past] = []

    def each(self) -> list[Past]:
        """The past of each leaf, in order."""
        return list(self._each) if self._shared is None else [self._shared] * self._leaves

    def groups(self) -> tuple[list[Past], list[int] | None]:
        """The different pasts, and the index of each leaf's among them; None where there is but one."""
        if self._shared is not None:
            return [self._shared], None
        numbers: dict[Past, int] = {}
        index = [numbers.setdefault(past, len(numbers)) for past in self._each]
        return list(numbers), index

    def advance(self, updated: Sequence[bool], remembered: tuple[float, ...]) -> None:
        """Counts an update, with these numbers, of the leaves for which ``updated`` is true."""
        if self._shared is not None and all(updated):
            self._shared = (self._shared[0] + 1, remembered)
            return
        self.replace(
            [
                (past[0] + 1, remembered) if is_updated else past
                for past, is_updated in zip(self.each(), updated, strict=True)
            ]
        )

    def replace(self, each: list[Past]) -> None:
        """Sets the past of each leaf."""
        all_alike = not each or each.count(each[0]) == len(each)
        self._shared = (each[0] if each else (0, ())) if all_alike else None
        self._each = [] if all_alike else each
