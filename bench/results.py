"""What a run found, as data and as JSON. Made by runner.py; read by full_report.py, plots.py and compare.py."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .measure import Spread

FORMAT = 1


@dataclass
class Row:
    """One contender of a case. Ratios are of timings of the same round."""

    name: str
    seconds: Spread  # of one step
    share: Spread  # of the limit: its time over this one's
    times_ours: Spread  # this one's time over flatstep's
    rounds: int
    is_limit: bool = False
    is_ours: bool = False
    computes: str = ""
    bytes_per_element: float | None = None
    compile_seconds: float | None = None
    host_seconds: float | None = None  # of one step, where ``seconds`` are a device's
    ulp: float | None = None  # worst error after some steps


@dataclass
class Measured:
    """One case; ``left_out`` says who does not take part, and why."""

    front_end: str
    rule: str
    layout: str
    shape: str
    arrays: int
    elements: int
    bytes_per_element: int  # that flatstep's step moves, by the cost model
    rows: list[Row] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    took: float = 0.0  # seconds in all

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.front_end, self.rule, self.layout, self.shape

    @property
    def ours(self) -> Row | None:
        return next((row for row in self.rows if row.is_ours), None)

    @property
    def limit(self) -> Row | None:
        """The faster of its forms, which the shares are of: its own is 1. Medians may tie once they are rounded."""
        limits = [row for row in self.rows if row.is_limit]
        return min(limits, key=lambda row: (row.share != (1, 1, 1), row.seconds.median), default=None)

    @property
    def contenders(self) -> Iterator[Row]:
        return (row for row in self.rows if not row.is_limit)

    def gigabytes_per_second(self, row: Row) -> float:
        """Of the bytes that flatstep moves: a peer that moves more has done so in vain."""
        return self.bytes_per_element * self.elements / row.seconds.median / 1e9


@dataclass
class Results:
    """A whole run."""

    machine: dict[str, Any]
    versions: dict[str, Any]
    settings: dict[str, Any]
    cases: list[Measured] = field(default_factory=list)
    extras: dict[str, Any] = field(default_factory=dict)  # handover.py, startup.py, beside.py
    absent: list[str] = field(default_factory=list)  # modules that could not be imported

    @property
    def threads(self) -> int | str:
        found: int | str = self.versions.get("threads", "all")
        return found

    def case(self, *key: str) -> Measured | None:
        return next((case for case in self.cases if case.key == key), None)


def write(results: Results, path: Path) -> None:
    """To four digits: the noise begins before that. Lists of numbers take one line. All is written, or nothing."""
    found = {"format": FORMAT, **asdict(results)}
    for case in found["cases"]:
        case["rows"] = [{name: value for name, value in row.items() if _says(value)} for row in case["rows"]]
    text = json.dumps(_rounded(found), indent=1)
    text = re.sub(r"\[\s+([^][{}]*?)\s+\]", lambda found: f"[{' '.join(found[1].split())}]", text)
    part = path.with_name(path.name + ".part")
    part.write_text(text + "\n")
    part.replace(path)


def read(path: Path) -> Results:
    """ValueError: it is something else."""
    try:
        found = json.loads(path.read_text())
        if found.pop("format") != FORMAT:
            raise ValueError
        found["cases"] = [_case(case) for case in found["cases"]]
        return Results(**found)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{path} does not hold results of this version of flatstep's benchmarks") from None


def _case(found: dict[str, Any]) -> Measured:
    rows = found.pop("rows")
    for row in rows:
        row.update({name: Spread(*row[name]) for name in ("seconds", "share", "times_ours")})
    return Measured(**found, rows=[Row(**row) for row in rows])


def _says(value: Any) -> bool:
    """Whether a row without it would say less."""
    return not (value is None or value is False or value == "")


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return value
