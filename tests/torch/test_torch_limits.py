"""max_norm and skip_nonfinite in flatstep.torch, and clip_grad_norm_ in torch's place."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import flatstep.torch as front
import norms
from cases import assert_same_bits, numbers
from torch_cases import DEFAULTS, DTYPES, Snapshot, parametrize, params_of, set_grads, torch

SHAPES = [(1500,), (), (3, 5, 7), (0, 4), (64,)]
defaults = parametrize(DEFAULTS)


def some_grads(rng: np.random.Generator, dtype, size: float) -> list[np.ndarray]:
    return [np.asarray(rng.standard_normal(shape) * size, dtype) for shape in SHAPES]


@defaults
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_max_norm(case, dtype):
    """The bits of the NumPy front end with the factor of torch's clip_grad_norm_ as its grad_scale."""
    rng = np.random.default_rng(0)
    arrays = [np.asarray(rng.standard_normal(shape), DTYPES[dtype]) for shape in SHAPES]
    params, mine = params_of(arrays), [array.copy() for array in arrays]
    opt, own = case.make(params, max_norm=50.0), case.core(mine, learning_rate=0.05, **case.own)
    factors = []
    for size in (1, 3, 0.1):
        grads = some_grads(rng, DTYPES[dtype], size)
        grads[1] = None
        set_grads(params, grads)
        norm = norms.global_norm(grads)
        factors.append(norms.factor(norm, 50.0, as_torch=True))
        opt.step()
        own.step(grads, grad_scale=factors[-1])
        assert opt.grad_norm == norm
        for param, grad in zip(params, grads, strict=True):
            assert grad is None or np.array_equal(param.grad.numpy(), grad), "a gradient was written"
    assert {factor == 1 for factor in factors} == {True, False}
    for param, expected in zip(params, mine, strict=True):
        assert_same_bits(param.detach().numpy(), expected)


@defaults
@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_skip_nonfinite(case, value):
    """Such a step changes nothing but `skipped`, not even a version counter where the host knows of it."""
    arrays = [np.ones(shape, np.float32) for shape in SHAPES]
    params = params_of(arrays)
    opt = case.make(params, skip_nonfinite=True)
    set_grads(params, arrays)
    opt.step()
    before = copy.deepcopy(opt.state_dict()), [param.detach().clone() for param in params], [p._version for p in params]
    params[0].grad[7] = value
    opt.step()
    assert opt.skipped == 1 and not np.isfinite(opt.grad_norm)
    assert [param._version for param in params] == before[2] or not Snapshot.host_knows
    torch.testing.assert_close((opt.state_dict(), list(params)), before[:2], rtol=0, atol=0)
    params[0].grad[7] = 1
    opt.step()
    assert opt.skipped == 1 and opt.state[params[0]]["step"] == 2


def test_one_norm_over_all_groups_and_rules():
    params = params_of([np.full(4, 2.0, np.float32)] * 3)
    groups = [{"params": params[:1]}, {"params": params[1:2], "lr": 1.0}, {"params": params[2:], "weight_decay": 0.1}]
    opt = front.AMSGrad(groups, max_norm=0.5)
    set_grads(params, [np.ones(4, np.float32)] * 3)
    opt.step()
    assert opt.grad_norm == np.sqrt(12.0)


def test_complex_and_negated_gradients():
    """As their real and imaginary parts, and as what they mean."""
    param = torch.nn.Parameter(torch.ones(3, dtype=torch.complex64))
    param.grad = torch.full((3,), 3 + 4j)
    opt = front.Adam([param], max_norm=1.0)
    opt.step()
    assert opt.grad_norm == np.sqrt(75.0)
    param.grad = torch.full((3,), 3 + 4j).conj()
    assert front.clip_grad_norm_([param], 100.0) == torch.tensor(np.sqrt(75.0), dtype=torch.float32)
    front.clip_grad_norm_([param], 1.0)
    torch.testing.assert_close(param.grad, torch.full((3,), (3 - 4j) / np.sqrt(75.0), dtype=torch.complex64))


def test_after_unscaling():
    """GradScaler's scale comes first: the norm is of unscaled gradients."""
    param = torch.nn.Parameter(torch.ones(4))
    opt = front.Adam([param], max_norm=1.0, fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale(param.sum()).backward()
    scaler.step(opt)
    assert opt.grad_norm == 2.0


def test_arguments():
    """Numbers that are none, and that a group has no keys for them: torch's checkpoints have none."""
    param = torch.nn.Parameter(torch.ones(4))
    for wrong in (-1.0, float("nan"), "much"):
        with pytest.raises((TypeError, ValueError), match="max_norm is"):
            front.Adam([param], max_norm=wrong)
    with pytest.raises(TypeError, match="skip_nonfinite is 1, expected True or False"):
        front.Adam([param], skip_nonfinite=1)
    opt = front.Adam([param], max_norm=1.0)
    assert opt.param_groups[0].keys() == front.Adam([param]).param_groups[0].keys()
    for same in (copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))):
        assert (same.max_norm, same.skip_nonfinite, same.skipped, same.grad_norm) == (1.0, False, 0, None)
    opt.max_norm, opt.skip_nonfinite = None, True
    assert (opt.max_norm, opt.skip_nonfinite) == (None, True)


def test_a_skipped_step_leaves_other_kinds_of_tensors_alone():
    """On the meta device, with gaps: nothing is written back, and nothing counted."""
    meta = torch.nn.Parameter(torch.empty(3, device="meta"))
    gaps = torch.nn.Parameter(torch.ones(4, 2)[:, :1])
    bad = torch.nn.Parameter(torch.ones(2))
    params = [meta, gaps, bad]
    opt = front.Adam(params, skip_nonfinite=True)
    meta.grad, gaps.grad, bad.grad = torch.empty(3, device="meta"), torch.ones(4, 1), torch.ones(2)
    opt.step()
    before = copy.deepcopy(opt.state[gaps]), gaps._version, opt.state[meta]["step"].item()
    bad.grad[0] = torch.inf
    opt.step()
    assert opt.skipped == 1
    torch.testing.assert_close((opt.state[gaps], gaps._version, opt.state[meta]["step"].item()), before)


def test_a_group_has_no_limit_of_its_own():
    param = torch.nn.Parameter(torch.ones(2))
    with pytest.raises(ValueError, match="a group has max_norm, which is for all groups together"):
        front.Adam([{"params": [param], "max_norm": 1.0}])


def test_a_copy_has_limits_of_its_own():
    opt = front.Adam([torch.nn.Parameter(torch.ones(2))], max_norm=1.0)
    other = copy.copy(opt)
    other.max_norm = None
    assert opt.max_norm == 1.0
    opt.max_norm = float("inf")


def test_clip_grad_norm_under_another_default_device():
    param = torch.nn.Parameter(torch.ones(2))
    param.grad = torch.ones(2)
    with torch.device("meta"):
        assert front.clip_grad_norm_([param], 1.0).device.type == "cpu"


def test_a_parameter_that_stands_twice_is_rejected():
    param = torch.nn.Parameter(torch.ones(4))
    with pytest.warns(UserWarning, match="duplicate"):
        opt = front.Adam([param, param], max_norm=1.0)
    param.grad = torch.ones(4)
    with pytest.raises(ValueError, match="stands in the optimizer twice"):
        opt.step()
    assert not opt.state and torch.equal(param, torch.ones(4))


@pytest.mark.parametrize("norm_type", [2.0, 2, float("inf"), "inf", 1.0])
@pytest.mark.parametrize("dtype", [*DTYPES, torch.bfloat16, torch.complex64], ids=str)
@pytest.mark.parametrize("max_norm", [1.0, 1e4])
def test_clip_grad_norm(norm_type, dtype, max_norm):
    """As torch's, up to the rounding of its sums."""
    rng = np.random.default_rng(1)
    ours, theirs = ([torch.nn.Parameter(torch.zeros(shape, dtype=dtype)) for shape in SHAPES] for _ in range(2))
    for one, other in zip(ours, theirs, strict=True):
        grad = torch.from_numpy(np.asarray(numbers(rng, one.shape, np.float32))).to(dtype)
        one.grad, other.grad = grad.clone(), grad.clone()
    ours[0].grad = ours[0].grad[:1].expand(1500).clone().flip(0)
    theirs[0].grad = ours[0].grad.clone()
    ours[1].grad = theirs[1].grad = None
    if norm_type in (float("inf"), "inf"):  # torch knows no largest of none
        ours[3].grad = theirs[3].grad = None
    norm = front.clip_grad_norm_(ours, max_norm, norm_type)
    expected = torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type)
    assert norm.dtype == expected.dtype
    tolerance = {"rtol": 1e-2, "atol": 0} if dtype in (torch.float16, torch.bfloat16) else {"rtol": 1e-5, "atol": 0}
    torch.testing.assert_close(norm, expected, **tolerance)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad, **{**tolerance, "atol": 1e-7})


def test_clip_grad_norm_leaves_small_gradients_alone():
    """No gradient is written where the host knows the norm: its version stays."""
    param = torch.nn.Parameter(torch.zeros(3))
    param.grad = torch.ones(3)
    front.clip_grad_norm_(param, 10.0)
    assert param.grad._version == 0 or not Snapshot.host_knows
    assert front.clip_grad_norm_([], 1.0) == 0


def test_clip_grad_norm_of_what_is_not_finite():
    param = torch.nn.Parameter(torch.zeros(3))
    param.grad = torch.tensor([1.0, float("inf"), 2.0])
    with pytest.raises(RuntimeError, match=r"is inf \(inf in torch.float32\), so that they cannot be clipped"):
        front.clip_grad_norm_([param], 1.0, error_if_nonfinite=True)
    assert param.grad[0] == 1
    twin = torch.nn.Parameter(torch.zeros(3))
    twin.grad = param.grad.clone()
    assert front.clip_grad_norm_([param], 1.0) == torch.nn.utils.clip_grad_norm_([twin], 1.0) == float("inf")
    torch.testing.assert_close(param.grad, twin.grad, equal_nan=True)
