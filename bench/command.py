"""``python -m flatstep bench``: its arguments, and the run. Used by flatstep.__main__."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from math import prod
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress

from .beside import show_beside_numpy
from .cases import Contender, contenders
from .handover import measure_handover
from .measure import Result, measure
from .report import (
    JaxRow,
    show,
    show_handover,
    show_jax,
    show_torch,
    write_jax_json,
    write_json,
    write_torch_json,
)

T = TypeVar("T")


def run(sizes: list[int], rounds: int, output: Path | None, beside_numpy: bool = False) -> int:
    """Measures and shows every size; writes JSON where asked to."""
    if output is not None:
        output.open("a").close()  # say now, not after the run, that it cannot be written
    console = Console()
    results: list[Result] = []
    for size in sizes:
        of_size = _measure(f"{size:,} elements", contenders(size), size, rounds, console)
        show(of_size, console)
        results.extend(of_size)
    handover = _with_progress("hand-over", rounds, console, partial(measure_handover, rounds))
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
        elements = sum(map(prod, shapes()))
        results[case] = _measure(case, torch_contenders(shapes()), elements, rounds, console)
        show_torch(case, results[case], console)
    if output is not None:
        write_torch_json(results, output)
        console.print(f"wrote {output}")
    return 0


def run_jax(rounds: int, output: Path | None, only: Sequence[str] = ()) -> int:
    """Measures and shows flatstep.jax beside optax; ``only`` some of the cases, or all."""
    from .jax_steps import CASES, RULES, jax_contenders

    if output is not None:
        output.open("a").close()
    console = Console()
    rows: list[JaxRow] = []
    for case, shapes in CASES.items():
        if only and case not in only:
            continue
        for rule in RULES:
            with console.status(f"{rule}, {case}: compiling"):
                contenders, compiled = jax_contenders(rule, shapes())
            results = _measure(f"{rule}, {case}", contenders, sum(map(prod, shapes())), rounds, console)
            rows.extend(of_case := [JaxRow(case, rule, result, compiled.get(result.name)) for result in results])
            show_jax(of_case, console)
    if output is not None:
        write_jax_json(rows, output)
        console.print(f"wrote {output}")
    return 0


def _measure(title: str, contenders: Iterable[Contender], elements: int, rounds: int, console: Console) -> list[Result]:
    """Makes the contenders, which take much memory, and lets go of them once they are timed."""
    return _with_progress(title, rounds, console, partial(measure, list(contenders), elements, rounds))


def _with_progress(title: str, rounds: int, console: Console, work: Callable[[Callable[[], None]], T]) -> T:
    """What the work returns; it calls what it is given after each round."""
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(title, total=rounds)
        return work(lambda: progress.advance(task))
