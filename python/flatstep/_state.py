"""What an optimizer remembers: a flat buffer a slot and device, and how often each leaf was updated.

For the package's own use.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import repeat
from typing import Any, TypeVar

import numpy as np

from . import _core
from ._arrays import ALIGNMENT, Array, aligned_zeros, view
from ._device_arrays import DeviceArray
from ._leaves import Leaf

_slot_dtypes = cache(_core.slot_dtypes)
_Place = tuple[Array | _core.DeviceMemory, int]  # a buffer, and the offset in it


class _Buffers:
    """Makes the buffers of all slots, each at another offset in a page (see aligned_zeros)."""

    APART = 11 * ALIGNMENT  # five slots and a parameter at 0 lie apart in a page

    def __init__(self) -> None:
        self._offset = 0

    def next(self, count: int) -> Array:
        self._offset += self.APART
        return aligned_zeros(count, self._offset)


class State:
    """The slots of a rule for some parameters: flat, aligned buffers, zero at first, one view a parameter.

    Each device has a buffer a slot. Places it where the stepper wants it, and keeps it alive.
    """

    def __init__(self, rule: str, params: Sequence[Leaf], first_moment: str, stepper: _core.Stepper) -> None:
        self.params = params
        # As the parameters are now: a parameter that is reshaped later is rejected, and its state stays whole.
        self._forms = [_form(param) for param in params]
        self._shapes = [(p.shape, tuple([s // p.itemsize for s in p.strides])) for p in params]
        self._dtypes = [_slot_dtypes(rule, param.dtype.name, first_moment) for param in params]
        self.slots = _core.slots(rule)
        places = stepper.make_state(_Buffers().next)
        self._places: dict[str, list[_Place]] = dict(zip(self.slots, places, strict=True))

    def first_changed(self) -> int | None:
        """The first parameter that has another form by now; a step asks the compiled core instead."""
        return next((i for i, param in enumerate(self.params) if _form(param) != self._forms[i]), None)

    def views(self, slot: str) -> list[Leaf]:
        """The slot's part of each parameter, as arrays over the buffers."""
        dtypes = [own[self.slots.index(slot)] for own in self._dtypes]
        rows = zip(self.params, self._shapes, self._places[slot], dtypes, strict=True)
        return [view_at(param, shape, *place, dtype) for param, shape, place, dtype in rows]

    def host_buffers(self) -> list[Array]:
        """Those in the host's memory."""
        buffers = {id(buffer): buffer for places in self._places.values() for buffer, _ in places}
        return [buffer for buffer in buffers.values() if isinstance(buffer, np.ndarray)]


def view_at(
    param: Leaf,
    shape: tuple[tuple[int, ...], tuple[int, ...]],
    buffer: Array | _core.DeviceMemory,
    offset: int,
    dtype: str,
) -> Leaf:
    """An array over a part of a buffer, for a parameter of that shape and these strides, in elements."""
    if isinstance(buffer, np.ndarray):
        return view(shape, buffer, offset, dtype)
    assert isinstance(param, DeviceArray)
    lengths, strides = shape
    return DeviceArray(buffer.part(offset, list(lengths), list(strides), dtype, param.memory.source))


def _form(param: Leaf) -> tuple[Any, ...]:
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
    skipped: int = 0
