"""Results as a table on the terminal and as JSON."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import statistics
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

import flatstep
from flatstep import _core

from .handover import LIST, MANY, NESTED, ONE, HandOver
from .measure import Result

if TYPE_CHECKING:
    from .jax_steps import Compiled

OURS = "flatstep.torch.AMSGrad"


class JaxRow(NamedTuple):
    """One timing of jax_steps.py; a limit has no program."""

    case: str
    rule: str
    result: Result
    program: Compiled | None


def show(results: Sequence[Result], console: Console) -> None:
    """Prints one row a result: bytes an element, share of the limit."""
    elements = results[0].elements
    table = Table(title=f"{elements:,} float32 elements, {flatstep.get_num_threads()} threads", title_justify="left")
    table.add_column("step")
    for column in ("time", "spread", "bytes", "GB/s", "share"):
        table.add_column(column, justify="right")
    for result in results:
        table.add_row(
            result.name,
            _time(result.median),
            _spread(result.seconds),
            str(result.bytes_per_element),
            f"{result.gigabytes_per_second:.1f}",
            f"{result.share:.3f}",
            style="dim" if result.is_limit else "",
        )
    console.print(table)


def show_handover(handover: HandOver, console: Console) -> None:
    """Prints one row a case."""
    table = Table(title=f"AMSGrad, float32 tensors, {flatstep.get_num_threads()} threads", title_justify="left")
    table.add_column("step")
    for column in ("time", "spread", "hand-over"):
        table.add_column(column, justify="right")
    for case, seconds in handover.seconds.items():
        per_tensor = f"{handover.per_tensor(case) * 1e6:.3f} us a tensor" if case in (LIST, NESTED) else ""
        table.add_row(case, _time(statistics.median(seconds)), _spread(seconds), per_tensor)
    console.print(table)
    ratio, without = handover.many_beside_one(), handover.many_beside_one(without_handover=True)
    console.print(f"{MANY} cost {ratio:.2f} times {ONE}; without their hand-over, {without:.2f} times")


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.3f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.2f} us"


def _spread(seconds: Sequence[float]) -> str:
    """The least and the most, in medians."""
    median = statistics.median(seconds)
    return f"{min(seconds) / median:.2f} .. {max(seconds) / median:.2f}"


def show_torch(case: str, results: Sequence[Result], console: Console) -> None:
    """Prints one row a contender of a case of torch_steps.py; ours is the one that the others are held against."""
    ours = next(result for result in results if result.name == OURS)
    table = _beside(f"{case}, float32, {flatstep.get_num_threads()} threads")
    for result in results:
        table.add_row(*_held_against(ours, result), style="dim" if result.is_limit else "")
    console.print(table)


def show_jax(rows: Sequence[JaxRow], console: Console) -> None:
    """Likewise for a rule and case of jax_steps.py, and what each program moves and took to compile."""
    ours = next(row.result for row in rows if row.program is not None)
    table = _beside(f"{rows[0].rule}, {rows[0].case}, float32, {flatstep.get_num_threads()} threads")
    table.add_column("bytes", justify="right")
    table.add_column("compile", justify="right")
    for row in rows:
        of_program = (
            (str(row.result.bytes_per_element), "")
            if row.program is None
            else (f"{row.program.bytes_per_element:.0f}", f"{row.program.compile_seconds:.1f} s")
        )
        table.add_row(*_held_against(ours, row.result), *of_program, style="dim" if row.result.is_limit else "")
    console.print(table)


def _beside(title: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("step")
    for column in ("time", "spread", "times ours", "share of limit"):
        table.add_column(column, justify="right")
    return table


def _held_against(ours: Result, result: Result) -> tuple[str, ...]:
    ratio = statistics.median(theirs / own for theirs, own in zip(result.seconds, ours.seconds, strict=True))
    return result.name, _time(result.median), _spread(result.seconds), f"{ratio:.2f}", f"{result.share:.3f}"


def write_json(results: Sequence[Result], handover: HandOver, path: Path) -> None:
    """Writes the results with what they were measured on."""
    of_handover = {
        "seconds": handover.seconds,
        "per_tensor": {case: handover.per_tensor(case) for case in (LIST, NESTED)},
        "many_beside_one": handover.many_beside_one(),
        "many_beside_one_without_handover": handover.many_beside_one(without_handover=True),
    }
    _write(path, results=_rows(results), handover=of_handover)


def write_torch_json(cases: Mapping[str, Sequence[Result]], path: Path) -> None:
    """Likewise for the cases of torch_steps.py."""
    _write(path, torch={case: _rows(results) for case, results in cases.items()})


def write_jax_json(rows: Sequence[JaxRow], path: Path) -> None:
    """Likewise for the cases of jax_steps.py."""
    written: list[dict[str, Any]] = []
    for row in rows:
        program = {} if row.program is None else row.program._asdict()
        written += [{"case": row.case, "rule": row.rule, **_rows([row.result])[0], **program}]
    _write(path, jax=written)


def _rows(results: Sequence[Result]) -> list[dict[str, Any]]:
    return [
        {
            "name": result.name,
            "elements": result.elements,
            "bytes_per_element": result.bytes_per_element,
            "seconds": result.seconds,
            "share_of_limit": result.share,
        }
        for result in results
    ]


def _write(path: Path, **measured: Any) -> None:
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
        **{name: importlib.metadata.version(name) for name in ("torch", "jax", "optax") if find_spec(name)},
    }
    path.write_text(json.dumps({"machine": machine, **measured}, indent=1) + "\n")
