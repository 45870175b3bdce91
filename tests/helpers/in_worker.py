"""Functions that a process of the benchmarks calls, which must be able to import them. For the tests of bench."""

from __future__ import annotations

import os

import numpy as np
from flatstep.bench import cases, machine, results, runner


def wait_policy() -> str | None:
    return os.environ.get("OMP_WAIT_POLICY")


def fail() -> None:
    raise RuntimeError("cannot be built")


def die_of_small_cases(case: cases.Case, *given: float) -> results.Measured:
    if case.shape.elements == 1000:
        os._exit(3)
    return runner._measure_there(case, *given)


def places_in_a_page() -> set[int]:
    machine.share_the_heap()
    return {array.ctypes.data % 4096 for array in [np.empty(10**6, np.float32) for _ in range(5)]}
