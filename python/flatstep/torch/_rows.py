"""The numbers of each group's step, made again only where a group has changed. Used by _optimizer.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import is_
from typing import Any, NamedTuple

import torch

from ._numbers import LARGEST, Group

_FIXED = (float, int, bool, str, type(None), torch.dtype)  # types of values that cannot change where they are
_NO_NUMBERS = ("params", "param_names")

Row = tuple[tuple[Any, ...], int]
"""The numbers of a group in the core's order, and which of the optimizer's rules steps it."""


class _Kept(NamedTuple):
    """A row, and what it was made of."""

    names: tuple[str, ...]
    values: tuple[Any, ...]
    keys: int  # of the group, those that are no numbers included
    grad_scale: float
    row: Row


class Rows:
    """The row of each group, by its place in the optimizer.

    A row is kept for as long as the group has the same keys with the same objects, all of types that cannot change in
    place: that takes a sixth of the time to make it.
    """

    def __init__(self, make: Callable[[Group, float], Row]) -> None:
        self._make = make
        self._kept: dict[int, _Kept] = {}

    def of(self, place: int, group: Group, grad_scale: float) -> Row:
        kept = self._kept.get(place)
        if (
            kept is not None
            and kept.grad_scale == grad_scale
            and len(group) == kept.keys
            and all(map(is_, map(group.get, kept.names), kept.values))
        ):
            return kept.row
        row = self._make(group, grad_scale)
        names = tuple([name for name in group if name not in _NO_NUMBERS])
        values = tuple([group[name] for name in names])
        if _can_keep(values, row[0]):
            self._kept[place] = _Kept(names, values, len(group), grad_scale, row)
        return row


def _can_keep(values: Sequence[Any], numbers: Sequence[Any]) -> bool:
    """Whether the row follows from the values alone: a number beyond float32 is right for some parameters only."""
    is_fixed = all(type(v) in _FIXED or (type(v) is tuple and all(type(x) in _FIXED for x in v)) for v in values)
    return is_fixed and all(abs(number) <= LARGEST for number in numbers)
