"""Laws: the same bits for any cut into tensors, thread count, alignment, layout in memory and target."""

from __future__ import annotations

import ctypes
import platform
import sys
from dataclasses import replace

import numpy as np
import pytest
from flatstep.bench import openmp
from hypothesis import given, settings
from hypothesis import strategies as st

import flatstep
from cases import CASES, DEFAULTS, DTYPES, TILE, assert_same_bits, numbers
from flatstep import _core

STEPS = 3
ANY_CASE = st.sampled_from(CASES)
ANY_DTYPE = st.sampled_from(DTYPES)
SEEDS = st.integers(0, 2**32 - 1)


def whole(case, dtype, size, seed):
    """A parameter, gradients, and the oracle's result on them in one piece."""
    rng = np.random.default_rng(seed)
    param, grads = numbers(rng, size, dtype), [numbers(rng, size, dtype) for _ in range(STEPS)]
    return param, grads, *case.expect(param, grads)


@settings(deadline=None, max_examples=200)
@given(ANY_CASE, ANY_DTYPE, st.lists(st.integers(0, 3 * TILE), min_size=1, max_size=12), SEEDS)
def test_any_cut_into_tensors(case, dtype, sizes, seed):
    """Empty tensors first, last, in the middle, everywhere; tensors smaller and larger than a tile."""
    param, grads, expected, state = whole(case, dtype, sum(sizes), seed)
    cuts = np.cumsum(sizes)[:-1]
    mine = [part.copy() for part in np.split(param, cuts)]
    opt = case.make(mine)
    for grad in grads:
        opt.step(np.split(grad, cuts))
    assert_same_bits(np.concatenate(mine), expected, "params")
    for slot, parts in opt.state.items():
        assert_same_bits(np.concatenate(parts), state[slot], slot)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", [[0], [0, 0, 0], [0, 5], [5, 0], [5, 0, 0, 7], [0, 5, 0, 7, 0]], ids=str)
def test_empty_tensors(sizes, dtype):
    case = DEFAULTS[0]
    mine = [np.ones(size, dtype) for size in sizes]
    opt = case.make(mine)
    opt.step([np.ones(size, dtype) for size in sizes])
    expected, _ = case.expect(np.ones(sum(sizes), dtype), [np.ones(sum(sizes), dtype)])
    assert_same_bits(np.concatenate(mine), expected)
    assert opt.count == 1


@pytest.fixture(params=["own", "OpenMP's"])
def team(request, monkeypatch):
    """Whose threads carry out large steps."""
    if request.param != "own" and not openmp.load():
        pytest.skip("this machine has no OpenMP runtime")
    monkeypatch.setattr(flatstep.Optimizer, "_on_openmp", request.param != "own")


@pytest.mark.parametrize("count", [1, 2, 3, 8])
@pytest.mark.parametrize("case", DEFAULTS, ids=[case.name for case in DEFAULTS])
def test_any_thread_count(case, count, threads, team):
    """Enough elements that each thread gets some, in tensors that end anywhere."""
    threads(count)
    size = (count + 1) * _core.elements_worth_a_thread(flatstep.Optimizer._on_openmp) + 77
    param, grads, expected, _ = whole(case, np.float32, size, 5)
    cuts = [1, 70000, 70001, 70001, 131071]
    mine = [part.copy() for part in np.split(param, cuts)]
    opt = case.make(mine)
    for grad in grads:
        opt.step(np.split(grad, cuts))
    assert_same_bits(np.concatenate(mine), expected)


@settings(deadline=None, max_examples=100)
@given(ANY_CASE, ANY_DTYPE, st.integers(1, 5 * TILE), st.integers(0, 15), st.integers(0, 15), SEEDS)
def test_any_alignment(case, dtype, size, param_offset, grad_offset, seed):
    """Arrays may start at any multiple of their item size."""
    param, grads, expected, _ = whole(case, dtype, size, seed)
    mine = np.zeros(size + 16, dtype)[param_offset:][:size]
    mine[...] = param
    opt = case.make(mine)
    for grad in grads:
        shifted = np.zeros(size + 16, dtype)[grad_offset:][:size]
        shifted[...] = grad
        opt.step(shifted)
    assert_same_bits(mine, expected)


def layouts(array: np.ndarray, how: str) -> np.ndarray:
    """The same numbers, laid out otherwise in memory."""
    if how == "C":
        return np.ascontiguousarray(array)
    if how == "F":
        return np.asfortranarray(array)
    if how == "permuted":
        return np.ascontiguousarray(array.transpose(1, 2, 0)).transpose(2, 0, 1)
    if how == "every second":
        padded = np.full((*array.shape[:-1], 2 * array.shape[-1]), np.nan, array.dtype)
        padded[..., ::2] = array
        return padded[..., ::2]
    if how == "reversed":
        return np.ascontiguousarray(array[::-1, :, ::-1])[::-1, :, ::-1]
    raise ValueError(how)


@settings(deadline=None, max_examples=150)
@given(
    ANY_CASE,
    ANY_DTYPE,
    st.tuples(*[st.integers(1, 9)] * 3),
    st.sampled_from(["C", "F", "permuted"]),
    st.sampled_from(["C", "F", "permuted", "every second", "reversed"]),
    SEEDS,
)
def test_any_layout_in_memory(case, dtype, shape, param_layout, grad_layout, seed):
    """A dense parameter is taken as it lies; a gradient laid out otherwise is reordered, never misread."""
    param, grads, expected, state = whole(case, dtype, shape, seed)
    mine = layouts(param.copy(), param_layout)
    opt = case.make(mine)
    for grad in grads:
        opt.step(layouts(grad, grad_layout))
    assert_same_bits(mine, expected, "param")
    for slot, value in opt.state.items():
        assert_same_bits(value, state[slot], slot)


def test_expanded_gradient():
    mine = np.ones((5, 7, 3))
    opt = flatstep.Adam(mine, 0.1)
    grad = np.arange(1.0, 8.0)[:, None]
    opt.step(np.broadcast_to(grad, mine.shape))
    dense = np.ones((5, 7, 3))
    flatstep.Adam(dense, 0.1).step(np.broadcast_to(grad, mine.shape).copy())
    assert_same_bits(mine, dense)


@settings(deadline=None, max_examples=50)
@given(
    st.sampled_from(DEFAULTS),
    st.lists(st.tuples(ANY_DTYPE, st.integers(0, 200)), min_size=1, max_size=8),
    st.integers(1, 4),
)
def test_mixed_dtypes_in_one_optimizer(case, leaves, count):
    rng = np.random.default_rng(0)
    params = [numbers(rng, size, dtype) for dtype, size in leaves]
    grads = [[numbers(rng, size, dtype) for dtype, size in leaves] for _ in range(count)]
    mine = [param.copy() for param in params]
    opt = case.make(mine)
    for grad in grads:
        opt.step(grad)
    for leaf, param in enumerate(params):
        expected, _ = case.expect(param, [grad[leaf] for grad in grads])
        assert_same_bits(mine[leaf], expected, f"leaf {leaf}")


# Optimistic rules, the same without optimism, and options that both have.
OPTIMISTIC = [
    *((flatstep.OptimisticAdam, flatstep.Adam, dict(nesterov=flag), {}) for flag in (True, False)),
    *(
        (flatstep.OptimisticAMSGrad, flatstep.AMSGrad, dict(convention=name), dict(nesterov=False))
        for name in ("optax", "torch")
    ),
]


@pytest.mark.parametrize("optimistic, plain, options, more", OPTIMISTIC)
def test_optimism_off_is_the_plain_rule(optimistic, plain, options, more):
    """A mode that is off gives the bits of a rule without it."""
    rng = np.random.default_rng(6)
    param, grads = numbers(rng, 1000, np.float32), [numbers(rng, 1000, np.float32) for _ in range(5)]
    ours, theirs = param.copy(), param.copy()
    first, second = optimistic(ours, 0.1, beta=0.0, **options, **more), plain(theirs, 0.1, **options)
    for grad in grads:
        first.step(grad)
        second.step(grad)
    assert_same_bits(ours, theirs)


def test_two_slots_equal_three():
    """Without Nesterov's momentum the previous direction is not stored, whatever changes between steps."""
    rng = np.random.default_rng(7)
    shapes = [70, 5, 130]
    params = [numbers(rng, shape, np.float32) for shape in shapes]
    two, three = [p.copy() for p in params], [p.copy() for p in params]
    numbers_of = dict(
        b1=lambda count: 0.5 + 0.04 * count, b2=lambda count: 0.9 + 0.009 * count, eps=lambda count: 1e-6 * (count + 1)
    )
    saving = flatstep.OptimisticAdam(two, 0.1, nesterov=False, eps_root=1e-5, **numbers_of)
    assert set(saving.state) == {"mu", "nu"}
    storing = _three_slots(three, eps_root=1e-5, **numbers_of)
    assert set(storing.state) == {"mu", "nu", "previous"}
    for count in range(9):
        grads = [None if (count + leaf) % 3 == 0 else numbers(rng, n, np.float32) for leaf, n in enumerate(shapes)]
        saving.step(grads)
        storing.step(grads)
        for leaf in range(3):
            assert_same_bits(two[leaf], three[leaf], f"step {count}, leaf {leaf}")


def _three_slots(params, **settings):
    """OptimisticAdam without Nesterov's momentum, but with the slot."""

    class ThreeSlots(flatstep.OptimisticAdam):
        _declaration = replace(flatstep.OptimisticAdam._declaration, choose=lambda _: "optimistic_adam")

    return ThreeSlots(params, 0.1, nesterov=False, **settings)


@pytest.mark.skipif(sys.platform != "linux", reason="names the C library's rounding modes")
@pytest.mark.parametrize("threads_used", [1, 4])
def test_rounding_mode_of_the_caller(threads_used, threads, team):
    """The bits do not depend on the floating-point mode of the thread that calls."""
    threads(threads_used)
    case = DEFAULTS[0]
    size = 5 * _core.elements_worth_a_thread(flatstep.Optimizer._on_openmp)
    param, grads, expected, _ = whole(case, np.float32, size, 8)
    mine = param.copy()
    opt = case.make(mine)
    libm = ctypes.CDLL("libm.so.6")
    before = libm.fegetround()
    upward = 0x800 if platform.machine() in ("x86_64", "AMD64") else 0x400000
    try:
        assert libm.fesetround(upward) == 0
        for grad in grads:
            opt.step(grad)
        assert libm.fegetround() == upward, "the caller's mode was not put back"
    finally:
        libm.fesetround(before)
    assert_same_bits(mine, expected)
