"""What steps of flatstep.torch do besides their update: averages of parameters, and gradients that become zero."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from torch._subclasses.fake_tensor import FakeTensorMode

import averages
import flatstep.torch as front
from torch_cases import Snapshot, give_grads, same_bits, torch, twins
from torch_tails import SHAPES, by_dtype, defaults, train

ALL = dict(ema_decay=0.9, zero_grads=True, max_norm=1e30, skip_nonfinite=True)


def state_without_average(opt, param):
    return {key: value for key, value in opt.state[param].items() if key != "ema"}


@defaults
@by_dtype
@pytest.mark.parametrize("start", ["copy", "zero"])
def test_one_pass_is_the_pieces(case, dtype, start):
    """Step, then average, then zero: by the bits of an optimizer without them and of the oracle."""
    ours, theirs = twins(SHAPES, dtype)
    opt, plain = case.make(ours, ema_start=start, **ALL), case.make(theirs)
    train(opt, ours, zeroes=True)
    seen = train(plain, theirs)
    same_bits(ours, theirs)
    formula = averages.interpolated if start == "copy" else averages.weighted
    computed = np.float64 if dtype == torch.float64 else np.float32
    for at, (param, other) in enumerate(zip(ours, theirs, strict=True)):
        same_bits(state_without_average(opt, param), plain.state[other])
        expected = np.asarray(formula([step[at] for step in seen], 0.9, computed), computed)
        same_bits(opt.state[param]["ema"], torch.from_numpy(expected))
        assert opt.ema[at] is opt.state[param]["ema"]


@pytest.mark.parametrize("options", [dict(zero_grads=True), dict(ema_decay=0.9)], ids=str)
def test_a_parameter_that_stands_twice_is_rejected(options):
    (param,), _ = twins([(4,)])
    with pytest.warns(UserWarning, match="duplicate"):
        opt = front.Adam([param, param], **options)
    param.grad = torch.ones(4)
    before = Snapshot(opt)
    with pytest.raises(ValueError, match=f"stepped twice; {next(iter(options))} need each parameter once"):
        opt.step()
    before.check()


@pytest.mark.parametrize("overflows", [False, True])
@pytest.mark.parametrize("fused", [False, True])
def test_under_a_scaler(fused, overflows):
    """Unscaling, average and zeros in one step. torch calls no step that overflows, unless it is fused."""
    params, twin = twins(SHAPES)
    opt = front.AMSGrad(params, zero_grads=True, ema_decay=0.9, fused=fused)
    plain = front.AMSGrad(twin)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    give_grads(twin, seed=0)
    factors = [param.grad.clone() for param in twin]
    plain.step()
    scaler.scale(sum((param * factor).sum() for param, factor in zip(params, factors, strict=True))).backward()
    if overflows:
        params[0].grad[3] = torch.inf
    before = Snapshot(opt)
    scaler.step(opt)
    scaler.update()
    if overflows:
        before.check()
    else:
        same_bits(params, twin)
        same_bits(opt.ema, [param.detach() for param in params])
    assert any(param.grad.any() for param in params) is (overflows and not fused)


def test_flattened_parameters():
    """Parts of one gradient become zero together, and parts of the parameter are swapped."""
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    twin = copy.deepcopy(module)
    flat = front.flatten_parameters(module)
    opt, plain = front.AMSGrad([flat], ema_decay=0.9, zero_grads=True), front.AMSGrad(twin.parameters(), ema_decay=0.9)
    for _ in range(3):
        for net in (module, twin):
            net(torch.ones(2, 4)).square().sum().backward()
        opt.step()
        plain.step()
        plain.zero_grad()
        assert not any(param.grad.any() for param in module.parameters())
    same_bits(opt.ema[0], torch.cat([average.flatten() for average in plain.ema]))
    for each in (opt, plain):
        each.swap_ema()
    same_bits(list(module.parameters()), list(twin.parameters()))


@pytest.mark.parametrize("more", [{}, dict(ema_start="zero", ema_debias=True)], ids=["copy", "debiased"])
def test_meta_parameters(more):
    """They have averages without numbers."""
    meta, param = torch.nn.Parameter(torch.empty(3, device="meta")), torch.nn.Parameter(torch.ones(3))
    opt = front.Adam([meta, param], ema_decay=0.9, zero_grads=True, **more)
    for _ in range(2):
        meta.grad, param.grad = torch.empty(3, device="meta"), torch.ones(3)
        opt.step()
    assert opt.state[meta]["ema"].is_meta and not param.grad.any()
    opt.swap_ema()
    opt.swap_ema()
    assert [average.is_meta for average in opt.ema] == [True, False]


def test_in_fake_tensor_mode():
    """As a step is traced: nothing has numbers, counts neither."""
    with FakeTensorMode():
        param = torch.nn.Parameter(torch.ones(3))
        opt = front.Adam([param], ema_decay=0.9, ema_start="zero", ema_debias=True, zero_grads=True)
        for _ in range(2):
            param.grad = torch.ones(3)
            opt.step()
        opt.swap_ema()
        opt.swap_ema()
        assert opt.ema[0].shape == (3,)


def test_two_rules_in_one_optimizer():
    """Groups that the core steps by two rules; all averages have one decay."""
    (one, other), (one_alone, other_alone) = twins([(7,), (8,)])
    options = dict(ema_decay=0.5, zero_grads=True)
    opt = front.Adam([{"params": [one]}, {"params": [other], "amsgrad": True}], **options)
    alone = front.Adam([one_alone], **options), front.Adam([other_alone], amsgrad=True, **options)
    train(opt, [one, other])
    for each in range(4):
        give_grads([one_alone, other_alone], seed=each)
        for single in alone:
            single.step()
    same_bits(opt.ema, [alone[0].ema[0], alone[1].ema[0]])


@pytest.mark.parametrize(
    "more, error, match",
    [
        (dict(ema_start="zero"), ValueError, "need ema_decay"),
        (dict(ema_dtype=torch.float32), ValueError, "need ema_decay"),
        (dict(ema_debias=True), ValueError, "need ema_decay"),
        (dict(ema_decay=0.9, ema_debias=1), TypeError, "ema_debias is 1, expected True or False"),
        (dict(ema_decay=0.9, ema_debias=True), ValueError, "pass ema_start='zero' too"),
        (dict(ema_decay=0.9, ema_dtype=torch.float64), TypeError, "ema_dtype is torch.float64, expected torch.float32"),
        (dict(ema_decay=0.9, ema_dtype="float32"), TypeError, "ema_dtype is 'float32', expected a torch.dtype or None"),
        (dict(ema_decay=1.0), ValueError, "ema_decay is 1, expected a number at least 0 and below 1"),
        (dict(ema_decay=lambda _: 0.9), TypeError, "ema_decay is .*, expected a number"),
        (dict(zero_grads=1), TypeError, "zero_grads is 1, expected True or False"),
        (dict(ema_decay=0.9, ema_start="none"), ValueError, "ema_start is 'none', expected one of 'copy', 'zero'"),
    ],
)
def test_options_that_do_not_fit(more, error, match):
    with pytest.raises(error, match=match):
        front.Adam([torch.nn.Parameter(torch.ones(2))], **more)


def test_options_are_for_all_groups():
    """A group has no keys for them: torch's checkpoints have none."""
    param = torch.nn.Parameter(torch.ones(4))
    opt = front.Adam([param], ema_decay=0.9, ema_start="zero", zero_grads=True)
    assert opt.param_groups[0].keys() == front.Adam([param]).param_groups[0].keys()
    assert (opt.ema_decay, opt.ema_start, opt.ema_debias, opt.ema_dtype, opt.zero_grads) == (
        0.9,
        "zero",
        False,
        None,
        True,
    )
    with pytest.raises(ValueError, match="a group has ema_decay, which is for all groups together"):
        front.Adam([{"params": [param], "ema_decay": 0.5}])
    with pytest.raises(TypeError, match="ema_dtype is torch.float16, expected torch.float32 for parameters of"):
        front.Adam([torch.nn.Parameter(torch.ones(2).half())], ema_decay=0.9, ema_dtype=torch.float16).add_param_group(
            {"params": [param]}
        )
    plain = front.Adam([param])
    for use in (lambda: plain.ema, plain.swap_ema):
        with pytest.raises(AttributeError, match="this Adam has no averages; make it with ema_decay"):
            use()


def test_what_a_pickled_optimizer_asks_for_holds_in_another():
    (one, other), _ = twins([(3,), (3,)])
    opt, taken = front.Adam([one]), front.Adam([other], ema_decay=0.9, zero_grads=True)
    train(opt, [one])
    train(taken, [other])
    opt.__setstate__(taken.__getstate__())
    before = opt.ema[0].clone()
    train(opt, [other], zeroes=True)
    assert not torch.equal(opt.ema[0], before)


def test_a_copy_has_options_of_its_own():
    opt = front.Adam([torch.nn.Parameter(torch.ones(2))], ema_decay=0.9)
    other = copy.copy(opt)
    other.ema_decay = 0.5
    assert opt.ema_decay == 0.9
