"""``python -m flatstep bench``: its arguments, and the run. Used by flatstep.__main__."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from .beside import show_beside_numpy
from .cases import contenders
from .measure import Result, measure
from .report import show, write_json


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
    if beside_numpy:
        for size in sizes:
            show_beside_numpy(size, rounds, console)
    if output is not None:
        write_json(results, output)
        console.print(f"wrote {output}")
    return 0


def _measure(size: int, rounds: int, console: Console) -> list[Result]:
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(f"{size:,} elements", total=rounds)
        return measure(list(contenders(size)), size, rounds, lambda: progress.advance(task))
