"""flatstep.torch, interrupted anywhere: a step or a load has happened wholly or not at all, and steps go on."""

from __future__ import annotations

import copy
import itertools
import os

import pytest
from torch.overrides import TorchFunctionMode

from interrupts import PACKAGE, interrupted
from torch_cases import DEFAULTS, give_grads, torch, twins

TORCH = os.path.dirname(torch.__file__)
FOLDERS = (PACKAGE, os.path.join(TORCH, "optim", ""), os.path.join(TORCH, "utils", "hooks.py"))
case = DEFAULTS[-1]
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # raised in a callback


def content(opt, params):
    """All that a call may change; a state of no updates is none, and so is an empty one."""
    states = [dict(opt.state.get(param, {})) for param in params]
    kept = [{} if not state or state["step"] == 0 else {k: v.tolist() for k, v in state.items()} for state in states]
    return copy.deepcopy([[param.tolist() for param in params], kept, [group["lr"] for group in opt.param_groups]])


def model(steps):
    """A dense parameter, one with gaps, and one whose updates are counted in an integer of its own."""
    (dense, counted), _ = twins([(3,), (2,)])
    params = [dense, torch.nn.Parameter(torch.ones(4, 2)[:, 0]), counted]
    opt = case.make(params, fused=True)
    for count in range(steps):
        give_grads(params, seed=count)
        opt.step()
    if steps:
        opt.state[counted]["step"] = torch.tensor(steps)
    give_grads(params, seed=9)
    return opt, params


def at_every_moment(fresh, call, folders=FOLDERS):
    """Calls on a fresh optimizer each time, until the call has no such moment; what each has left behind."""
    opt, params = fresh()
    old = content(opt, params)
    call(opt)
    new = content(opt, params)
    assert new != old
    seen = []
    for moment in itertools.count(1, 3):  # the windows that matter are wider
        opt, params = fresh()
        if not interrupted(lambda opt=opt: call(opt), moment, folders=folders):
            break
        seen.append(content(opt, params) == new)
        assert seen[-1] or content(opt, params) == old, f"half done at moment {moment}"
        call(opt)
        opt.step()
    assert seen.count(False) > 50 and seen.count(True) > 0


@pytest.mark.slow
@pytest.mark.parametrize("steps", [0, 2], ids=["first step", "later step"])
def test_a_step(steps):
    at_every_moment(lambda: model(steps), lambda opt: opt.step())


class Watching(TorchFunctionMode):
    """Code of a user's in Python, around each of torch's operations."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


@pytest.mark.slow
def test_a_step_under_a_mode():
    def call(opt):
        with Watching():
            opt.step()

    at_every_moment(lambda: model(2), call, (*FOLDERS, __file__))


@pytest.mark.slow
def test_gradients_are_unscaled_with_the_step():
    def fresh():
        opt, params = model(2)
        opt.grad_scale = torch.tensor(4.0)
        return opt, params

    def seen_in(params):
        return [[tensor.tolist() for tensor in (param, param.grad)] for param in params]

    opt, params = fresh()
    old = seen_in(params)
    opt.step()
    new, seen = seen_in(params), []
    for moment in itertools.count(1, 3):
        opt, params = fresh()
        if not interrupted(opt.step, moment, folders=FOLDERS):
            break
        seen.append(seen_in(params))
        assert seen[-1] in (old, new)
    assert old in seen and new in seen


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "another kind"])
def test_a_step_with_an_average_and_zeros(kind):
    """Parameter, average and gradient belong together."""

    def fresh():
        _, params = model(0)
        kept = params if kind == "another kind" else params[:1]
        opt = case.make(kept, ema_decay=0.5, zero_grads=True)
        for count in range(2):
            give_grads(kept, seed=count)
            opt.step()
        give_grads(kept, seed=9)
        return opt, kept

    def seen_in(opt, params):
        return [
            [t.tolist() for t in (param, param.grad, average)] for param, average in zip(params, opt.ema, strict=True)
        ]

    opt, params = fresh()
    old = seen_in(opt, params)
    opt.step()
    new, seen = seen_in(opt, params), []
    for moment in itertools.count(1, 3):
        opt, params = fresh()
        if not interrupted(opt.step, moment, folders=FOLDERS):
            break
        seen.append(seen_in(opt, params))
        assert seen[-1] in (old, new), moment
    assert old in seen and new in seen


@pytest.mark.slow
def test_a_swap():
    """Parameters are swapped together, and the optimizer knows whether they are."""

    def fresh():
        _, params = model(0)
        opt = case.make(params, ema_decay=0.5)
        for count in range(2):
            give_grads(params, seed=count)
            opt.step()
        return opt, params

    def seen_in(opt, params):
        return [[t.tolist() for t in (param, average)] for param, average in zip(params, opt.ema, strict=True)]

    opt, params = fresh()
    old = seen_in(opt, params)
    opt.swap_ema()
    new, seen = seen_in(opt, params), []
    assert new == [[average, param] for param, average in old]
    for moment in itertools.count(1, 3):
        opt, params = fresh()
        if not interrupted(opt.swap_ema, moment, folders=FOLDERS):
            break
        seen.append(seen_in(opt, params))
        assert seen[-1] in (old, new), moment
    assert old in seen and new in seen


@pytest.mark.slow
def test_a_load():
    saved, _ = model(3)
    state = saved.state_dict()
    state["param_groups"][0]["lr"] = 0.75
    at_every_moment(lambda: model(1), lambda opt: opt.load_state_dict(state))
