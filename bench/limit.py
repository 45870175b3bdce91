"""What memory allows: a step's bytes, read and written by as many threads with no maths. Used by front_ends.py.

Two forms run, one that leaves prefetching to the hardware and one that prefetches as the kernels do; the faster counts.
They run on the threads that the front end's step runs on. Threads of another kind that spin after the limit would take
the processors from the step that comes next.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from flatstep import _core
from flatstep._arrays import aligned_zeros

from .contender import Contender, Task
from .layouts import Cost
from .work import STEP, Work

Array = np.ndarray[Any, Any]
Allocate = Callable[[int, int], list[Array]]
WORD = 4  # bytes


def limits(allocate: Allocate, on_openmp: bool, work: Work = STEP) -> Callable[[Task], Iterator[Contender]]:
    """Makes both forms of a task's limit, on streams from ``allocate(count, words)``."""

    def make(task: Task) -> Iterator[Contender]:
        streams = allocate(*_streams(task, work.cost(task.rule, task.layout)))
        for prefetch in (False, True):
            name = f"limit{', prefetched' if prefetch else ''}"
            yield Contender(name, _move(streams, prefetch, on_openmp and _core.has_openmp()), is_limit=True)

    return make


def _streams(task: Task, moved: Cost) -> tuple[int, int]:
    """As many streams as the step has, all of one length, that together are its bytes."""
    words = moved.bytes * task.elements / (3 + 2 * len(moved.slots)) / WORD
    return 2 + len(moved.slots), max(1, round(words))


def _move(streams: list[Array], prefetch: bool, on_openmp: bool) -> Callable[[], None]:
    return lambda: _core.move_streams(streams, prefetch, on_openmp)


def as_numpy(count: int, words: int) -> list[Array]:
    """From NumPy's allocator, each at the beginning of a cache line, so that no vector straddles two."""
    streams = [aligned_zeros(words * WORD).view(np.float32) for _ in range(count)]
    for stream in streams:
        stream[...] = 1
    return streams


def as_torch(count: int, words: int) -> list[Array]:
    """From torch's allocator."""
    import torch

    return [torch.ones(words).numpy() for _ in range(count)]


def as_jax(count: int, words: int) -> list[Array]:
    """On pages of the usual size, as XLA's are; NumPy would ask for larger ones."""
    streams = [np.frombuffer(mmap.mmap(-1, words * WORD), np.float32) for _ in range(count)]
    for stream in streams:
        stream[...] = 1
    return streams
