"""Timing in turns, A B A B, so that a machine that slows down slows all alike. Used by runner.py and handover.py."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

import numpy as np

Run = Callable[[], None]
Clock = Callable[[Run, int], float]
"""Seconds that one of that number of runs takes. On a device it would read the device's events."""

SHORTEST = 2e-3  # seconds that one timing lasts at least: enough for the clock, short enough to take turns
LONGEST = 0.1  # seconds of a run that is made once only
PLAINLY_LONG = 1.0  # seconds that no disturbance explains
TRIES = 3  # timings to find out how often to run for one
FEWEST = 3  # rounds, however long they take
PAUSE = 1e-3  # seconds between rested runs: enough for threads that sleep between steps to fall asleep
MOST_RESTED = 5  # rested runs in one timing


@dataclass(frozen=True)
class Prepared:
    """A run before each of which something else happens, which ``prepared_clock`` does not time."""

    prepare: Run
    run: Run

    def __call__(self) -> None:
        self.prepare()
        self.run()


class Spread(NamedTuple):
    """A median between its quartiles."""

    lower: float
    median: float
    upper: float


def spread(values: Sequence[float]) -> Spread:
    return Spread(*map(float, np.quantile(values, (0.25, 0.5, 0.75))))


def host_clock(run: Run, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - start) / repeats


def rested_clock(run: Run, repeats: int) -> float:
    """The same for runs that each come after a pause, in which this thread works and the step's other threads have
    nothing to do, as between the steps of a training. Of many runs a few are timed."""
    count = min(repeats, MOST_RESTED)
    seconds = 0.0
    for _ in range(count):
        keep_busy(PAUSE)
        seconds += host_clock(run, 1)
    return seconds / count


def prepared_clock(run: Run, repeats: int) -> float:
    """The same for runs that may be Prepared."""
    if not isinstance(run, Prepared):
        return host_clock(run, repeats)
    seconds = 0.0
    for _ in range(repeats):
        run.prepare()
        seconds += host_clock(run.run, 1)
    return seconds / repeats


def keep_busy(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def _raise(name: str, error: Exception) -> None:
    raise error


def in_turns(
    runs: Mapping[str, Run],
    rounds: int,
    progress: Callable[[], None] = lambda: None,
    seconds: float = float("inf"),
    clock: Clock = host_clock,
    failed: Callable[[str, Exception], None] = _raise,
) -> dict[str, list[float]]:
    """Seconds of one run of each, by name, one entry a round; ``progress`` is called after each round.

    A turn begins with a run that is not timed, so that caches hold what they would if the others had not run; long runs
    leave nothing in them. The order is another in each round, so that none always follows the same one. After
    ``seconds``, warm-up included, no round begins, but FEWEST are made. ``failed`` is told who raised; unless it raises
    too, the others go on without that one.
    """
    end = time.perf_counter() + seconds
    order = Random(0)
    repeats: dict[str, int] = {}
    timed: dict[str, list[float]] = {name: [] for name in runs}

    def warm_up(name: str) -> None:
        repeats[name] = _repeats(runs[name], clock)

    def take_turn(name: str) -> None:
        if repeats[name]:
            runs[name]()
        timed[name].append(clock(runs[name], repeats[name] or 1))

    def each(names: Sequence[str], work: Callable[[str], None]) -> None:
        for name in names:
            try:
                work(name)
            except Exception as error:
                failed(name, error)
                del timed[name]

    each(list(runs), warm_up)
    for count in range(rounds):
        if count >= FEWEST and time.perf_counter() > end:
            break
        each(order.sample(list(timed), len(timed)), take_turn)
        progress()
    return timed


def _repeats(run: Run, clock: Clock) -> int:
    """How often to run it for one timing, 0 if it is long; the runs that find out are its warm-up."""
    first = clock(run, 1)
    if first > PLAINLY_LONG or min(first, _fastest(run, 1, clock)) > LONGEST:
        return 0
    repeats = 1
    while (lasted := _fastest(run, repeats, clock) * repeats) < SHORTEST:
        repeats = max(2 * repeats, int(repeats * SHORTEST / max(lasted, 1e-9)))
    return repeats


def _fastest(run: Run, repeats: int, clock: Clock) -> float:
    """Of a few timings, so that one that was disturbed decides nothing."""
    return min(clock(run, repeats) for _ in range(TRIES))
