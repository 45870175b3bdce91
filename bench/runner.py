"""Times cases within a budget of time and memory. Used by command.py."""

from __future__ import annotations

import gc
import logging
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from .accuracy import worst_ulp
from .cases import Case
from .contender import Contender, Peer, Task
from .data import Data
from .front_ends import FRONT_ENDS, FrontEnd
from .layouts import bytes_of, cost
from .machine import free_memory, give_back_memory
from .measure import in_turns, spread
from .results import Measured, Row

COST_OF_A_CASE = 10**7  # elements, whose steps take about as long as all else about a case


@dataclass
class Plan:
    """How much may be spent. ``rounds`` are made of each case where the time allows."""

    rounds: int
    seconds: float
    quick: bool
    ulps: dict[tuple[str, ...], float | None] = field(default_factory=dict)  # each is found once


def run(
    cases: Sequence[Case], plan: Plan, begin: Callable[[Case], None], progress: Callable[[], None]
) -> Iterator[Measured]:
    """Measures one case after the other; ``begin`` is called before each, ``progress`` after each of its rounds.

    What is left of the time is shared among the cases that are left, by their size.
    """
    end = time.perf_counter() + plan.seconds
    sizes = [COST_OF_A_CASE + case.shape.elements for case in cases]
    for index, case in enumerate(cases):
        begin(case)
        left = end - time.perf_counter()
        measured = _measure(case, plan, left * sizes[index] / sum(sizes[index:]), progress)
        measured.took = left - (end - time.perf_counter())
        yield measured
        gc.collect()  # an optimizer of torch's is held by itself
        give_back_memory()


def _measure(case: Case, plan: Plan, seconds: float, progress: Callable[[], None]) -> Measured:
    shapes, (_, _, _, moved) = case.shape.make(), cost(case.rule, case.layout)
    task = Task(case.rule, case.layout, len(shapes), case.shape.elements, plan.quick)
    result = Measured(*case[:2], case.layout.name, case.shape.name, task.arrays, task.elements, moved)
    front_end = FRONT_ENDS[case.front_end]
    front_end.set_threads()
    peers = [peer for peer in front_end.peers()[0] if peer.takes(task)]
    if why := _why_not(task, len(peers), seconds):
        result.left_out = {peer.name: why for peer in peers}
        return result
    start = time.perf_counter()
    with _quiet():
        made = _contenders(task, front_end, peers, Data(shapes, case.layout), result.left_out)
        ulps = {peer.name: _ulp(peer, task, front_end, plan) for peer, _ in made}
        limits = list(front_end.limits(task))
    contenders = [*limits, *(contender for _, contender in made)]
    runs = {contender.name: contender.run for contender in contenders}
    seconds -= time.perf_counter() - start
    timed = in_turns(runs, plan.rounds, progress, seconds, front_end.clock)
    result.rows = _rows(contenders, timed, made[0][1].name, ulps)
    return result


def _why_not(task: Task, peers: int, seconds: float) -> str:
    """Why a case cannot be measured at all, or "". Some peers need room for a step's intermediate results."""
    if seconds <= 0:
        return "no time was left"
    needed = bytes_of(task.layout.param) * task.elements * (4 * peers + 16)
    return f"needs {needed / 1e9:.0f} GB of memory" if needed > free_memory() else ""


def _contenders(
    task: Task, front_end: FrontEnd, peers: Sequence[Peer], data: Data, left_out: dict[str, str]
) -> list[tuple[Peer, Contender]]:
    """Ours come first, and raise; a peer that cannot be had is left out."""
    made: list[tuple[Peer, Contender]] = []
    for peer in peers:
        if why := peer.left_out(task):
            left_out[peer.name] = why
            continue
        try:
            contender = peer.make(task, data)
            contender.run()  # some set themselves up now
        except Exception as error:
            if peer.is_ours:
                raise
            left_out[peer.name] = f"{type(error).__name__}: {error}".splitlines()[0]
        else:
            made.append((peer, contender))
    return made


def _ulp(peer: Peer, task: Task, front_end: FrontEnd, plan: Plan) -> float | None:
    key = front_end.name, task.rule, task.layout.name, peer.name
    if key not in plan.ulps:
        plan.ulps[key] = worst_ulp(peer, task.rule, task.layout, front_end.convention)
    return plan.ulps[key]


def _rows(
    contenders: Sequence[Contender], timed: dict[str, list[float]], ours: str, ulps: dict[str, float | None]
) -> list[Row]:
    limits = [timed[contender.name] for contender in contenders if contender.is_limit]
    limit = min(limits, key=statistics.median)
    rows = []
    for contender in contenders:
        own = timed[contender.name]
        rows.append(
            Row(
                contender.name,
                seconds=spread(own),
                share=spread([most / mine for most, mine in zip(limit, own, strict=True)]),
                times_ours=spread([mine / theirs for mine, theirs in zip(own, timed[ours], strict=True)]),
                rounds=len(own),
                is_limit=contender.is_limit,
                is_ours=contender.name == ours,
                computes=contender.computes,
                bytes_per_element=contender.bytes_per_element,
                compile_seconds=contender.compile_seconds,
                ulp=ulps.get(contender.name),
            )
        )
    return rows


@contextmanager
def _quiet() -> Iterator[None]:
    """Peers say much when they are imported and when they compile."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
