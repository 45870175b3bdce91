"""What it costs to hand tensors over: many in one step, beside one of their total size.

A tensor's hand-over is what it costs a step beyond its elements: to be found in its structure, checked with its
gradient, put into the step. Measured as a slope: a step of 1,001 tensors of one element less a step of one such tensor,
over 1,000. One element's arithmetic is in it too. Used by command.py and full_report.py.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

import flatstep

from .measure import Spread, in_turns, spread
from .results import Results
from .units import duration, percent

MANY, ONE = "1,000 of 64 to 4,096 elements", "one of their total"
TINY, LIST, NESTED = "one of one element", "1,001 of one element, list", "1,001 of one element, dicts"
SLOPE = 1000  # tensors: in MANY, and in the last two beyond that of TINY


@dataclass(frozen=True)
class HandOver:
    """Seconds of a step by case, one entry a round; and what follows from them, as medians over the rounds."""

    seconds: Mapping[str, list[float]]

    def per_tensor(self, case: str) -> float:
        """Seconds a tensor: the slope from TINY to a case with SLOPE tensors more."""
        rounds = zip(self.seconds[case], self.seconds[TINY], strict=True)
        return statistics.median((many - one) / SLOPE for many, one in rounds)

    def many_beside_one(self, without_handover: bool = False) -> float:
        """MANY in units of ONE."""
        left_out = SLOPE * self.per_tensor(LIST) if without_handover else 0.0
        rounds = zip(self.seconds[MANY], self.seconds[ONE], strict=True)
        return statistics.median((many - left_out) / one for many, one in rounds)

    def as_json(self) -> dict[str, Any]:
        return {
            "seconds": {case: spread(seconds) for case, seconds in self.seconds.items()},
            "per_tensor": {case: self.per_tensor(case) for case in (LIST, NESTED)},
            "many_beside_one": self.many_beside_one(),
            "many_beside_one_without_handover": self.many_beside_one(without_handover=True),
        }


def measure_handover(
    rounds: int, progress: Callable[[], None] = lambda: None, seconds: float = float("inf")
) -> HandOver:
    """Times a step of each case once a round, while there is time; ``progress`` is called after each round."""
    params, grads = cases(), cases()
    steps = {case: _step(params[case], grads[case]) for case in params}
    return HandOver(in_turns(steps, rounds, progress, seconds))


def show_handover(found: Mapping[str, Any], results: Results, console: Console) -> None:
    """Prints one row a case, of what as_json gives."""
    title = f"Hand-over: AMSGrad, float32 arrays, {results.threads} threads"
    table = Table(title=title, title_justify="left", box=SIMPLE)
    table.add_column("step")
    for column in ("time", "spread", "hand-over"):
        table.add_column(column, justify="right")
    per_tensor = {case: f"{seconds * 1e6:.3f} us a tensor" for case, seconds in found["per_tensor"].items()}
    for case, seconds in found["seconds"].items():
        timed = Spread(*seconds)
        table.add_row(case, duration(timed.median), percent(timed), per_tensor.get(case, ""))
    console.print(table)
    ratio, without = found["many_beside_one"], found["many_beside_one_without_handover"]
    console.print(f"{MANY} cost {ratio:.2f} times {ONE}; without their hand-over, {without:.2f} times")


def cases() -> dict[str, Any]:
    """The parameters of each case, in arrays of their own; MANY and ONE hold the same numbers."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(64, 4097, SLOPE)
    one = rng.standard_normal(lengths.sum(), np.float32)
    return {
        MANY: [part.copy() for part in np.split(one, np.cumsum(lengths)[:-1])],
        ONE: one,
        TINY: _tiny(),
        LIST: [_tiny() for _ in range(1 + SLOPE)],
        NESTED: [{"scale": _tiny()}, *({"w": _tiny(), "b": _tiny()} for _ in range(SLOPE // 2))],
    }


def _tiny() -> np.ndarray[Any, Any]:
    return np.ones(1, np.float32)


def _step(params: Any, grads: Any) -> Callable[[], None]:
    opt = flatstep.AMSGrad(params, 1e-3)
    return lambda: opt.step(grads)
