"""``python -m flatstep bench``: the run, and what becomes of its results. Used by flatstep.__main__."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from flatstep._outputs import check_writable

from .beside import measure_beside
from .beside import settings as settings_beside
from .cases import Case, cases
from .compare import show_compared
from .cost_report import show_cost_models
from .front_ends import FRONT_ENDS
from .full_report import WIDTH, show_report, write_report
from .handover import measure_handover
from .machine import machine, versions
from .results import Measured, Results, read, write
from .runner import Plan, Workers, absent_modules, run
from .shapes import one_array
from .startup import PROGRAMS, as_json, measure_startup

EXTRAS = ("handover", "startup", "beside")
SHARE = 1 / 8  # of the time, that an extra may have
STARTS, IMPORTS = 0.3, 2.0  # seconds that a program takes, and one that imports a front end, about
PICTURES = 5.0  # seconds to draw them in, about
REPORT = "report.txt"
INTERRUPTED = 130  # exit status, as a shell has it
T = TypeVar("T")


def bench(
    quick: bool,
    only: Sequence[str],
    sizes: Sequence[int],
    rounds: int | None,
    minutes: float | None,
    output: Path | None,
) -> int:
    """Measures, shows, and writes JSON and pictures into the folder ``output``. What was measured survives a failure.

    ValueError: see ``choose``. CannotWrite: ``output``.
    """
    start = time.perf_counter()
    chosen, extras = choose(quick, only, sizes)
    if output is not None:
        with _writing(output):  # say now, not after the run, that it cannot be written
            output.mkdir(parents=True, exist_ok=True)
            check_writable(output / "results.json")
    rounds = rounds or (5 if quick else 15)
    seconds = 60 * (minutes or (0.5 if quick else 8))
    settings = dict(quick=quick, only=list(only), sizes=list(sizes), rounds=rounds, minutes=seconds / 60)
    settings["date"] = time.strftime("%Y-%m-%d")
    settings["OMP_WAIT_POLICY"] = os.environ.get("OMP_WAIT_POLICY", "")
    results = Results(machine(), versions(), settings)
    kept = PICTURES * (output is not None)
    plan = Plan(rounds, start + seconds - min(kept, seconds / 4), quick)
    session = _Session(results, plan, output, _console())
    status = 0
    try:
        session.measure(chosen, extras)
    except KeyboardInterrupt:
        session.console.print("interrupted; what was measured until then:")
        settings["interrupted"] = True
        status = INTERRUPTED
    except Exception:
        session.conclude()
        raise
    session.conclude()
    return status


def choose(quick: bool, only: Sequence[str], sizes: Sequence[int]) -> tuple[list[Case], list[str]]:
    """The cases of front ends that are here, and the extras; where sizes are given, the cases of arrays of those.

    ValueError: ``only`` names nothing that there is.
    """
    words = [word for word in only if word not in EXTRAS]
    if away := [word for word in words if word in FRONT_ENDS and not FRONT_ENDS[word].is_here]:
        missing = ", ".join(FRONT_ENDS[away[0]].missing)
        raise ValueError(f"{away[0]} cannot run here, without {missing}")
    extras = [word for word in EXTRAS if word in only or not (only or sizes)]
    if only and not words:
        return [], extras
    swept = {one_array(size).name for size in sizes}
    found = [case for case in cases(quick, sizes, words) if not swept or case.shape.name in swept]
    if not found:
        asked = [*words, *(f"--size {size}" for size in sizes)]
        raise ValueError(f"no case has all of {', '.join(asked)}")
    here = [case for case in found if FRONT_ENDS[case.front_end].is_here]
    if not here:
        raise ValueError(f"no case of {', '.join(words)} is of a front end that can run here")
    return here, extras


class CannotWrite(Exception):
    """Says what, and why."""


def compare(before: Path, after: Path) -> int:
    """Shows what moved from one file of results, or folder with one, to the other."""
    show_compared(read(_json(before)), read(_json(after)), _console())
    return 0


def model() -> int:
    """Shows the cost models alone."""
    show_cost_models(_console())
    return 0


def show(path: Path) -> int:
    """Shows a run's tables again."""
    show_report(read(_json(path)), _console())
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


@dataclass
class _Session:
    """A run under way. Its results are written after each part, so that they survive a failure of the next."""

    results: Results
    plan: Plan
    output: Path | None
    console: Console

    def measure(self, chosen: Sequence[Case], extras: Sequence[str]) -> None:
        share = self.plan.left * (SHARE if chosen else 1 / max(1, len(extras)))
        if "handover" in extras:
            self._handover(share)
        if "startup" in extras:
            self._startup(share)
        if "beside" in extras:
            self._beside(share)
        if chosen:
            self._cases(chosen)

    def conclude(self) -> None:
        """Shows, writes, draws."""
        show_report(self.results, self.console)
        self._save()
        if self.output is not None and (self.results.cases or self.results.extras):
            from .plots import write_plots

            with _writing(self.output):
                write_report(self.results, self.output / REPORT)
                pictures = write_plots(self.results, self.output)
            for path in [self.output / "results.json", self.output / REPORT, *pictures]:
                self.console.print(f"wrote {path}")

    def _save(self) -> None:
        if self.output is not None and (self.results.cases or self.results.extras):
            with _writing(self.output):
                write(self.results, self.output / "results.json")

    def _handover(self, seconds: float) -> None:
        rounds = self.plan.rounds
        found = self._with_progress("hand-over", rounds, lambda step: measure_handover(rounds, step, seconds))
        self.results.extras["handover"] = found.as_json()
        self._save()

    def _startup(self, seconds: float) -> None:
        """As many rounds as there is time for, beside the one that warms up; without front ends if that is none."""
        most = 1 if self.plan.quick else 3
        alone = [program for program in PROGRAMS if not program.needs]
        for programs in [alone] if self.plan.quick else [list(PROGRAMS), alone]:
            a_round = sum(IMPORTS if program.needs else STARTS for program in programs)
            if (times := min(most, int(seconds / a_round) - 1)) >= 1:
                break
        if times < 1:
            self.console.print("start-up is left out: no time was left")
            return
        rows = self._with_progress("start", times + 1, lambda step: measure_startup(times, step, programs))
        self.results.extras["startup"] = as_json(rows)
        self._save()

    def _beside(self, seconds: float) -> None:
        chosen = settings_beside(self.plan.quick)
        if seconds < chosen[0].seconds:
            self.console.print("beside other libraries is left out: no time was left")
            return
        found = self._with_progress("beside", len(chosen), lambda step: measure_beside(chosen, step, seconds))
        self.results.extras["beside"] = [row.as_json() for row in found]
        self._save()

    def _cases(self, chosen: Sequence[Case]) -> None:
        """The largest come last, so that a slow machine has no time for those; kept in the table's order."""
        order = sorted(range(len(chosen)), key=lambda index: len(str(chosen[index].shape.elements)))
        done: dict[int, Measured] = {}
        with Workers() as workers, _progress(self.console) as progress:
            self.results.absent = _absent(chosen, workers)
            every = progress.add_task("", total=len(chosen), what="cases")

            def begin(case: Case) -> None:
                progress.update(every, completed=len(done), what=case.name)
                progress.refresh()

            in_order = [chosen[index] for index in order]
            for index, measured in zip(order, run(in_order, self.plan, workers, begin), strict=True):
                done[index] = measured
                self.results.cases = [done[index] for index in sorted(done)]
                self._save()

    def _with_progress(self, title: str, rounds: int, work: Callable[[Callable[[], None]], T]) -> T:
        """What the work returns; it calls what it is given after each round."""
        with _progress(self.console) as progress:
            return work(_stepper(progress, progress.add_task("", total=rounds, what=title)))


def _progress(console: Console) -> Progress:
    """Drawn when it is told to: a thread that draws would disturb what is being timed."""
    return Progress(
        BarColumn(),
        TextColumn("{task.completed}/{task.total} {task.fields[what]}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        auto_refresh=False,
    )


def _stepper(progress: Progress, task: TaskID) -> Callable[[], None]:
    """Counts one round, and draws."""

    def step() -> None:
        progress.advance(task)
        progress.refresh()

    return step


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CannotWrite(f"cannot write {path}: {error.strerror or error}") from None


def _absent(chosen: Sequence[Case], workers: Workers) -> list[str]:
    """Modules without which there are fewer front ends or peers."""
    here = dict.fromkeys(case.front_end for case in chosen)
    absent = [need for name in here for need in workers.of(name).call(absent_modules, name)]
    absent += [need for front_end in FRONT_ENDS.values() for need in front_end.missing]
    return list(dict.fromkeys(absent))
