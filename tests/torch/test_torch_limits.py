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
    for wrong in (-1.0, -float("inf"), float("nan"), "much", [1.0], np.ones(2), torch.ones(2), True):
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
    param.grad = torch.ones(4)
    opt.step()
    assert opt.grad_norm == 2
    opt.skip_nonfinite = False
    assert opt.grad_norm is None


def test_no_limit_but_a_norm():
    param, twin = (torch.nn.Parameter(torch.ones(4)) for _ in range(2))
    opt, plain = front.Adam([param], max_norm=torch.tensor(torch.inf)), front.Adam([twin])
    param.grad = twin.grad = torch.full((4,), 3.0)
    for each in (opt, plain):
        each.step()
    assert opt.max_norm == torch.inf and opt.grad_norm == 6 and torch.equal(param, twin)
    param.grad = torch.ones(4)
    opt.state[param]["step"] = torch.ones(3)
    with pytest.raises(ValueError, match="state step of param"):
        opt.step()
    assert opt.grad_norm == 6, "it is that of the last step that did not raise"


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


def test_clip_grad_norm_of_tiny_gradients():
    """The factor is torch's, in which 1e-6 is added to the norm."""
    param = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
    param.grad = torch.tensor([3e-6, 4e-6], dtype=torch.float64)
    front.clip_grad_norm_([param], 1e-6)
    torch.testing.assert_close(param.grad, torch.tensor([0.5e-6, 2e-6 / 3], dtype=torch.float64), rtol=1e-12, atol=0)


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
    with pytest.raises(
        RuntimeError, match="The total norm of order 2.0 .* is non-finite, so it cannot be clipped: it is inf"
    ):
        front.clip_grad_norm_([param], 1.0, error_if_nonfinite=True)
    assert param.grad[0] == 1
    twin = torch.nn.Parameter(torch.zeros(3))
    twin.grad = param.grad.clone()
    assert front.clip_grad_norm_([param], 1.0) == torch.nn.utils.clip_grad_norm_([twin], 1.0) == float("inf")
    torch.testing.assert_close(param.grad, twin.grad, equal_nan=True)


def shared_gradient():
    grad = torch.tensor([3.0, 4.0])
    return [grad, grad]


def overlapping_gradients():
    grad = torch.tensor([3.0, 4.0, 5.0])
    return [grad[:2], grad[1:]]


def zeros_without_memory():
    return [torch._efficientzerotensor(3), torch.ones(2)]


# Gradients of kinds that need care, made by each call.
KINDS = {
    "none": lambda: [None, None],
    "empty": lambda: [torch.zeros(0)],
    "one in two places": shared_gradient,
    "overlapping": overlapping_gradients,
    "zeros without memory": zeros_without_memory,
    "sparse": lambda: [torch.tensor([0.0, 3.0, 4.0]).to_sparse()],
    "meta": lambda: [torch.ones(3, device="meta")],
    "a subclass": lambda: [torch.nn.Buffer(torch.ones(3)), torch.nn.Parameter(torch.ones(3))],
    "integers": lambda: [torch.ones(3, dtype=torch.int32)],
    "complex32": lambda: [torch.full((3,), 3 + 4j, dtype=torch.complex32)],
    "float8": lambda: [torch.ones(3).to(torch.float8_e4m3fn)],
    "many dtypes": lambda: [torch.ones(3, dtype=dtype) for dtype in (torch.float16, torch.float64, torch.complex64)],
    "channels last": lambda: [torch.arange(96.0).view(2, 3, 4, 4).to(memory_format=torch.channels_last)],
    "in a graph": lambda: [torch.ones(3, requires_grad=True) * 2],
    "negative views": lambda: [torch._neg_view(torch.ones(3)), torch.tensor([3 + 4j]).conj().imag],
    "NaN": lambda: [torch.tensor([1.0, torch.nan])],
    "infinite": lambda: [torch.tensor([1.0, torch.inf])],
}
# More arguments of clip_grad_norm_.
CALLS = [(1.0,), (1e3,), (0.0,), (-1.0,), (float("nan"),), ("1",), (torch.tensor(1.0),), (1.0, 1.0), (1.0, 0)]
CALLS += [(1.0, "inf"), (float("inf"),), ("much",), (None,), (1.0, None), (1.0, 2.0, True), (1.0, 2.0, False, True)]


def clipped(function, kind, arguments):
    """What it returns and leaves in the gradients, or what it raises."""
    grads = KINDS[kind]()
    params = [torch.zeros(1) if grad is None else torch.zeros_like(grad) for grad in grads]
    for param, grad in zip(params, grads, strict=True):
        param.grad = grad
    try:
        norm = function(iter(params), *arguments, **({} if len(arguments) == 4 else {"foreach": False}))
    except (TypeError, ValueError, RuntimeError) as error:
        return type(error)
    return norm, [param.grad for param in params]


@pytest.mark.filterwarnings("ignore:ComplexHalf")
@pytest.mark.parametrize("arguments", CALLS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_clip_grad_norm_takes_what_torch_takes(kind, arguments):
    """And does with it what torch does."""
    ours = clipped(front.clip_grad_norm_, kind, arguments)
    theirs = clipped(torch.nn.utils.clip_grad_norm_, kind, arguments)
    if isinstance(theirs, type):
        may_be_taken = kind == "empty" or (kind == "negative views" and len(arguments) == 4)
        assert isinstance(ours, type) or may_be_taken
        return
    assert ours[0].dtype == theirs[0].dtype and ours[0].device == theirs[0].device
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6, equal_nan=True)


def test_clip_grad_norm_of_generators():
    """They are read once; an empty one is taken for a mistake, as by torch."""
    param = torch.nn.Parameter(torch.zeros(2))
    param.grad = torch.tensor([3.0, 4.0])
    assert front.clip_grad_norm_((p for p in [param]), 1.0) == 5
    with pytest.warns(UserWarning, match="empty generator") as warned:
        front.clip_grad_norm_((p for p in []), 1.0)
    assert warned[0].filename == __file__


def test_clip_grad_norm_in_a_compiled_graph():
    """It is torch's function there, and breaks no graph."""
    param = torch.nn.Parameter(torch.zeros(2))

    def clip(grad):
        param.grad = grad
        return front.clip_grad_norm_([param], 1.0)

    assert torch.compile(clip, backend="eager", fullgraph=True)(torch.tensor([3.0, 4.0])) == 5


def test_clip_grad_norm_names_what_it_cannot_read():
    plain, odd = torch.zeros(2), torch.zeros(2)
    odd.grad = torch.frombuffer(bytearray(9), dtype=torch.float32, count=2, offset=1)
    if odd.grad.data_ptr() % 4 == 0:
        pytest.skip("the buffer is not aligned either")
    with pytest.raises(ValueError, match="grads of parameter 1 is not aligned"):
        front.clip_grad_norm_([plain, odd], 1.0)


def test_a_norm_that_is_infinite_in_the_dtype_clips():
    """By its value in float64; torch makes such gradients zero."""
    param = torch.nn.Parameter(torch.zeros(4))
    param.grad = torch.full((4,), 3e38)
    assert front.clip_grad_norm_([param], 1.0) == torch.inf
    torch.testing.assert_close(param.grad, torch.full((4,), 0.5))


def test_parameters_with_one_gradient():
    """Tied weights in two groups: each counts, as in torch, and none is written."""
    params = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    opt = front.Adam([{"params": [param]} for param in params], max_norm=1.0)
    grad = torch.tensor([3.0, 4.0])
    params[0].grad = params[1].grad = grad
    opt.step()
    assert opt.grad_norm == np.sqrt(50.0) and grad.tolist() == [3, 4]
    assert torch.equal(*params)


def test_a_sparse_gradient_is_rejected_with_limits():
    """As without them: nothing is stepped."""
    params = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    opt = front.Adam(params, max_norm=1.0, skip_nonfinite=True)
    params[0].grad, params[1].grad = torch.ones(2), torch.ones(2).to_sparse()
    with pytest.raises(RuntimeError, match="is sparse"):
        opt.step()
    assert not opt.state and opt.grad_norm is None and all(torch.equal(param, torch.ones(2)) for param in params)
