"""bitsandbytes' Adam, on the CPU, with moments of 32 and of 8 bits. It has no AMSGrad."""

from __future__ import annotations

from functools import partial

from ..contender import Contender, Peer, Task
from ..data import Data
from ..layouts import F32
from .torch_tensors import contender

NARROWED = 4096  # elements, from which on it keeps moments in 8 bits
FORMS = {"bitsandbytes Adam32bit": "", "bitsandbytes Adam8bit": "moments in 8 bits"}


def _bitsandbytes(name: str, task: Task, data: Data) -> Contender:
    import bitsandbytes.optim

    make = getattr(bitsandbytes.optim, name.split()[1])
    return contender(name, partial(make, lr=task.rate), data, computes=FORMS[name])


def _peer(name: str) -> Peer:
    return Peer(name, partial(_bitsandbytes, name), {"adam": FORMS[name]}, [F32], left_out=partial(_left_out, name))


def _left_out(name: str, task: Task) -> str:
    if task.quick:
        return "takes seconds to import"
    is_mixed = FORMS[name] and (task.arrays > 1 or task.elements < NARROWED)
    return f"keeps float32 moments for arrays below {NARROWED:,} elements" if is_mixed else ""


PEERS = [_peer(name) for name in FORMS]
