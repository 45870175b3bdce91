"""Averages of parameters in flatstep.torch. See core/test_tail.py."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import averages
import flatstep.torch as front
from torch_cases import Snapshot, give_grads, same_bits, torch, twins
from torch_tails import SHAPES, array_of, by_dtype, defaults, train


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("decay", [0.0, 0.5, 0.75, 0.9, 0.999])
def test_averages_are_those_of_averaged_model(dtype, decay):
    """The same bits where 1 - decay is a power of two: else torch's own fused multiply-add rounds once less."""
    torch.manual_seed(0)
    module = torch.nn.Linear(37, 20, dtype=dtype)
    averaged = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(decay))
    opt = front.AMSGrad(module.parameters(), lr=0.1, ema_decay=decay)
    for step in range(5):
        give_grads(module.parameters(), seed=step)
        opt.step()
        averaged.update_parameters(module)
    theirs = list(averaged.module.parameters())
    if decay in (0.0, 0.5, 0.75):
        same_bits(opt.ema, theirs)
    few = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(opt.ema, [param.detach() for param in theirs], rtol=few, atol=few)


@by_dtype
@pytest.mark.parametrize("own", [False, True], ids=["computed", "own"])
def test_the_dtype_of_averages(dtype, own):
    """That in which steps compute, or the parameter's own."""
    (param,), _ = twins([(300,)], dtype)
    opt = front.Adam([param], ema_decay=0.5, ema_dtype=dtype if own else None)
    seen = train(opt, [param])
    expected = dtype if own or dtype == torch.float64 else torch.float32
    assert opt.ema[0].dtype == expected
    if own and dtype == torch.bfloat16:
        average = torch.from_numpy(seen[0][0]).bfloat16()
        for (later,) in seen[1:]:
            wide = average.float()
            average = (torch.from_numpy(later) - (torch.from_numpy(later) - wide) * 0.5).bfloat16()
    else:
        stored = {torch.float16: np.float16, torch.float64: np.float64}.get(expected, np.float32)
        average = torch.from_numpy(averages.interpolated([step[0] for step in seen], 0.5, stored))
    same_bits(opt.ema[0], average)


@by_dtype
def test_corrected_averages(dtype):
    """By each parameter's own count; one without a gradient keeps its average."""
    params, _ = twins(SHAPES, dtype)
    opt = front.Adam(params, ema_decay=0.9, ema_start="zero", ema_debias=True)
    same_bits([average.to(dtype) for average in opt.ema], params)
    seen = train(opt, params)
    params[0].grad = None
    for param in params[1:]:
        param.grad = torch.ones_like(param)
    opt.step()
    computed = np.float64 if dtype == torch.float64 else np.float32
    for at, average in enumerate(opt.ema):
        each = [*[step[at] for step in seen], *([array_of(params[at])] if at else [])]
        raw = averages.weighted(each, 0.9, computed)
        same_bits(average, torch.from_numpy(np.asarray(averages.debiased(raw, 0.9, len(each)), computed)), f"{at}")


@pytest.mark.filterwarnings("ignore:ComplexHalf")
@pytest.mark.parametrize("own", [False, True], ids=["computed", "own"])
@pytest.mark.parametrize("dtype", [torch.complex32, torch.complex64, torch.complex128], ids=str)
def test_corrected_averages_of_complex_numbers(dtype, own):
    """They are those of their real and imaginary parts."""
    parts = torch.linspace(-1, 1, 14).reshape(7, 2).to(dtype.to_real())
    pair = torch.nn.Parameter(torch.view_as_complex(parts.clone())), torch.nn.Parameter(parts.clone())
    options = dict(lr=0.1, ema_decay=0.9, ema_start="zero", ema_debias=True)
    opts = [front.Adam([param], ema_dtype=param.dtype if own else None, **options) for param in pair]
    for step in range(3):
        grad = parts.roll(step)
        pair[0].grad, pair[1].grad = torch.view_as_complex(grad.clone()), grad
        for opt in opts:
            opt.step()
    assert opts[0].state[pair[0]]["ema"].dtype.to_real() == opts[1].state[pair[1]]["ema"].dtype
    assert opts[1].ema[0].dtype == (torch.float64 if dtype == torch.complex128 else torch.float32)
    same_bits(torch.view_as_real(opts[0].ema[0]), opts[1].ema[0])


def test_in_inference_mode():
    """What it makes can be stepped and swapped outside of it, and asks for no gradients."""
    (param,), _ = twins([(5,)])
    opt = front.Adam([param], ema_decay=0.9)
    assert not opt.ema[0].requires_grad
    with torch.inference_mode():
        opt.swap_ema()
        assert not opt.ema[0].is_inference()
        opt.swap_ema()
        assert not opt.ema[0].is_inference()
    train(opt, [param])
    assert not param.is_inference()


def test_an_average_of_no_updates_is_not_corrected():
    """As some checkpoints have it."""
    (param,), _ = twins([(5,)])
    opt = front.Adam([param], ema_decay=0.9, ema_start="zero", ema_debias=True)
    train(opt, [param], 1)
    saved = opt.state_dict()
    saved["state"][0].update(step=torch.zeros(()), ema=torch.zeros(5))
    opt.load_state_dict(saved)
    same_bits(opt.ema, [param.detach()])


def test_the_decay_may_be_set_between_steps():
    (param,), _ = twins([(9,)])
    opt = front.Adam([param], ema_decay=0.5)
    seen = [step[0] for step in train(opt, [param], 2)]
    opt.ema_decay = 0.9
    give_grads([param], seed=7)
    opt.step()
    first, last = averages.interpolated(seen, 0.5, np.float32), array_of(param)
    same_bits(opt.ema[0], torch.from_numpy(first + np.float32(1 - 0.9) * (last - first)))
    for wrong, match in ((None, "ema_decay is None, but the optimizer was made with a number"), (1.0, "below 1")):
        with pytest.raises(ValueError, match=match):
            opt.ema_decay = wrong
    debiased = front.Adam([param], ema_decay=0.5, ema_start="zero", ema_debias=True)
    with pytest.raises(ValueError, match=r"ema_decay is 0.9 and was 0.5; with ema_debias=True it is fixed"):
        debiased.ema_decay = 0.9
    plain = front.Adam([param])
    with pytest.raises(ValueError, match="ema_decay is 0.9, but the optimizer was made with None"):
        plain.ema_decay = 0.9


# Parameters that a step does not see as they are, by what they are made of.
PARAMS = {
    "with gaps": lambda: torch.ones(6, 4)[:, ::2],
    "transposed": lambda: torch.ones(4, 6).t(),
    "channels last": lambda: torch.ones(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "complex": lambda: torch.full((5,), 1 + 2j),
    "conjugated": lambda: torch.full((5,), 1 + 2j).conj(),
    "negated": lambda: torch._neg_view(torch.ones(5)),
    "empty": lambda: torch.ones(0, 3),
}


@pytest.mark.parametrize("start", ["copy", "zero"])
@pytest.mark.parametrize("make", PARAMS.values(), ids=PARAMS)
def test_other_kinds_of_parameters(make, start):
    """Their averages have the numbers of those of plain parameters, and lie as their state does."""
    odd = torch.nn.Parameter(make())
    plain = torch.nn.Parameter(odd.detach().resolve_conj().resolve_neg().clone(memory_format=torch.contiguous_format))
    opts = [front.AMSGrad([param], lr=0.1, ema_decay=0.9, ema_start=start) for param in (odd, plain)]
    for step in range(3):
        give_grads([odd], [plain], seed=step)
        for opt in opts:
            opt.step()
    same_bits(odd, plain)
    same_bits(opts[0].ema, opts[1].ema)
    assert opts[0].ema[0].stride() == opts[0].state[odd]["exp_avg"].stride()
    before = [param.detach().clone() for param in (odd, plain)]
    for opt in opts:
        opt.swap_ema()
    same_bits(odd, plain)
    same_bits(odd.detach().clone(), opts[0].state[odd]["ema"])
    for opt in opts:
        opt.swap_ema()
    same_bits([odd, plain], before)


def test_an_average_that_lies_otherwise_than_its_parameter():
    """As a load may leave it: its own memory goes on."""
    (param,), (twin,) = twins([(3, 5)])
    opts = [front.AMSGrad([each], lr=0.1, ema_decay=0.9) for each in (param, twin)]
    for opt, each in zip(opts, (param, twin), strict=True):
        train(opt, [each])
    average = opts[0].state[param]["ema"] = opts[1].ema[0].t().contiguous().t()
    for opt, each in zip(opts, (param, twin), strict=True):
        train(opt, [each])
    assert opts[0].ema[0] is average and average.stride() == (1, 3)
    same_bits(average, opts[1].ema[0])


def test_a_skipped_step_moves_no_average():
    params, _ = twins(SHAPES)
    opt = front.AMSGrad(params, skip_nonfinite=True, ema_decay=0.9)
    train(opt, params)
    give_grads(params, seed=0)
    params[0].grad[0] = torch.nan
    before = Snapshot(opt)
    opt.step()
    before.check()
    assert opt.skipped == 1


@by_dtype
@pytest.mark.parametrize("more", [{}, dict(ema_start="zero", ema_debias=True)], ids=["copy", "debiased"])
def test_swapping(dtype, more):
    """There and back again changes no bit, and in between nothing can be stepped, saved, loaded or copied."""
    params, _ = twins(SHAPES, dtype)
    groups = [{"params": params[:2]}, {"params": params[2:], "lr": 0.1}]
    opt = front.AMSGrad(groups, ema_decay=0.9, **more)
    train(opt, params)
    params[0].grad = None
    before, versions = [param.detach().clone() for param in params], [param._version for param in params]
    expected = [average.clone() for average in opt.ema]
    saved = copy.deepcopy(opt.state_dict())
    opt.swap_ema()
    same_bits([param.detach() for param in params], [average.to(dtype) for average in expected])
    same_bits(opt.ema, before)
    assert all(param._version > version for param, version in zip(params, versions, strict=True))
    forbidden = [opt.step, opt.state_dict, lambda: opt.load_state_dict(saved), lambda: copy.deepcopy(opt)]
    forbidden += [lambda: opt.step(lambda: pytest.fail("the loss of averages")), lambda: pickle.dumps(opt)]
    for call in forbidden:
        with pytest.raises(RuntimeError, match=r"swapped with their averages; call swap_ema\(\) again"):
            call()
    opt.swap_ema()
    same_bits([param.detach() for param in params], before)
    same_bits(opt.ema, expected)
    opt.step()


def test_a_closure_that_leaves_parameters_swapped():
    """No step updates the averages in their place."""
    (param,), _ = twins([(3,)])
    opt = front.Adam([param], ema_decay=0.9)
    train(opt, [param])
    count, average = opt.state[param]["step"].clone(), opt.ema[0].clone()
    with pytest.raises(RuntimeError, match="swapped with their averages"):
        opt.step(opt.swap_ema)
    same_bits(param.detach(), average)
    assert opt.state[param]["step"] == count


def test_parameters_without_state_are_their_own_averages():
    """Frozen ones, say; and the state of a new group begins by itself."""
    first, frozen, late = (torch.nn.Parameter(torch.full((3,), float(k))) for k in range(3))
    opt = front.Adam([first, frozen], ema_decay=0.9)
    first.grad = torch.ones(3)
    opt.step()
    opt.add_param_group({"params": [late]})
    same_bits(opt.ema, [first.detach(), frozen.detach(), late.detach()])
    late.grad = torch.ones(3)
    for _ in range(2):
        opt.step()
    assert frozen not in opt.state and opt.state[late]["step"] == 2
    before = frozen.detach().clone()
    opt.swap_ema()
    same_bits(frozen.detach(), before)
    assert not torch.equal(late, opt.ema[2])


def by_state_dict(opt, params):
    other = type(opt)(params, lr=0.05, ema_decay=0.9, zero_grads=True)
    other.load_state_dict(copy.deepcopy(opt.state_dict()))
    return other


def with_params(copied):
    """An optimizer that was copied with its parameters."""

    def resume(opt, params):
        other = copied(opt)
        for param, own in zip(params, other.param_groups[0]["params"], strict=True):
            param.data = own.data
        return other

    return resume


COPIES = {
    "deepcopy": with_params(copy.deepcopy),
    "pickle": with_params(lambda opt: pickle.loads(pickle.dumps(opt))),
    "state_dict": by_state_dict,
}


@defaults
@pytest.mark.parametrize("resume", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_averages_are_saved(case, resume, dtype):
    """A resumed run has the bits of one that was not interrupted; averages stay as wide as they were."""
    params, _ = twins(SHAPES, dtype)
    opt = case.make(params, ema_decay=0.9, zero_grads=True)
    train(opt, params)
    others = [torch.nn.Parameter(param.detach().clone()) for param in params]
    other = resume(opt, others)
    if resume is by_state_dict:
        other.param_groups[0].update({k: v for k, v in opt.param_groups[0].items() if k != "params"})
    followers = other.param_groups[0]["params"]
    assert other.zero_grads and other.ema_decay == 0.9 and other.ema[0].dtype == torch.float32
    train(opt, params)
    train(other, followers, zeroes=True)
    same_bits(followers, params)
    same_bits(other.ema, opt.ema)


def test_torchs_checkpoints_and_ours():
    """torch takes ours, with a key more. We take torch's: averages begin as if parameters had been what they are."""
    ours, theirs = twins(SHAPES)
    opt, peer = front.AMSGrad(ours, ema_decay=0.9), torch.optim.Adam(theirs, amsgrad=True)
    train(opt, ours)
    assert opt.state_dict()["param_groups"][0].keys() == peer.state_dict()["param_groups"][0].keys()
    peer.load_state_dict(opt.state_dict())
    train(peer, theirs)
    plain = front.AMSGrad(ours)
    plain.load_state_dict(opt.state_dict())
    assert "ema" not in plain.state[ours[0]]  # no step would update it
    for param in theirs:
        del peer.state[param]["ema"]
    for more in ({}, dict(ema_start="zero"), dict(ema_start="zero", ema_debias=True)):
        loaded, _ = twins(SHAPES)
        opt = front.AMSGrad(loaded, ema_decay=0.5, **more)
        opt.load_state_dict(peer.state_dict())
        weight = 1 - 0.5**8 if more == dict(ema_start="zero") else 1
        same_bits(opt.ema, [param.detach() * weight for param in loaded])
        before = [param.detach().clone() for param in loaded]
        give_grads(loaded, seed=0)
        opt.step()
        total = 1 - 0.5**9 if more == dict(ema_start="zero") else 1
        expected = [total * 0.5 * (old + new.detach()) for old, new in zip(before, loaded, strict=True)]
        torch.testing.assert_close(opt.ema, expected, rtol=0.01, atol=0.01)
        assert opt.state[loaded[0]]["step"] == 9


def test_averages_that_do_not_fit():
    """By their shape, dtype or kind, when they are loaded or stepped."""
    (param,), _ = twins([(4,)])
    opt = front.Adam([param], ema_decay=0.9)
    train(opt, [param])
    saved, average = copy.deepcopy(opt.state_dict()), opt.state[param]["ema"]
    for wrong, match in (
        (torch.ones(3), r"has shape \(4,\), but its ema has \(3,\); load the state that belongs to it"),
        (torch.ones(4).double(), "has dtype float32, but its ema has dtype float64, expected float32; convert it"),
        (opt.state[param]["exp_avg"], "state ema"),
        ("much", "state ema of param 0 of group 0 is a str, expected a torch.Tensor"),
    ):
        opt.state[param]["ema"] = wrong
        before = param.detach().clone()
        with pytest.raises((TypeError, ValueError), match=match):
            opt.step()
        same_bits(param.detach(), before)
    opt.state[param]["ema"] = torch.ones(1)
    with pytest.raises(ValueError, match=r"param 0 of group 0 has shape \(4,\), but its ema has \(1,\); load"):
        opt.swap_ema()
    same_bits(param.detach(), before)
    opt.state[param]["ema"] = average
    saved["state"][0]["ema"] = torch.ones(5)
    with pytest.raises(ValueError, match=r"ema in the state of parameter 0 .* has shape \(5,\), expected \(4,\)"):
        opt.load_state_dict(saved)
    saved["state"][0]["ema"] = torch.ones(4, dtype=torch.float16)
    opt.load_state_dict(saved)
    same_bits(opt.ema[0], torch.ones(4))
