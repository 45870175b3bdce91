"""Times cases within a budget of time and memory. Used by command.py."""

from __future__ import annotations

import gc
import logging
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from .accuracy import worst_ulp
from .cases import Case
from .contender import Contender, Peer, Task, reason
from .data import Data
from .front_ends import FRONT_ENDS, FrontEnd
from .layouts import bytes_of
from .machine import give_back_memory, share_the_heap
from .measure import in_turns, spread
from .results import Measured, Row
from .work import Work
from .workers import Died, Worker

COST_OF_A_CASE = 10**7  # elements, whose steps take about as long as all else about a case
LEAST = 0.05  # seconds that a case takes besides those of its elements
Ulps = dict[tuple[str, ...], float | None]  # by front end, rule, layout and peer
SPARE = 4  # arrays of the parameters' size, that a peer's intermediate results may need


@dataclass
class Plan:
    """How much may be spent. ``rounds`` are made of each case where the time allows."""

    rounds: int
    end: float  # by time.perf_counter(); what cannot be done by then is left out
    quick: bool
    ulps: Ulps = field(default_factory=dict)  # each is found once

    @property
    def left(self) -> float:
        """Seconds."""
        return self.end - time.perf_counter()


def run(
    cases: Sequence[Case], plan: Plan, workers: Workers, begin: Callable[[Case], None] = lambda case: None
) -> Iterator[Measured]:
    """Measures one case after the other, each in its front end's process; ``begin`` is called before each.

    What is left of the time is shared among the cases that are left, by their size.
    """
    sizes = [COST_OF_A_CASE + case.shape.elements for case in cases]
    for index, case in enumerate(cases):
        begin(case)
        start = time.perf_counter()
        seconds = plan.left * sizes[index] / sum(sizes[index:])
        try:
            measured = workers.of(case.front_end).call(
                _measure_there, case, plan.rounds, plan.left, plan.quick, seconds
            )
        except Died as error:
            workers.forget(case.front_end)
            measured = replace(_unmeasured(case), left_out={"all": str(error)})
        measured.took = time.perf_counter() - start
        yield measured


class Workers:
    """A process for each front end, started when it is first asked. A context manager: they end with it.

    A front end's threads do not spin beside another's steps, and OpenMP is loaded as the front end wants it.
    """

    def __init__(self) -> None:
        self._started: dict[str, Worker] = {}

    def of(self, front_end: str) -> Worker:
        if front_end not in self._started:
            self._started[front_end] = Worker(FRONT_ENDS[front_end].environment)
        return self._started[front_end]

    def forget(self, front_end: str) -> None:
        self._started.pop(front_end).close()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *error: object) -> None:
        for name in list(self._started):
            self.forget(name)


_ulps: Ulps = {}  # of this process, where it is a front end's


def _measure_there(case: Case, rounds: int, left: float, quick: bool, seconds: float) -> Measured:
    share_the_heap()
    measured = measure(case, Plan(rounds, time.perf_counter() + left, quick, _ulps), seconds)
    gc.collect()  # an optimizer of torch's is held by itself
    give_back_memory()
    return measured


def absent_modules(front_end: str) -> list[str]:
    """Modules without which the front end has fewer peers."""
    return FRONT_ENDS[front_end].peers()[1]


def _unmeasured(case: Case) -> Measured:
    work, shapes = FRONT_ENDS[case.front_end].work, case.shape.make()
    moved = work.cost(case.rule, case.layout).bytes
    return Measured(*case[:2], case.layout.name, case.shape.name, len(shapes), case.shape.elements, moved)


def measure(case: Case, plan: Plan, seconds: float) -> Measured:
    """One case, in this process."""
    result = _unmeasured(case)
    task = Task(case.rule, case.layout, result.arrays, result.elements, plan.quick)
    front_end = FRONT_ENDS[case.front_end]
    front_end.set_threads()
    asked = [peer for peer in front_end.peers()[0] if peer.takes(task)]
    result.left_out = {peer.name: why for peer in asked if (why := peer.left_out(task))}
    peers = [peer for peer in asked if peer.name not in result.left_out]
    why = _why_not(task, front_end, len(peers), plan.left)
    if not why:
        start = time.perf_counter()
        try:
            with _quiet():
                entries = _Entries(task, front_end, plan, result.left_out)
                entries.make(peers, Data(case.shape.make(), case.layout))
            result.rows = entries.time(seconds - (time.perf_counter() - start))
        except MemoryError:
            why = "there was not enough memory"
    if why:
        result.left_out |= {peer.name: why for peer in peers}
    return result


def _why_not(task: Task, front_end: FrontEnd, peers: int, seconds: float) -> str:
    """Why a case cannot be measured at all, or ""."""
    if seconds < LEAST + front_end.seconds_per_element * task.elements * (1 + peers):
        return "no time was left"
    needed = _bytes_needed(task, peers, front_end.work)
    return f"needs {needed / 1e9:.0f} GB of memory" if needed > front_end.free_memory() else ""


def _bytes_needed(task: Task, peers: int, work: Work) -> int:
    """Parameters and state of each peer and of the limit; gradients once, as they are drawn and as they are stored."""
    param = bytes_of(task.layout.param)
    state = sum(map(bytes_of, work.cost(task.rule, task.layout).slots.values()))
    drawn = bytes_of("float32")
    return task.elements * ((param + state) * (peers + 1) + 2 * param + drawn + SPARE * max(param, drawn))


@dataclass
class _Entries:
    """Who takes part in a case: ours and the limits, which raise, and peers, which are left out where they fail."""

    task: Task
    front_end: FrontEnd
    plan: Plan
    left_out: dict[str, str]
    contenders: list[Contender] = field(default_factory=list)
    peers: dict[str, Peer] = field(default_factory=dict)  # by the names of their contenders
    ulps: dict[str, float | None] = field(default_factory=dict)

    def make(self, peers: Sequence[Peer], data: Data) -> None:
        """Ours and the limits first; peers while there is time."""
        self._enter(peers[0], data)
        self.contenders = [*self.front_end.limits(self.task), *self.contenders]
        for peer in peers[1:]:
            if self.plan.left <= 0 and not peer.is_ours:
                self.left_out[peer.name] = "no time was left"
                continue
            try:
                self._enter(peer, data)
            except Exception as error:
                if peer.is_ours:
                    raise
                self.left_out[peer.name] = reason(error)

    def time(self, seconds: float) -> list[Row]:
        runs = {contender.name: contender.run for contender in self.contenders}
        clock = self.front_end.clock
        timed = in_turns(runs, self.plan.rounds, seconds=seconds, clock=clock, failed=self._failed)
        ours = next(name for name, peer in self.peers.items() if peer.is_ours)
        rows = _rows([contender for contender in self.contenders if contender.name in timed], timed, ours, self.ulps)
        if self.front_end.host_seconds:
            for row in rows:
                row.host_seconds = self.front_end.host_seconds(runs[row.name])
        return rows

    def _enter(self, peer: Peer, data: Data) -> None:
        contender = peer.make(self.task, data)
        contender.run()  # some set themselves up now
        self.ulps[contender.name] = _ulp(peer, self.task, self.front_end, self.plan)
        self.contenders.append(contender)
        self.peers[contender.name] = peer

    def _failed(self, name: str, error: Exception) -> None:
        peer = self.peers.get(name)
        if peer is None or peer.is_ours:
            raise error
        self.left_out[peer.name] = reason(error)


def _ulp(peer: Peer, task: Task, front_end: FrontEnd, plan: Plan) -> float | None:
    key = front_end.name, task.rule, task.layout.name, peer.name
    if key not in plan.ulps:
        plan.ulps[key] = worst_ulp(peer, task.rule, task.layout, front_end.convention, front_end.work)
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
