"""Steps on one thread and on all, over sizes: from which size on more threads pay. Used by front_ends.py.

The sweeps are front ends of their own, since their steps are timed otherwise: each after a pause, in which threads that
sleep between steps fall asleep.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

import flatstep

from .contender import Contender, Peer, Task
from .data import Data
from .limit import Allocate, limits
from .results import Measured, Results, Row
from .units import duration


class Sweeps(NamedTuple):
    """The front ends, as ``--only`` names them."""

    numpy: str = "threads-numpy"
    torch: str = "threads-torch"
    torch_passive: str = "threads-torch-passive"


SWEEPS = Sweeps()
TITLES = dict(
    zip(SWEEPS, ("NumPy, own threads", "torch, OpenMP's threads", "torch, OMP_WAIT_POLICY=passive"), strict=True)
)
ONE_THREAD = ", one thread"
EVEN = 1.05  # times faster on all threads, from which on more threads pay: less is noise


def on_all_and_on_one(ours: Peer) -> list[Peer]:
    """The peer as it is, and on one thread."""
    rule = {"amsgrad": ""}

    def make_on_one(task: Task, data: Data) -> Contender:
        return _on_one(ours.make(task, data))

    return [
        replace(ours, computes=rule),
        replace(ours, name=ours.name + ONE_THREAD, make=make_on_one, computes=rule, is_ours=False),
    ]


def limits_by_threads(allocate: Allocate, on_openmp: bool) -> Callable[[Task], Iterator[Contender]]:
    """The limit on all threads and on one."""

    def make(task: Task) -> Iterator[Contender]:
        limit = next(limits(allocate, on_openmp)(task))
        yield limit
        yield _on_one(limit)

    return make


def _on_one(contender: Contender) -> Contender:
    """The same on one thread. The others' count stays."""

    def run() -> None:
        every = flatstep.get_num_threads()
        flatstep.set_num_threads(1)
        contender.run()
        flatstep.set_num_threads(every)

    return replace(contender, name=contender.name + ONE_THREAD, run=run)


class Gain(NamedTuple):
    """A step of one size."""

    elements: int
    on_one: Row
    on_all: Row

    @property
    def times(self) -> float:
        """Faster on all threads, as the median over the rounds."""
        return self.on_one.times_ours.median


def gains(cases: Sequence[Measured], front_end: str) -> list[Gain]:
    """By size."""
    found = []
    for case in cases:
        on_one = next((row for row in case.contenders if row.name.endswith(ONE_THREAD)), None)
        if case.front_end == front_end and case.ours is not None and on_one is not None:
            found.append(Gain(case.elements, on_one, case.ours))
    return sorted(found, key=lambda gain: gain.elements)


def pays_from(found: Sequence[Gain]) -> int | None:
    """The least size from which on more threads pay at each size that was measured; None where they do at none."""
    paying = None
    for gain in reversed(found):
        if gain.times < EVEN:
            break
        paying = gain.elements
    return paying


def show_threads(results: Results, console: Console) -> None:
    """One table a sweep, one row a size: AMSGrad on float32, each step after a pause."""
    for front_end, title in TITLES.items():
        found = gains(results.cases, front_end)
        if not found:
            continue
        table = Table(title=f"\nThreads: {title}", title_justify="left", box=SIMPLE)
        for column in ("elements", "1 thread", f"{results.threads} threads", "times faster", "of limit"):
            table.add_column(column, justify="right")
        for gain in found:
            on_one, on_all = duration(gain.on_one.seconds.median), duration(gain.on_all.seconds.median)
            share = f"{gain.on_all.share.median:.3f}"
            table.add_row(f"{gain.elements:,}", on_one, on_all, f"{gain.times:.2f}", share)
        console.print(table)
        least = pays_from(found)
        console.print(f"more threads pay from {least:,} elements on" if least else "more threads pay at no size")
