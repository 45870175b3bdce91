"""Norms of gradients and what steps make of them: global_norm, max_norm, skip_nonfinite."""

from __future__ import annotations

import ctypes
import platform

import numpy as np
import pytest

import flatstep
import norms
from cases import DEFAULTS, assert_same_bits, numbers, special_values

SHAPES = [(), (1,), (15,), (16,), (17,), (1023,), (1024,), (1025,), (3, 1000), (70, 50, 3), (0, 4), (50_000,)]
DTYPES = [np.float16, np.float32, np.float64]


def gradients(dtype, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    with np.errstate(all="ignore"):
        return [numbers(rng, shape, dtype) for shape in SHAPES]


@pytest.mark.parametrize("dtype", DTYPES)
def test_global_norm(dtype, target):
    """Of one array and of all, with None among them."""
    grads = gradients(dtype)
    for grad in grads:
        assert flatstep.global_norm(grad) == norms.global_norm([grad])
    assert flatstep.global_norm([*grads, None]) == norms.global_norm(grads) > 0


def test_global_norm_of_bfloat16(target):
    """As torch has it: NumPy cannot describe it."""
    torch = pytest.importorskip("torch")
    grads = [torch.from_numpy(np.asarray(grad)).bfloat16() for grad in gradients(np.float32)]
    assert flatstep.global_norm(grads) == norms.global_norm([grad.float().numpy() for grad in grads])


def test_global_norm_of_mixed_dtypes():
    grads = [numbers(np.random.default_rng(1), 3000, dtype) for dtype in (np.float64, np.float32, np.float64)]
    assert flatstep.global_norm({"a": grads[0], "b": (grads[1], grads[2])}) == norms.global_norm(grads)


def test_global_norm_in_any_layout(target):
    """The order is that of the shape, however the array lies in memory."""
    grad = numbers(np.random.default_rng(2), (60, 41), np.float32)
    expected = norms.global_norm([grad])
    wide = np.zeros((120, 82), np.float32)
    wide[::2, ::2] = grad
    for same in (np.asfortranarray(grad), wide[::2, ::2], grad[::-1].copy()[::-1], misaligned_by_one(grad)):
        assert flatstep.global_norm(same) == expected
    assert flatstep.global_norm(grad.T) == norms.global_norm([np.ascontiguousarray(grad.T)])


def misaligned_by_one(grad: np.ndarray) -> np.ndarray:
    """At another place in a cache line."""
    memory = np.empty(grad.size + 1, grad.dtype)
    memory[1:] = grad.reshape(-1)
    return memory[1:].reshape(grad.shape)


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_global_norm_on_any_thread_count(count, threads):
    threads(count)
    rng = np.random.default_rng(3)
    grads = [numbers(rng, size, np.float32) for size in (300_001, 17, 700_000)]
    assert flatstep.global_norm(grads) == norms.global_norm(grads)


@pytest.mark.parametrize("dtype", DTYPES)
def test_global_norm_of_special_values(dtype, target):
    """An overflow of squares is infinite; NaN wins over infinity."""
    for value in special_values(dtype):
        grad = np.ones(1500, dtype)
        grad[1100] = value
        assert_same_bits(np.float64(flatstep.global_norm(grad)), norms.global_norm([grad]), repr(value))
    assert np.isnan(flatstep.global_norm(np.array([np.inf, np.nan], dtype)))
    assert flatstep.global_norm([]) == flatstep.global_norm(np.zeros(5, dtype)) == 0.0


@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="sets the mode by the C library")
def test_norms_in_any_floating_point_mode():
    """Rounding upwards in the caller's thread changes no bit, of the norm or of the step."""
    rng = np.random.default_rng(6)
    grads = [numbers(rng, 3000, np.float64) for _ in range(20)]
    expected = [norms.global_norm([grad]) for grad in grads]
    mine, other = np.ones(3000), np.ones(3000)
    opt, twin = flatstep.AMSGrad(mine, 0.1, max_norm=1.0), flatstep.AMSGrad(other, 0.1, max_norm=1.0)
    library = ctypes.CDLL(None)
    before, upward = library.fegetround(), 0x800 if platform.machine() == "x86_64" else 0x400000
    assert library.fesetround(upward) == 0
    try:
        found = [flatstep.global_norm(grad) for grad in grads]
        for grad in grads:
            opt.step(grad)
    finally:
        library.fesetround(before)
    assert found == expected
    for grad in grads:
        twin.step(grad)
    assert_same_bits(mine, other)


def test_a_limit_of_zero():
    """A norm of zero is within it, and any other becomes zero."""
    param = np.ones(3)
    opt = flatstep.AMSGrad(param, 0.1, max_norm=0.0)
    opt.step(np.zeros(3))
    opt.step(np.ones(3))
    assert_same_bits(param, np.ones(3))


def test_global_norm_rejects_what_it_cannot_read():
    with pytest.raises(TypeError, match=r"grads\['w'\] has dtype int64, expected float16"):
        flatstep.global_norm({"w": np.ones(3, np.int64)})
    with pytest.raises(TypeError, match="grads"):
        flatstep.global_norm([1.0, "text"])
    with pytest.raises(ValueError, match="is not aligned"):
        flatstep.global_norm(np.zeros(13, np.uint8)[1:].view(np.float32))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", DEFAULTS, ids=[case.name for case in DEFAULTS])
def test_max_norm(case, dtype):
    """Each step is one with the grad_scale that the norm asks for; both kinds of steps are among them."""
    rng = np.random.default_rng(4)
    sizes, scale, max_norm = (700, 1, 2000), 0.5, 40.0
    with np.errstate(all="ignore"):
        params = [rng.standard_normal(size).astype(dtype) for size in sizes]
        steps = [[(rng.standard_normal(size) * wide).astype(dtype) for size in sizes] for wide in (1, 3, 0.1)]
    found = [norms.global_norm(grads, scale) for grads in steps]
    scales = [scale * norms.factor(norm, max_norm) for norm in found]
    assert {each == scale for each in scales} == {True, False}
    mine = [param.copy() for param in params]
    opt = case.make(mine, max_norm=max_norm)
    for grads, norm in zip(steps, found, strict=True):
        opt.step(grads, grad_scale=scale)
        assert opt.grad_norm == norm
    for at, param in enumerate(params):
        expected, state = case.expect(param, [grads[at] for grads in steps], grad_scales=scales)
        assert_same_bits(mine[at], expected, f"param {at}")
        for slot, value in state.items():
            if slot in opt.state:  # OptimisticAdam makes `previous` again, if it can
                assert_same_bits(opt.state[slot][at], value, f"{slot} of param {at}")


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", DEFAULTS, ids=[case.name for case in DEFAULTS])
def test_skip_nonfinite(case, dtype, value):
    """Such a step changes nothing but `skipped`; the others are as without it."""
    rng = np.random.default_rng(5)
    params = [rng.standard_normal(size).astype(dtype) for size in (1500, 3)]
    twins = [param.copy() for param in params]
    opt, twin = case.make(params, skip_nonfinite=True), case.make(twins)
    for step in range(4):
        grads = [rng.standard_normal(param.shape).astype(dtype) for param in params]
        if step == 2:
            grads[1][0] = value
            before = opt.state_dict()["state"]
            opt.step(grads)
            np.testing.assert_equal(opt.state_dict()["state"], before)
            assert not np.isfinite(opt.grad_norm)
            continue
        opt.step(grads)
        twin.step(grads)
        assert opt.grad_norm == norms.global_norm(grads)
    assert (opt.count, opt.skipped, twin.skipped) == (3, 1, 0)
    for mine, other in zip(params, twins, strict=True):
        assert_same_bits(mine, other)
    np.testing.assert_equal(opt.state_dict()["state"], twin.state_dict()["state"])


def test_a_norm_that_overflows_skips_nothing():
    """Every number is finite, though the sum of their squares is not. And a scale that overflows a number skips."""
    param = np.ones(4)
    opt = flatstep.AMSGrad(param, 0.1, skip_nonfinite=True)
    opt.step(np.full(4, 1e200))
    assert (opt.count, opt.skipped, opt.grad_norm) == (1, 0, np.inf)
    for skipped in (1, 2):
        opt.step(np.full(4, 1e200), grad_scale=1e200)
        assert (opt.count, opt.skipped) == (1, skipped)


def test_limits_are_attributes():
    """max_norm may be set, unset, and follow a schedule; skip_nonfinite is fixed."""
    param = np.ones(4)
    opt = flatstep.Adam(param, 0.1)
    opt.step(np.ones(4))
    assert opt.max_norm is None and opt.grad_norm is None and opt.skip_nonfinite is False
    assert "max_norm" not in repr(opt) and "skip" not in repr(opt)
    opt.max_norm = lambda count: 10.0 * count
    opt.step(np.ones(4))
    assert opt.grad_norm == 2.0
    opt.max_norm = None
    opt.step(np.ones(4))
    assert opt.grad_norm is None
    for wrong in (-1.0, -np.inf, np.nan, "much", [1.0]):
        with pytest.raises((TypeError, ValueError), match="max_norm is"):
            opt.max_norm = wrong
    with pytest.raises(AttributeError, match="skip_nonfinite is fixed"):
        opt.skip_nonfinite = True
    with pytest.raises(TypeError, match="skip_nonfinite is 1, expected True or False"):
        flatstep.Adam(param, 0.1, skip_nonfinite=1)


def test_no_limit_but_a_norm(tmp_path):
    """max_norm may be infinite, or a number that float32 lacks: it is compared alone. Files hold it, too."""
    pytest.importorskip("safetensors")
    grad = np.full(4, 3, np.float32)
    for limit in (1e300, np.inf):
        param, twin = np.ones(4, np.float32), np.ones(4, np.float32)
        opt = flatstep.Adam(param, 0.1, max_norm=limit)
        opt.step(grad)
        flatstep.Adam(twin, 0.1).step(grad)
        assert opt.grad_norm == 6 and np.array_equal(param, twin)
        opt.save(tmp_path / "state")
        again = flatstep.Adam(np.zeros(4, np.float32), 0.1)
        again.load(tmp_path / "state")
        assert again.max_norm == limit == opt.state_dict()["numbers"]["max_norm"]


def test_the_norm_stays_where_a_step_raises():
    """It is that of the last step that did not."""
    param = np.ones(4)
    opt = flatstep.Adam(param, 0.1, max_norm=1.0)
    opt.step(np.ones(4))
    with pytest.raises(ValueError, match="grads has shape"):
        opt.step(np.full(3, 7.0))
    assert (opt.grad_norm, opt.count) == (2, 1)


def test_limits_in_a_state_dict(tmp_path):
    """max_norm and skipped go on; a state without them is as older versions have it."""
    pytest.importorskip("safetensors")
    param, grad = np.ones(3), np.ones(3)
    opt = flatstep.Adam(param, 0.1, skip_nonfinite=True)
    opt.step(grad)
    assert opt.state_dict()["version"] == 1 and not {"skipped", "max_norm"} & opt.state_dict().keys()
    opt.step(grad * np.inf)
    opt.max_norm = 2.0
    opt.save(tmp_path / "state")
    again = flatstep.Adam(np.zeros(3), 0.1)
    again.load(tmp_path / "state")
    assert (again.skipped, again.max_norm, again.count) == (1, 2.0, 1)
    assert again.state_dict()["version"] == 2
    plain = flatstep.Adam(np.ones(3), 0.1)
    again.load_state_dict(plain.state_dict())
    assert (again.skipped, again.max_norm) == (0, 2.0)
