"""How far a contender's parameters are from exact ones after some steps, in units of the last place of 1 to 2.

Used by runner.py.
"""

from __future__ import annotations

import numpy as np

from .contender import Peer, Task
from .data import Data
from .exact import Formula, State, step
from .layouts import Layout
from .work import STEP, Work

STEPS = 20
# The learning rate, where the usual one would not be seen: eight units of the last place.
RATES = {"bfloat16": 2.0**-4, "float16": 2.0**-7}
ELEMENTS = 20_480  # enough for 8-bit states, which smaller tensors do not get
MANTISSA = {"float64": 52, "float32": 23, "bfloat16": 7, "float16": 10}


def worst_ulp(peer: Peer, rule: str, layout: Layout, convention: str, work: Work = STEP) -> float | None:
    """The largest error of a parameter; None where there is nothing to compare. Gradients differ from step to step."""
    data = Data([(ELEMENTS,)], layout)
    formula = Formula(rule, convention, RATES.get(layout.param, 1e-3))
    contender = peer.make(Task(rule, layout, 1, ELEMENTS, rate=formula.rate), data)
    if not contender.params():
        return None
    exact, state = data.params()[0].astype(np.longdouble), State()
    for t in range(1, STEPS + 1):
        data.redraw(t)
        contender.refresh()
        contender.run()
        (grad,) = work.gradients([data.grads[0].astype(np.longdouble)])
        exact = step(formula, exact, grad, state, t)
    error = np.abs(np.asarray(contender.params()[0], np.longdouble) - exact)
    return float(np.max(error) * 2.0 ** MANTISSA[layout.param])
