"""``python -m flatstep bench``: its arguments, and the run. Used by flatstep.__main__."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from .beside import show_beside_numpy
from .cases import contenders
from .handover import HandOver, measure_handover
from .measure import Result, measure
from .report import show, show_handover, write_json


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


def _measure(size: int, rounds: int, console: Console) -> list[Result]:
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(f"{size:,} elements", total=rounds)
        return measure(list(contenders(size)), size, rounds, lambda: progress.advance(task))


def _measure_handover(rounds: int, console: Console) -> HandOver:
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("hand-over", total=rounds)
        return measure_handover(rounds, lambda: progress.advance(task))
