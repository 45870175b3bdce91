"""Scenarios of norms of gradients that lie on several processes, and of steps that they skip. See torch_twins.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

import flatstep
import norms
from flatstep.torch import AMSGrad, clip_grad_norm_
from torch_training import flat_fsdp1, sharded, tensor_parallel_net
from torch_twins import LR, RANKS, STEPS, Build, Net, assert_same_bits, backward, batch, local, scenario, whole

Tensors = list[torch.Tensor]


def on_two_axes(*shape: int) -> nn.Module:
    return sharded(mesh=init_device_mesh("cpu", shape, mesh_dim_names=("replicate", "shard")))


def in_bfloat16() -> nn.Module:
    return sharded(Net().bfloat16())


# How a module is divided, and by how many collectives its processes find the norm.
DIVIDED: dict[str, dict[str, Any]] = {
    "fsdp2": dict(build=sharded, collectives=1),
    "bfloat16": dict(build=in_bfloat16, collectives=1),
    "hybrid": dict(build=lambda: on_two_axes(2, 1), collectives=0),
    "hybrid_sharded": dict(build=lambda: on_two_axes(1, 2), collectives=1),
    "tensor_parallel": dict(build=tensor_parallel_net, collectives=1),
    "ddp": dict(build=lambda: DistributedDataParallel(Net(gain=())), collectives=0),
}


def is_divided(tensor: torch.Tensor) -> bool:
    if not isinstance(tensor, DTensor):
        return False
    places = enumerate(tensor.placements)
    return any(not how.is_replicate() and tensor.device_mesh.size(dim) > 1 for dim, how in places)


def of_everyone(mine: Any) -> list[Any]:
    found: list[Any] = [None] * RANKS
    dist.all_gather_object(found, mine)
    return found


def check_agree(*numbers: Any) -> None:
    """All processes have the same bits."""
    assert len(set(of_everyone(repr(tuple(map(float, numbers)))))) == 1, numbers


def expected_norm(params: Tensors) -> np.float64:
    """The oracle's: divided gradients are added up by process, others count once."""
    grads: dict[bool, list[np.ndarray | None]] = {}
    for param in params:
        divided, grad = is_divided(param), param.grad
        own = None if grad is None else (local(grad) if divided else whole(grad)).to(torch.float32).numpy()
        grads.setdefault(divided, []).append(own)
    totals = of_everyone({divided: norms.total(own) for divided, own in grads.items()})
    parts = [norms.in_pairs([t[divided] for t in totals]) if divided else totals[0][divided] for divided in grads]
    return np.sqrt(norms.in_pairs(parts))


@contextmanager
def counting(expected: int) -> Iterator[None]:
    """Counts collectives of norms; there are no others of this kind."""
    with mock.patch.object(dist, "all_gather_into_tensor", wraps=dist.all_gather_into_tensor) as called:
        yield
    assert called.call_count == expected, called.call_count


def with_grads(build: Build, step: int = 0) -> Tensors:
    module = build()
    backward(module, AMSGrad(module.parameters()), batch(step).to(next(module.parameters()).dtype))
    return list(module.parameters())


@scenario(**DIVIDED)
def clip(build: Build, collectives: int) -> None:
    """As torch's function over whole tensors in one process, and as over the same ones where it takes the mixture."""
    for order in (2.0, float("inf")):
        for limit in (0.01, 100.0):
            params = with_grads(build)
            alone = [nn.Parameter(whole(param)) for param in params]
            for plain, param in zip(alone, params, strict=True):
                plain.grad = whole(param.grad)
            exact = expected_norm(params)
            with counting(collectives):
                norm = clip_grad_norm_(params, limit, order)
            check_agree(whole(norm))
            assert order != 2 or whole(norm) == torch.tensor(exact, dtype=norm.dtype), (norm, exact)
            check_clipped(norm, params, torch.nn.utils.clip_grad_norm_(alone, limit, order), alone)
            if order == 2 and len({type(param) for param in params}) == 1:  # torch knows no largest of none
                theirs = with_grads(build)
                check_clipped(norm, params, torch.nn.utils.clip_grad_norm_(theirs, limit), theirs)


def check_clipped(norm: torch.Tensor, params: Tensors, their_norm: torch.Tensor, theirs: Tensors) -> None:
    close = dict(rtol=1e-2 if norm.dtype == torch.bfloat16 else 1e-5, atol=1e-9)
    torch.testing.assert_close(whole(norm), whole(their_norm), **close)
    for one, other in zip(params, theirs, strict=True):
        torch.testing.assert_close(whole(one.grad), whole(other.grad), **close)
    if isinstance(their_norm, DTensor):
        assert isinstance(norm, DTensor) and norm.device_mesh == their_norm.device_mesh
        assert all(how.is_replicate() for how in norm.placements)


@scenario()
def clip_sums_to_be_made() -> None:
    """Gradients whose parts are still to be added up: the norm is that of the sum, and the parts are scaled."""
    mesh = init_device_mesh("cpu", (RANKS,))
    for how in ("sum", "avg"):
        param = nn.Parameter(distribute_tensor(torch.zeros(5), mesh, [Replicate()]))
        part = torch.arange(5.0) + dist.get_rank()
        param.grad = DTensor.from_local(part.clone(), mesh, [Partial(how)])
        version, exact = param.grad._version, whole(param.grad).norm()
        norm = clip_grad_norm_([param], 1.0)
        assert type(norm) is DTensor and param.grad._version > version
        torch.testing.assert_close(whole(norm), exact)
        torch.testing.assert_close(local(param.grad), part / (exact + 1e-6))


@scenario(**DIVIDED)
def max_norm(build: Build, collectives: int) -> None:
    """The oracle's norm, and the bits of a NumPy optimizer over the parts here, whose grad_scale is the factor."""
    module = build()
    opt = AMSGrad(module.parameters(), lr=LR, max_norm=0.3)
    params = list(module.parameters())
    dtype = params[0].dtype
    own = [local(param).clone() for param in params]
    for step in range(STEPS):
        backward(module, opt, batch(step).to(dtype))
        norm = expected_norm(params)
        factor = norms.factor(norm, 0.3, as_torch=True)
        grads = [local(param.grad if is_divided(param) else whole(param.grad)).clone() for param in params]
        with counting(collectives):
            opt.step()
        assert opt.grad_norm == norm
        check_agree(opt.grad_norm, opt.skipped)
        if dtype == torch.float32:
            follow_in_numpy(own, grads, factor, step)
            for param, expected in zip(params, own, strict=True):
                assert_same_bits(local(param), expected, "param")


_numpy: dict[int, flatstep.Optimizer] = {}


def follow_in_numpy(params: Tensors, grads: Tensors, factor: np.float64, step: int) -> None:
    if step == 0:
        _numpy[0] = flatstep.AMSGrad([p.numpy() for p in params], learning_rate=LR, convention="torch")
    _numpy[0].step([grad.numpy() for grad in grads], grad_scale=factor)


@scenario(fsdp2=dict(build=sharded), tensor_parallel=dict(build=tensor_parallel_net))
def skip(build: Build) -> None:
    """All processes skip a step where one of them has an infinity, with a norm that overflows they do not."""
    module = build()
    opt = AMSGrad(module.parameters(), lr=LR, skip_nonfinite=True)
    params = list(module.parameters())
    divided = next(param for param in params if is_divided(param) and local(param).numel())
    for bad_rank in (None, 0, 1):
        backward(module, opt, batch(0))
        if dist.get_rank() == bad_rank:
            local(divided.grad)[0] = float("inf")
        before = [whole(param) for param in params]
        opt.step()
        assert opt.skipped == (0 if bad_rank is None else bad_rank + 1)
        assert np.isfinite(opt.grad_norm) == (bad_rank is None)
        check_agree(opt.grad_norm, opt.skipped)
        assert {int(opt.state[param]["step"]) for param in params} == {1}
        for param, old in zip(params, before, strict=True):
            assert torch.equal(whole(param), old) == (bad_rank is not None and bool(old.numel()))


@scenario()
def norms_that_are_not_finite() -> None:
    """One that overflows skips no step. Where one process has what is not finite, all raise if asked."""
    mesh = init_device_mesh("cpu", (RANKS,))
    param = nn.Parameter(distribute_tensor(torch.ones(4, dtype=torch.float64), mesh, [Shard(0)]))
    param.grad = torch.full_like(param, 1e200)
    opt = AMSGrad([param], lr=LR, skip_nonfinite=True)
    opt.step()
    assert (opt.skipped, opt.grad_norm) == (0, np.inf)
    local(param.grad)[0] = float("nan") if dist.get_rank() else 3.0
    before = local(param.grad).clone()
    for order in (2.0, float("inf")):
        with pytest.raises(RuntimeError, match="is non-finite, so it cannot be clipped"):
            clip_grad_norm_([param], 1.0, order, error_if_nonfinite=True)
    torch.testing.assert_close(local(param.grad), before, rtol=0, atol=0, equal_nan=True)
    assert whole(clip_grad_norm_([param], 1.0, float("inf"))).isnan() and local(param.grad).isnan().all()


@scenario()
def unscaled_by_the_step() -> None:
    """GradScaler's scale comes before the norm."""
    found = []
    for scale in (1.0, 1024.0):
        module = sharded()
        opt = AMSGrad(module.parameters(), lr=LR, max_norm=0.3, fused=True)
        scaler = torch.amp.GradScaler("cpu", scale)
        backward(module, opt, batch(0), scaler.scale)
        scaler.step(opt)
        found.append((opt.grad_norm, [whole(param) for param in module.parameters()]))
    torch.testing.assert_close(found[0], found[1])


@scenario()
def missing_on_one_rank() -> None:
    """A process without any gradient takes part in the norm all the same."""
    params = with_grads(sharded)
    opt = AMSGrad(params, lr=LR, max_norm=0.3)
    if dist.get_rank() == 1:
        for param in params:
            param.grad = None
    norm = expected_norm(params)
    assert whole(clip_grad_norm_(params, 1e9)) == torch.tensor(norm, dtype=torch.float32)
    opt.step()
    assert opt.grad_norm == norm > 0
    check_agree(opt.grad_norm)


@scenario(step=dict(function="step"), clip=dict(function="clip"))
def one_fails(function: str) -> None:
    """The others do not wait for a process that raises; no parameter and no gradient changes; the next call works."""
    module = sharded()
    params = list(module.parameters())
    opt = AMSGrad(params, lr=LR, max_norm=0.3)
    backward(module, opt, batch(0))
    before = [(local(param).clone(), local(param.grad).clone()) for param in params]
    run: Callable[[], Any] = opt.step if function == "step" else lambda: clip_grad_norm_(params, 0.3)
    place = "flatstep.torch._optimizer.StandIns.add" if function == "step" else "flatstep._core.norm_total"
    fails = mock.patch(place, side_effect=ValueError("no memory"))
    if dist.get_rank() == 1:
        with fails, pytest.raises(ValueError, match="no memory"):
            run()
    else:
        with pytest.raises(RuntimeError, match="another process of the mesh has failed"):
            run()
    for param, (value, grad) in zip(params, before, strict=True):
        assert_same_bits(local(param), value, "param")
        assert_same_bits(local(param.grad), grad, "grad")
    assert not opt.state and opt.grad_norm is None
    run()


@scenario()
def undivided_gradients_that_differ() -> None:
    """A plain parameter beside divided ones must have the same gradient everywhere."""
    module = sharded()
    plain = nn.Parameter(torch.ones(3))
    plain.grad = torch.full((3,), 1.0 + dist.get_rank())
    backward(module, AMSGrad(module.parameters()), batch(0))
    params = [*module.parameters(), plain]
    opt = AMSGrad(params, lr=LR, max_norm=0.3)
    for run in (opt.step, lambda: clip_grad_norm_(params, 0.3)):
        with pytest.raises(RuntimeError, match="have another norm on another process of the mesh; average them"):
            run()
    assert torch.equal(plain, torch.ones(3)) and not opt.state
    plain.grad.fill_(1.0 + 1e-4 * dist.get_rank())
    opt.step()
    check_agree(opt.grad_norm)


@scenario()
def outside_of_the_mesh() -> None:
    """A process without part in a mesh raises, and those with part do not wait for it."""
    both, one = init_device_mesh("cpu", (RANKS,)), DeviceMesh("cpu", [0])
    params = [nn.Parameter(distribute_tensor(torch.ones(4), mesh, [Shard(0)])) for mesh in (both, one)]
    for param in params:
        param.grad = torch.ones_like(param)
    opt = AMSGrad(params, lr=LR, max_norm=0.3)
    error, words = (ValueError, "without this process") if dist.get_rank() else (RuntimeError, "another process")
    for run in (opt.step, lambda: clip_grad_norm_(params, 0.3)):
        with pytest.raises(error, match=words):
            run()
    alone = AMSGrad(params[:1], lr=LR, max_norm=0.3)
    alone.step()
    assert alone.grad_norm == 2


@scenario(flat=dict(use_orig_params=False), orig_params=dict(use_orig_params=True))
def fsdp1_is_rejected(use_orig_params: bool) -> None:
    """Its parameters do not say how they are divided."""
    module = flat_fsdp1(use_orig_params)
    opt = AMSGrad(module.parameters(), lr=LR, max_norm=0.3)
    backward(module, opt, batch(0))
    for run in (opt.step, lambda: clip_grad_norm_(module.parameters(), 0.3)):
        with pytest.raises(ValueError, match="call the module's own clip_grad_norm_ instead"):
            run()
    module.clip_grad_norm_(0.3)
    opt.max_norm = None
    opt.step()
