"""Scenarios of training: data parallel, sharded and tensor-parallel modules, ZeRO, GradScaler. See torch_twins.py."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, SequenceParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

from flatstep.torch import AMSGrad
from torch_twins import (
    LR,
    PAIRS,
    RANKS,
    STEPS,
    Alone,
    Build,
    Net,
    amsgrad,
    assert_same_bits,
    backward,
    batch,
    check_placement,
    follow,
    local,
    params_of,
    scenario,
    train,
    whole,
)


@scenario(plain={}, bucket_view=dict(gradient_as_bucket_view=True), static=dict(static_graph=True))
def ddp(**settings: Any) -> None:
    train(lambda: DistributedDataParallel(Net(gain=()), **settings))


def sharded(module: nn.Module | None = None, **settings: Any) -> nn.Module:
    module = module or Net()
    fully_shard(module.first, **settings)
    return fully_shard(module, **settings)


NARROW = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)


@scenario(plain={}, mixed=dict(mp_policy=NARROW), no_reshard=dict(reshard_after_forward=False))
def fsdp2(**settings: Any) -> None:
    def see(optimizer: torch.optim.Optimizer) -> None:
        shapes = [(len(local(param)), len(param)) for param in params_of(optimizer)]
        assert any(0 < part < rows and 2 * part != rows for part, rows in shapes), shapes
        assert dist.get_rank() == 0 or (0, 1) in shapes, shapes

    train(lambda: sharded(**settings), see)


@scenario()
def fsdp2_bfloat16_params() -> None:
    """Parameters and state in bfloat16; torch's loop rounds after each operation, so only flatstep is compared."""
    for make, _ in PAIRS:
        module = sharded(Net().bfloat16())
        optimizer = make(module.parameters())
        alone = Alone(make, params_of(optimizer))
        for step in range(STEPS):
            backward(module, optimizer, batch(step).bfloat16())
            grads = [whole(param.grad) for param in params_of(optimizer)]
            optimizer.step()
            alone.step(grads)
            alone.check(optimizer)


@scenario()
def fsdp2_sharded_on_dim_1() -> None:
    def build() -> nn.Module:
        module = nn.Sequential(Net(hidden=6), nn.Linear(1, 2))
        return fully_shard(
            module, shard_placement_fn=lambda param: Shard(int(param.shape[-1] % 2 == 0 and param.dim() > 1))
        )

    train(build)


@scenario(hybrid=dict(shape=(2, 1)), hybrid_sharded=dict(shape=(1, 2)))
def fsdp2_on_two_axes(shape: tuple[int, int]) -> None:
    """Replicated along one axis of the mesh and sharded along the other."""
    mesh = init_device_mesh("cpu", shape, mesh_dim_names=("replicate", "shard"))
    train(lambda: sharded(mesh=mesh))


@scenario()
def fsdp2_clip_grad_norm() -> None:
    def see(optimizer: torch.optim.Optimizer) -> None:
        norm = torch.nn.utils.clip_grad_norm_(params_of(optimizer), 0.01)
        assert whole(norm) > 0.01
        clipped = torch.nn.utils.get_total_norm([param.grad for param in params_of(optimizer)])
        torch.testing.assert_close(whole(clipped), torch.tensor(0.01), rtol=1e-3, atol=0)

    train(sharded, see)


@scenario()
def fsdp2_in_backward() -> None:
    """One optimizer a parameter, stepped by a hook as soon as its gradient is there."""
    module, twin = sharded(), sharded()
    optimizer = amsgrad(twin.parameters())
    own = {param: amsgrad([param]) for param in module.parameters()}

    def step_now(param: torch.Tensor) -> None:
        own[param].step()
        own[param].zero_grad()

    for param in own:
        param.register_post_accumulate_grad_hook(step_now)
    for step in range(STEPS):
        (module(batch(step)) - 1).square().mean().backward()
        backward(twin, optimizer, batch(step))
        optimizer.step()
        for param, expected in zip(own, params_of(optimizer), strict=True):
            assert param.grad is None
            assert_same_bits(local(param), local(expected), "param")


def scaled(build: Build, make_scaler: Any, unscale: bool, fused: bool | None) -> None:
    """Steps as without a scaler, and none on any rank where one rank's part of a gradient overflowed."""
    for make, make_peer in PAIRS[:2]:
        module, twin = build(), build()
        optimizer, peer = make(module.parameters(), fused=fused), make_peer(twin.parameters())
        scalers = {optimizer: make_scaler(), peer: make_scaler()}
        for step in range(STEPS):
            for net, opt in ((module, optimizer), (twin, peer)):
                scaler = scalers[opt]
                backward(net, opt, batch(step), scaler.scale)
                if step == 2 and dist.get_rank() == 0:
                    local(params_of(opt)[0].grad)[0] = float("inf")
                if unscale:
                    scaler.unscale_(opt)
                scaler.step(opt)
                scaler.update()
                assert scaler.get_scale() == (512.0 if step >= 2 else 1024.0), (type(opt), step, scaler.get_scale())
            check_placement(optimizer, peer)
            follow(optimizer, peer)
        assert {int(state["step"]) for state in optimizer.state.values()} == {STEPS - 1}


def flat_fsdp1(use_orig_params: bool = False) -> nn.Module:
    return FullyShardedDataParallel(Net(), device_id=torch.device("cpu"), use_orig_params=use_orig_params)


SCALED = {
    "by_scaler": dict(unscale=False, fused=None),
    "before": dict(unscale=True, fused=None),
    "by_step": dict(unscale=False, fused=True),
    "before_fused": dict(unscale=True, fused=True),
}


@scenario(**SCALED)
def fsdp2_grad_scaler(**settings: Any) -> None:
    scaled(sharded, lambda: torch.amp.GradScaler("cpu", 1024.0), **settings)


@scenario(**SCALED)
def fsdp1_grad_scaler(**settings: Any) -> None:
    from torch.distributed.fsdp.sharded_grad_scaler import ShardedGradScaler

    scaled(flat_fsdp1, lambda: ShardedGradScaler("cpu", 1024.0), **settings)


@scenario(flat=dict(use_orig_params=False), orig_params=dict(use_orig_params=True))
def fsdp1(**settings: Any) -> None:
    train(lambda: flat_fsdp1(**settings))


def tensor_parallel_net(mesh: Any = None) -> nn.Module:
    """Each rank has a part of the sequence in the norm, of the columns in first, and of the rows in last."""
    plan = {
        "norm": SequenceParallel(sequence_dim=0),
        "first": ColwiseParallel(input_layouts=Shard(0)),
        "last": RowwiseParallel(output_layouts=Replicate()),
    }
    return parallelize_module(Net(hidden=8), mesh or init_device_mesh("cpu", (RANKS,)), plan)


@scenario()
def tensor_parallel() -> None:
    """Sharded, replicated and plain parameters in one optimizer; gradients that are sums still to be made."""

    def see(optimizer: torch.optim.Optimizer) -> None:
        params = params_of(optimizer)
        placements = [(p.placements, p.grad.placements) for p in params if isinstance(p, DTensor)]
        assert len(placements) < len(params)
        assert any(own[0].is_shard() for own, _ in placements), placements
        assert any(own[0].is_replicate() and of_grad[0].is_partial() for own, of_grad in placements), placements

    train(tensor_parallel_net, see)


@scenario()
def tensor_parallel_within_fsdp2() -> None:
    mesh = init_device_mesh("cpu", (1, 2), mesh_dim_names=("data", "tensor"))
    train(lambda: fully_shard(tensor_parallel_net(mesh["tensor"]), mesh=mesh["data"]))


@scenario()
def misplaced() -> None:
    """Gradients are brought to where their parameter is; what cannot be is rejected, and nothing is stepped."""
    mesh = init_device_mesh("cpu", (RANKS,))

    def placed(tensor: torch.Tensor, placement: Any) -> torch.Tensor:
        return tensor if placement is None else distribute_tensor(tensor, mesh, [placement])

    def attempt(of_param: Any, of_grad: Any, of_state: Any) -> torch.Tensor:
        torch.manual_seed(0)
        value = torch.randn(4, 4)
        param = nn.Parameter(placed(value, of_param))
        optimizer = amsgrad([param])
        optimizer.state[param] = {key: placed(torch.zeros(4, 4), of_state) for key in optimizer.state_keys}
        optimizer.state[param]["step"] = torch.tensor(0.0)
        param.grad = placed(value, of_grad)
        try:
            optimizer.step()
        except (TypeError, ValueError):
            assert_same_bits(whole(param), value, "param")
            raise
        return whole(param)

    rows, columns, everywhere = Shard(0), Shard(1), Replicate()
    expected = attempt(None, None, None)
    for of_param in (rows, columns, everywhere):
        for of_grad in (rows, columns, everywhere):
            assert_same_bits(attempt(of_param, of_grad, of_param), expected, f"{of_grad} to {of_param}")
    for wrong, error, words in (
        ((rows, None, rows), TypeError, "grad of 0 of group 0 is a Tensor, but the parameter is a DTensor"),
        ((None, everywhere, None), TypeError, "grad of 0 of group 0 is a DTensor, but the parameter is a Parameter"),
        ((rows, rows, columns), ValueError, "state exp_avg of param 0 of group 0 lies as .Shard.dim=1."),
        ((everywhere, rows, None), ValueError, "state exp_avg of param 0 of group 0 lies as one plain tensor"),
        ((None, None, everywhere), ValueError, "expected one plain tensor like its parameter"),
    ):
        with pytest.raises(error, match=words):
            attempt(*wrong)


@scenario(plain={}, bucket_view=dict(parameters_as_bucket_view=True))
def zero(**settings: Any) -> None:
    """Each rank keeps the state of some parameters. What is consolidated goes on in one process, and back."""
    from torch.distributed.optim import ZeroRedundancyOptimizer  # imported late: it warns

    def make(params: Any) -> Any:
        return ZeroRedundancyOptimizer(params, optimizer_class=AMSGrad, lr=LR, **settings)

    module = DistributedDataParallel(Net(gain=()))
    optimizer = make(module.parameters())
    alone = Alone(amsgrad, params_of(optimizer))

    def go_on(steps: range) -> None:
        for step in steps:
            backward(module, optimizer, batch(step))
            grads = [whole(param.grad) for param in params_of(optimizer)]
            optimizer.step()
            alone.step(grads)
            for param, expected in zip(params_of(optimizer), alone.params, strict=True):
                assert_same_bits(param.detach(), expected.detach(), "param")

    go_on(range(STEPS))
    assert 0 < len(optimizer.optim.state) < len(alone.params)
    saved = everywhere(optimizer)
    one = amsgrad([nn.Parameter(whole(param)) for param in params_of(optimizer)])
    one.load_state_dict(saved)
    alone.optimizer, alone.params = one, params_of(one)
    optimizer = make(module.parameters())
    optimizer.load_state_dict(saved)
    go_on(range(STEPS, 2 * STEPS))


def everywhere(optimizer: Any) -> Any:
    """The whole state of a ZeroRedundancyOptimizer, on every rank."""
    optimizer.consolidate_state_dict(to=0)
    state = [optimizer.state_dict() if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(state)
    return state[0]
