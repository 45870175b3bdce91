"""flatstep on NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

import flatstep

from ..contender import Contender, Peer, Task
from ..data import Data
from ..layouts import F16, F32, F32_MU_BF16, F64
from ..rules import RULES
from .numpy_arrays import grads, params, refresh

FADING = "no gradient, moments fade"


def _ours(task: Task, data: Data) -> Contender:
    mine, given = params(data), grads(data)
    opt = optimizer(task, mine)
    return Contender("flatstep", lambda: opt.step(given), lambda: mine, lambda: refresh(data))


def _decayed(task: Task, data: Data) -> Contender:
    """On parameters that get no gradient any more, their moments about to pass below the normal numbers."""
    mine = params(data)
    none = [np.zeros_like(param) for param in mine]
    opt = optimizer(task, mine)
    for slot in ("mu", "nu"):
        for moment in opt.state[slot]:
            moment[...] = np.finfo(moment.dtype).smallest_normal
    return Contender("flatstep, decayed", lambda: opt.step(none), computes=FADING)


def _once(task: Task) -> bool:
    return task.arrays == 1 and task.elements < 10**8


def optimizer(task: Task, mine: Any, **around: Any) -> flatstep.Optimizer:
    """The optimizer of a task."""
    options = {} if task.layout.mu == task.layout.param else {"mu_dtype": task.layout.mu}
    chosen = RULES[task.rule]
    opt: flatstep.Optimizer = getattr(flatstep, chosen.optimizer.name)(
        mine, task.rate, **chosen.options, **options, **around
    )
    return opt


PEERS = [
    Peer("flatstep", _ours, dict.fromkeys(RULES, ""), [F64, F32, F16, F32_MU_BF16], is_ours=True),
    Peer("flatstep, decayed", _decayed, {"amsgrad": FADING}, [F32], is_meant_for=_once),
]
