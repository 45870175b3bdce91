"""CUDA's clock, memory and limit: times by the device's events, with nothing in its cache. Used by front_ends.py.

What runs before a timing is taken overwrites the cache, so that a step finds it as after a backward pass; then the
device is kept busy until the host has launched the step, so that the device is timed, not Python.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from statistics import median
from typing import Any

from .contender import Contender, Task
from .layouts import cost
from .measure import Run, host_clock

MORE_THAN_ANY_CACHE = 2**28  # bytes
HEAD_STARTS = 2**21, 2**29  # cycles that the device is kept busy for, at first and at most: about 1 ms and 0.3 s
HOST_RUNS = 9  # of which the host's time is the median
SECONDS_PER_ELEMENT = 3e-9  # of a contender, most of them to draw its numbers and to copy them there


def is_here() -> bool:
    import torch

    return torch.cuda.is_available()


@cache
def _scratch() -> Any:
    import torch

    return torch.empty(MORE_THAN_ANY_CACHE, dtype=torch.int8, device="cuda")


def free_memory() -> float:
    """Bytes of the current device that can be allocated."""
    import torch

    torch.cuda.empty_cache()
    return float(torch.cuda.mem_get_info()[0])


def clock(run: Run, repeats: int) -> float:
    """Seconds that a run takes on the device: the mean of several.

    Where the device has reached a run before the host has launched all of it, the run is timed again with a longer head
    start. No head start helps a run that waits for the device, or one of more launches than CUDA queues: it has none.
    """
    import torch

    event: Any = torch.cuda.Event
    pairs: list[tuple[Any, Any]] = []
    cycles, most = HEAD_STARTS
    while len(pairs) < repeats:
        begin, end = event(enable_timing=True), event(enable_timing=True)
        _scratch().zero_()
        torch.cuda._sleep(cycles)  # type: ignore[no-untyped-call]
        begin.record()
        run()
        end.record()
        if cycles and begin.query():
            cycles = 2 * cycles if cycles < most else 0
        else:
            pairs.append((begin, end))
    torch.cuda.synchronize()
    milliseconds = sum(float(begin.elapsed_time(end)) for begin, end in pairs)
    return milliseconds / 1e3 / repeats


def host_seconds(run: Run) -> float:
    """Seconds for which one run keeps the host, while the device has nothing else to do."""
    import torch

    def once() -> float:
        torch.cuda.synchronize()
        return host_clock(run, 1)

    return median(once() for _ in range(HOST_RUNS))


def limits(task: Task) -> Iterator[Contender]:
    """A copy from device memory to device memory that moves the bytes of the step, half of them read."""
    import torch

    count = max(1, round(cost(task.rule, task.layout).bytes * task.elements / 2))
    source, to = (torch.ones(count, dtype=torch.int8, device="cuda") for _ in range(2))
    yield Contender("copy, device to device", lambda: (to.copy_(source), None)[1], is_limit=True)
