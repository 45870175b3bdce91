"""bfloat16 storage of mu: the codec over all patterns and rounding boundaries, state views, and the errors."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import flatstep
import reference
from cases import assert_same_bits

ml_dtypes = pytest.importorskip("ml_dtypes")
PATTERNS = np.arange(2**16, dtype=np.uint16)


def test_every_pattern_is_read_right(target):
    """A step with zero gradient multiplies what it reads by b1 = 1/2, which is exact, and stores it again."""
    opt = flatstep.Adam(np.zeros(2**16, np.float32), 0.1, b1=0.5, mu_dtype="bfloat16")
    opt.state["mu"][...] = PATTERNS.view(ml_dtypes.bfloat16)
    opt.step(np.zeros(2**16, np.float32))
    with np.errstate(all="ignore"):
        half = reference.flush(np.float32(0.5) * reference.from_bfloat16(PATTERNS) + np.float32(0))
    assert_same_bits(opt.state["mu"], reference.stored(half, "bfloat16"))


def test_every_rounding_boundary_is_stored_right(target):
    """With b1 = 0 the gradient itself is stored: every upper half, with lower halves around the tie."""
    lower = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    grad = (PATTERNS.astype(np.uint32)[:, None] * 2**16 + lower).view(np.float32).ravel()
    opt = flatstep.Adam(np.zeros(grad.size, np.float32), 0.1, b1=0.0, mu_dtype="bfloat16")
    opt.step(grad)
    with np.errstate(all="ignore"):
        expected = reference.flush(np.float32(0) * np.float32(0) + np.float32(1) * grad)
        assert_same_bits(opt.state["mu"], reference.stored(expected, "bfloat16"))
        assert_same_bits(opt.state["mu"], expected.astype(ml_dtypes.bfloat16).astype(np.float32))


def test_state_is_a_bfloat16_view():
    param = np.ones((3, 4), np.float32, order="F")
    opt = flatstep.AMSGrad({"w": param}, 0.1, mu_dtype=ml_dtypes.bfloat16)
    assert opt.mu_dtype == "bfloat16"
    assert opt.state["mu"]["w"].dtype == ml_dtypes.bfloat16
    assert opt.state["mu"]["w"].strides == (2, 6)
    assert opt.state["nu"]["w"].dtype == opt.state["nu_max"]["w"].dtype == np.float32


def test_optimistic_adam_keeps_its_previous_direction():
    """Made again from a rounded mu it would be another one."""
    opt = flatstep.OptimisticAdam(np.ones(3, np.float32), 0.1, nesterov=False, mu_dtype="bfloat16")
    assert set(opt.state) == {"mu", "nu", "previous"}


def test_resume():
    rng = np.random.default_rng(0)
    straight = rng.standard_normal(100, np.float32)
    interrupted = straight.copy()
    grads = [rng.standard_normal(100, np.float32) for _ in range(6)]
    opt = flatstep.Adam(straight, 0.1, mu_dtype="bfloat16")
    for grad in grads:
        opt.step(grad)
    first = flatstep.Adam(interrupted, 0.1, mu_dtype="bfloat16")
    for grad in grads[:3]:
        first.step(grad)
    second = flatstep.Adam(interrupted, 0.1, mu_dtype="bfloat16")
    second.load_state_dict(first.state_dict())
    for grad in grads[3:]:
        second.step(grad)
    assert_same_bits(interrupted, straight)


def test_errors(monkeypatch):
    param = np.ones(3, np.float32)
    with pytest.raises(TypeError, match="params has dtype float64, for which mu_dtype may be float64, not bf"):
        flatstep.Adam(np.ones(3), 0.1, mu_dtype="bfloat16")
    with pytest.raises(TypeError, match="has dtype float32, for which mu_dtype may be bfloat16 or float32, not"):
        flatstep.Adam(param, 0.1, mu_dtype="float16")
    with pytest.raises(TypeError, match="params has dtype int64, expected float16, float32 or float64; convert it"):
        flatstep.Adam(np.ones(3, int), 0.1, mu_dtype="bfloat16")
    with pytest.raises(TypeError, match="mu_dtype is 'brain', expected a dtype or its name"):
        flatstep.Adam(param, 0.1, mu_dtype="brain")
    with pytest.raises(TypeError, match="mu_dtype is '>f4', whose byte order is not this machine's; pass 'float32'"):
        flatstep.Adam(param, 0.1, mu_dtype=">f4")
    for take in (lambda brain: flatstep.Adam(brain, 0.1), lambda brain: flatstep.Adam(param, 0.1).step(brain)):
        with pytest.raises(TypeError, match="of dtype bfloat16, expected .*; bfloat16 is for mu_dtype"):
            take(param.astype(ml_dtypes.bfloat16))
    saved = flatstep.Adam(param, 0.1, mu_dtype="bfloat16").state_dict()
    with pytest.raises(ValueError, match="made with mu_dtype='bfloat16', but this optimizer has mu_dtype=None"):
        flatstep.Adam(param, 0.1).load_state_dict(saved)
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(ImportError, match=r'pip install "flatstep\[bfloat16\]"'):
        flatstep.Adam(param, 0.1, mu_dtype="bfloat16")
