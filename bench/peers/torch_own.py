"""torch.optim.Adam: fused, foreach, and the for-loop over parameters."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from ..contender import Contender, Peer, Task
from ..data import Data
from ..layouts import BF16, F16, F32, F64
from .torch_tensors import contender

FORMS: dict[str, Any] = {
    "torch fused": dict(fused=True),
    "torch foreach": dict(foreach=True),
    "torch for-loop": dict(foreach=False, fused=False),
}


def _own(name: str, task: Task, data: Data) -> Contender:
    make = partial(torch.optim.Adam, lr=task.rate, amsgrad=task.rule == "amsgrad", **FORMS[name])
    return contender(name, make, data)


def _peer(name: str) -> Peer:
    return Peer(name, partial(_own, name), {"adam": "", "amsgrad": ""}, [F64, F32, BF16, F16])


PEERS = [_peer(name) for name in FORMS]
