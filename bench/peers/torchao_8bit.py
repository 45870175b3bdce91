"""torchao.optim.Adam8bit: a formula compiled by torch.compile, moments in 8 bits, parameters as they are."""

from __future__ import annotations

from functools import partial

from ..contender import Contender, Peer, Task
from ..data import Data
from ..layouts import F32
from .torch_tensors import contender

NAME, COMPUTES = "torchao Adam8bit", "moments in 8 bits"
BIG = 10**7  # elements: it compiles for every new shape, so it is timed on few


def _torchao(task: Task, data: Data) -> Contender:
    from torchao.optim import Adam8bit

    return contender(NAME, partial(Adam8bit, lr=task.rate), data, computes=COMPUTES)


def _left_out(task: Task) -> str:
    if task.quick:
        return "compiles, which takes up to a minute"
    return "compiles for each shape, some seconds each" if task.arrays > 1 or task.elements < BIG else ""


PEERS = [Peer(NAME, _torchao, {"adam": COMPUTES}, [F32], left_out=_left_out)]
