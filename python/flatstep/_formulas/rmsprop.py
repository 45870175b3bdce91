"""RMSProp (Hinton, 2012): steps divided by the root of an average square.

Where it is centered, "mu" is in the state; where it has momentum, "trace".
"""

from __future__ import annotations

from typing import Any

from .coefficients import Coefficients, is_known
from .terms import Array, Result, State, average, average_of_squares, descent, flush, gradient, plus, square


def update(xp: Any, param: Array, grad: Array, state: State, c: Coefficients) -> Result:
    g = gradient(xp, c, param, grad)
    decay, correct = c.weights("decay"), c.correction("decay") if c.is_on("bias_correction") else c.rounded(1.0)
    made = {"nu": average_of_squares(xp, decay, state["nu"], g)}
    variance = correct * made["nu"]
    if "mu" in state:
        made["mu"] = average(xp, decay, state["mu"], g)
        variance = variance - square(xp, correct * made["mu"])
    eps, none = c.positive("eps"), c.rounded(0.0)
    inside, outside = (eps, none) if c.is_on("eps_in_sqrt") else (none, eps)
    r = g / (xp.sqrt(variance + inside) + outside)
    if "trace" not in state:
        return descent(xp, c, param, r), made
    # optax multiplies with the learning rate what enters the trace, torch what leaves it.
    of_r, rate = (-c.learning_rate, c.rounded(-1.0)) if c.is_on("lr_in_trace") else (c.rounded(1.0), c.learning_rate)
    momentum = c.number("momentum")
    made["trace"] = trace = flush(xp, momentum * state["trace"] + of_r * r)
    step = plus(xp, momentum * trace, of_r, r) if c.is_on("nesterov") else trace
    moved = plus(xp, rate * step, _decay(c), param)
    return (-moved if param is None else param - moved), made


def _decay(c: Coefficients) -> Any:
    """Decoupled weight decay, which is no part of the trace, times the learning rate."""
    decay = c.decoupled_decay
    is_off = is_known(decay) and decay == 0
    return decay if is_off else c.rounded(c.numbers["learning_rate"] * c.numbers["weight_decay"])
