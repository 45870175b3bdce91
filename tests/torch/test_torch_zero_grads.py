"""Gradients that a step of flatstep.torch sets to zero. See core/test_tail.py."""

from __future__ import annotations

import pytest

import flatstep.torch as front
from torch_cases import Snapshot, give_grads, same_bits, torch, twins


def test_zero_grads_may_be_set_between_steps():
    (param,), _ = twins([(9,)])
    opt = front.Adam([param])
    for zeroes in (False, True, False):
        opt.zero_grads = zeroes
        give_grads([param], seed=0)
        opt.step()
        assert bool(param.grad.any()) is not zeroes


# Gradients of 6 numbers, none of them zero, and the memory in which they lie.
def plain_grad():
    return torch.ones(2, 3)


GRADS = {
    "plain": plain_grad,
    "in the order of Fortran": lambda: torch.ones(3, 2).t(),
    "with gaps": lambda: torch.ones(4, 7)[::2, 1:7:2],
    "negated": lambda: torch._neg_view(torch.ones(2, 3)),
    "imaginary part": lambda: torch.ones(2, 3, dtype=torch.complex64).mul(1 + 1j).conj().imag,
    "made in inference mode": torch.inference_mode(plain_grad),
}


def nonzero(memory):
    """How many real numbers other than zero there are in what a gradient is a view of, if it is one."""
    if memory is None:
        return 0
    memory = memory.detach()
    return int(torch.count_nonzero(torch.view_as_real(memory) if memory.is_complex() else memory))


@pytest.mark.parametrize("skipped", [False, True], ids=["step", "skipped"])
@pytest.mark.parametrize("make", GRADS.values(), ids=GRADS)
def test_gradients_become_zero(make, skipped):
    """Where they are, and nothing beside them; their versions go on. Of a step that is skipped, too."""
    params, _ = twins([(2, 3), (3,), (4,)])
    opt = front.AMSGrad(params, zero_grads=True, skip_nonfinite=True)
    hooked = []
    opt.register_step_post_hook(lambda *_: hooked.append(params[0].grad.any().item()))
    for _ in range(2):  # without state, and with it
        grad = params[0].grad = make()
        params[1].grad = torch.full((3,), torch.inf if skipped else 1.0)
        beside = nonzero(grad._base)
        version = None if grad.is_inference() else grad._version
        opt.step()
        assert params[0].grad is grad and not grad.any() and not params[1].grad.any() and params[2].grad is None
        assert version is None or grad._version > version
        assert nonzero(grad._base) == max(beside - 6, 0)
    assert opt.skipped == (2 if skipped else 0) and hooked == [False, False]


# Gradients of two parameters of 4 numbers that a step cannot set to zero, and what it says.
def shared_halves(params):
    memory = torch.ones(6)
    return memory[:4], memory[2:]


def one_negated(params):
    memory = torch.ones(6)
    return torch._neg_view(memory[:4]), memory[2:]


REJECTED = {
    "one memory": (shared_halves, "grad of 1 of group 0 shares memory with the gradient of param 0 of group 0"),
    "itself": (lambda p: (torch.ones(1).expand(4), torch.ones(4)), "grad of 0 of group 0 has elements that share"),
    "its parameter": (lambda p: (p[0].detach(), torch.ones(4)), "grad of 0 of group 0 lies where its parameter does"),
    "another's": (
        lambda p: (p[1].detach(), torch.ones(4)),
        "grad of 0 of group 0 shares memory with param 1 of",
    ),
    "one negated": (one_negated, "grad of 1 of group 0 shares memory with grad of 0 of group 0, and zero_grads"),
    "a negated parameter": (
        lambda p: (torch._neg_view(p[0].detach()), torch.ones(4)),
        "grad of 0 of group 0 shares memory with param 0 of group 0, and zero_grads",
    ),
    "a negated one that repeats": (
        lambda p: (torch._neg_view(torch.ones(1)).expand(4), torch.ones(4)),
        "grad of 0 of group 0 has elements that share memory",
    ),
}


@pytest.mark.parametrize("by_scaler", [False, True], ids=["step", "overflow"])
@pytest.mark.parametrize("make, match", REJECTED.values(), ids=REJECTED)
def test_gradients_that_cannot_become_zero(make, match, by_scaler):
    """Nothing has changed then."""
    params, _ = twins([(4,), (4,)])
    opt = front.AMSGrad(params, zero_grads=True)
    params[0].grad, params[1].grad = make(params)
    grads, before = [param.grad.clone() for param in params], Snapshot(opt)
    if by_scaler:
        opt.found_inf = torch.tensor(1.0)
    with pytest.raises(ValueError, match="grad of . of group 0 .*(zero_grads sets|overwrites)" if by_scaler else match):
        opt.step()
    before.check()
    same_bits([param.grad for param in params], grads)


@pytest.mark.parametrize("key", ["exp_avg", "max_exp_avg_sq", "ema"])
def test_a_gradient_in_a_state_cannot_become_zero(key):
    """The state would become zero with it, also if zeros are asked for between steps."""
    (param, other), _ = twins([(4,), (4,)])
    opt = front.AMSGrad([param, other], ema_decay=0.9)
    for opt.zero_grads in (False, True):
        give_grads([param, other], seed=0)
        opt.step()
    param.grad = opt.state[other][key]
    before = Snapshot(opt)
    with pytest.raises(ValueError, match=f"grad of 0 of group 0 shares memory with the state {key} of param 1 of"):
        opt.step()
    before.check()


def test_an_overflow_without_numbers_to_zero():
    """Of no gradient, then beside gradients that have no memory."""
    params, _ = twins([(3,), (3,)])
    meta = torch.nn.Parameter(torch.empty(3, device="meta"))
    opt = front.Adam([meta, *params], zero_grads=True)
    opt.found_inf = torch.tensor(1.0)
    opt.step()
    meta.grad, params[1].grad = torch.empty(3, device="meta"), torch.ones(3)
    opt.step()
    assert params[0].grad is None and not params[1].grad.any()


def test_unscaled_gradients_are_not_written_twice():
    """Zeros are written where the scaled gradients were: their versions go on by one."""
    (param,), _ = twins([(4,)])
    opt = front.Adam([param], zero_grads=True)
    opt.grad_scale = torch.tensor(8.0)
    param.grad = torch.ones(4)
    opt.step()
    assert param.grad._version == 1 and not param.grad.any()
