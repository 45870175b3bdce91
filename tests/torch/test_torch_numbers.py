"""flatstep.torch computes what the core does, what the oracle says of narrow formats, and what torch's loop does."""

from __future__ import annotations

import copy
import ctypes

import numpy as np
import pytest

import flatstep
import reference
from cases import assert_same_bits, numbers
from flatstep import _core
from torch_cases import CASES, DEFAULTS, DTYPES, PEERS, parametrize, params_of, set_grads, torch, torch_peer

STEPS = 5
SHAPES = [(130,), (), (3, 5, 7), (0, 4), (64,)]
NARROW = [torch.float16, torch.bfloat16]
by_name = parametrize(CASES)
defaults = parametrize(DEFAULTS)


@by_name
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_equals_the_core(case, dtype, target):
    """The same bits as the NumPy face for the same arrays, in parameters and state; a gradient is None now and then."""
    rng = np.random.default_rng(0)
    arrays = [numbers(rng, shape, DTYPES[dtype]) for shape in SHAPES]
    params, mine = params_of(arrays), [array.copy() for array in arrays]
    opt, own = case.make(params), case.core(mine, learning_rate=0.05, **case.own)
    for count in range(STEPS):
        grads = [None if (count + i) % 4 == 3 else numbers(rng, s, DTYPES[dtype]) for i, s in enumerate(SHAPES)]
        set_grads(params, grads)
        opt.step()
        own.step(grads)
    for i, param in enumerate(params):
        assert_same_bits(param.detach().numpy(), mine[i], f"param {i}")
        for slot, views in own.state.items():
            assert_same_bits(opt.state[param][case.keys[slot]].numpy(), views[i], f"{slot} of {i}")
        assert opt.state[param]["step"].dtype == torch.float32


def test_without_exchange_api():
    """A torch whose DLPack exchange API is of another version is rejected."""
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    table = (ctypes.c_uint64 * 8)(99)
    capsule = new(ctypes.addressof(table), b"dlpack_exchange_api", None)
    with pytest.raises(ImportError, match="no DLPack exchange API of version 1; upgrade flatstep"):
        _core.TorchStepper([], (), capsule, [])


def wide(tensor):
    """The numbers of a tensor in NumPy, bfloat16 as float32."""
    return tensor.detach().float().numpy() if tensor.dtype == torch.bfloat16 else tensor.detach().numpy()


def rounded(array, dtype):
    """Numbers rounded to a narrow format, by other code than torch's and ours."""
    if dtype == torch.bfloat16:
        return reference.from_bfloat16(reference.to_bfloat16(array))
    return np.asarray(array).astype(np.float16).astype(np.float32) if dtype == torch.float16 else array


# Of a narrow parameter: the dtypes of its gradient, first moment and second moment. None: as narrow.
STORED = [
    (None, None, None),
    (None, torch.float32, None),
    (None, torch.float32, torch.float32),
    (torch.float32, None, None),
    (torch.float32, torch.float32, None),
    (torch.float32, torch.float32, torch.float32),
]


@defaults
@pytest.mark.parametrize("stored", STORED, ids=str)
@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_narrow_formats_round_once(case, dtype, stored, target):
    """Each step is float32 arithmetic on what is stored, and one rounding of each slot."""
    of_grad, of_mu, of_nu = [own or dtype for own in stored]
    if of_mu != of_nu and not hasattr(case.core, "mu_dtype"):
        pytest.skip("its moments are stored alike")
    rng = np.random.default_rng(1)
    param = torch.nn.Parameter(torch.from_numpy(numbers(rng, 300, np.float32)).to(dtype))
    param.grad_dtype = of_grad
    opt = case.make([param])
    formats = {"mu": of_mu, "nu": of_nu, "nu_max": of_nu, "previous": dtype, "trace": dtype}
    slots = [slot for slot, key in case.keys.items() if key in opt.state_keys]
    opt.state[param] = {"step": torch.tensor(0.0)}
    opt.state[param].update({case.keys[slot]: torch.zeros(300, dtype=formats[slot]) for slot in slots})
    expected, state = wide(param).astype(np.float32), {}
    for t in range(1, STEPS + 1):
        param.grad = torch.from_numpy(numbers(rng, 300, np.float32)).to(of_grad)
        with np.errstate(all="ignore"):
            grad = wide(param.grad).astype(np.float32)
            expected, state = case.oracle(expected, grad, state, t, learning_rate=0.05, **case.own)
            expected = rounded(expected, dtype)
            state = {slot: rounded(value, formats[slot]) for slot, value in state.items()}
        opt.step()
        assert_same_bits(wide(param).astype(np.float32), expected, f"param, step {t}")
        for slot in slots:
            assert opt.state[param][case.keys[slot]].dtype == formats[slot]
            assert_same_bits(
                wide(opt.state[param][case.keys[slot]]).astype(np.float32), state[slot], f"{slot}, step {t}"
            )


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_every_rounding_boundary(dtype, target):
    """Without memory the first moment is the gradient: every narrow number, each middle, the middle's neighbours."""
    patterns = torch.arange(0x7C00 if dtype == torch.float16 else 0x7F80, dtype=torch.int16).view(dtype)
    exact = patterns.float().numpy()
    middle = (exact[:-1].astype(np.float64) + exact[1:]) / 2
    middle = np.append(middle, 65520 if dtype == torch.float16 else 3.3961775e38).astype(np.float32)
    around = [np.nextafter(middle, np.float32(side)) for side in (np.inf, 0)]
    values = np.concatenate([exact, middle, *around, np.float32([np.inf, np.nan, 1e-45, 1e30, 3.4e38])])
    values = np.concatenate([values, -values])
    param = torch.nn.Parameter(torch.zeros(values.size, dtype=dtype))
    param.grad_dtype = torch.float32
    param.grad = torch.from_numpy(values)
    opt = flatstep.torch.Adam([param], lr=0.0, betas=(0.0, 0.5))
    opt.step()
    with np.errstate(all="ignore"):
        expected = rounded(reference.flush(np.float32(0) * np.float32(0) + values), dtype)
    assert_same_bits(wide(opt.state[param]["exp_avg"]).astype(np.float32), expected)


def test_the_sign_of_nan_is_nan():
    """As for NumPy and JAX; torch's is 0."""
    param, grad = torch.nn.Parameter(torch.zeros(4)), torch.tensor([torch.nan, 0.0, -0.0, 2.0])
    assert torch.sign(grad)[0] == 0
    param.grad = grad
    flatstep.torch.Lion([param], lr=1.0).step()
    assert_same_bits(param.detach().numpy(), np.float32([np.nan, 0, 0, -1]))


@parametrize(PEERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_torch_loop(case, dtype):
    """Within a few ulp of torch's for-loop in each step from the same state; over a run the differences may grow."""
    rng = np.random.default_rng(2)
    params = params_of([numbers(rng, shape, DTYPES[dtype]) for shape in SHAPES])
    opt = case.make(params, **case.fitting(dict(eps_root=0.0)))
    for _ in range(STEPS):
        theirs = [torch.nn.Parameter(param.detach().clone()) for param in params]
        peer = torch_peer(case, theirs)
        if opt.state:
            peer.load_state_dict(copy.deepcopy(opt.state_dict()))
        grads = [numbers(rng, shape, DTYPES[dtype]) for shape in SHAPES]
        set_grads(params, grads)
        set_grads(theirs, grads)
        before = [(wide(param).copy(), copy.deepcopy(opt.state[param])) for param in params]
        opt.step()
        peer.step()
        for own, other, grad, (param, state) in zip(params, theirs, grads, before, strict=True):
            assert_close_to_loop(opt.state[own], peer.state[other], np.abs(grad) + np.abs(param), state)
            change = np.abs(wide(other) - param)
            few = 4 * np.spacing(np.maximum(np.abs(param), change)) * cancelled(opt.state[own])
            if "exp_avg" in peer.state[other]:
                mu = np.abs(wide(peer.state[other]["exp_avg"]))
                with np.errstate(all="ignore"):  # what is off in the moment is off in the step, in proportion
                    few += 8 * change * np.spacing(np.maximum(mu, np.abs(grad) + np.abs(param))) / mu
            assert not np.any(np.abs(wide(own) - wide(other)) > few)


def cancelled(state):
    """How much a difference of moments magnifies what is off in them; 1 where there is none."""
    if "grad_avg" not in state:
        return 1
    square, mean = wide(state["square_avg"]), wide(state["grad_avg"])
    with np.errstate(all="ignore"):
        return square / np.abs(square - mean * mean)


def assert_close_to_loop(ours, theirs, size, before):
    """Moments within a few ulp of the largest of the terms that they are sums of."""
    terms = {"exp_avg": size, "grad_avg": size, "momentum_buffer": 1 / np.sqrt(1 - 0.99) * cancelled(ours)}
    for key in [key for key in theirs if key != "step"]:
        old = np.abs(wide(before[key])) if before else 0
        few = 4 * np.spacing(np.maximum(terms.get(key, size**2), old).astype(size.dtype))
        assert np.all(np.abs(wide(ours[key]) - wide(theirs[key])) <= few), key
