"""Scenarios of averages and zeroed gradients in distributed modules, and of their checkpoints. See torch_twins.py."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint import DefaultLoadPlanner
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from flatstep.torch import AMSGrad
from torch_checkpoints import Carry, by_files, by_rank_0, everyone, flattened, same_state
from torch_training import flat_fsdp1, sharded, tensor_parallel_net
from torch_twins import (
    LR,
    STEPS,
    Alone,
    Build,
    Net,
    amsgrad,
    assert_same_bits,
    backward,
    batch,
    local,
    params_of,
    scenario,
    torch_amsgrad,
    whole,
)

averaged = partial(AMSGrad, lr=LR, ema_decay=0.9, zero_grads=True)
debiased = partial(averaged, ema_start="zero", ema_debias=True)


def steps(module: nn.Module, optimizer: Any, first: int = 0, alone: Alone | None = None) -> None:
    """In numbers of the parameters' dtype."""
    dtype = params_of(optimizer)[0].dtype
    for step in range(first, first + STEPS):
        backward(module, optimizer, batch(step).to(dtype))
        if alone:
            alone.step([param.grad if param.grad is None else whole(param.grad) for param in params_of(optimizer)])
        optimizer.step()
        if alone:
            alone.check(optimizer)


@scenario(
    ddp=dict(build=lambda: DistributedDataParallel(Net())),
    fsdp2=dict(build=sharded),
    fsdp2_debiased=dict(build=sharded, make=debiased),
    fsdp2_bfloat16=dict(build=lambda: sharded(Net().bfloat16())),
    tensor_parallel=dict(build=tensor_parallel_net),
    fsdp1=dict(build=flat_fsdp1),
)
def averages(build: Build, make: Any = averaged) -> None:
    """The bits of one process, in tensors that lie as the parameters do; gradients are zero; swapped and back."""
    module = build()
    optimizer = make(module.parameters())
    alone = Alone(make, params_of(optimizer))
    steps(module, optimizer, alone=alone)
    assert not any(bool(local(param.grad).any()) for param in params_of(optimizer) if param.grad is not None)
    for param, average in zip(params_of(optimizer), optimizer.ema, strict=True):
        assert isinstance(average, DTensor) == isinstance(param, DTensor)
        assert not isinstance(average, DTensor) or average.placements == param.placements
    before = [whole(param) for param in params_of(optimizer)]
    versions = [param._version for param in params_of(optimizer)]
    for each in (optimizer, alone.optimizer):
        each.swap_ema()
    for param, other in zip(params_of(optimizer), alone.params, strict=True):
        assert_same_bits(whole(param), other.detach(), "swapped")
    assert all(param._version > was for param, was in zip(params_of(optimizer), versions, strict=True))
    for each in (optimizer, alone.optimizer):
        each.swap_ema()
    for param, was in zip(params_of(optimizer), before, strict=True):
        assert_same_bits(whole(param), was, "swapped back")
    steps(module, optimizer, STEPS, alone)


@scenario(as_usual={}, no_reshard=dict(reshard_after_forward=False))
def evaluations(**settings: Any) -> None:
    """Modules see each swap if what they have gathered is given back before it."""
    module = sharded(**settings)
    optimizer = averaged(module.parameters())
    steps(module, optimizer)
    seen = []
    for _ in range(3):
        with torch.no_grad():
            got = module(batch(0))
        for part in module.modules():
            if isinstance(part, FSDPModule):
                part.reshard()
        alone = Net()
        alone.load_state_dict({name: whole(param) for name, param in module.named_parameters()})
        torch.testing.assert_close(got, alone(batch(0)).detach())
        seen.append(got)
        optimizer.swap_ema()
    optimizer.swap_ema()
    assert torch.equal(seen[0], seen[2]) and not torch.equal(seen[0], seen[1])


@scenario(
    files=dict(carry=by_files),
    rank_0=dict(carry=by_rank_0),
    everyone=dict(carry=everyone),
    flattened=dict(carry=flattened),
)
def averages_are_saved(carry: Carry) -> None:
    """And the run goes on with the same bits."""
    module, other = sharded(), sharded()
    optimizer, follower = averaged(module.parameters()), averaged(other.parameters())
    steps(module, optimizer)
    optimizer.zero_grad()
    carry(module, optimizer, other, follower)
    same_state(optimizer, follower)
    for net, opt in ((module, optimizer), (other, follower)):
        steps(net, opt, STEPS)
    same_state(optimizer, follower)


partly = partial(by_files, planner=DefaultLoadPlanner(allow_partial_load=True))


@scenario(
    files=dict(carry=by_files, back=partly),
    rank_0=dict(carry=by_rank_0, back=by_rank_0),
    everyone=dict(carry=everyone, back=everyone),
)
def averages_of_one_side(carry: Carry, back: Carry) -> None:
    """An optimizer without averages takes a checkpoint that has them, and one with averages goes on without."""
    for plain in (amsgrad, torch_amsgrad):
        module, other = sharded(), sharded()
        optimizer, without = averaged(module.parameters()), plain(other.parameters())
        steps(module, optimizer)
        optimizer.zero_grad()
        carry(module, optimizer, other, without)
        steps(other, without, STEPS)
        without.zero_grad()
        for state in without.state.values():
            state.pop("ema", None)
        third = sharded()
        follower = averaged(third.parameters())
        back(other, without, third, follower)
        for state in follower.state.values():
            state.pop("ema", None)  # torch may keep those of the parameters before they were loaded
        for average, own in zip(follower.ema, params_of(follower), strict=True):
            assert_same_bits(whole(average), whole(own), "started again")
        for param, own in zip(params_of(without), params_of(follower), strict=True):
            assert_same_bits(whole(own), whole(param), "param")
            assert_same_bits(whole(follower.state[own]["exp_avg"]), whole(without.state[param]["exp_avg"]), "exp_avg")
        steps(third, follower, 2 * STEPS)
        assert all(bool(torch.isfinite(whole(average)).all()) for average in follower.ema)
