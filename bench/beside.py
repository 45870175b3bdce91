"""What a step costs between NumPy's matrix products, on our own threads and on OpenMP's. Used by command.py.

NumPy's products leave threads that spin for a while; OpenMP's spin too. On the same processors they hold up each other.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
from rich.console import Console
from rich.table import Table

import flatstep
from flatstep import _core


def show_beside_numpy(size: int, rounds: int, console: Console) -> None:
    """Times products alone, and products with an AMSGrad step after them; prints the medians.

    Not in turns: OpenMP's threads would still spin beside the next one, so they come last.
    """
    factor = np.ones((300, 300), np.float32)
    steps: dict[str, Callable[[], None]] = {"no step": lambda: None, "own threads": _step(size, on_openmp=False)}
    if _core.has_openmp():
        steps["OpenMP's threads"] = _step(size, on_openmp=True)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for name, step in steps.items():
        for _ in range(10 * rounds):
            start = time.perf_counter()
            factor @ factor
            step()
            seconds[name].append(time.perf_counter() - start)
    table = Table()
    table.add_column(f"NumPy's product and a step of {size:,} elements")
    table.add_column("time", justify="right")
    for name, timed in seconds.items():
        table.add_row(name, f"{statistics.median(timed) * 1e6:,.0f} us")
    console.print(table)


def _step(size: int, on_openmp: bool) -> Callable[[], None]:
    param, grad = np.ones(size, np.float32), np.ones(size, np.float32)
    make = type("AMSGrad", (flatstep.AMSGrad,), {"_on_openmp": on_openmp})
    opt = make(param, 1e-3)
    return lambda: opt.step(grad)
