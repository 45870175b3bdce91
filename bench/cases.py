"""What is timed: each rule, its limit, and peers that can be imported. Used by measure.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

import flatstep
from flatstep import _core

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Contender:
    """Something to time. A limit moves the bytes of a step with so many slots; the others are held against it."""

    name: str
    slots: int
    run: Callable[[], None]
    is_limit: bool = False

    def bytes_per_element(self, item: int = 4) -> int:
        """Parameter read and written, gradient read, each slot read and written."""
        return item * (3 + 2 * self.slots)


OPTIMIZERS: dict[str, Callable[[Array], flatstep.Optimizer]] = {
    "Adam": lambda param: flatstep.Adam(param, 1e-3),
    "AMSGrad": lambda param: flatstep.AMSGrad(param, 1e-3),
    "OptimisticAdam": lambda param: flatstep.OptimisticAdam(param, 1e-3),
    "OptimisticAdam, 2 slots": lambda param: flatstep.OptimisticAdam(param, 1e-3, nesterov=False),
    "OptimisticGradientDescent": lambda param: flatstep.OptimisticGradientDescent(param, 1e-3),
}


def contenders(size: int) -> Iterator[Contender]:
    """Everything there is to time for a float32 tensor of that many elements."""
    grad = np.random.default_rng(0).standard_normal(size, np.float32)
    # Where the streams of a step lie: parameter and gradient in arrays of their own, the state aligned like them.
    param = np.ones(size, np.float32)
    state = list(flatstep.AMSGrad(param, 0.1).state.values())
    streams = [param, np.ones(size, np.float32), *state]
    for slots in (1, 2, 3):
        for prefetch in (False, True):
            name = f"limit, {slots} slots{', prefetched' if prefetch else ''}"
            yield Contender(name, slots, _limit(streams[: 2 + slots], prefetch), is_limit=True)
    for name, make in OPTIMIZERS.items():
        opt = make(np.ones(size, np.float32))
        yield Contender(name, len(opt.state), _step(opt, grad))
    yield Contender("AMSGrad, decayed", 3, _step(_decayed(size), np.zeros(size, np.float32)))
    if find_spec("torch") is not None:
        yield Contender("AMSGrad, torch fused", 3, _torch_fused(grad))


def _limit(streams: list[Array], prefetch: bool) -> Callable[[], None]:
    return lambda: _core.move_streams(streams, prefetch)


def _step(opt: flatstep.Optimizer, grad: Array) -> Callable[[], None]:
    return lambda: opt.step(grad)


def _decayed(size: int) -> flatstep.Optimizer:
    """AMSGrad on a parameter that gets no gradient any more, its moments about to pass below the normal numbers."""
    opt = flatstep.AMSGrad(np.ones(size, np.float32), 1e-3)
    for slot in ("mu", "nu"):
        opt.state[slot][...] = np.finfo(np.float32).smallest_normal
    return opt


def _torch_fused(grad: Array) -> Callable[[], None]:
    import torch

    torch.set_num_threads(flatstep.get_num_threads())
    param = torch.nn.Parameter(torch.ones(grad.size))
    param.grad = torch.from_numpy(grad)
    opt = torch.optim.Adam([param], lr=1e-3, amsgrad=True, fused=True)
    return lambda: (opt.step(), None)[1]
