"""``python -m flatstep bench``: its arguments, and the run. Used by flatstep.__main__."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from .beside import show_beside_numpy
from .cases import contenders
from .handover import HandOver, measure_handover
from .measure import Result, measure
from .report import show, show_handover, show_torch, write_json, write_torch_json


def run(sizes: list[int], rounds: int, output: Path | None, beside_numpy: bool = False) -> int:
    """Measures and shows every size; writes JSON where asked to."""
    if output is not None:
        output.open("a").close()  # say now, not after the run, that it cannot be written
    console = Console()
    results: list[Result] = []
    for size in sizes:
        of_size = _measure(size, rounds, console)
        show(of_size, console)
        results.extend(of_size)
    handover = _measure_handover(rounds, console)
    show_handover(handover, console)
    if beside_numpy:
        for size in sizes:
            show_beside_numpy(size, rounds, console)
    if output is not None:
        write_json(results, handover, output)
        console.print(f"wrote {output}")
    return 0


def run_torch(rounds: int, output: Path | None, only: Sequence[str] = ()) -> int:
    """Measures and shows flatstep.torch beside torch's own; ``only`` some of the cases, or all."""
    from .torch_steps import CASES, torch_contenders

    if output is not None:
        output.open("a").close()
    console = Console()
    results: dict[str, list[Result]] = {}
    for case, shapes in CASES.items():
        if only and case not in only:
            continue
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task(case, total=rounds)
            elements = sum(map(prod, shapes()))
            timed = measure(list(torch_contenders(shapes())), elements, rounds, lambda: progress.advance(task))  # noqa: B023
        results[case] = timed
        show_torch(case, timed, console)
    if output is not None:
        write_torch_json(results, output)
        console.print(f"wrote {output}")
    return 0


def _measure(size: int, rounds: int, console: Console) -> list[Result]:
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(f"{size:,} elements", total=rounds)
        return measure(list(contenders(size)), size, rounds, lambda: progress.advance(task))


def _measure_handover(rounds: int, console: Console) -> HandOver:
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("hand-over", total=rounds)
        return measure_handover(rounds, lambda: progress.advance(task))
