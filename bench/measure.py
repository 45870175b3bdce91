"""Timing in turns, A B A B, so that a machine that slows down slows all alike. Used by runner.py and handover.py."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

Run = Callable[[], None]
Clock = Callable[[Run, int], float]
"""Seconds that one of so many runs takes. On a device it would read the device's events."""

SHORTEST = 2e-3  # seconds that one timing lasts at least: enough for the clock, short enough to take turns
LONGEST = 0.1  # seconds of a run that is made once only
FEWEST = 3  # rounds, however long they take


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


def in_turns(
    runs: Mapping[str, Run],
    rounds: int,
    progress: Callable[[], None] = lambda: None,
    seconds: float = float("inf"),
    clock: Clock = host_clock,
) -> dict[str, list[float]]:
    """Seconds of one run of each, by name, one entry a round; ``progress`` is called after each round.

    A turn begins with a run that is not timed, so that caches hold what they would if nobody else had run; long runs
    leave nothing in them. After ``seconds``, warm-up included, no round begins, but FEWEST are made.
    """
    end = time.perf_counter() + seconds
    repeats = {name: _repeats(run, clock) for name, run in runs.items()}
    timed: dict[str, list[float]] = {name: [] for name in runs}
    for count in range(rounds):
        if count >= FEWEST and time.perf_counter() > end:
            break
        for name, run in runs.items():
            if repeats[name]:
                run()
            timed[name].append(clock(run, repeats[name] or 1))
        progress()
    return timed


def _repeats(run: Run, clock: Clock) -> int:
    """How often to run it for one timing, 0 if it is long; the runs that find out are its warm-up."""
    if clock(run, 1) > LONGEST:
        return 0
    repeats = 1
    while (lasted := clock(run, repeats) * repeats) < SHORTEST:
        repeats = max(2 * repeats, int(repeats * SHORTEST / max(lasted, 1e-9)))
    return repeats
