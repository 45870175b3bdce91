"""What it costs to hand tensors over: many in one step, beside one of their total size. Used by command.py.

A tensor's hand-over is what it costs a step beyond its elements: to be found in its structure, checked with its
gradient, put into the step. Measured as a slope: a step of 1,001 tensors of one element less a step of one such tensor,
over 1,000. One element's arithmetic is in it too.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

import flatstep

from .measure import in_turns

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


def measure_handover(rounds: int, progress: Callable[[], None] = lambda: None) -> HandOver:
    """Times a step of each case once a round; ``progress`` is called after each round."""
    params, grads = cases(), cases()
    steps = {case: _step(params[case], grads[case]) for case in params}
    return HandOver(in_turns(steps, rounds, progress))


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
