"""What a step costs right after another library's work, whose threads may still spin. Used by command.py.

OpenMP's threads spin for milliseconds after their work, on the processors that the step wants. Each setting has a
process of its own, since one setting's threads would spin into the next, and OpenMP is told how to wait when it is
loaded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

import flatstep
from flatstep import _core

from . import openmp
from .machine import share_the_heap
from .measure import PAUSE, Run, Spread, keep_busy, spread
from .units import duration, percent
from .workers import PASSIVE, Died, Worker

SIZES = (10**5, 10**6)
FEWEST, MOST = 5, 500  # steps of a setting and size
STARTS, IMPORTS = 0.5, 3.0  # seconds that a process takes, and that it takes more for a library, about
NOTHING, PRODUCT, OPENMP, TORCH, SKLEARN = "nothing", "NumPy's product", "OpenMP", "torch", "scikit-learn"
SKLEARN_LATER = "scikit-learn, imported after torch"
OWN, ONE, ON_OPENMP, FOR_TORCH = "own threads", "one thread", "OpenMP's threads", "flatstep.torch"
NEEDS = {TORCH: {"torch"}, FOR_TORCH: {"torch"}, SKLEARN: {"sklearn"}, SKLEARN_LATER: {"torch", "sklearn"}}


class Setting(NamedTuple):
    """Whose work comes before each step, whose threads the step runs on, and whether OpenMP's wait asleep."""

    other: str
    step: str
    is_passive: bool = False

    @property
    def needs(self) -> set[str]:
        return NEEDS.get(self.other, set()) | NEEDS.get(self.step, set())

    @property
    def needs_openmp(self) -> bool:
        return self.other == OPENMP or self.step == ON_OPENMP

    @property
    def seconds(self) -> float:
        """That it takes besides its steps, about."""
        return STARTS + IMPORTS * len(self.needs)


REFERENCE = Setting(NOTHING, OWN)  # what the others are compared with
SETTINGS = [
    REFERENCE,
    *(Setting(OPENMP, OWN, is_passive) for is_passive in (False, True)),
    *(Setting(OPENMP, step) for step in (ON_OPENMP, ONE)),
    *(
        Setting(other, step, is_passive)
        for other in (TORCH, SKLEARN)
        for step in (OWN, FOR_TORCH)
        for is_passive in (False, True)
    ),
    *(Setting(SKLEARN_LATER, step) for step in (OWN, FOR_TORCH)),
    *(Setting(other, ONE) for other in (TORCH, SKLEARN)),
    Setting(PRODUCT, OWN),
    Setting(PRODUCT, ON_OPENMP),
    Setting(NOTHING, ONE),
]


class Beside(NamedTuple):
    """What a setting's steps took."""

    setting: Setting
    elements: int
    step: Spread  # seconds
    work: Spread  # seconds that the other library's work took between the steps

    def as_json(self) -> dict[str, Any]:
        return {**self.setting._asdict(), "elements": self.elements, "seconds": self.step, "work": self.work}


def from_json(found: Sequence[Mapping[str, Any]]) -> list[Beside]:
    return [
        Beside(
            Setting(row["other"], row["step"], row["is_passive"]),
            row["elements"],
            Spread(*row["seconds"]),
            Spread(*row["work"]),
        )
        for row in found
    ]


def settings(quick: bool) -> list[Setting]:
    """Those that can run here; the quick ones need no other library."""
    chosen = [setting for setting in SETTINGS if not quick or setting.other in (NOTHING, OPENMP)]
    chosen = [setting for setting in chosen if all(find_spec(need) for need in setting.needs)]
    with Worker({}) as worker:  # this process needs no runtime
        has_openmp = worker.call(openmp.load)
    return [setting for setting in chosen if has_openmp or not setting.needs_openmp]


def measure_beside(
    chosen: Sequence[Setting], progress: Run = lambda: None, seconds: float = float("inf")
) -> list[Beside]:
    """One setting after the other, the first in any case; a setting for which there is no time is left out."""
    found: list[Beside] = []
    end = time.perf_counter() + seconds
    for index, setting in enumerate(chosen):
        left = end - time.perf_counter()
        others = sum(setting.seconds for setting in chosen[index:])
        share = max(left - others, 0.0) / len(chosen[index:]) / len(SIZES)
        if index and left < setting.seconds:
            continue
        with Worker(PASSIVE if setting.is_passive else {}) as worker:
            try:
                found += [worker.call(time_steps, setting, elements, share) for elements in SIZES]
            except Died:
                continue
        progress()
    return found


def time_steps(setting: Setting, elements: int, seconds: float) -> Beside:
    """In this process, while there is time."""
    share_the_heap()
    work, step = WORKS[setting.other](), _steps(setting.step, elements)
    for _ in range(FEWEST):
        work()
        step()
    works: list[float] = []
    steps: list[float] = []
    end = time.perf_counter() + seconds
    while len(steps) < FEWEST or (len(steps) < MOST and time.perf_counter() < end):
        start = time.perf_counter()
        work()
        middle = time.perf_counter()
        step()
        steps.append(time.perf_counter() - middle)
        works.append(middle - start)
    return Beside(setting, elements, spread(steps), spread(works))


def _nothing() -> Run:
    """The thread that steps works alone."""
    return lambda: keep_busy(PAUSE)


def _product() -> Run:
    """NumPy's matrix product leaves threads that spin, too, but let others go first."""
    factor = np.ones((300, 300), np.float32)
    return lambda: (factor @ factor, None)[1]


def _openmp() -> Run:
    """A runtime without a library that uses it."""
    openmp.load()
    streams = [np.ones(10**6, np.float32) for _ in range(3)]
    return lambda: _core.move_streams(streams, False, True)


def _torch() -> Run:
    import torch

    a, b, out = (torch.ones(10**6) for _ in range(3))
    return lambda: (torch.add(a, b, out=out), None)[1]


def _sklearn() -> Run:
    """It brings an OpenMP runtime of its own, and uses it unless torch was imported before."""
    from sklearn.metrics import pairwise_distances_argmin

    random = np.random.default_rng(0)
    points, centres = random.random((4000, 16), np.float32), random.random((64, 16), np.float32)
    return lambda: (pairwise_distances_argmin(points, centres), None)[1]


def _sklearn_later() -> Run:
    """torch makes the symbols of its OpenMP runtime global. What is loaded after it finds those first."""
    import torch  # noqa: F401

    return _sklearn()


WORKS: dict[str, Callable[[], Run]] = {
    NOTHING: _nothing,
    PRODUCT: _product,
    OPENMP: _openmp,
    TORCH: _torch,
    SKLEARN: _sklearn,
    SKLEARN_LATER: _sklearn_later,
}


def _steps(form: str, elements: int) -> Run:
    """AMSGrad's step on the threads that are asked for."""
    if form == FOR_TORCH:
        return _torch_steps(elements)
    if form == ONE:
        flatstep.set_num_threads(1)
    param, grad = np.ones(elements, np.float32), np.ones(elements, np.float32)
    if form == ON_OPENMP:
        openmp.load()
    opt = type("AMSGrad", (flatstep.AMSGrad,), {"_on_openmp": form == ON_OPENMP})(param, 1e-3)
    return lambda: opt.step(grad)


def _torch_steps(elements: int) -> Run:
    import torch

    import flatstep.torch

    param = torch.nn.Parameter(torch.ones(elements))
    param.grad = torch.ones(elements)
    opt = flatstep.torch.AMSGrad([param])
    return lambda: (opt.step(), None)[1]


def show_beside(found: Sequence[Beside], console: Console) -> None:
    """One table a size, one row a setting."""
    for elements in dict.fromkeys(row.elements for row in found):
        title = f"AMSGrad's step of {elements:,} float32 elements, each right after other work"
        table = Table(title=title, title_justify="left", box=SIMPLE)
        for column in ("work of", "step on", "OpenMP waits"):
            table.add_column(column)
        for column in ("step", "spread", "times alone", "work", "spread"):
            table.add_column(column, justify="right")
        rows = [row for row in found if row.elements == elements]
        alone = next((row.step.median for row in rows if row.setting == REFERENCE), None)
        for row in rows:
            waits = "asleep" if row.setting.is_passive else "as usual"
            times = f"{row.step.median / alone:.2f}" if alone else ""
            spent = duration(row.step.median), percent(row.step), times, duration(row.work.median), percent(row.work)
            table.add_row(row.setting.other, row.setting.step, waits, *spent)
        console.print(table)
