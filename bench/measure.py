"""Timing in turns, A B A B, so that a machine that slows down slows all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .cases import Contender

SHORTEST = 2e-3  # seconds that one timing lasts at least: enough for the clock, short enough to take turns


@dataclass(frozen=True)
class Result:
    """One contender at one size. Seconds are those of one step, one entry a round."""

    name: str
    elements: int
    bytes_per_element: int
    is_limit: bool
    seconds: list[float]
    share: float  # of the limit, median of the rounds' ratios

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def gigabytes_per_second(self) -> float:
        return self.bytes_per_element * self.elements / self.median / 1e9


def measure(
    contenders: Sequence[Contender], size: int, rounds: int, progress: Callable[[], None] = lambda: None
) -> list[Result]:
    """Times each contender once a round; ``progress`` is called after each round."""
    seconds = in_turns({contender.name: contender.run for contender in contenders}, rounds, progress)
    results = []
    for contender in contenders:
        own = seconds[contender.name]
        limit = _limit_of(contender, contenders, seconds)
        share = statistics.median(ours / theirs for ours, theirs in zip(limit, own, strict=True))
        results.append(Result(contender.name, size, contender.bytes_per_element(), contender.is_limit, own, share))
    return results


def in_turns(
    runs: Mapping[str, Callable[[], None]], rounds: int, progress: Callable[[], None]
) -> dict[str, list[float]]:
    """Seconds of one run of each, by name, one entry a round."""
    repeats = {name: _repeats(run) for name, run in runs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            seconds[name].append(_time(run, repeats[name]))
        progress()
    return seconds


def _limit_of(contender: Contender, contenders: Sequence[Contender], seconds: dict[str, list[float]]) -> list[float]:
    """The timings of the faster of the limits that move as many bytes."""
    limits = [other for other in contenders if other.is_limit and other.slots == contender.slots]
    return min((seconds[limit.name] for limit in limits), key=statistics.median)


def _time(run: Callable[[], None], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - start) / repeats


def _repeats(run: Callable[[], None]) -> int:
    """How often to run it for one timing; the runs that find out are its warm-up."""
    repeats = 1
    while (lasted := _time(run, repeats) * repeats) < SHORTEST:
        repeats = max(2 * repeats, int(repeats * SHORTEST / max(lasted, 1e-9)))
    return repeats
