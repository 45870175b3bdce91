"""float16 parameters: the codec over all patterns and rounding boundaries, and the state's dtypes."""

from __future__ import annotations

import numpy as np

import flatstep
import reference
from cases import assert_same_bits, numbers

PATTERNS = np.arange(2**16, dtype=np.uint16).view(np.float16)


def test_every_pattern_is_read_and_written(target):
    """A step of no length leaves every parameter as it was read; zero gradients halve both moments, exactly."""
    finite = PATTERNS[np.isfinite(PATTERNS)]
    param, positive = finite.copy(), np.abs(finite)
    opt = flatstep.Adam(param, 0.0, b1=0.5, b2=0.5)
    opt.state["mu"][...], opt.state["nu"][...] = finite, positive
    opt.step(np.zeros_like(param))
    assert_same_bits(param, finite, "param")
    assert_same_bits(opt.state["nu"], (positive.astype(np.float32) / 2).astype(np.float16), "nu")
    # A sum with +0 has no -0.
    assert_same_bits(opt.state["mu"], (finite.astype(np.float32) / 2 + np.float32(0)).astype(np.float16), "mu")


def test_rounding(target):
    """Every pattern multiplied on the way in: ties, what is next to them on either side, and denormal results."""
    opt = flatstep.OptimisticGradientDescent(np.zeros_like(PATTERNS), 0.0)
    for factor in [1.25, 1.5, 1.75, *2.0 ** -np.arange(1, 14)]:
        for scale in np.float32(factor) * np.float32([1 - 2**-24, 1, 1 + 2**-23]):
            opt.step(PATTERNS, grad_scale=float(scale))
            with np.errstate(all="ignore"):
                expected = (scale * PATTERNS.astype(np.float32)).astype(np.float16)
            assert_same_bits(opt.state["previous"], expected, f"{scale!r} times every pattern")


def test_infinity_and_nan(target):
    param = PATTERNS.copy()
    flatstep.Adam(param, 0.0).step(np.zeros_like(param))
    assert_same_bits(param, PATTERNS, "whole tiles")
    param = np.array([np.inf, -np.inf, np.nan, 65504, -65504], np.float16)
    flatstep.Adam(param, 0.0).step(np.zeros_like(param))
    assert_same_bits(param, np.array([np.inf, -np.inf, np.nan, 65504, -65504], np.float16))
    opt = flatstep.Adam(param, 0.0, b1=0.0)
    opt.step(np.full(5, 65504, np.float16), grad_scale=65519.9 / 65504)
    assert np.all(opt.state["mu"] == np.float16(65504)), "rounds down below the middle to what would be 2^16"
    opt.step(np.full(5, 65504, np.float16), grad_scale=65520.0 / 65504)
    assert np.all(np.isinf(opt.state["mu"]))


def test_wider_moments():
    """mu_dtype="float32" keeps the first moment as computed, as optax has it; the second stays as its parameter is."""
    rng = np.random.default_rng(0)
    param, grads = numbers(rng, 200, np.float16), [numbers(rng, 200, np.float16) for _ in range(5)]
    mine = param.copy()
    opt = flatstep.AMSGrad(mine, 0.05, mu_dtype="float32")
    expected, state = param, {}
    with np.errstate(all="ignore"):
        for t, grad in enumerate(grads, 1):
            opt.step(grad)
            expected, state = reference.in_float16(reference.amsgrad)(
                expected, grad, state, t, learning_rate=0.05, mu_dtype="float32"
            )
    assert {slot: str(value.dtype) for slot, value in opt.state.items()} == {
        "mu": "float32",
        "nu": "float16",
        "nu_max": "float16",
    }
    assert_same_bits(mine, expected, "param")
    for slot, value in opt.state.items():
        assert_same_bits(value, state[slot], slot)


def test_the_direction_is_stored_where_moments_are_rounded():
    """Made again from rounded moments it would be another one."""
    opt = flatstep.OptimisticAdam([np.ones(3, np.float16), np.ones(3)], 0.1, nesterov=False)
    assert set(opt.state) == {"mu", "nu", "previous"}
