"""Functions that a process of the benchmarks calls, which must be able to import them. For the tests of bench."""

from __future__ import annotations

import os

from flatstep.bench import cases, results, runner


def wait_policy() -> str | None:
    return os.environ.get("OMP_WAIT_POLICY")


def fail() -> None:
    raise RuntimeError("cannot be built")


def die_of_small_cases(case: cases.Case, *given: float) -> results.Measured:
    if case.shape.elements == 1000:
        os._exit(3)
    return runner._measure_there(case, *given)
