"""``python -m flatstep bench``: the run, and what becomes of its results. Used by flatstep.__main__."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from .beside import measure_beside_numpy, show_beside_numpy
from .cases import Case, cases
from .compare import show_compared
from .front_ends import FRONT_ENDS
from .handover import measure_handover, show_handover
from .layouts import cost_model
from .machine import machine, versions
from .report import show_behind, show_cases, show_cost_model, show_fixed_cost
from .results import Measured, Results, read, write
from .runner import Plan, run
from .startup import PROGRAMS, as_json, measure_startup, show_startup

WIDTH = 150  # columns
EXTRAS = ("handover", "startup", "beside-numpy")
T = TypeVar("T")


def bench(
    quick: bool,
    only: Sequence[str],
    sizes: Sequence[int],
    rounds: int | None,
    minutes: float | None,
    output: Path | None,
) -> int:
    """Measures, shows, and writes JSON and pictures into the folder ``output``."""
    chosen, extras = choose(quick, only, sizes)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        (output / "results.json").open("a").close()  # say now, not after the run, that it cannot be written
    rounds = rounds or (5 if quick else 15)
    seconds = 60 * (minutes or (0.5 if quick else 8))
    settings = dict(quick=quick, only=list(only), rounds=rounds, minutes=seconds / 60, date=time.strftime("%Y-%m-%d"))
    results = Results(machine(), versions(), settings, absent=_absent(chosen))
    console = _console()
    show_cost_model(cost_model(), console)
    if "handover" in extras:
        handover = _with_progress("hand-over", rounds, console, lambda step: measure_handover(rounds, step))
        show_handover(handover, console)
        results.extras["handover"] = handover.as_json()
    if "startup" in extras:
        programs = [program for program in PROGRAMS if not (quick and program.needs)]
        times = 1 if quick else 3
        rows = _with_progress("start", times + 1, console, lambda step: measure_startup(times, step, programs))
        show_startup(rows, console)
        results.extras["startup"] = as_json(rows)
    _run_cases(chosen, Plan(rounds, seconds, quick), results, console)
    if "beside-numpy" in extras:
        beside = _with_progress("beside NumPy", 3, console, lambda step: measure_beside_numpy(rounds, step))
        show_beside_numpy(beside, console)
        results.extras["beside-numpy"] = beside
    _conclude(results, output, console)
    return 0


def choose(quick: bool, only: Sequence[str], sizes: Sequence[int]) -> tuple[list[Case], list[str]]:
    """The cases of front ends that are here, and the extras. ValueError: ``only`` names nothing that there is."""
    words = [word for word in only if word not in EXTRAS]
    if away := [word for word in words if word in FRONT_ENDS and not FRONT_ENDS[word].is_here]:
        missing = ", ".join(FRONT_ENDS[away[0]].missing)
        raise ValueError(f"{away[0]} cannot run here, without {missing}")
    extras = [word for word in EXTRAS if word in only or not only]
    found = cases(quick, sizes, words) if words or not only else []
    return [case for case in found if FRONT_ENDS[case.front_end].is_here], extras


def compare(before: Path, after: Path) -> int:
    """Shows what moved from one file of results, or folder with one, to the other."""
    show_compared(read(_json(before)), read(_json(after)), _console())
    return 0


def model() -> int:
    """Shows the cost model alone."""
    show_cost_model(cost_model(), _console())
    return 0


def plot(path: Path) -> int:
    """Draws a run's pictures again, beside its JSON."""
    from .plots import write_plots

    for picture in write_plots(read(_json(path)), _json(path).parent):
        _console().print(f"wrote {picture}")
    return 0


def bindings(rounds: int, output: Path | None) -> int:
    """Shows what a call costs through nanobind and through pybind11; writes JSON where asked to."""
    from . import bindings as built_on_demand

    return built_on_demand.run(rounds, output)


def _json(path: Path) -> Path:
    return path / "results.json" if path.is_dir() else path


def _console() -> Console:
    """Into a file or a pipe, tables are as wide as they need to be."""
    console = Console()
    return console if console.is_terminal else Console(width=WIDTH)


def _run_cases(chosen: Sequence[Case], plan: Plan, results: Results, console: Console) -> None:
    """The largest come last, so that it is them that a slow machine has no time for; shown as the table has them."""
    order = sorted(range(len(chosen)), key=lambda index: len(str(chosen[index].shape.elements)))
    done: dict[int, Measured] = {}
    with _progress(console) as progress:
        every = progress.add_task("", total=len(chosen), what="cases")
        one = progress.add_task("", total=plan.rounds, what="")

        def begin(case: Case) -> None:
            progress.update(every, completed=len(done))
            progress.reset(one, total=plan.rounds, what=case.name)

        cases_in_order = [chosen[index] for index in order]
        for index, measured in zip(order, run(cases_in_order, plan, begin, lambda: progress.advance(one)), strict=True):
            done[index] = measured
    results.cases = [done[index] for index in sorted(done)]
    show_cases(results.cases, console)


def _absent(chosen: Sequence[Case]) -> list[str]:
    """Modules without which there are fewer front ends or peers."""
    here = [front_end for front_end, _ in groupby(chosen, lambda case: case.front_end)]
    absent = [need for name in here for need in FRONT_ENDS[name].peers()[1]]
    absent += [need for front_end in FRONT_ENDS.values() for need in front_end.missing]
    return list(dict.fromkeys(absent))


def _conclude(results: Results, output: Path | None, console: Console) -> None:
    show_fixed_cost(results, console)
    if results.absent:
        console.print(f"not here, so without: {', '.join(results.absent)}")
    if results.cases:
        show_behind(results, console)
    if output is not None:
        from .plots import write_plots

        write(results, output / "results.json")
        for path in [output / "results.json", *write_plots(results, output)]:
            console.print(f"wrote {path}")


def _with_progress(title: str, rounds: int, console: Console, work: Callable[[Callable[[], None]], T]) -> T:
    """What the work returns; it calls what it is given after each round."""
    with _progress(console) as progress:
        task = progress.add_task("", total=rounds, what=title)
        return work(lambda: progress.advance(task))


def _progress(console: Console) -> Progress:
    return Progress(
        BarColumn(),
        TextColumn("{task.completed}/{task.total} {task.fields[what]}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
