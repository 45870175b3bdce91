"""bitsandbytes' Adam, on the CPU, with moments of 32 and of 8 bits. It has no AMSGrad."""

from __future__ import annotations

from functools import partial

from ..contender import Contender, Peer, Task
from ..data import Data
from ..layouts import F32
from .torch_tensors import contender

FORMS = {"bitsandbytes Adam32bit": "", "bitsandbytes Adam8bit": "moments in 8 bits"}


def _bitsandbytes(name: str, task: Task, data: Data) -> Contender:
    import bitsandbytes.optim

    make = getattr(bitsandbytes.optim, name.split()[1])
    moved = 3 * 4 + 2 * 2 * (1 + 4 / 256) if FORMS[name] else None  # a float32 scale for 256 numbers
    return contender(name, partial(make, lr=1e-3), data, computes=FORMS[name], bytes_per_element=moved)


def _peer(name: str) -> Peer:
    return Peer(name, partial(_bitsandbytes, name), {"adam": FORMS[name]}, [F32], left_out=_left_out)


def _left_out(task: Task) -> str:
    return "takes seconds to import" if task.quick else ""


PEERS = [_peer(name) for name in FORMS]
