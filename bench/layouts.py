"""How a case's numbers are stored, and the bytes that a step moves by that: the cost model. Used by cases.py.

Rules, slots and their dtypes are read off the catalogue of the compiled core.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from flatstep import _core


class Layout(NamedTuple):
    """The dtypes of parameter, gradient (the parameter's) and first moment; those of the other slots follow."""

    param: str
    mu: str

    @property
    def name(self) -> str:
        return self.param if self.mu == self.param else f"{self.param}, mu {self.mu}"


F64, F32, F16 = Layout("float64", "float64"), Layout("float32", "float32"), Layout("float16", "float16")
BF16, F32_MU_BF16 = Layout("bfloat16", "bfloat16"), Layout("float32", "bfloat16")


class Cost(NamedTuple):
    """What a step moves for one parameter."""

    rule: str
    layout: Layout
    slots: dict[str, str]  # name -> dtype
    bytes: int


def cost(rule: str, layout: Layout) -> Cost:
    """Parameter read and written, gradient read, each slot read and written. KeyError: there is no such kernel."""
    dtypes = _core.slot_dtypes(rule, layout.param, layout.mu)
    moved = 3 * bytes_of(layout.param) + sum(2 * bytes_of(dtype) for dtype in dtypes)
    return Cost(rule, layout, dict(zip(_core.slots(rule), dtypes, strict=True)), moved)


def cost_model(of: Callable[[str, Layout], Cost] = cost) -> Iterator[Cost]:
    """That cost of every rule on every layout whose gradients have the parameter's dtype."""
    names = [F64.param, F32.param, BF16.param, F16.param]
    for rule in _core.rules():
        for layout in [Layout(param, mu) for param in names for mu in names]:
            try:
                yield of(rule, layout)
            except KeyError:  # not in the catalogue
                continue


def bytes_of(dtype: str) -> int:
    """float32 -> 4, by its name: NumPy does not know every one of them."""
    return int(re.sub(r"\D", "", dtype)) // 8
