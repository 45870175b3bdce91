"""Counts past 2^31 elements, on memory that is mapped but hardly touched: only a range around the edge is swept."""

from __future__ import annotations

import mmap
import sys

import numpy as np
import pytest

import flatstep
from cases import assert_same_bits, numbers

EDGE = 2**31
RANGE = slice(EDGE - 70, EDGE + 90)
SIZE = EDGE + 200


def lazily_mapped(size: int) -> np.ndarray:
    """Zeros that take no memory until they are touched."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0x4000)
    try:
        return np.frombuffer(mmap.mmap(-1, 4 * size, flags=flags), np.float32)
    except (OSError, MemoryError) as error:
        pytest.skip(f"this machine maps no {4 * size} bytes: {error}")


def sweep(opt: flatstep.Optimizer, grads, elements: slice) -> None:
    """The part of a first step that falls to these elements."""
    rows, index = opt._rows(opt._progress.history, opt._settle(opt._numbers.at(0)), 1.0)
    opt._stepper.step_range(grads, rows, index, elements.start, elements.stop)


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="maps memory without reserving it")


@pytest.mark.parametrize("stride", [1, 2, 0, -1], ids=["dense", "every second", "expanded", "reversed"])
def test_one_tensor(stride):
    """Gradients laid out otherwise are read from offsets past the edge too."""
    rng = np.random.default_rng(0)
    param = lazily_mapped(SIZE)
    opt = flatstep.Adam(param, 0.1)
    param[RANGE] = before = numbers(rng, RANGE.stop - RANGE.start, np.float32)
    wanted = numbers(rng, before.size, np.float32)
    if stride == 0:
        wanted[...] = 2
        grad = np.broadcast_to(np.float32(2), SIZE)
    else:
        grad = lazily_mapped(SIZE * abs(stride))[::stride]
        grad[RANGE] = wanted
    sweep(opt, [grad], RANGE)
    flatstep.Adam(before, 0.1).step(wanted)
    assert_same_bits(param[RANGE], before)
    assert not param[RANGE.start - 100 : RANGE.start].any() and not param[RANGE.stop :].any()


def test_many_tensors():
    """The second tensor's elements lie past the edge in the numbering of the step, not in their own."""
    params = [lazily_mapped(EDGE - 20), np.zeros(100, np.float32), np.zeros(100, np.float32)]
    grads = [np.broadcast_to(np.float32(2), param.shape) for param in params]
    sweep(flatstep.Adam(params, 0.1), grads, slice(EDGE - 30, EDGE + 100))
    expected = np.zeros(100, np.float32)
    flatstep.Adam(expected, 0.1).step(np.full(100, 2, np.float32))
    assert_same_bits(params[0][-10:], expected[:10])
    assert not params[0][-20:-10].any()
    assert_same_bits(params[1], expected)
    assert_same_bits(params[2][:20], expected[:20])
    assert not params[2][20:].any()
