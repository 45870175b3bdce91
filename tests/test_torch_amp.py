"""flatstep.torch under torch.amp: GradScaler's scale and overflow flag inside the step, clipping, autocast."""

from __future__ import annotations

import pytest

import flatstep.torch as front
from torch_cases import DEFAULTS, Snapshot, give_grads, parametrize, same_bits, torch, twins

SHAPES = [(7, 3), (), (40,)]
defaults = parametrize(DEFAULTS)


def scaled_backward(scaler, params, factors):
    scaler.scale(sum((param * factor).sum() for param, factor in zip(params, factors, strict=True))).backward()


def scaler_of(scale):
    return torch.amp.GradScaler(device="cpu", init_scale=scale, growth_interval=2)


@defaults
@pytest.mark.parametrize(
    "dtype, scale",
    [
        (torch.float32, 2.0**16),
        (torch.float32, 3.0),
        (torch.float32, 1000.0),
        (torch.float64, 2.0**16),  # of other numbers torch rounds 1 / scale to float32
    ],
    ids=str,
)
def test_unscaling_inside_the_step(case, dtype, scale):
    """The same bits as unscale_ before it, which writes the gradients once more; the scale grows meanwhile."""
    ours, theirs = twins(SHAPES, dtype)
    opts, scalers = [case.make(ours), case.make(theirs)], [scaler_of(scale), scaler_of(scale)]
    for count in range(5):
        factors, _ = twins(SHAPES, dtype, seed=count)
        for params, opt, scaler in zip((ours, theirs), opts, scalers, strict=True):
            opt.zero_grad()
            scaled_backward(scaler, params, [factor.detach() for factor in factors])
            if opt is opts[1]:
                scaler.unscale_(opt)
            scaler.step(opt)
            scaler.update()
    same_bits(ours, theirs)
    assert scalers[0].get_scale() == scalers[1].get_scale() > scale
    plain, _ = twins(SHAPES, dtype)
    opt = case.make(plain)
    for count in range(5):
        factors, _ = twins(SHAPES, dtype, seed=count)
        for param, factor in zip(plain, factors, strict=True):
            param.grad = factor.detach()
        opt.step()
    if scale == 2.0**16:  # powers of two round nothing
        same_bits(ours, plain)
    else:
        torch.testing.assert_close(ours, plain)


@defaults
@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
@pytest.mark.parametrize("unscale_before", [False, True])
def test_overflow_skips_the_step(case, bad, unscale_before):
    """One bad element of one gradient; the scale goes down and training goes on."""
    params, _ = twins(SHAPES)
    opt, scaler = case.make(params), scaler_of(1024.0)
    for count in range(4):
        factors, _ = twins(SHAPES, seed=count)
        factors = [factor.detach() for factor in factors]
        if count in (0, 2):
            factors[0][3, 1] = bad
        opt.zero_grad()
        scaled_backward(scaler, params, factors)
        before = Snapshot(opt)
        if unscale_before:
            scaler.unscale_(opt)
        scaler.step(opt)
        scaler.update()
        if count in (0, 2):
            before.check()
    assert [opt.state[param]["step"].item() for param in params] == [2, 2, 2]
    assert scaler.get_scale() == 1024 / 4


@defaults
def test_only_a_flag_of_zero_steps(case):
    params, _ = twins(SHAPES)
    opt = case.make(params)
    give_grads(params, seed=0)
    opt.step()
    for flag in (1.0, 2.0, float("nan"), -1.0, float("inf")):
        opt.found_inf = torch.tensor(flag)
        before = Snapshot(opt)
        opt.step()
        before.check()
    opt.found_inf = torch.tensor([0.0])
    opt.step()
    assert opt.state[params[0]]["step"] == 2
    del opt.found_inf
    opt.step()
    assert opt.state[params[0]]["step"] == 3


@defaults
def test_a_scale_of_the_users_own(case):
    """Gradients are divided by it, as by torch's fused optimizers."""
    ours, theirs = twins(SHAPES)
    opt, peer = case.make(ours), case.make(theirs)
    for scale in (torch.tensor(8.0), torch.tensor([0.25]), 2.0):
        give_grads(ours, theirs, seed=0)
        for param in ours:
            param.grad *= float(scale)
        opt.grad_scale = scale
        opt.step()
        peer.step()
    same_bits(ours, theirs)
    for bad in (0.0, -1.0, float("nan"), float("inf"), "1"):
        opt.grad_scale = bad
        before = Snapshot(opt)
        with pytest.raises((TypeError, ValueError), match="grad_scale is"):
            opt.step()
        before.check()
    del opt.grad_scale
    opt.step()


@defaults
def test_a_scale_of_the_users_own_under_a_scaler(case):
    """torch multiplies it with the scaler's."""
    ours, theirs = twins(SHAPES)
    opt, peer = case.make(ours), case.make(theirs)
    opt.grad_scale = torch.tensor(4.0)
    scaler = scaler_of(256.0)
    factors, _ = twins(SHAPES, seed=1)
    scaled_backward(scaler, ours, [4 * factor.detach() for factor in factors])
    scaler.step(opt)
    for param, factor in zip(theirs, factors, strict=True):
        param.grad = factor.detach()
    peer.step()
    same_bits(ours, theirs)


@defaults
def test_clipping_after_unscaling(case):
    ours, theirs = twins(SHAPES)
    opt, peer, scaler = case.make(ours), case.make(theirs), scaler_of(512.0)
    for count in range(3):
        factors, _ = twins(SHAPES, seed=count)
        factors = [factor.detach() for factor in factors]
        opt.zero_grad()
        scaled_backward(scaler, ours, factors)
        scaler.unscale_(opt)
        norm = torch.nn.utils.clip_grad_norm_(ours, 0.5)
        assert norm > 0.5
        scaler.step(opt)
        scaler.update()
        for param, factor in zip(theirs, factors, strict=True):
            param.grad = factor.clone()
        torch.nn.utils.clip_grad_norm_(theirs, 0.5)
        peer.step()
    same_bits(ours, theirs)


@defaults
def test_two_optimizers_of_one_scaler(case):
    """One overflows, the other steps."""
    (good,), (bad,) = twins([(4,)])
    opts, scaler = [case.make([good]), case.make([bad])], scaler_of(16.0)
    scaled_backward(scaler, [good, bad], [1.0, float("inf")])
    for opt in opts:
        scaler.step(opt)
    scaler.update()
    assert opts[0].state[good]["step"] == 1
    assert not opts[1].state or (not Snapshot.host_knows and opts[1].state[bad]["step"] == 0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_training_under_autocast(dtype):
    """Narrow arithmetic in the model, float32 parameters, a scaler: the loss falls, and every step is taken."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
    opt, scaler = front.AMSGrad(model.parameters(), lr=0.02), scaler_of(2.0**8)
    inputs = torch.randn(64, 8)
    targets, losses = inputs[:, :1] - inputs[:, 1:2], []
    for _ in range(60):
        opt.zero_grad()
        with torch.autocast("cpu", dtype=dtype):
            output = model(inputs)
            loss = torch.nn.functional.mse_loss(output.float(), targets)
        assert output.dtype == dtype
        scaler.scale(loss).backward()
        scaler.step(opt)
        scaler.update()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]
    assert opt.state[model[0].weight]["exp_avg"].dtype == torch.float32


@defaults
def test_fused_false_leaves_unscaling_to_the_scaler(case):
    """As Lightning wants it where it clips; the gradients are then unscaled in place, and the bits are the same."""
    ours, theirs = twins(SHAPES)
    opts = [case.make(ours), case.make(theirs, fused=False)]
    assert [opt._step_supports_amp_scaling for opt in opts] == [True, False]
    for params, opt in zip((ours, theirs), opts, strict=True):
        scaler = scaler_of(2.0**10)
        factors, _ = twins(SHAPES, seed=3)
        scaled_backward(scaler, params, [factor.detach() for factor in factors])
        scaler.step(opt)
    same_bits(ours, theirs)
    for own, other in zip(ours, theirs, strict=True):
        assert torch.equal(own.grad, other.grad * 2.0**10)
