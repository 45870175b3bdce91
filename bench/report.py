"""Results as a table on the terminal and as JSON."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import flatstep
from flatstep import _core

from .measure import Result


def show(results: Sequence[Result], console: Console) -> None:
    """Prints one row a result: bytes an element, share of the limit."""
    elements = results[0].elements
    table = Table(title=f"{elements:,} float32 elements, {flatstep.get_num_threads()} threads", title_justify="left")
    table.add_column("step")
    for column in ("time", "spread", "bytes", "GB/s", "share"):
        table.add_column(column, justify="right")
    for result in results:
        low, high = min(result.seconds) / result.median, max(result.seconds) / result.median
        table.add_row(
            result.name,
            _time(result.median),
            f"{low:.2f} .. {high:.2f}",
            str(result.bytes_per_element),
            f"{result.gigabytes_per_second:.1f}",
            f"{result.share:.3f}",
            style="dim" if result.is_limit else "",
        )
    console.print(table)


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.3f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.2f} us"


def write_json(results: Sequence[Result], path: Path) -> None:
    """Writes the results with what they were measured on."""
    machine = {
        "flatstep": flatstep.__version__,
        "target": _core.chosen_target(),
        "threads": flatstep.get_num_threads(),
        "compiler": _core.compiler,
        "flags": _core.kernel_flags,
        "machine": platform.machine(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    rows = [
        {
            "name": result.name,
            "elements": result.elements,
            "bytes_per_element": result.bytes_per_element,
            "seconds": result.seconds,
            "share_of_limit": result.share,
        }
        for result in results
    ]
    path.write_text(json.dumps({"machine": machine, "results": rows}, indent=1) + "\n")
