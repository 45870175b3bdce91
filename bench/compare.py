"""Two runs side by side: what moved by more than the spread. ``python -m flatstep bench compare``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from .report import duration
from .results import Results, Row


class Move(NamedTuple):
    """A row of both runs. Its time has moved if the two runs' middle halves do not touch; its share likewise."""

    key: tuple[str, ...]
    before: Row
    after: Row

    @property
    def time_moved(self) -> bool:
        return _apart(self.before.seconds, self.after.seconds)

    @property
    def share_moved(self) -> bool:
        return not self.before.is_limit and _apart(self.before.share, self.after.share)


def _apart(a: tuple[float, float, float], b: tuple[float, float, float]) -> bool:
    return a[2] < b[0] or b[2] < a[0]


def moves(before: Results, after: Results) -> Iterator[Move]:
    """Every row that both runs have."""
    for case in before.cases:
        other = after.case(*case.key)
        rows = {row.name: row for row in other.rows} if other else {}
        yield from (Move((*case.key, row.name), row, rows[row.name]) for row in case.rows if row.name in rows)


def show_compared(before: Results, after: Results, console: Console) -> None:
    """What moved, and what differs in what the two were measured on."""
    for name, a, b in [*_differences(before.machine, after.machine), *_differences(before.versions, after.versions)]:
        console.print(f"{name}: {a} -> {b}")
    found = list(moves(before, after))
    moved = [move for move in found if move.time_moved or move.share_moved]
    table = Table(
        title=f"Moved by more than the spread: {len(moved)} of {len(found)} timings", title_justify="left", box=SIMPLE
    )
    table.add_column("case")
    for column in ("before", "after", "time", "of limit before", "after"):
        table.add_column(column, justify="right")
    for move in moved:
        a, b = move.before, move.after
        shares = [f"{row.share.median:.3f}" for row in (a, b)] if move.share_moved else ["", ""]
        times = duration(a.seconds.median), duration(b.seconds.median), f"x{b.seconds.median / a.seconds.median:.2f}"
        table.add_row(", ".join(move.key), *times, *shares)
    console.print(table if moved else str(table.title))
    only = [", ".join(case.key) for case in before.cases if after.case(*case.key) is None]
    only_after = [", ".join(case.key) for case in after.cases if before.case(*case.key) is None]
    for which, names in (("first", only), ("second", only_after)):
        if names:
            console.print(f"only in the {which}: {'; '.join(names)}")


def _differences(a: dict[str, object], b: dict[str, object]) -> Iterator[tuple[str, object, object]]:
    for name in dict.fromkeys([*a, *b]):
        if a.get(name) != b.get(name):
            yield name, a.get(name, "unknown"), b.get(name, "unknown")
