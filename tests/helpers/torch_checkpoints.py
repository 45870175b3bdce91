"""Scenarios of distributed checkpoints, among flatstep's optimizers and torch's. See torch_twins.py."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
    set_state_dict,
)
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from torch_training import flat_fsdp1, sharded, tensor_parallel_net
from torch_twins import (
    STEPS,
    Build,
    Net,
    adamw,
    amsgrad,
    assert_few_ulp,
    assert_same_bits,
    backward,
    batch,
    optimistic,
    params_of,
    scenario,
    torch_adamw,
    torch_amsgrad,
    whole,
)

Carry = Callable[[nn.Module, torch.optim.Optimizer, nn.Module, torch.optim.Optimizer], None]


def by_files(module: nn.Module, optimizer: Any, into: nn.Module, into_optimizer: Any, planner: Any = None) -> None:
    """Saved by every rank, loaded into what torch finds in the other module, however that is sharded."""
    folder = [tempfile.mkdtemp() if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(folder)
    parts = get_state_dict(module, optimizer)
    dcp.save(dict(zip(("model", "optimizer"), parts, strict=True)), checkpoint_id=folder[0])
    parts = dict(zip(("model", "optimizer"), get_state_dict(into, into_optimizer), strict=True))
    dcp.load(parts, checkpoint_id=folder[0], planner=planner)
    set_state_dict(into, into_optimizer, model_state_dict=parts["model"], optim_state_dict=parts["optimizer"])


def in_memory(module: nn.Module, optimizer: Any, into: nn.Module, into_optimizer: Any, **options: bool) -> None:
    """By one object of Python; a copy of it, for torch's optimizers take the tensors that they are given."""
    chosen = StateDictOptions(**options)
    model, state = copy.deepcopy(get_state_dict(module, optimizer, options=chosen))
    set_state_dict(into, into_optimizer, model_state_dict=model, optim_state_dict=state, options=chosen)


everyone = partial(in_memory, full_state_dict=True)  # gathered whole on every rank
flattened = partial(in_memory, flatten_optimizer_state_dict=True)


def by_rank_0(module: nn.Module, optimizer: Any, into: nn.Module, into_optimizer: Any) -> None:
    """Gathered whole on rank 0, and shared out from there."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    model, state = copy.deepcopy(get_state_dict(module, optimizer, options=options))
    assert bool(state) == (dist.get_rank() == 0)
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_model_state_dict(into, model, options=options)
    set_optimizer_state_dict(into, into_optimizer, state, options=options)


def by_fsdp1(module: nn.Module, optimizer: Any, into: nn.Module, into_optimizer: Any) -> None:
    state = copy.deepcopy(FullyShardedDataParallel.optim_state_dict(module, optimizer))
    into.load_state_dict(copy.deepcopy(module.state_dict()))
    into_optimizer.load_state_dict(FullyShardedDataParallel.optim_state_dict_to_load(into, into_optimizer, state))


TO_TORCH = [(amsgrad, torch_amsgrad), (adamw, torch_adamw)]
FROM_TORCH = [(torch_amsgrad, amsgrad), (torch_adamw, adamw)]
AMONG_OURS = [(amsgrad, amsgrad), (optimistic, optimistic)]


def data_parallel() -> nn.Module:
    return DistributedDataParallel(Net())


# FSDP1 is not saved by files, nor by its own calls with use_orig_params=True: on the CPU torch 2.13 loses groups in the
# one and mixes up states in the other, those of torch.optim too.
@scenario(
    files=dict(build=sharded, carry=by_files),
    rank_0=dict(build=sharded, carry=by_rank_0),
    everyone=dict(build=sharded, carry=everyone),
    ddp=dict(build=data_parallel, carry=by_files),
    fsdp1_flat=dict(build=flat_fsdp1, carry=by_fsdp1),
    fsdp1_flat_everyone=dict(build=flat_fsdp1, carry=everyone),
    fsdp1_orig_params_everyone=dict(build=partial(flat_fsdp1, True), carry=everyone),
    tensor_parallel=dict(build=tensor_parallel_net, carry=by_files),
    tensor_parallel_rank_0=dict(build=tensor_parallel_net, carry=by_rank_0),
    to_ddp=dict(build=sharded, into=data_parallel, carry=by_files),
    from_ddp=dict(build=data_parallel, into=sharded, carry=by_files),
    from_ddp_everyone=dict(build=data_parallel, into=sharded, carry=everyone),
    flattened=dict(build=sharded, carry=flattened),
)
def checkpoint(build: Build, carry: Carry, into: Build | None = None) -> None:
    """What is carried over has the same bits, lies as torch's would, and goes on as the original does."""
    for first, then in TO_TORCH + FROM_TORCH + AMONG_OURS:
        module, other = build(), (into or build)()
        optimizer, follower = first(module.parameters()), then(other.parameters())
        for step in range(STEPS):
            backward(module, optimizer, batch(step))
            optimizer.step()
        optimizer.zero_grad()
        carry(module, optimizer, other, follower)
        same_state(optimizer, follower)
        exactly = first is then and not into
        compare = assert_same_bits if exactly else assert_few_ulp
        for step in range(STEPS, STEPS + (STEPS if exactly else 1)):
            for net, opt in ((module, optimizer), (other, follower)):
                backward(net, opt, batch(step))
                opt.step()
            for i, (param, loaded) in enumerate(zip(params_of(optimizer), params_of(follower), strict=True)):
                compare(whole(loaded), whole(param), f"param {i} from {first} to {then}")


def same_state(optimizer: torch.optim.Optimizer, loaded: torch.optim.Optimizer) -> None:
    for param, other in zip(params_of(optimizer), params_of(loaded), strict=True):
        assert_same_bits(whole(other), whole(param), "param")
        for key, value in optimizer.state[param].items():
            got = loaded.state[other][key]
            assert_same_bits(whole(got), whole(value), key)
            assert key == "step" or type(got) is type(other) or not isinstance(other, DTensor), type(got)
            if isinstance(got, DTensor):
                assert (got.placements, got.device_mesh) == (other.placements, other.device_mesh)
