"""A state_dict on its way in, from memory or a file, taken apart and checked. Used by _optimizer.py."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, starmap
from operator import setitem
from typing import Any

import numpy as np

from . import _core
from ._device_arrays import DeviceArray
from ._state import Past
from ._trees import Tree

STATE_DICT_VERSION = 2  # 1 has nothing of what a step does around its update
Change = tuple[Any, str, Any]  # an object, its attribute, and what that becomes
_KEYS = {"version", "optimizer", "options", "numbers", "count", "leaf_counts", "leaf_numbers", "state", "skipped"}
LARGEST_COUNT = 2**62  # what the compiled core counts in still has room for the steps of a lifetime


class Loaded:
    """A state_dict on its way in: every question to it that has a wrong answer raises ValueError."""

    def __init__(self, tree: Tree, state_dict: Mapping[str, Any]) -> None:
        self._tree = tree
        self._dict = state_dict
        self._paths = tree.paths()

    def get(self, key: str) -> Any:
        try:
            return self._dict[key]
        except (KeyError, TypeError):
            raise ValueError(f"state_dict lacks {key!r}; expected what state_dict() returned") from None

    def check_made_by(self, optimizer: str, options: Mapping[str, Any], *more_keys: str) -> None:
        """Whether version, keys, class and options are those; ``more_keys`` is what a file's state_dict has too."""
        version = self.get("version")
        if not _is_whole(version) or not 1 <= version <= STATE_DICT_VERSION:
            raise ValueError(
                f"state_dict has version {version!r}, expected at most {STATE_DICT_VERSION}; use the flatstep that "
                "wrote it, or a newer one"
            )
        unknown = [key for key in self._dict if key not in _KEYS.union(more_keys)]
        if unknown:
            raise ValueError(f"state_dict has the unknown keys {unknown}; expected what state_dict() returned")
        if self.get("optimizer") != optimizer:
            raise ValueError(f"state_dict is of {self.get('optimizer')}, expected {optimizer}")
        for name, loaded in self.part("options", options).items():
            if loaded != options[name]:
                raise ValueError(
                    f"state_dict was made with {name}={loaded!r}, but this optimizer has {name}={options[name]!r}, "
                    f"under which the state means something else; make the optimizer with {name}={loaded!r}"
                )

    def check_has_averages(self, expected: bool) -> None:
        """Whether there are averages exactly where the optimizer keeps some."""
        found = isinstance(self._dict, Mapping) and "ema" in self._dict
        if expected and not found:
            raise ValueError("state_dict has no averages, which this optimizer keeps; make it without ema_decay")
        if found and not expected:
            raise ValueError("state_dict has averages, which this optimizer does not keep; make it with ema_decay")

    def part(self, key: str, expected: Mapping[str, Any], complete: bool = True) -> Mapping[str, Any]:
        """The dict under a key, whose own keys are those of ``expected``, or some of them."""
        part = self.get(key)
        if not isinstance(part, Mapping):
            raise ValueError(f"state_dict['{key}'] is a {type(part).__name__}, expected a dict")
        missing = [name for name in expected if name not in part] if complete else []
        unknown = [name for name in part if name not in expected]
        if missing or unknown:
            raise ValueError(f"state_dict['{key}'] lacks {missing} and has the unknown {unknown}")
        return dict(part)

    def count(self) -> int:
        return self._natural("state_dict['count']", self.get("count"))

    def skipped(self) -> int:
        """The steps that were skipped; a state_dict without any need not say so."""
        return self._natural("state_dict['skipped']", self._dict.get("skipped", 0))

    def pasts(self, count: int, remembered: list[str], check: Callable[[str, str, Any], float]) -> list[Past]:
        """The past of each leaf, after ``count`` steps; ``check`` takes a number's name, what to call it, its value."""
        counts = self._tree.match(self.get("leaf_counts"), "state_dict['leaf_counts']")
        columns = [
            self._tree.match(column, f"state_dict['leaf_numbers']['{name}']")
            for name, column in self.part("leaf_numbers", dict.fromkeys(remembered)).items()
        ]
        pasts: list[Past] = []
        for leaf, (path, value) in enumerate(zip(self._paths, counts, strict=True)):
            own = self._natural(f"state_dict['leaf_counts']{path}", value, at_most=count)
            named = zip(remembered, columns, strict=True) if own > 0 else ()
            values = [check(n, f"state_dict['leaf_numbers']['{n}']{path}", column[leaf]) for n, column in named]
            pasts.append((own, tuple(values)))
        return pasts

    def arrays(self, views: dict[str, list[Any]]) -> list[tuple[Any, Any]]:
        """Each view of the state with the array that it is to take over."""
        pairs: list[tuple[Any, Any]] = []
        for slot, structure in self.part("state", views).items():
            pairs += self._pairs(f"state_dict['state']['{slot}']", structure, views[slot])
        return pairs

    def averages(self, views: Sequence[Any]) -> list[tuple[Any, Any]]:
        """Each average with the array that it is to take over."""
        return self._pairs("state_dict['ema']", self.get("ema"), views)

    def params(self, params: Sequence[Any]) -> list[tuple[Any, Any]]:
        """Each parameter with the array that it is to take over; a file's state_dict has them."""
        # Views of our own: that the user makes a parameter read-only later does not concern them.
        mine = [param if isinstance(param, DeviceArray) else param.view(np.ndarray) for param in params]
        return self._pairs("state_dict['params']", self.get("params"), mine)

    def _pairs(self, name: str, structure: Any, into: Sequence[Any]) -> list[tuple[Any, Any]]:
        pairs = []
        for leaf, (view, value) in enumerate(zip(into, self._tree.match(structure, name), strict=True)):
            if isinstance(value, np.ma.MaskedArray):
                raise ValueError(
                    f"{name}{self._paths[leaf]} is a masked array, whose mask would be ignored; pass its .data"
                )
            array = np.asarray(value)
            if array.shape != view.shape or array.dtype != view.dtype:
                raise ValueError(
                    f"{name}{self._paths[leaf]} has shape {array.shape} and dtype {array.dtype}, expected "
                    f"{view.shape} and {view.dtype}"
                )
            if not (isinstance(view, DeviceArray) or view.flags.writeable):
                raise ValueError(
                    f"{name}{self._paths[leaf]} is for an array that has become read-only; make it writable again"
                )
            pairs.append((view, array))
        return pairs

    def _natural(self, name: str, value: Any, at_most: int = LARGEST_COUNT) -> int:
        if not _is_whole(value) or not 0 <= value <= at_most:
            most = f"{at_most}" + (", state_dict['count']" if at_most < LARGEST_COUNT else "")
            raise ValueError(f"{name} is {value!r}, expected a whole number from 0 to {most}")
        return int(value)


def _is_whole(value: Any) -> bool:
    """Whether it is a whole number by type. True, which is equal to 1, is not."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def change_at_once(copies: Sequence[tuple[Any, Any]], attributes: Sequence[Change]) -> None:
    """Copies each second array into the first, which has its shape and dtype, and sets attributes.

    All of it is done or, whatever signal strikes, nothing: what a signal's handler raises comes between two of Python's
    own instructions, and here is but one. The rest is C code, as long as the arrays are plain ones of NumPy's. What is
    on devices, whose libraries are asked for streams, comes first: once the first copy is made, only a copy can fail.
    """
    there = [(into.memory, into.bytes_of(array)) for into, array in copies if isinstance(into, DeviceArray)]
    here = [(into, ..., array) for into, array in copies if not isinstance(into, DeviceArray)]
    changes = chain(starmap(_core.store, [(there,)]), starmap(setitem, here), starmap(setattr, attributes))
    deque(changes, maxlen=0)
