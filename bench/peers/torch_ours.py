"""flatstep.torch."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

import flatstep.torch as ours

from ..contender import Contender, Peer, Task
from ..data import Data
from ..layouts import BF16, F16, F32, F32_MU_BF16, F64
from .torch_tensors import contender

RULES: dict[str, Any] = {"adam": ours.Adam, "amsgrad": ours.AMSGrad, "optimistic_adam": ours.OptimisticAdam}


def _ours(task: Task, data: Data) -> Contender:
    options = {} if task.layout.mu == task.layout.param else {"mu_dtype": getattr(torch, task.layout.mu)}
    return contender("flatstep.torch", partial(RULES[task.rule], lr=task.rate, **options), data)


PEERS = [Peer("flatstep.torch", _ours, dict.fromkeys(RULES, ""), [F64, F32, F32_MU_BF16, BF16, F16], is_ours=True)]
