"""How far a contender's parameters are from exact ones after some steps, in units of their last place.

Used by runner.py.
"""

from __future__ import annotations

import numpy as np

from .contender import Peer, Task
from .data import Data
from .exact import State, step
from .layouts import Layout

STEPS = 20
ELEMENTS = 20_480  # enough for 8-bit states, which smaller tensors do not get
MANTISSA = {"float64": 52, "float32": 23, "bfloat16": 7, "float16": 10}


def worst_ulp(peer: Peer, rule: str, layout: Layout, convention: str) -> float | None:
    """The largest error of a parameter; None where there is nothing to compare. Gradients differ from step to step."""
    data = Data([(ELEMENTS,)], layout)
    contender = peer.make(Task(rule, layout, 1, ELEMENTS), data)
    if not contender.params():
        return None
    exact, state = data.params()[0].astype(np.longdouble), State()
    for t in range(1, STEPS + 1):
        data.redraw(t)
        contender.refresh()
        contender.run()
        exact = step(rule, convention, exact, data.grads[0].astype(np.longdouble), state, t)
    error = np.abs(np.asarray(contender.params()[0], np.longdouble) - exact)
    ulp = np.exp2(np.floor(np.log2(np.abs(exact))) - MANTISSA[layout.param])
    return float(np.max(error / ulp))
