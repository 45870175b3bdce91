"""Results of benchmarks that were not measured, and what is shown of them. For the tests of bench."""

from __future__ import annotations

import io
from collections.abc import Callable

from flatstep.bench import results
from flatstep.bench.measure import Spread
from rich.console import Console


def made_up(
    *rows: results.Row, shape: str = "one array of 1,000,000", elements: int = 10**6, front_end: str = "numpy"
) -> results.Measured:
    return results.Measured(front_end, "amsgrad", "float32", shape, 1, elements, 36, list(rows))


def row(name: str, seconds: float = 1.0, share: float = 1.0, rounds: int = 5, spread: float = 0.1) -> results.Row:
    """Of a time beside ours, which is 1."""
    around = [Spread(value - spread, value, value + spread) for value in (seconds, share, seconds)]
    return results.Row(name, *around, rounds, is_ours=name == "flatstep", is_limit=name == "limit")


def made_up_run(*found: results.Measured, **settings: object) -> results.Results:
    return results.Results({}, {"threads": 1}, settings, list(found))


def shown(show: Callable[..., None], *arguments: object) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    show(*arguments, console)
    return console.export_text()
