"""flatstep on NumPy arrays: the tail of a training step in one call."""

from __future__ import annotations

from ..contender import Contender, Peer, Task
from ..data import Data
from ..layouts import F32
from ..measure import Prepared
from ..tail import EMA_DECAY, GRAD_SCALE, MAX_NORM
from .numpy_arrays import grads, params
from .numpy_ours import optimizer


def _ours(task: Task, data: Data) -> Contender:
    mine, drawn = params(data), grads(data)
    given = [grad.copy() for grad in drawn]
    opt = optimizer(task, mine, max_norm=MAX_NORM, ema_decay=EMA_DECAY, zero_grads=True)

    def fill() -> None:
        for own, other in zip(given, drawn, strict=True):
            own[...] = other

    run = Prepared(fill, lambda: opt.step(given, grad_scale=GRAD_SCALE))
    return Contender("flatstep", run, lambda: mine, fill)


PEERS = [Peer("flatstep", _ours, {"amsgrad": ""}, [F32], is_ours=True)]
