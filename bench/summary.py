"""What a user asks first: how many times flatstep's time each peer takes. Used by full_report.py."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from .results import Measured
from .threads import SWEEPS

SMALL, LARGE = 10**4, 10**6  # elements: the most of a small step, the least of a large one
SIZES = (f"up to {SMALL:,}", "medium", f"from {LARGE:,}")


class Ratio(NamedTuple):
    """A peer's times in units of flatstep's, over the cases that it takes part in."""

    front_end: str
    peer: str
    computes: str  # what, where it is not what the case says
    medians: tuple[float | None, ...]  # by size; None where there is no case of that size
    least: float
    cases: int


def ratios(cases: Sequence[Measured]) -> list[Ratio]:
    """One for each peer and front end, in the order of the cases."""
    times: dict[tuple[str, str, str], list[tuple[int, float]]] = {}
    for case in cases:
        for row in case.contenders if case.ours and case.front_end not in SWEEPS else ():
            if not row.name.startswith("flatstep"):
                key = case.front_end, row.name, row.computes
                times.setdefault(key, []).append((case.elements, row.times_ours.median))
    return [Ratio(*key, _medians(found), min(ratio for _, ratio in found), len(found)) for key, found in times.items()]


def _medians(found: Sequence[tuple[int, float]]) -> tuple[float | None, ...]:
    by_size: list[list[float]] = [[] for _ in SIZES]
    for elements, ratio in found:
        by_size[(elements > SMALL) + (elements >= LARGE)].append(ratio)
    return tuple(median(chosen) if chosen else None for chosen in by_size)


def show_ratios(found: Sequence[Ratio], console: Console) -> None:
    """One row a peer and front end."""
    title = "Times flatstep's time, median over cases: above 1, flatstep is faster"
    table = Table(title=title, title_justify="left", box=SIMPLE)
    table.add_column("beside")
    table.add_column("peer")
    for column in (*SIZES, "least", "cases"):
        table.add_column(column, justify="right")
    table.add_column("")
    for ratio in found:
        medians = ["" if value is None else f"{value:.2f}" for value in ratio.medians]
        row = ratio.front_end, ratio.peer, *medians, f"{ratio.least:.2f}", str(ratio.cases), ratio.computes
        table.add_row(*row)
    if found:
        console.print(table)
