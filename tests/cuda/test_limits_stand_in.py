"""max_norm and skip_nonfinite on an emulated device: what the host does not know, graphs, and what is rejected."""

from __future__ import annotations

import copy
import pickle
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

import flatstep
import flatstep.torch as front
import norms
import stand_in
from cases import assert_same_bits, numbers
from flatstep.torch import _devices
from foreign import Array
from torch_cases import DEFAULTS, Snapshot, parametrize, params_of, set_grads, torch
from unread import NotRead, forbid

pytestmark = pytest.mark.stand_in

SHAPES = [(1500,), (), (3, 5, 7), (0, 4), (64,)]
WHAT = ("launches", "copies", "allocations", "waits")
defaults = parametrize(DEFAULTS)


@pytest.fixture(autouse=True)
def device(monkeypatch):
    stand_in.use_for_torch(monkeypatch)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda index: SimpleNamespace(cuda_stream=0))


def some(rng, size=1.0):
    return [np.asarray(rng.standard_normal(shape) * size, np.float32) for shape in SHAPES]


def asked_by(step) -> dict[str, int]:
    before = [stand_in.asked(what) for what in WHAT]
    step()
    return {what: stand_in.asked(what) - count for what, count in zip(WHAT, before, strict=True)}


def test_a_limited_step_is_five_launches():
    """Three of them find the norm of all tensors. Nothing is sent again or waited for."""
    params = params_of([np.ones(i % 7 + 1, np.float32) for i in range(1000)])
    set_grads(params, [np.ones(i % 7 + 1, np.float32) for i in range(1000)])
    opt = front.AMSGrad(params, max_norm=1.0, skip_nonfinite=True)
    opt.step()
    assert asked_by(opt.step) == {"launches": 5, "copies": 0, "allocations": 0, "waits": 0}
    opt.max_norm, opt.skip_nonfinite = None, False
    opt.step()
    assert asked_by(opt.step) == {"launches": 2, "copies": 0, "allocations": 0, "waits": 0}
    assert opt.grad_norm is None


@defaults
def test_the_host_asks_for_no_limit(case, monkeypatch):
    """Neither for the norm nor for what is not finite; only `grad_norm` and `skipped` read."""
    params = params_of([np.ones(shape, np.float32) for shape in SHAPES])
    opt = case.make(params, max_norm=1.0, skip_nonfinite=True, capturable=True)
    opt.grad_scale, opt.found_inf = torch.tensor(8.0), torch.tensor(0.0)
    forbid(monkeypatch)
    for _ in range(2):
        set_grads(params, [np.ones(shape, np.float32) for shape in SHAPES])
        opt.step()
    for read in (lambda: opt.grad_norm, lambda: opt.skipped):
        with pytest.raises(NotRead):
            read()


@defaults
def test_a_graph_limits_its_gradients(case):
    """Replays find the norm of the gradients that are there, skip, and count what they skip, as eager steps do."""
    rng = np.random.default_rng(1)
    arrays = some(rng)
    params, twin = params_of(arrays), params_of(arrays)
    more = dict(max_norm=50.0, skip_nonfinite=True)
    opt, eager = case.make(params, capturable=True, **more), case.make(twin, **more)
    for group in (params, twin):
        set_grads(group, [array.copy() for array in arrays])
    opt.step()
    eager.step()
    with stand_in.capturing():
        opt.step()
    for count in range(6):
        fresh = some(rng, size=(0.1, 1, 4)[count % 3])
        fresh[0][7] = np.nan if count == 3 else 1
        for param, grad in zip(params, fresh, strict=True):
            param.grad.copy_(torch.from_numpy(grad))
        set_grads(twin, fresh)
        stand_in.functions().stand_in_replay()
        eager.step()
        assert_same_bits(np.float64(opt.grad_norm), norms.global_norm(fresh))
        assert opt.skipped == eager.skipped == int(count >= 3)
        for own, peer in zip(params, twin, strict=True):
            assert_same_bits(own.detach().numpy(), peer.detach().numpy())
            assert opt.state[own]["step"] == eager.state[peer]["step"]
    stand_in.functions().stand_in_drop_graph()


def test_memory_for_the_norm_is_no_part_of_a_graph():
    params = params_of([np.ones(5, np.float32)])
    opt = front.Adam(params, capturable=True)
    set_grads(params, [np.ones(5, np.float32)])
    opt.step()
    opt.max_norm = 1.0
    patch = pytest.MonkeyPatch()
    patch.setattr(_devices, "is_capturing", lambda device: True)
    with patch.context(), pytest.raises(RuntimeError, match="the memory for the norm would be made in a CUDA graph"):
        opt.step()
    patch.undo()


def test_an_overflow_of_the_scaler_comes_first():
    """It is not counted, and the norm stays that of the last step; else the norm is of unscaled gradients."""
    params = params_of([np.ones(4, np.float32)])
    opt = front.Adam(params, max_norm=1.0, skip_nonfinite=True)
    opt.grad_scale, opt.found_inf = torch.tensor(8.0), torch.tensor(0.0)
    set_grads(params, [np.full(4, 8.0, np.float32)])
    opt.step()
    assert (opt.grad_norm, opt.skipped) == (2.0, 0)
    opt.found_inf.fill_(1)
    set_grads(params, [np.full(4, np.inf, np.float32)])
    before = params[0].detach().clone()
    opt.step()
    assert (opt.grad_norm, opt.skipped, opt.state[params[0]]["step"].item()) == (2.0, 0, 1)
    assert torch.equal(params[0], before)
    opt.found_inf.fill_(0)
    set_grads(params, [np.full(4, np.inf, np.float32)])
    opt.step()
    assert (opt.grad_norm, opt.skipped, opt.state[params[0]]["step"].item()) == (np.inf, 1, 1)


def test_copies_know_what_the_device_has_found():
    """And count for themselves."""
    params = params_of([np.ones(4, np.float32)])
    opt = front.Adam(params, skip_nonfinite=True)
    for value in (1.0, np.inf):
        set_grads(params, [np.full(4, value, np.float32)])
        opt.step()
    others = copy.copy(opt), copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))
    opt.load_state_dict(opt.state_dict())
    opt.step()
    assert (opt.skipped, opt.grad_norm) == (2, np.inf)
    for other in others:
        assert (other.skipped, other.grad_norm) == (1, np.inf)


def test_gradients_of_two_memories_are_rejected(monkeypatch):
    """In torch before anything is done, in NumPy too."""
    monkeypatch.setattr(_devices, "is_apart", lambda device: device.type == "cpu")
    limits = front.AMSGrad(params_of([np.ones(3, np.float32)]), max_norm=1.0)._limits
    with pytest.raises(ValueError, match="parameters lie on cpu and cuda:1, but max_norm and skip_nonfinite need all"):
        limits._found_on({torch.device("cpu"), torch.device("cuda:1")})
    stand_in.use_for_arrays(monkeypatch)
    here, there = np.ones(3), np.ones(3)
    opt = flatstep.AMSGrad([here, Array(there)], 0.1, max_norm=1.0)
    with pytest.raises(
        RuntimeError, match="need all gradients in one memory, but some are on the CPU and some on cuda:0"
    ):
        opt.step([np.ones(3), Array(np.ones(3))])
    assert opt.count == 0
    opt.step([None, Array(np.ones(3))])
    assert opt.grad_norm == np.sqrt(3.0)
    opt.step([np.full(3, 2.0), None])
    assert opt.grad_norm == np.sqrt(12.0)


def test_a_norm_that_fails_changes_nothing():
    """Whichever call fails, and its kernels are loaded before a capture needs them."""
    params = params_of([np.ones(shape, np.float32) for shape in SHAPES])
    set_grads(params, [np.ones(shape, np.float32) for shape in SHAPES])
    opt = front.AMSGrad(params, max_norm=1.0, capturable=True)
    failures, is_done = 0, False
    while not is_done:
        before = Snapshot(opt)
        with stand_in.failing(failures, times=2):
            try:
                opt.step()
                is_done = True
            except RuntimeError as error:
                assert "planned: " in str(error)  # noqa: PT017
                before.check()
                failures += 1
    assert failures > 3
    opt.load_state_dict(opt.state_dict())
    other = front.AMSGrad(params, max_norm=1.0, capturable=True)
    other.load_state_dict(opt.state_dict())
    other._limits.found = torch.zeros(4, dtype=torch.float64)
    with stand_in.capturing():
        other.step()
    stand_in.functions().stand_in_drop_graph()
    stand_in.functions().stand_in_fail_launches(1)
    try:
        with pytest.raises(RuntimeError, match="the launch of a gradient norm failed on device 0: a planned"):
            opt.step()
    finally:
        stand_in.functions().stand_in_fail_launches(0)


def test_arrays_are_limited_on_their_device(monkeypatch):
    """Without a wait, but for `grad_norm`; where steps may be skipped, the host asks whether one was."""
    stand_in.use_for_arrays(monkeypatch)
    rng = np.random.default_rng(3)
    arrays = [numbers(rng, 3000, np.float32), numbers(rng, 5, np.float32)]
    opt = flatstep.AMSGrad([Array(array) for array in arrays], 0.1, max_norm=1.0)
    grads = [Array(numbers(rng, array.shape, np.float32)) for array in arrays]
    opt.step(grads)
    assert asked_by(lambda: opt.step(grads))["launches"] == 5
    asked = asked_by(lambda: opt.step(grads))
    assert (asked["waits"], asked["allocations"]) == (0, 0)
    assert asked_by(lambda: opt.grad_norm)["copies"] == 1


def test_averages_and_zeros_cost_no_launch(monkeypatch):
    """But one for zeros where a step may be skipped: it writes them if the sweep does not."""
    stand_in.use_for_arrays(monkeypatch)
    tail = dict(ema_decay=0.9, zero_grads=True)
    for more, launches in (({}, 2), (tail, 2), (dict(tail, max_norm=1.0), 5), (dict(tail, skip_nonfinite=True), 6)):
        grads = [Array(np.ones(3000, np.float32)), Array(np.ones(5, np.float32))]
        opt = flatstep.AMSGrad([Array(grad.data.copy()) for grad in grads], 0.1, **more)
        opt.step(grads)
        asked = asked_by(partial(opt.step, grads))
        assert (asked["launches"], asked["allocations"]) == (launches, 0)


def test_a_gradient_that_is_lent_as_a_copy_cannot_become_zero(monkeypatch):
    stand_in.use_for_arrays(monkeypatch)
    grad = Array(np.ones(3))
    grad.lends_copies = True
    flatstep.AMSGrad(Array(np.ones(3)), 0.1).step(grad)
    with pytest.raises(ValueError, match="grads is read-only, but zero_grads sets it to zero"):
        flatstep.AMSGrad(Array(np.ones(3)), 0.1, zero_grads=True).step(grad)


def test_clipping_waits_for_nothing(monkeypatch):
    """The norm is in a tensor on the device; any factor is applied there."""
    params = params_of([np.ones(shape, np.float32) for shape in SHAPES])
    rng = np.random.default_rng(5)
    for size in (1.0, 1e-3):
        grads = some(rng, size)
        set_grads(params, [grad.copy() for grad in grads])
        with monkeypatch.context() as patch:
            forbid(patch)
            asked = asked_by(lambda: front.clip_grad_norm_(params, 10.0))
            total = front.clip_grad_norm_(params, 1e30)
        assert (asked["launches"], asked["waits"]) == (3, 0)
        norm = norms.global_norm(grads)
        assert total.item() <= min(norm, 10.0) * (1 + 1e-5)
        factor = np.float32(norms.factor(norm, 10.0, as_torch=True))
        for param, grad in zip(params, grads, strict=True):
            np.testing.assert_allclose(param.grad.numpy(), grad * factor, rtol=1e-6)
    for param in params:
        param.grad = None
    assert front.clip_grad_norm_(params, 1.0) == 0


def test_a_norm_is_of_arrays_in_one_memory(monkeypatch):
    stand_in.use_for_arrays(monkeypatch)
    assert flatstep.global_norm([Array(np.array([3.0])), None, Array(np.array([4.0]))]) == 5.0
    with pytest.raises(TypeError, match=r"grads\[1\] is a numpy.ndarray of dtype float64 on the CPU, but a norm is of"):
        flatstep.global_norm([Array(np.ones(1)), np.ones(1)])
    with pytest.raises(TypeError, match=r"grads is a foreign.Array of int64|grads has dtype int64"):
        flatstep.global_norm(Array(np.ones(3, np.int64)))
    monkeypatch.setattr(flatstep._devices, "backends", list)
    with pytest.raises(TypeError, match=r"grads\[1\] is on a CUDA device, but this build of flatstep has"):
        flatstep.global_norm([np.ones(1), Array(np.ones(1))])
