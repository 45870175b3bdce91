"""On a CUDA device: flatstep.torch, and torch.optim.Adam in the forms that it has there."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ..contender import Contender, Peer, Task
from ..data import Data
from ..layouts import BF16, F16, F32, F32_MU_BF16, F64
from . import torch_ours, torch_own
from .torch_tensors import on_device

FORMS = ("torch fused", "torch foreach")


def _there(make: Callable[[Task, Data], Contender], task: Task, data: Data) -> Contender:
    with on_device("cuda"):
        return make(task, data)


_OURS = torch_ours.PEERS[0]
PEERS = [
    Peer(_OURS.name, partial(_there, _OURS.make), _OURS.computes, [F64, F32, F32_MU_BF16, BF16, F16], is_ours=True),
    *(
        Peer(peer.name, partial(_there, peer.make), peer.computes, peer.layouts)
        for peer in torch_own.PEERS
        if peer.name in FORMS
    ),
]
