"""A case's numbers as torch's parameters, in memory of torch's own. Used by the peers of the torch front end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from ..contender import Contender
from ..data import Data

Array = np.ndarray[Any, Any]
_device = "cpu"


@contextmanager
def on_device(name: str) -> Iterator[None]:
    """What is made meanwhile lies there."""
    global _device
    before, _device = _device, name
    try:
        yield
    finally:
        _device = before


def parameters(data: Data) -> list[torch.nn.Parameter]:
    """New ones, with gradients that all of a case share."""
    made = []
    for param, grad in zip(data.params(), gradients(data), strict=True):
        made.append(torch.nn.Parameter(_tensor(param, data)))
        made[-1].grad = grad
    return made


def contender(
    name: str, make: Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer], data: Data, **what: Any
) -> Contender:
    """The step of an optimizer that ``make`` makes over new parameters."""
    params, grads = parameters(data), gradients(data)
    opt = make(params)
    return Contender(name, lambda: (opt.step(), None)[1], lambda: values(params), lambda: refresh(grads, data), **what)


def gradients(data: Data) -> list[torch.Tensor]:
    return data.shared(f"torch on {_device}", lambda: [_tensor(grad, data) for grad in data.grads])


def _tensor(numbers: Array, data: Data) -> torch.Tensor:
    own = torch.empty(numbers.shape, dtype=getattr(torch, data.layout.param), device=_device)
    return own.copy_(torch.from_numpy(numbers))


def refresh(grads: list[torch.Tensor], data: Data) -> None:
    for own, drawn in zip(grads, data.grads, strict=True):
        own.copy_(torch.from_numpy(drawn))


def values(params: list[torch.nn.Parameter]) -> list[Array]:
    return [param.detach().cpu().double().numpy() for param in params]
