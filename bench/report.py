"""Cases as tables: each contender beside the limit and beside ours. Used by full_report.py."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .results import Measured, Results, Row
from .threads import SWEEPS
from .units import duration, percent

FIXED = 100  # elements: up to this number, a step's time is what calling it costs
LARGE = 10**6  # elements: from this number on, a step's time should be what memory allows
AT_THE_LIMIT = 0.98  # share of the limit, from which on a step is as fast as that


def show_cases(results: Results, console: Console) -> None:
    """One table a front end: by case, each contender beside the faster limit and beside ours, and what is left out."""
    cases = [case for case in results.cases if case.front_end not in SWEEPS]
    for front_end, found in groupby(cases, lambda case: case.front_end):
        group = [case for case in found if case.rows]
        has_host = any(row.host_seconds for case in group for row in case.rows)
        table = Table(title=f"\n{front_end}, {results.threads} threads", title_justify="left", box=SIMPLE)
        table.add_column("step", no_wrap=True)
        for column in ("time", "spread", "GB/s", "of limit", "times ours", "ulp", *["host"] * has_host):
            table.add_column(column, justify="right", no_wrap=True)
        table.add_column("")
        for case in group:
            table.add_section()
            table.add_row(Text(f"{case.rule}, {case.layout}, {case.shape}", style="bold cyan"))
            for row in [*filter(None, [case.limit]), *case.contenders]:
                style = "dim" if row.is_limit else "bold" if row.is_ours else ""
                table.add_row(*_cells(case, row, has_host), style=style)
        if group:
            console.print(table)
        for why, names in _left_out(cases, front_end).items():
            console.print(f"  left out: {'; '.join(names)}: {why}", style="dim")


def _left_out(cases: Sequence[Measured], front_end: str) -> dict[str, list[str]]:
    """By reason, which contenders and of what."""
    reasons: dict[str, list[str]] = {}
    for case in cases:
        for why in dict.fromkeys(case.left_out.values()) if case.front_end == front_end else ():
            names = ", ".join(name for name, reason in case.left_out.items() if reason == why)
            where = ", ".join(case.key[1:])
            reasons.setdefault(why, []).append(f"{names} of {where}" if case.rows else f"all of {where}")
    return reasons


def _cells(case: Measured, row: Row, has_host: bool) -> Iterable[str]:
    yield f"  {row.name}"
    yield duration(row.seconds.median)
    yield percent(row.seconds)
    yield f"{case.gigabytes_per_second(row):.1f}"
    yield f"{row.share.median:.3f}"
    yield "" if row.is_limit else f"{row.times_ours.median:.2f}"
    yield "" if row.ulp is None else f"{row.ulp:,.1f}"
    if has_host:
        yield "" if row.host_seconds is None else duration(row.host_seconds)
    yield ", ".join(_remarks(case, row))


def _remarks(case: Measured, row: Row) -> Iterable[str]:
    if row.computes:
        yield row.computes
    if row.bytes_per_element and case.elements > FIXED and round(row.bytes_per_element) != case.bytes_per_element:
        yield f"moves {row.bytes_per_element:.0f} bytes, not {case.bytes_per_element}"
    if row.compile_seconds and row.compile_seconds >= 1:
        yield f"compiled in {row.compile_seconds:.0f} s"


def show_fixed_cost(results: Results, console: Console) -> None:
    """Microseconds a call, of the case that has next to nothing to do."""
    table = Table(title="What a call costs: a step of one tiny array", title_justify="left", box=SIMPLE)
    for column in ("front end", "rule", "step"):
        table.add_column(column)
    for column in ("us a call", "spread"):
        table.add_column(column, justify="right")
    for case in results.cases:
        for row in case.contenders if case.elements <= FIXED else ():
            cells = case.front_end, case.rule, row.name, f"{row.seconds.median * 1e6:.2f}", percent(row.seconds)
            table.add_row(*cells, style="bold" if row.is_ours else "")
    if table.rows:
        console.print(table)


class Standing(NamedTuple):
    """Where ours stands: peers that are faster, by more than the spread or within it, and cases short of the limit."""

    cases: int
    measured: int
    behind: list[tuple[Measured, Row]]
    behind_within_spread: list[tuple[Measured, Row]]
    short_of_limit: list[tuple[Measured, Row]]  # large ones: what small steps cost is not memory's


def standing(cases: Sequence[Measured]) -> Standing:
    """Of the cases with peers; the sweeps of threads have none."""
    cases = [case for case in cases if case.front_end not in SWEEPS]
    measured = [case for case in cases if case.ours is not None]
    faster = [
        (case, row)
        for case in measured
        for row in case.contenders
        if not row.name.startswith("flatstep") and row.times_ours.median < 1
    ]
    return Standing(
        len(cases),
        len(measured),
        [(case, row) for case, row in faster if row.times_ours.upper < 1],
        [(case, row) for case, row in faster if row.times_ours.upper >= 1],
        [
            (case, case.ours)
            for case in measured
            if case.ours is not None and case.elements >= LARGE and case.ours.share.median < AT_THE_LIMIT
        ],
    )


def show_standing(found: Standing, console: Console) -> None:
    """One line a loss, and how many cases these are of."""
    console.print(f"measured: {found.measured} of {found.cases} cases; of those,")
    console.print(f"flatstep is behind a peer by more than the spread {len(found.behind)} times")
    for case, row in found.behind:
        console.print(f"  {_loss(case, row)}")
    console.print(f"flatstep is behind a peer within the spread {len(found.behind_within_spread)} times")
    for case, row in found.behind_within_spread:
        console.print(f"  {_loss(case, row)}")
    console.print(f"short of {AT_THE_LIMIT} of the limit, from {LARGE:,} elements: {len(found.short_of_limit)}")
    for case, row in found.short_of_limit:
        console.print(f"  {', '.join(case.key)}: {row.share.median:.3f} {percent(row.share)}")


def _loss(case: Measured, row: Row) -> str:
    computes = f" ({row.computes})" if row.computes else ""
    ratio = f"{row.times_ours.median:.3f} {percent(row.times_ours)}"
    return f"{', '.join(case.key)}: {row.name}{computes} takes {ratio} of flatstep's time"
