"""CUDA's clock and limit: times by the device's events, with nothing in its cache. Used by front_ends.py.

What runs before a timing is taken overwrites the cache, so that a step finds it as after a backward pass; it also gives
the host time to launch ahead, so that short steps are timed by what the device does, not by Python.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from .contender import Contender, Task
from .layouts import cost
from .measure import Run

MORE_THAN_ANY_CACHE = 2**28  # bytes


def is_here() -> bool:
    import torch

    return torch.cuda.is_available()


@cache
def _scratch() -> Any:
    import torch

    return torch.empty(MORE_THAN_ANY_CACHE, dtype=torch.int8, device="cuda")


def clock(run: Run, repeats: int) -> float:
    """Seconds that one of so many runs takes on the device."""
    import torch

    event: Any = torch.cuda.Event
    pairs = [(event(enable_timing=True), event(enable_timing=True)) for _ in range(repeats)]
    for begin, end in pairs:
        _scratch().zero_()
        begin.record()
        run()
        end.record()
    torch.cuda.synchronize()
    milliseconds = sum(float(begin.elapsed_time(end)) for begin, end in pairs)
    return milliseconds / 1e3 / repeats


def limits(task: Task) -> Iterator[Contender]:
    """A copy from device memory to device memory that moves the bytes of the step, half of them read."""
    import torch

    count = max(1, round(cost(task.rule, task.layout).bytes * task.elements / 2))
    source, to = (torch.ones(count, dtype=torch.int8, device="cuda") for _ in range(2))
    yield Contender("copy, device to device", lambda: (to.copy_(source), None)[1], is_limit=True)
