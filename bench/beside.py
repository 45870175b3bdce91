"""What a step costs between NumPy's matrix products, on our own threads and on OpenMP's. Used by command.py.

NumPy's products leave threads that spin for a while; OpenMP's spin too. On the same processors they hold up each other.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

import flatstep
from flatstep import _core

from .measure import Spread, spread
from .report import duration, percent

SIZE = 10**5


def measure_beside_numpy(
    rounds: int, progress: Callable[[], None] = lambda: None, seconds: float = float("inf")
) -> dict[str, Spread]:
    """Times products alone, and products with an AMSGrad step after them, while there is time and once at least.

    Not in turns: OpenMP's threads would still spin beside the next one, so they come last.
    """
    factor = np.ones((300, 300), np.float32)
    steps: dict[str, Callable[[], None]] = {"no step": lambda: None, "own threads": _step(on_openmp=False)}
    if _core.has_openmp():
        steps["OpenMP's threads"] = _step(on_openmp=True)
    found: dict[str, Spread] = {}
    for name, step in steps.items():
        timed: list[float] = []
        end = time.perf_counter() + seconds / len(steps)
        while len(timed) < 10 * rounds and (not timed or time.perf_counter() < end):
            start = time.perf_counter()
            factor @ factor
            step()
            timed.append(time.perf_counter() - start)
        found[name] = spread(timed)
        progress()
    return found


def show_beside_numpy(found: dict[str, Spread], console: Console) -> None:
    table = Table(title=f"NumPy's product and a step of {SIZE:,} elements", title_justify="left", box=SIMPLE)
    table.add_column("step")
    for column in ("time", "spread"):
        table.add_column(column, justify="right")
    for name, seconds in found.items():
        table.add_row(name, duration(seconds.median), percent(seconds))
    console.print(table)


def _step(on_openmp: bool) -> Callable[[], None]:
    param, grad = np.ones(SIZE, np.float32), np.ones(SIZE, np.float32)
    make = type("AMSGrad", (flatstep.AMSGrad,), {"_on_openmp": on_openmp})
    opt = make(param, 1e-3)
    return lambda: opt.step(grad)
