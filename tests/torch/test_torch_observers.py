"""A step goes through torch's wrapper where anything observes it, and reads the numbers of groups that changed."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager

import pytest

import flatstep.torch as front
from flatstep.torch import _observers
from flatstep.torch._rows import Rows
from torch_cases import CLASSES, give_grads, same_bits, torch, twins

hooks = sys.modules["torch.optim.optimizer"]
by_class = pytest.mark.parametrize("optimizer", CLASSES)
RANGE = "Optimizer.step#{}.step"


@contextmanager
def by_profiler(path):
    with torch.profiler.profile() as profiler:
        yield lambda: [event.key for event in profiler.key_averages()]


@contextmanager
def by_autograd_profiler(path):
    with torch.autograd.profiler.profile() as profiler:
        yield lambda: [event.key for event in profiler.key_averages()]


@contextmanager
def by_execution_trace(path):
    """Which no profiler needs to run beside."""
    observer = torch.profiler.ExecutionTraceObserver().register_callback(str(path / "trace.json"))
    observer.start()
    yield lambda: [node["name"] for node in json.loads((path / "trace.json").read_text())["nodes"]]
    observer.stop()
    observer.unregister_callback()


@by_class
@pytest.mark.parametrize("observe", [by_profiler, by_autograd_profiler, by_execution_trace])
def test_profilers_see_steps(observe, optimizer, tmp_path):
    params, others = twins([(3,), (4,)])
    opt, other = optimizer(params, lr=0.1), optimizer(others, lr=0.1)
    give_grads(params, others, seed=0)
    with observe(tmp_path) as names:
        opt.step()
    assert RANGE.format(optimizer.__name__) in names()
    other.step()
    same_bits(params, others)


def calls_of(register, opt):
    """How often a hook is called by a step, and by one after it was removed."""
    called = []
    handle = register(opt, lambda *_: called.append(1))
    opt.step()
    handle.remove()
    opt.step()
    return len(called)


@by_class
@pytest.mark.parametrize(
    "register",
    [
        lambda opt, hook: opt.register_step_pre_hook(hook),
        lambda opt, hook: opt.register_step_post_hook(hook),
        lambda opt, hook: hooks.register_optimizer_step_pre_hook(hook),
        lambda opt, hook: hooks.register_optimizer_step_post_hook(hook),
    ],
    ids=["pre", "post", "global pre", "global post"],
)
def test_hooks_are_called(register, optimizer):
    (param,), _ = twins([(3,)])
    param.grad = torch.ones(3)
    assert calls_of(register, optimizer([param], lr=0.1)) == 1


def test_torchs_entry_point_is_called(monkeypatch):
    """Profilers and debuggers replace it."""
    called = []
    monkeypatch.setattr(torch.optim.Optimizer, "_optimizer_step_code", lambda self: called.append(self))
    opt = front.Adam([torch.nn.Parameter(torch.ones(2))])
    opt.step()
    assert called == [opt]


def test_a_torch_that_does_not_say_who_observes(monkeypatch):
    """Then each step goes through torch's wrapper."""
    monkeypatch.setattr(_observers, "_LIBRARIES", ("no_such_library",))
    assert _observers._find_has_callbacks() is _observers._always
    opt = front.Adam([torch.nn.Parameter(torch.ones(2))])
    assert not _observers.is_observed(opt)
    monkeypatch.setattr(_observers, "_has_callbacks", _observers._always)
    assert _observers.is_observed(opt)


GROUP = dict(params=[], lr=0.1, betas=(0.9, 0.99), fused=None)


@pytest.mark.parametrize(
    "change, made",
    [
        (dict(), 1),
        (dict(params=[torch.ones(2)]), 1),
        (dict(lr=0.2), 2),
        (dict(betas=(0.8, 0.99)), 2),
        (dict(more=1), 2),
        (dict(fused=True), 2),
        (dict(lr=torch.tensor(0.1)), 3),  # tensors and lists may change in place
        (dict(betas=[0.9, 0.99]), 3),
        (dict(betas=(torch.tensor(0.9), 0.99)), 3),
        (dict(lr=1e300), 3),  # which parameters it is right for is not among the numbers
    ],
    ids=str,
)
def test_rows_are_made_anew_where_a_group_changed(change, made):
    """After a first step, two with the change."""
    calls = []

    def make(group, grad_scale):
        calls.append(dict(group))
        return (group["lr"], grad_scale), 0

    rows, group = Rows(make), dict(GROUP)
    rows.of(0, group, 1.0)
    group.update(change)
    for _ in range(2):
        row, _ = rows.of(0, group, 1.0)
        assert row[0] is group["lr"]
    assert len(calls) == made
    assert rows.of(0, group, 2.0)[0][1] == 2.0


def test_rows_know_keys_and_groups_apart():
    rows = Rows(lambda group, grad_scale: ((float(len(group)), *(x for x in group.values() if type(x) is float)), 0))
    first, second = dict(params=[], lr=0.5, eps=0.25), dict(params=[], lr=0.5, weight_decay=0.25)
    assert rows.of(0, first, 1.0) is rows.of(0, first, 1.0)
    kept = rows.of(0, first, 1.0)
    assert rows.of(0, second, 1.0) is not kept
    assert rows.of(1, first, 1.0) is not kept
