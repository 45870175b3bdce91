"""Every rule, setting, layout and target equals the oracle to the last bit."""

from __future__ import annotations

import numpy as np
import pytest

from cases import BFLOAT16, CASES, DEFAULTS, DTYPES, TILE, WITH_MOMENTS, assert_same_bits, numbers, special_values

STEPS = 6


def ids(cases):
    return [case.name for case in cases]


def assert_follows_oracle(case, param, grads, **step):
    mine = param.copy()
    opt = case.make(mine)
    for count, grad in enumerate(grads):
        opt.step(grad, **{name: values[count] for name, values in step.items()})
    scales = {"grad_scales": step["grad_scale"]} if step else {}
    expected, state = case.expect(param, grads, **scales)
    assert_same_bits(mine, expected, "param")
    for slot, value in opt.state.items():
        assert_same_bits(value, state[slot], slot)


# Every case with each dtype that it is for.
ROWS = [(case, dtype) for case in CASES for dtype in [*DTYPES, np.float16]] + [(case, np.float32) for case in BFLOAT16]
rows = pytest.mark.parametrize("case, dtype", ROWS, ids=[f"{case.name}-{dtype.__name__}" for case, dtype in ROWS])


@rows
def test_numbers_of_all_sizes(case, dtype, target):
    rng = np.random.default_rng(0)
    size = 3 * TILE + 17
    assert_follows_oracle(case, numbers(rng, size, dtype), [numbers(rng, size, dtype) for _ in range(STEPS)])


@rows
def test_special_values(case, dtype, target):
    """Every pair of a special parameter and a special gradient, then changing gradients; both in body and in tail."""
    values = special_values(dtype)
    param, first = (np.tile(grid.ravel(), 2) for grid in np.meshgrid(values, values))
    assert param.size % TILE != 0
    rng = np.random.default_rng(1)
    grads = [first, *[rng.permutation(first) for _ in range(STEPS - 2)], np.zeros_like(first)]
    assert_follows_oracle(case, param, grads)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", DEFAULTS, ids=ids(DEFAULTS))
@pytest.mark.parametrize("size", [0, 1, 2, TILE - 1, TILE, TILE + 1, 8 * TILE + 3, 997, 4099])
def test_sizes(case, dtype, size, target):
    rng = np.random.default_rng(size)
    param, grads = numbers(rng, size, dtype), [numbers(rng, size, dtype) for _ in range(5)]
    assert_follows_oracle(case, param, grads)
    moved = np.ones(size, dtype)
    case.make(moved).step(np.ones(size, dtype))
    assert np.all(moved != 1), "an element did not move"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", DEFAULTS, ids=ids(DEFAULTS))
def test_grad_scale(case, dtype, target):
    rng = np.random.default_rng(2)
    grads = [numbers(rng, 150, dtype) for _ in range(STEPS)]
    assert_follows_oracle(case, numbers(rng, 150, dtype), grads, grad_scale=[1.0, 0.5, 0.1, -2.0, 0.0, 1e-30])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", DEFAULTS, ids=ids(DEFAULTS))
def test_zero_dimensional(case, dtype, target):
    rng = np.random.default_rng(3)
    assert_follows_oracle(case, numbers(rng, (), dtype), [numbers(rng, (), dtype) for _ in range(STEPS)])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", WITH_MOMENTS, ids=ids(WITH_MOMENTS))
def test_moments_decay_to_zero(case, dtype, target):
    """A parameter that gets no gradient any more: its moments pass below the normal numbers and are exactly zero."""
    tiny = np.finfo(dtype).smallest_normal
    settings = {"b1": 0.5, "b2": 0.5}
    grads = [np.array([1.0, 1e-3, -tiny], dtype), *[np.zeros(3, dtype)] * 1200]
    param = np.array([1.0, 2.0, -3.0], dtype)
    opt = case.make(param.copy(), **settings)
    averages = [slot for slot in ("mu", "nu") if slot in opt.state]
    seen = []
    for grad in grads:
        opt.step(grad)
        seen.extend(opt.state[slot].copy() for slot in averages)
    moments = np.abs(np.array(seen))
    assert np.all((moments == 0) | (moments >= tiny))
    assert averages and all(np.all(opt.state[slot] == 0) for slot in averages)
