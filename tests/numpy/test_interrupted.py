"""Calls interrupted anywhere: the optimizer is wholly as it was or wholly what was asked for, and can go on."""

from __future__ import annotations

import itertools
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import pytest

import flatstep
from interrupts import Interrupt, interrupted
from saving import content

Load = Callable[[flatstep.Optimizer], None]


def loader(method: str, saved: flatstep.Optimizer, path: Any) -> Load:
    """What makes an optimizer take over the saved one."""
    if method == "load":
        pytest.importorskip("safetensors")
        saved.save(path)
        return lambda opt: opt.load(path)
    state = saved.state_dict()
    return lambda opt: opt.load_state_dict(state)


def small(value: float, steps: int) -> flatstep.Optimizer:
    leaves = [np.asfortranarray(np.full((2, 3), value, np.float32)), np.full((), value)]
    averages = dict(ema_decay=value, ema_start="zero", ema_debias=True)
    opt = flatstep.Adam(leaves, learning_rate=value, b1=value, eps=lambda count: 1e-3, **averages)
    for _ in range(steps):
        opt.step([np.ones_like(leaf) for leaf in leaves])
    return opt


@pytest.mark.parametrize("method", ["load", "load_state_dict"])
def test_at_every_moment(method, tmp_path):
    load = loader(method, small(0.25, 3), tmp_path / "model")
    opt, loaded = small(0.5, 1), small(0.5, 1)
    load(loaded)
    old, new = content(opt), content(loaded)
    seen = []
    for moment in itertools.count(1):
        if not interrupted(partial(load, opt), moment, within="_take_over"):
            break
        seen.append(content(opt))
        if seen[-1] != old:
            opt = small(0.5, 1)
    assert content(opt) == new
    assert all(now in (old, new) for now in seen)
    assert seen.count(old) > 100 and seen.count(new) > 0


def test_a_swap_at_every_moment():
    """All parameters have changed places with their averages, or none has."""
    opt = small(0.5, 1)

    def places():
        return [x.tolist() for x in opt.params], [x.tolist() for x in opt.ema]

    is_over, seen = False, 0
    for moment in itertools.count(1):
        params, averages = places()
        is_over = not interrupted(opt.swap_ema, moment)
        assert places() in ((params, averages), (averages, params))
        seen += places() == (averages, params)
        if is_over:
            break
    assert moment > 50 and seen > 1


CALLS = {
    "step": lambda opt, path: opt.step(np.ones(2)),
    "state_dict": lambda opt, path: opt.state_dict(),
    "load_state_dict": lambda opt, path: opt.load_state_dict({}),
    "save": lambda opt, path: opt.save(path / "new"),
    "load": lambda opt, path: opt.load(path / "no file"),
}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # files closed by the collector
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_no_moment_leaves_an_optimizer_in_use(call, tmp_path):
    """Nor a step without its count, nor a file half written."""
    pytest.importorskip("safetensors")
    param = np.zeros(2)
    opt = flatstep.OptimisticGradientDescent(param, 1.0, alpha=1.0, beta=0.0)
    moment = 0
    with suppress(ValueError, OSError):  # of those that fail
        for moment in itertools.count(1):
            if not interrupted(partial(call, opt, tmp_path), moment):
                break
            opt.state_dict()
            assert (param == -opt.count).all()
            assert not list(tmp_path.glob(".flatstep-*"))
    assert moment > 10
    opt.state_dict()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # struck in a collector's callback
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="has no timers that send signals")
@pytest.mark.parametrize("method", ["load", "load_state_dict"])
def test_by_a_signal_at_random_moments(method, tmp_path):
    """The moments of most are those in which arrays are copied."""
    shapes = [(300_000,), *[(100,)] * 3_000, (700, 500)]

    def filled(value: int) -> flatstep.Optimizer:
        opt = flatstep.Adam([np.full(shape, value, np.float32) for shape in shapes], learning_rate=value)
        for view in itertools.chain(*opt.state.values()):
            view[...] = value
        opt.load_state_dict({**opt.state_dict(), "count": value})
        return opt

    loads = {value: loader(method, filled(value), tmp_path / str(value)) for value in (1, 2)}
    opt, chance, value, is_loading = filled(1), random.Random(0), 1, False

    def strike(*_: Any) -> None:
        if is_loading:
            raise Interrupt

    start = time.perf_counter()
    loads[1](opt)
    took = time.perf_counter() - start
    handler = signal.signal(signal.SIGALRM, strike)
    try:
        for _ in range(40):
            signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.01, 1) * took)
            with suppress(Interrupt):
                is_loading = True
                loads[3 - value](opt)
                is_loading = False
            is_loading = False
            value = opt.count
            arrays = [*(opt.params if method == "load" else ()), *itertools.chain(*opt.state.values())]
            assert opt.learning_rate == value and all((array == value).all() for array in arrays)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
