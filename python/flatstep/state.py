"""What an optimizer remembers: one flat buffer a slot, and how often each leaf was updated.

For the package's own use.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from . import _core
from .arrays import ALIGNMENT, aligned_zeros, view_like

Array = np.ndarray[Any, Any]


@cache
def _slot_formats(rule: str, param: str) -> list[tuple[str, str, int]]:
    return _core.slot_formats(rule, param, "")


class State:
    """The slots of a rule for some parameters: a flat, aligned buffer each, zero at first, one view a parameter."""

    def __init__(self, rule: str, params: Sequence[Array]) -> None:
        self._params = params
        formats = [_slot_formats(rule, param.dtype.name) for param in params]
        self.slots: tuple[str, ...] = _core.slots(rule)
        self.offsets: dict[str, list[int]] = {}
        self.buffers: dict[str, Array] = {}
        self._dtypes: dict[str, list[str]] = {}
        for index, slot in enumerate(self.slots):
            offsets, end = [], 0
            for param, leaf_formats in zip(params, formats, strict=True):
                offsets.append(end)
                end += -(-param.size * leaf_formats[index][2] // ALIGNMENT) * ALIGNMENT
            self.offsets[slot] = offsets
            self.buffers[slot] = aligned_zeros(end)
            self._dtypes[slot] = [leaf_formats[index][1] for leaf_formats in formats]

    def views(self, slot: str) -> list[Array]:
        """The slot's part of each parameter, as arrays over the buffer."""
        rows = zip(self._params, self.offsets[slot], self._dtypes[slot], strict=True)
        return [view_like(param, self.buffers[slot], offset, dtype) for param, offset, dtype in rows]


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
