"""apex.optimizers.FusedAdam, on a CUDA device. It has no AMSGrad."""

from __future__ import annotations

from functools import partial

from apex.optimizers import FusedAdam

from ..contender import Contender, Peer, Task
from ..data import Data
from ..layouts import F32
from .torch_tensors import contender, on_device


def _apex(task: Task, data: Data) -> Contender:
    with on_device("cuda"):
        return contender("apex FusedAdam", partial(FusedAdam, lr=task.rate, adam_w_mode=False), data)


PEERS = [Peer("apex FusedAdam", _apex, {"adam": ""}, [F32])]
