"""flatstep.torch under torch.amp: as torch's optimizers, with the scale inside the step for fused=True alone."""

from __future__ import annotations

import inspect

import pytest

import flatstep.torch as front
from torch_cases import (
    CLASSES,
    DEFAULT_PEERS,
    Snapshot,
    defaults_with,
    give_grads,
    parametrize,
    same_bits,
    torch,
    torch_peer,
    twins,
)

SHAPES = [(7, 3), (), (40,)]
defaults = defaults_with("fused")
with_fused = parametrize([case for case in DEFAULT_PEERS if "fused" in case.arguments])


OPTIONS = {"default": {}, "fused": dict(fused=True), "not fused": dict(fused=False)}
options = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


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
    """The same bits as unscale_ before it; the scale grows meanwhile."""
    ours, theirs = twins(SHAPES, dtype)
    opts, scalers = [case.make(ours, fused=True), case.make(theirs, fused=True)], [scaler_of(scale), scaler_of(scale)]
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
@options
def test_overflow_skips_the_step(case, options, bad, unscale_before):
    """One bad element of one gradient; the scale goes down and training goes on."""
    params, _ = twins(SHAPES)
    opt, scaler = case.make(params, **options), scaler_of(1024.0)
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
        grads = [param.grad.clone() for param in params]
        scaler.step(opt)
        scaler.update()
        if count in (0, 2):
            before.check()
        if count in (0, 2) and (unscale_before or options.get("fused")):  # else GradScaler has unscaled them
            same_bits([param.grad for param in params], grads)
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
    opt, peer = case.make(ours, fused=True), case.make(theirs)
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
@options
def test_clipping_after_unscaling(case, options):
    ours, theirs = twins(SHAPES)
    opt, peer, scaler = case.make(ours, **options), case.make(theirs), scaler_of(512.0)
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
    opts, scaler = [case.make([good], fused=True), case.make([bad], fused=True)], scaler_of(16.0)
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


FUSED = [*OPTIONS, "torch"]


def made(case, params, name):
    """An optimizer with one of the options, or torch's own."""
    return torch_peer(case, params, fused=None) if name == "torch" else case.make(params, **OPTIONS[name])


def test_only_fused_unscales_inside_the_step():
    """As torch's optimizers tell GradScaler, and Lightning, which clips for those alone that do not."""
    for optimizer in CLASSES:
        peer = getattr(torch.optim, optimizer.__name__, torch.optim.Adam)
        takes_fused = "fused" in inspect.signature(optimizer).parameters
        for given in OPTIONS.values() if takes_fused else [{}]:
            opts = [make([torch.nn.Parameter(torch.ones(2))], **given) for make in (optimizer, peer)]
            told = [bool(getattr(opt, "_step_supports_amp_scaling", False)) for opt in opts]
            assert told == [given.get("fused", False)] * 2


@with_fused
@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_gradients_are_unscaled_after_the_step(case, name, dtype):
    """Of every layout, once each; scripts that log them or add to them find what torch leaves there."""
    memory = torch.zeros(4, 6, dtype=dtype)
    params = [torch.nn.Parameter(torch.ones(shape, dtype=dtype)) for shape in [(5,), (), (4, 3), (0,), (2,)]]
    opt, scaler = made(case, params, name), scaler_of(1024.0)
    scaler.scale(torch.ones(()))  # makes the scale, which backward would do
    scaled = [torch.arange(float(param.numel())).reshape(param.shape).to(dtype) * 1024 for param in params]
    params[2].grad = memory[:, ::2].copy_(scaled[2])
    for at in (0, 1, 3):
        params[at].grad = scaled[at].clone()
    scaler.step(opt)
    for param, before in zip(params[:4], scaled, strict=False):
        torch.testing.assert_close(param.grad, before / 1024, rtol=0, atol=0)
    assert params[4].grad is None
    assert not memory[:, 1::2].any()


@defaults
@pytest.mark.parametrize("kind", ["negated", "conjugated", "imaginary part", "made in inference mode"])
def test_odd_gradients_are_unscaled_too(case, kind):
    """In their memory, which holds other numbers than they mean."""
    values = torch.tensor([8.0, 16.0, -24.0])
    with torch.inference_mode(kind == "made in inference mode"):
        grad = {
            "negated": lambda: torch._neg_view(-values),
            "conjugated": lambda: torch.complex(values, -values).conj(),
            "imaginary part": lambda: torch.complex(values, -values).conj().imag,
            "made in inference mode": lambda: values * 1,
        }[kind]()
    (param,), (plain,) = twins([(3,)], grad.dtype)
    opt, peer = case.make([param], fused=True), case.make([plain])
    opt.grad_scale = torch.tensor(8.0)
    param.grad, plain.grad = grad, grad.resolve_conj().resolve_neg().clone() / 8
    opt.step()
    peer.step()
    same_bits(param, plain)
    assert param.grad is grad
    assert torch.equal(grad.resolve_conj().resolve_neg(), plain.grad)


@defaults
def test_a_gradient_that_cannot_be_unscaled_in_place(case):
    """Is named before anything is done, as torch raises for it."""
    params, _ = twins([(3,), (4,)])
    opt, scaler = case.make(params, fused=True), scaler_of(8.0)
    scaler.scale(torch.ones(()))
    params[0].grad, params[1].grad = torch.ones(3), torch.ones(1).expand(4)
    opt.grad_scale = torch.tensor(8.0)
    before, grad = Snapshot(opt), params[0].grad.clone()
    with pytest.raises(ValueError, match="grad of 1 of group 0 has elements that share memory"):
        opt.step()
    before.check()
    same_bits(params[0].grad, grad)


@with_fused
@pytest.mark.parametrize("name", FUSED)
def test_a_wrapper_sees_which_steps_were_skipped(case, name):
    """By whether step ran and its hooks fired: accelerate and schedulers wait then. With fused=True torch's do run."""
    param = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    opt, scaler = made(case, [param], name), scaler_of(256.0)
    hooked = []
    opt.register_step_post_hook(lambda *_: hooked.append(True))
    for overflows in (True, False, True, True, False):
        opt.zero_grad()
        scaler.scale((param * (float("inf") if overflows else 1.0)).sum()).backward()
        scaler.step(opt)
        scaler.update()
    assert len(hooked) == (5 if name == "fused" else 2)
    assert opt.state[param]["step"] == 2
