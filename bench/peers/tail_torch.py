"""The tail of a training step in torch: flatstep.torch in one call, and torch's fused pieces one after another."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

import flatstep.torch as ours

from ..contender import Contender, Peer, Task
from ..data import Data
from ..layouts import F32
from ..measure import Prepared
from ..tail import EMA_DECAY, GRAD_SCALE, MAX_NORM
from .torch_tensors import gradients, parameters, refresh, values

Params = list[torch.nn.Parameter]
Make = Callable[[Params, Task], Callable[[], Any]]
"""The tail of a step of these parameters."""


def _contender(name: str, make: Make, is_scaled: bool, task: Task, data: Data) -> Contender:
    params, grads = parameters(data), gradients(data)
    tail = make(params, task)

    def fill() -> None:
        refresh(grads, data)
        if not is_scaled:
            torch._foreach_mul_(grads, GRAD_SCALE)

    return Contender(name, Prepared(fill, lambda: (tail(), None)[1]), lambda: values(params), fill)


def _in_one_call(params: Params, task: Task) -> Callable[[], Any]:
    opt = ours.AMSGrad(params, lr=task.rate, max_norm=MAX_NORM, ema_decay=EMA_DECAY, zero_grads=True, fused=True)
    opt.grad_scale, opt.found_inf = torch.tensor([1 / GRAD_SCALE]), torch.zeros(1)  # as GradScaler sets them
    return opt.step


def _in_pieces(params: Params, task: Task, unscales: bool) -> Callable[[], None]:
    opt = torch.optim.Adam(params, lr=task.rate, amsgrad=True, fused=True)
    averages = [param.detach().clone() for param in params]
    inverse, found_inf = torch.tensor([GRAD_SCALE]), torch.zeros(1)

    def tail() -> None:
        grads = [param.grad for param in params if param.grad is not None]
        if unscales:
            torch._amp_foreach_non_finite_check_and_unscale_(grads, found_inf, inverse)
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
        torch._foreach_mul_(grads, (MAX_NORM / (norm + 1e-6)).clamp(max=1.0))
        opt.step()
        torch._foreach_lerp_(averages, [param.detach() for param in params], 1 - EMA_DECAY)
        torch._foreach_zero_(grads)

    return tail


def _pieces(name: str, unscales: bool) -> Peer:
    make = partial(_contender, name, partial(_in_pieces, unscales=unscales), unscales)
    return Peer(name, make, {"amsgrad": ""}, [F32])


PEERS = [
    Peer(
        "flatstep.torch",
        partial(_contender, "flatstep.torch", _in_one_call, True),
        {"amsgrad": ""},
        [F32],
        is_ours=True,
    ),
    _pieces("torch's pieces", True),
    _pieces("torch's pieces, not unscaled", False),
]
