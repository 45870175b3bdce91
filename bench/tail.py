"""The tail of a training step: unscale, clip, step, average, zero. Its bytes, and the gradients that its rule gets.

Used by front_ends.py, and by report.py for the cost model.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .layouts import Cost, Layout, bytes_of, cost
from .work import Work

Array = np.ndarray[Any, Any]

GRAD_SCALE = 0.5
MAX_NORM = 1.0
EMA_DECAY = 0.999
SCALER_CHECK = 8  # bytes a float32 parameter: GradScaler reads and writes gradients to see overflows


class Tails(NamedTuple):
    """The front ends, as ``--only`` names them."""

    numpy: str = "tail-numpy"
    jax: str = "tail-jax"
    torch: str = "tail-torch"


TAILS = Tails()


class Part(NamedTuple):
    """What a part of the tail moves for one parameter: inside of flatstep's step, and as a pass of its own."""

    name: str
    inside: int
    apart: int


def parts(rule: str, layout: Layout) -> list[Part]:
    """In the order in which they happen. KeyError: there is no such kernel."""
    param, average = bytes_of(layout.param), bytes_of(_dtype_of_average(layout))
    step = cost(rule, layout).bytes
    return [
        Part("unscale", 0, 2 * param),
        Part("norm", param, param),
        Part("clip", 0, 2 * param),
        Part("step", step, step),
        Part("average", 2 * average, 2 * average + param),
        Part("zero", param, param),
    ]


def tail_cost(rule: str, layout: Layout) -> Cost:
    """As layouts.cost, for the tail: the average is one more slot."""
    of_step = cost(rule, layout)
    slots = {**of_step.slots, "average": _dtype_of_average(layout)}
    return Cost(rule, layout, slots, sum(part.inside for part in parts(rule, layout)))


def tail_cost_without_zero(rule: str, layout: Layout) -> Cost:
    """The same where gradients are not set to zero, as JAX's arrays cannot be."""
    of_tail = tail_cost(rule, layout)
    return of_tail._replace(bytes=of_tail.bytes - bytes_of(layout.param))


def stepped(grads: list[Array]) -> list[Array]:
    """The gradients as the rule gets them: unscaled, and clipped as optax does it."""
    unscaled = [grad * np.longdouble(GRAD_SCALE) for grad in grads]
    norm = np.sqrt(sum(np.sum(grad * grad) for grad in unscaled))
    return [grad * (MAX_NORM / norm) if norm > MAX_NORM else grad for grad in unscaled]


def _dtype_of_average(layout: Layout) -> str:
    """That in which the step computes."""
    return "float64" if layout.param == "float64" else "float32"


TAIL, TAIL_WITHOUT_ZERO = Work(tail_cost, stepped), Work(tail_cost_without_zero, stepped)
