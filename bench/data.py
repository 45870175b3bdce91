"""The numbers of a case: the same for every contender, in memory that has been written before it is timed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from .layouts import Layout
from .shapes import Lengths

Array = np.ndarray[Any, Any]
T = TypeVar("T")
PERIOD = 1 << 16  # this many numbers are drawn and then repeat: a step costs the same, making them less


class Data:
    """Parameters from 1 to 2, so that one ulp is the same for all; gradients with a normal distribution."""

    def __init__(self, shapes: Sequence[Lengths], layout: Layout) -> None:
        self.shapes = list(shapes)
        self.layout = layout
        self.grads = self._arrays(_normal(0))
        self._shared: dict[str, Any] = {}

    def params(self) -> list[Array]:
        """New float32 arrays each time. They and ``grads`` can be stored in the layout's dtype as they are."""
        return self._arrays(1 + np.random.default_rng(1).random(PERIOD, np.float32))

    def redraw(self, seed: int) -> None:
        """Other gradients, in the same arrays."""
        for old, new in zip(self.grads, self._arrays(_normal(seed)), strict=True):
            old[...] = new

    def shared(self, front_end: str, make: Callable[[], T]) -> T:
        """What a front end makes of the gradients, once for all its contenders: they only read it."""
        if front_end not in self._shared:
            self._shared[front_end] = make()
        value: T = self._shared[front_end]
        return value

    def _arrays(self, numbers: Array) -> list[Array]:
        if self.layout.param in ("bfloat16", "float16"):
            numbers = (numbers.view(np.uint32) & 0xFFFF0000).view(np.float32)
        return [_repeated(numbers, shape) for shape in self.shapes]


def _repeated(numbers: Array, shape: Lengths) -> Array:
    """An array with memory of its own, no more than it needs: np.resize would keep a whole period."""
    array = np.empty(shape, numbers.dtype)
    flat = array.reshape(-1)
    for first in range(0, flat.size, PERIOD):
        part = flat[first : first + PERIOD]
        part[...] = numbers[: part.size]
    return array


def _normal(seed: int) -> Array:
    numbers = np.random.default_rng(seed).standard_normal(PERIOD, np.float32)
    least = np.maximum(np.abs(numbers), np.float32(1e-2))
    return np.asarray(np.copysign(least, numbers))
