"""flatstep.torch on an emulated device: the laws of the CPU hold, and no step waits for the device."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

# The same tests again, on the device.
from test_torch_amp import *  # noqa: F403
from test_torch_averages import *  # noqa: F403
from test_torch_flat import *  # noqa: F403
from test_torch_limits import *  # noqa: F403
from test_torch_numbers import *  # noqa: F403
from test_torch_state import *  # noqa: F403
from test_torch_tail import *  # noqa: F403
from test_torch_tensors import *  # noqa: F403
from test_torch_zero_grads import *  # noqa: F403

import stand_in
from cases import assert_same_bits, numbers
from flatstep.torch import _devices
from torch_cases import (
    CASES,
    DEFAULTS,
    GRADIENTS,
    Snapshot,
    give_grads,
    parametrize,
    params_of,
    same_bits,
    set_grads,
    torch,
    twins,
)
from unread import NotRead, forbid

pytestmark = pytest.mark.stand_in

del test_a_skipped_step_leaves_other_kinds_of_tensors_alone  # noqa: F821  what has no device is counted by the host

SHAPES = [(130,), (), (3, 5, 7), (0, 4), (64,), (2100,)]
by_name = parametrize(CASES)
defaults = parametrize(DEFAULTS)


@pytest.fixture(autouse=True)
def device(monkeypatch):
    """flatstep.torch treats tensors on the CPU as tensors on the emulated device."""
    stand_in.use_for_torch(monkeypatch)
    monkeypatch.setattr(Snapshot, "host_knows", False)
    # What a torch without the exchange API is asked for.
    monkeypatch.setattr(torch.cuda, "current_stream", lambda index: SimpleNamespace(cuda_stream=0))


@pytest.fixture
def processor(monkeypatch):
    """While it lasts, the processor steps what is on the CPU."""

    @contextmanager
    def use():
        with monkeypatch.context() as patch:
            for name, found in {"backends": [], "in_use": []}.items():
                patch.setattr(_devices, name, lambda found=found: found)
            patch.setattr(_devices, "is_apart", lambda device: False)
            yield

    return use


@pytest.fixture(params=[None])
def target(request):
    """The device is the target."""
    return request.param


def trained(case, arrays, grads, **more):
    """Parameters and optimizer after a step by each of the gradients."""
    params = params_of(arrays)
    opt = case.make(params, **more)
    for each in grads:
        set_grads(params, each)
        opt.step()
    return params, opt


def some(rng, count=None, dtype=np.float32):
    return [numbers(rng, shape, dtype) for shape in SHAPES[:count]]


def same(ours, theirs):
    (params, opt), (others, other) = ours, theirs
    for param, peer in zip(params, others, strict=True):
        assert_same_bits(param.detach().numpy(), peer.detach().numpy())
        for key, slot in other.state[peer].items():
            assert_same_bits(opt.state[param][key].numpy(), slot.numpy(), key)


@defaults
@pytest.mark.parametrize("tensors", [1, 1000])
def test_one_launch_and_no_waiting(case, tensors):
    """A step is one preparation and one sweep, whatever it has to do; what has not changed is not sent again."""
    params = params_of([np.ones(i % 7 + 1, np.float32) for i in range(tensors)])
    set_grads(params, [np.ones(i % 7 + 1, np.float32) for i in range(tensors)])
    opt = case.make(params)
    opt.step()
    before = {what: stand_in.asked(what) for what in ("launches", "copies", "allocations", "waits")}
    opt.step()
    assert {what: stand_in.asked(what) - count for what, count in before.items()} == {
        "launches": 2,
        "copies": 0,  # the counts lie there
        "allocations": 0,
        "waits": 0,
    }
    opt.param_groups[0]["lr"] = 0.25
    opt.step()
    assert stand_in.asked("copies") - before["copies"] == 1
    assert [opt.state[param]["step"].item() for param in params] == [3] * tensors


@by_name
def test_numbers_on_the_device(case):
    """lr and betas in tensors there give the bits that they give as numbers."""
    rng = np.random.default_rng(0)
    arrays, grads = some(rng), [some(rng) for _ in range(4)]
    betas = case.make(params_of(arrays)).defaults.get("betas", ())
    apart = [torch.tensor(value, dtype=torch.float64) for value in (0.05, *betas)]
    more = dict(lr=apart[0], capturable=True, **({"betas": tuple(apart[1:])} if betas else {}))
    same(trained(case, arrays, grads, **more), trained(case, arrays, grads))


@pytest.fixture
def unread(monkeypatch):
    """From when it is called on, whoever reads a number of a tensor is stopped."""

    yield lambda: forbid(monkeypatch)
    monkeypatch.undo()


AROUND = dict(max_norm=1.0, skip_nonfinite=True, ema_decay=0.9, zero_grads=True)


@defaults
@pytest.mark.parametrize("around", [{}, AROUND], ids=["", "all around"])
def test_the_host_asks_for_nothing(case, unread, around):
    """Neither for the scale of a loss, nor for its overflow, the learning rate or a count, with any options."""
    params = params_of([np.ones(shape, np.float32) for shape in SHAPES])
    opt = case.make(params, lr=torch.tensor(0.05), capturable=True, **around)
    opt.grad_scale, opt.found_inf = torch.tensor(8.0), torch.tensor(0.0)
    unread()
    for _ in range(2):
        set_grads(params, [np.ones(shape, np.float32) for shape in SHAPES])
        opt.step()
    with pytest.raises(NotRead):
        float(opt.found_inf)


@defaults
@pytest.mark.parametrize("is_resumed", [False, True], ids=["", "resumed"])
def test_a_graph_follows_its_numbers(case, is_resumed):
    """Steps that are captured once and replayed: a schedule, overflows and eager steps in between have their effect.

    An optimizer that is resumed loads its kernels during the capture.
    """
    rng = np.random.default_rng(1)
    arrays, grads = some(rng), some(rng)
    params, twin = params_of(arrays), params_of(arrays)
    lr, overflow = torch.tensor(0.05, dtype=torch.float64), torch.tensor(0.0)
    opt = case.make(params, lr=lr, capturable=True)
    opt.found_inf = overflow
    eager = case.make(twin)
    for group in (params, twin):
        set_grads(group, [grad.copy() for grad in grads])
    opt.step()  # as torch asks for, before a graph
    eager.step()
    if is_resumed:
        state = opt.state_dict()
        opt = case.make(params, capturable=True)
        opt.load_state_dict(state)
        opt.param_groups[0]["lr"], opt.found_inf = lr, overflow
    with stand_in.capturing():
        opt.step()
    captured = [param.grad for param in params]
    for count in range(12):
        rate, skips, replays = 0.1 / (count + 1), count % 4 == 2, count % 3 != 1
        fresh = some(rng)
        lr.fill_(rate)
        overflow.fill_(skips)
        eager.param_groups[0]["lr"] = rate
        set_grads(twin, fresh)
        if replays:
            for grad, new in zip(captured, fresh, strict=True):
                grad.copy_(torch.from_numpy(new))
            stand_in.functions().stand_in_replay()
        else:
            set_grads(params, fresh)
            opt.step()
        if not skips:
            eager.step()
        same((params, opt), (twin, eager))


@defaults
@pytest.mark.parametrize("kind", GRADIENTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_gradients_that_take_another_path(case, kind, dtype, processor):
    """Have the bits of the processor."""

    def trained():
        params, _ = twins([(33,), (7, 129), (1,), (2100,)], dtype)
        opt = case.make(params)
        for count in range(3):
            give_grads(params, seed=count)
            grads = GRADIENTS[kind]([param.grad for param in params])
            for param, grad in zip(params, grads, strict=True):
                param.grad = grad
            opt.step()
        return params, opt

    (ours, opt), before = trained(), stand_in.asked("launches")
    with processor():
        theirs, other = trained()
    assert stand_in.asked("launches") == before
    for own, peer in zip(ours, theirs, strict=True):
        same_bits(own.detach(), peer.detach())
        same_bits(dict(opt.state[own]), dict(other.state[peer]))


@defaults
def test_captured_again_and_again(case):
    """A graph that is gone has no memory, and the last one goes on when its optimizer is gone."""
    params, twin = ([torch.nn.Parameter(torch.ones(i % 5 + 1)) for i in range(200)] for _ in range(2))
    opt, eager = case.make(params, capturable=True), case.make(twin)
    for param in (*params, *twin):
        param.grad = torch.ones_like(param)
    opt.step()
    eager.step()
    for count in range(20):
        with stand_in.capturing():
            opt.step()
        if count == 2:
            bytes_in_use = stand_in.asked("memory")
    assert stand_in.asked("memory") == bytes_in_use
    state = dict(opt.state)
    del opt
    gc.collect()
    stand_in.functions().stand_in_replay()
    eager.step()
    for own, peer in zip(params, twin, strict=True):
        same_bits(own.detach(), peer.detach())
        same_bits(dict(state[own]), dict(eager.state[peer]))
    stand_in.functions().stand_in_drop_graph()


def test_a_graph_needs_capturable():
    params = params_of([np.ones(5, np.float32)])
    opt = CASES[0].make(params)
    set_grads(params, [np.ones(5, np.float32)])
    opt.step()
    before = Snapshot(opt)
    with stand_in.capturing(), pytest.raises(RuntimeError, match="capturable=True"):
        opt.step()
    before.check()


def stepped_with_failures(opt, after):
    """Whether a step gets through though two calls fail after so many; if not, nothing must have changed."""
    before = Snapshot(opt)
    try:
        with stand_in.failing(after, times=2):
            opt.step()
    except RuntimeError as error:
        before.check()
        if "planned: " not in str(error):
            raise
        return False
    return True


@defaults
def test_failures_change_nothing(case):
    """Whichever call fails, parameters, state and counts are as before, and the next step is as if nothing had been."""
    rng = np.random.default_rng(2)
    arrays, grads = some(rng), [some(rng) for _ in range(2)]
    params, opt = trained(case, arrays, [])
    set_grads(params, grads[0])
    failures = 0
    while not stepped_with_failures(opt, failures):
        failures += 1
    assert failures > 2
    set_grads(params, grads[1])
    opt.step()
    same((params, opt), trained(case, arrays, grads))


@pytest.fixture
def emptied(monkeypatch):
    """An item for each time that torch was asked for the memory that it keeps."""
    times = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: times.append(1))
    return times


@defaults
def test_torch_gives_up_what_it_keeps(case, emptied):
    """Where memory was missing the step goes on as if it had been there; where something else failed it does not."""
    rng = np.random.default_rng(3)
    arrays, grads = some(rng), some(rng)
    expected = trained(case, arrays, [grads])
    others = 0
    while True:
        params, opt = trained(case, arrays, [])
        set_grads(params, grads)
        before = len(emptied)
        with stand_in.failing(before + others):
            try:
                opt.step()
            except RuntimeError as error:
                assert "planned: a failure in" in str(error)  # noqa: PT017
                others += 1
                continue
        same((params, opt), expected)
        if len(emptied) == before:
            break
        assert len(emptied) == before + 1
    assert others > 2
    assert len(emptied) > 4


def test_out_of_memory(emptied):
    """Is torch's own error in the end; under capture, where torch may give up nothing, at once."""
    params = params_of([np.ones(5, np.float32)])
    opt = CASES[0].make(params, capturable=True)
    set_grads(params, [np.ones(5, np.float32)])
    before = Snapshot(opt)
    with stand_in.failing(0, times=2), pytest.raises(torch.OutOfMemoryError, match="planned: out of memory in"):
        opt.step()
    before.check()
    assert len(emptied) == 1
    opt.step()
    before = Snapshot(opt)
    error = pytest.raises(torch.OutOfMemoryError, match="planned: out of memory in allocate_for_graph")
    with stand_in.capturing(), stand_in.failing(0), error:
        opt.step()
    before.check()
    assert len(emptied) == 1
    opt.step()


def test_a_kernel_that_cannot_be_loaded_changes_nothing():
    """It is loaded before anything is launched, so that not even counts move."""
    params = params_of([np.ones(5, np.float32)])
    opt = CASES[0].make(params)
    set_grads(params, [np.ones(5, np.float32)])
    stand_in.functions().stand_in_fail_loads(1)
    before = Snapshot(opt)
    try:
        with pytest.raises(RuntimeError, match=r"launch of adam on float32 parameters failed on device 0: a planned"):
            opt.step()
    finally:
        stand_in.functions().stand_in_fail_loads(0)
    before.check()


def test_a_launch_that_fails_is_named():
    params = params_of([np.ones(5, np.float32)])
    opt = next(case for case in CASES if case.name == "AMSGrad-default").make(params)
    set_grads(params, [np.ones(5, np.float32)])
    stand_in.functions().stand_in_fail_launches(1)
    try:
        with pytest.raises(
            RuntimeError, match=r"launch of amsgrad on float32 parameters failed on device 0: a planned"
        ):
            opt.step()
    finally:
        stand_in.functions().stand_in_fail_launches(0)
