"""Two runs side by side: what moved by more than the spread. ``python -m flatstep bench compare``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from .results import Results, Row
from .units import duration

FEWEST = 5  # rounds: quartiles of fewer say little


class Move(NamedTuple):
    """A row of both runs. Its time has moved if the two runs' middle halves do not touch, and so for its share."""

    key: tuple[str, ...]
    before: Row
    after: Row

    @property
    def has_enough_rounds(self) -> bool:
        return min(self.before.rounds, self.after.rounds) >= FEWEST

    @property
    def time_moved(self) -> bool:
        return self.has_enough_rounds and _apart(self.before.seconds, self.after.seconds)

    @property
    def share_moved(self) -> bool:
        return self.has_enough_rounds and not self.before.is_limit and _apart(self.before.share, self.after.share)


def _apart(a: tuple[float, float, float], b: tuple[float, float, float]) -> bool:
    return a[2] < b[0] or b[2] < a[0]


def moves(before: Results, after: Results) -> Iterator[Move]:
    """Every row that both runs have."""
    rows, others = _rows(before), _rows(after)
    yield from (Move(key, row, others[key]) for key, row in rows.items() if key in others)


def only_in(one: Results, other: Results) -> list[str]:
    """Cases that the other has no timing of, and rows that it lacks of those that it has."""
    others = _rows(other)
    cases = {key[:-1] for key in others}
    lacking = dict.fromkeys((key if key[:-1] in cases else key[:-1]) for key in _rows(one) if key not in others)
    return [", ".join(key) for key in lacking]


def _rows(results: Results) -> dict[tuple[str, ...], Row]:
    return {(*case.key, row.name): row for case in results.cases for row in case.rows}


def show_compared(before: Results, after: Results, console: Console) -> None:
    """What moved, and what differs in what the two were measured on and how."""
    for name, a, b in [*_differences(before.machine, after.machine), *_differences(before.versions, after.versions)]:
        console.print(f"{name}: {a} -> {b}")
    for name, a, b in _differences(_settings(before), _settings(after)):
        console.print(f"measured otherwise, {name}: {a} -> {b}")
    found = list(moves(before, after))
    _show_moves(found, console)
    if few := sum(not move.has_enough_rounds for move in found):
        console.print(f"too few rounds, less than {FEWEST}, to tell: {few} of {len(found)} timings")
    for which, names in (("first", only_in(before, after)), ("second", only_in(after, before))):
        if names:
            console.print(f"only in the {which}: {'; '.join(names)}")


def _show_moves(found: Sequence[Move], console: Console) -> None:
    moved = [move for move in found if move.time_moved or move.share_moved]
    title = f"Moved by more than the spread: {len(moved)} of {len(found)} timings"
    table = Table(title=title, title_justify="left", box=SIMPLE)
    table.add_column("case")
    for column in ("before", "after", "time", "of limit before", "after"):
        table.add_column(column, justify="right")
    for move in moved:
        a, b = move.before, move.after
        shares = [f"{row.share.median:.3f}" for row in (a, b)] if move.share_moved else ["", ""]
        times = duration(a.seconds.median), duration(b.seconds.median), f"x{b.seconds.median / a.seconds.median:.2f}"
        table.add_row(", ".join(move.key), *times, *shares)
    console.print(table if moved else title)


def _settings(results: Results) -> dict[str, object]:
    """But the date; whether the run was quick in words."""
    settings = {name: value for name, value in results.settings.items() if name not in ("date", "quick")}
    return {"run": "quick" if results.settings.get("quick") else "full", **settings}


def _differences(a: dict[str, object], b: dict[str, object]) -> Iterator[tuple[str, object, object]]:
    for name in dict.fromkeys([*a, *b]):
        if a.get(name) != b.get(name):
            yield name, a.get(name, "unknown"), b.get(name, "unknown")
