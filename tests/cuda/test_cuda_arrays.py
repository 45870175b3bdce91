"""flatstep's own optimizers over other libraries' arrays on a CUDA device. Runs where there is one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import flatstep
from cases import CASES, DEFAULTS, DTYPES, assert_same_bits, numbers

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
SHAPES = [(130,), (), (3, 5, 7), (0, 4), (64,), (2100,), (300, 257)]


@dataclass
class Library:
    kind: type
    from_host: Callable[[np.ndarray], Any]
    to_host: Callable[[Any], np.ndarray]
    on_a_stream: Callable[[], AbstractContextManager]


@pytest.fixture(params=["torch", "cupy"])
def library(request):
    if request.param == "torch":
        return Library(
            torch.Tensor,
            lambda array: torch.from_numpy(array.copy(order="K")).cuda(),
            lambda tensor: tensor.cpu().numpy(),
            lambda: torch.cuda.stream(torch.cuda.Stream()),
        )
    cupy = pytest.importorskip("cupy")
    return Library(cupy.ndarray, cupy.array, cupy.asnumpy, lambda: cupy.cuda.Stream(non_blocking=True))


def some(rng, dtype):
    return [numbers(rng, shape, dtype) for shape in SHAPES]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
@pytest.mark.parametrize("dtype", [*DTYPES, np.float16])
def test_the_bits_of_numpy(case, dtype, library):
    """Beside arrays of NumPy's, with gradients that are missing; the state, too."""
    rng = np.random.default_rng(0)
    arrays = some(rng, dtype)
    mixed = [array.copy() if i % 3 == 2 else library.from_host(array) for i, array in enumerate(arrays)]
    mine, twin = case.make(mixed), case.make(arrays)
    for count in range(4):
        grads = [None if (count + i) % 4 == 3 else grad for i, grad in enumerate(some(rng, dtype))]
        twin.step(grads)
        mine.step([grad if grad is None or i % 3 == 2 else library.from_host(grad) for i, grad in enumerate(grads)])
    for own, array in zip(mixed, arrays, strict=True):
        assert_same_bits(library.to_host(own) if isinstance(own, library.kind) else own, array)
    ours, theirs = mine.state_dict(), twin.state_dict()
    for slot in twin.state:
        for i, (own, view) in enumerate(zip(ours["state"][slot], theirs["state"][slot], strict=True)):
            assert_same_bits(own, view, slot)
            assert isinstance(mine.state[slot][i], np.ndarray if i % 3 == 2 else library.kind)


@pytest.mark.parametrize("case", DEFAULTS, ids=[case.name for case in DEFAULTS])
def test_state_crosses_over(case, library, tmp_path):
    rng = np.random.default_rng(1)
    array, grads = numbers(rng, 3000, np.float32), [numbers(rng, 3000, np.float32) for _ in range(4)]
    host, there = array.copy(), library.from_host(array)
    opt = case.make(host)
    for grad in grads[:2]:
        opt.step(grad)
    opt.save(tmp_path / "saved")
    on_device = case.make(there)
    on_device.load(tmp_path / "saved")
    for grad in grads[2:]:
        opt.step(grad)
        on_device.step(library.from_host(grad))
    assert_same_bits(library.to_host(there), host)
    for slot, array in opt.state.items():
        assert_same_bits(on_device.state_dict()["state"][slot], array, slot)


def test_steps_are_on_the_librarys_stream(library):
    """Which is kept busy, so that a step anywhere else would read gradients before they are written."""
    size = 1 << 22
    param, grad = (library.from_host(np.full(size, value, np.float32)) for value in (1, 0))
    opt = flatstep.Adam(param, 0.1)
    torch.cuda.synchronize()  # another stream than that which they were copied on
    with library.on_a_stream():
        for _ in range(50):
            grad += 1
        opt.step(grad)
        seen = library.to_host(param)
    assert_same_bits(seen.round(6), np.full(size, 0.9, np.float32))


def test_gradients_of_another_library():
    """torch's, on a busy stream of its own, for CuPy's parameters; torch then writes to them again at once."""
    cupy = pytest.importorskip("cupy")
    size = 1 << 22
    param, stream = cupy.ones(size, np.float32), torch.cuda.Stream()
    opt = flatstep.Adam(param, 0.1)
    with torch.cuda.stream(stream):
        grad = torch.zeros(size, device="cuda")
        for _ in range(50):
            grad += 1
        opt.step(grad)
        grad.fill_(float("nan"))
    assert_same_bits(cupy.asnumpy(param).round(6), np.full(size, 0.9, np.float32))


def test_captures_are_rejected():
    param, grad = torch.ones(3, device="cuda"), torch.ones(3, device="cuda")
    opt = flatstep.Adam(param, 0.1)
    with torch.cuda.graph(torch.cuda.CUDAGraph()):
        grad.mul_(2)  # torch warns of an empty graph
        with pytest.raises(RuntimeError, match="part of a CUDA graph"):
            opt.step(grad)
    assert opt.count == 0


def test_tensors_of_autograd_are_sent_to_the_front_end():
    with pytest.raises(TypeError, match=r"autograd's; use flatstep.torch"):
        flatstep.Adam(torch.nn.Parameter(torch.ones(3, device="cuda")), 0.1)


@pytest.mark.parametrize("dtype", [*DTYPES, np.float16])
def test_tails_have_the_bits_of_numpy(dtype, library):
    """Clipped, averaged, and gradients become zero, strided ones too."""
    rng = np.random.default_rng(7)
    arrays = some(rng, dtype)
    there = [library.from_host(array) for array in arrays]
    opts = [flatstep.AMSGrad(params, 0.1, ema_decay=0.9, zero_grads=True, max_norm=1.0) for params in (arrays, there)]
    for _ in range(3):
        grads = some(rng, dtype)
        assert flatstep.global_norm(grads) == flatstep.global_norm([library.from_host(grad) for grad in grads])
        others = [library.from_host(grad) for grad in grads]
        opts[0].step(grads)
        opts[1].step(others)
        assert opts[0].grad_norm == opts[1].grad_norm
        assert not any(library.to_host(grad).any() for grad in others)
    for pairs in (zip(there, arrays, strict=True), zip(opts[1].ema, opts[0].ema, strict=True)):
        for own, array in pairs:
            assert_same_bits(library.to_host(own), array)
