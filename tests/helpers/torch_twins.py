"""Distributed modules trained by a flatstep optimizer, by torch's for-loop in a twin, and by flatstep in one process.

A scenario is a function that raises where something is wrong; torch_worker.py runs those registered here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor

from flatstep.torch import AdamW, AMSGrad, OptimisticAdam
from scenarios import Scenarios, registered_in

RANKS = 2
STEPS = 4
LR = 0.05
SCENARIOS: Scenarios = {}
scenario = partial(registered_in, SCENARIOS)


def torch_amsgrad(params: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(params, LR, amsgrad=True, foreach=False)


def torch_adamw(params: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(params, LR, weight_decay=0.1, foreach=False)


amsgrad, optimistic = partial(AMSGrad, lr=LR), partial(OptimisticAdam, lr=LR)
adamw = partial(AdamW, lr=LR, weight_decay=0.1)
PAIRS = [(amsgrad, torch_amsgrad), (adamw, torch_adamw), (optimistic, None)]


class Net(nn.Module):
    """Rows that two ranks cannot share evenly: 7, and 1, of which one rank has none."""

    def __init__(self, hidden: int = 7, gain: tuple[int, ...] = (1,)) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.LayerNorm(5)
        self.first = nn.Linear(5, hidden)
        self.last = nn.Linear(hidden, 1)
        self.gain = nn.Parameter(torch.ones(gain))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.last(torch.tanh(self.first(self.norm(inputs)))) * self.gain


def batch(step: int, rows: int = 4) -> torch.Tensor:
    """Other numbers on every rank."""
    generator = torch.Generator().manual_seed(100 * step + dist.get_rank())
    return torch.randn(rows, 5, generator=generator)


def backward(module: nn.Module, optimizer: torch.optim.Optimizer, inputs: torch.Tensor, scale: Any = None) -> None:
    optimizer.zero_grad()
    loss = (module(inputs) - 1).square().mean()
    (loss if scale is None else scale(loss)).backward()


def params_of(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [param for group in optimizer.param_groups for param in group["params"]]


def local(tensor: torch.Tensor) -> torch.Tensor:
    """The part that lies on this rank; writing to it writes to the tensor."""
    tensor = tensor.detach()
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A plain copy of all of a distributed tensor; of any other, of what this rank has."""
    tensor = tensor.detach()
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).clone()


def assert_same_bits(got: torch.Tensor, expected: torch.Tensor, what: str) -> None:
    assert got.dtype == expected.dtype and torch.equal(got, expected), f"{what}: {got} instead of {expected}"


def assert_few_ulp(got: torch.Tensor, expected: torch.Tensor, what: str) -> None:
    few = 16 * torch.finfo(expected.dtype).eps * expected.abs().clamp(min=LR)
    assert got.shape == expected.shape and not bool(((got - expected).abs() > few).any()), f"{what}: {got - expected}"


class Alone:
    """The same flatstep optimizer over plain copies of the parameters, given the same gradients."""

    def __init__(self, make: Any, params: list[torch.Tensor]) -> None:
        self.params = [nn.Parameter(whole(param)) for param in params]
        self.optimizer = make(self.params)

    def step(self, grads: list[torch.Tensor | None]) -> None:
        for param, grad in zip(self.params, grads, strict=True):
            param.grad = grad
        self.optimizer.step()

    def check(self, optimizer: torch.optim.Optimizer) -> None:
        for i, (param, mine) in enumerate(zip(params_of(optimizer), self.params, strict=True)):
            assert_same_bits(whole(param), mine.detach(), f"param {i}")
            state, expected = optimizer.state[param], self.optimizer.state[mine]
            assert state.keys() == expected.keys()
            for key, value in state.items():
                assert_same_bits(whole(value), expected[key], f"{key} of {i}")


def check_placement(optimizer: torch.optim.Optimizer, peer: torch.optim.Optimizer) -> None:
    """State lies where torch's own optimizer puts it."""
    for mine, theirs in zip(params_of(optimizer), params_of(peer), strict=True):
        assert not peer.state[theirs].keys() - optimizer.state[mine].keys()
        for key, expected in peer.state[theirs].items():
            value = optimizer.state[mine][key]
            assert type(value) is type(expected), f"{key} is a {type(value)}, torch's is a {type(expected)}"
            assert (value.dtype, value.shape) == (expected.dtype, expected.shape), key
            assert local(value).shape == local(expected).shape, key
            if isinstance(value, DTensor):
                assert (value.placements, value.device_mesh) == (expected.placements, expected.device_mesh), key


def follow(leader: torch.optim.Optimizer, follower: torch.optim.Optimizer) -> None:
    """Parameters within a few ulp, and after that equal: the next gradients then are equal too."""
    for i, (param, other) in enumerate(zip(params_of(leader), params_of(follower), strict=True)):
        assert_few_ulp(local(param), local(other), f"param {i}")
        local(other).copy_(local(param))


Build = Callable[[], nn.Module]


def train(build: Build, see: Callable[[torch.optim.Optimizer], None] = lambda optimizer: None) -> None:
    """Trains what ``build`` makes by each optimizer; ``see`` looks at it, or changes gradients, before each step."""
    for make, make_peer in PAIRS:
        module, twin = build(), build()
        optimizer = make(module.parameters())
        peer = make_peer(twin.parameters()) if make_peer else None
        alone = Alone(make, params_of(optimizer))
        for step in range(STEPS):
            backward(module, optimizer, batch(step))
            see(optimizer)
            grads = [param.grad if param.grad is None else whole(param.grad) for param in params_of(optimizer)]
            optimizer.step()
            alone.step(grads)
            alone.check(optimizer)
            if peer:
                backward(twin, peer, batch(step))
                see(peer)
                peer.step()
                check_placement(optimizer, peer)
                follow(optimizer, peer)
