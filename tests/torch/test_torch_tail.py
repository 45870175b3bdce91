"""Averages of parameters and zeroed gradients in flatstep.torch. See core/test_tail.py."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import averages
import flatstep.torch as front
from torch_cases import DEFAULTS, Snapshot, give_grads, parametrize, same_bits, torch, twins

SHAPES = [(1500,), (), (3, 5, 7), (0, 4), (64,)]
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
ALL = dict(ema_decay=0.9, zero_grads=True, max_norm=1e30, skip_nonfinite=True)
defaults = parametrize(DEFAULTS)
by_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def train(opt, params, steps=4, zeroes=False):
    """The parameters after each step, as arrays."""
    seen = []
    for step in range(steps):
        give_grads(params, seed=step)
        opt.step()
        assert not zeroes or not any(param.grad.any() for param in params)
        seen.append([array_of(param) for param in params])
    return seen


def array_of(tensor):
    """bfloat16 as float32."""
    tensor = tensor.detach()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy().copy()


def state_without_average(opt, param):
    return {key: value for key, value in opt.state[param].items() if key != "ema"}


@defaults
@by_dtype
@pytest.mark.parametrize("start", ["copy", "zero"])
def test_one_pass_is_the_pieces(case, dtype, start):
    """Step, then average, then zero: by the bits of an optimizer without them and of the oracle."""
    ours, theirs = twins(SHAPES, dtype)
    opt, plain = case.make(ours, ema_start=start, **ALL), case.make(theirs)
    train(opt, ours, zeroes=True)
    seen = train(plain, theirs)
    same_bits(ours, theirs)
    formula = averages.interpolated if start == "copy" else averages.weighted
    computed = np.float64 if dtype == torch.float64 else np.float32
    for at, (param, other) in enumerate(zip(ours, theirs, strict=True)):
        same_bits(state_without_average(opt, param), plain.state[other])
        expected = np.asarray(formula([step[at] for step in seen], 0.9, computed), computed)
        same_bits(opt.state[param]["ema"], torch.from_numpy(expected))
        assert opt.ema[at] is opt.state[param]["ema"]


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


def test_zero_grads_may_be_set_between_steps():
    (param,), _ = twins([(9,)])
    opt = front.Adam([param])
    for zeroes in (False, True, False):
        opt.zero_grads = zeroes
        give_grads([param], seed=0)
        opt.step()
        assert bool(param.grad.any()) is not zeroes


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


# Gradients of 6 numbers, none of them zero, and the memory in which they lie.
def plain_grad():
    return torch.ones(2, 3)


GRADS = {
    "plain": plain_grad,
    "in the order of Fortran": lambda: torch.ones(3, 2).t(),
    "with gaps": lambda: torch.ones(4, 7)[::2, 1:7:2],
    "negated": lambda: torch._neg_view(torch.ones(2, 3)),
    "imaginary part": lambda: torch.ones(2, 3, dtype=torch.complex64).mul(1 + 1j).conj().imag,
    "made in inference mode": torch.inference_mode(plain_grad),
}


@pytest.mark.parametrize("skipped", [False, True], ids=["step", "skipped"])
@pytest.mark.parametrize("make", GRADS.values(), ids=GRADS)
def test_gradients_become_zero(make, skipped):
    """Where they are, and nothing beside them; their versions go on. Of a step that is skipped, too."""
    params, _ = twins([(2, 3), (3,), (4,)])
    opt = front.AMSGrad(params, zero_grads=True, skip_nonfinite=True)
    hooked = []
    opt.register_step_post_hook(lambda *_: hooked.append(params[0].grad.any().item()))
    for _ in range(2):  # without state, and with it
        grad = params[0].grad = make()
        params[1].grad = torch.full((3,), torch.inf if skipped else 1.0)
        beside = grad._base.detach().clone() if grad._base is not None else None
        version = None if grad.is_inference() else grad._version
        opt.step()
        assert params[0].grad is grad and not grad.any() and not params[1].grad.any() and params[2].grad is None
        assert version is None or grad._version > version
        if beside is not None:
            assert torch.count_nonzero(torch.view_as_real(beside) if beside.is_complex() else beside) - 6 == (
                torch.count_nonzero(torch.view_as_real(grad._base) if beside.is_complex() else grad._base)
            )
    assert opt.skipped == (2 if skipped else 0) and hooked == [False, False]


# Gradients of two parameters of 4 numbers that a step cannot set to zero, and what it says.
def shared_halves(params):
    memory = torch.ones(6)
    return memory[:4], memory[2:]


def one_negated(params):
    memory = torch.ones(6)
    return torch._neg_view(memory[:4]), memory[2:]


REJECTED = {
    "one memory": (shared_halves, "grad of 1 of group 0 shares memory with the gradient of param 0 of group 0"),
    "itself": (lambda p: (torch.ones(1).expand(4), torch.ones(4)), "grad of 0 of group 0 has elements that share"),
    "its parameter": (lambda p: (p[0].detach(), torch.ones(4)), "grad of 0 of group 0 lies where its parameter does"),
    "another's": (
        lambda p: (p[1].detach(), torch.ones(4)),
        "grad of 0 of group 0 shares memory with param 1 of",
    ),
    "one negated": (one_negated, "grad of 1 of group 0 shares memory with grad of 0 of group 0, and zero_grads"),
    "a negated parameter": (
        lambda p: (torch._neg_view(p[0].detach()), torch.ones(4)),
        "grad of 0 of group 0 shares memory with param 0 of group 0, and zero_grads",
    ),
    "a negated one that repeats": (
        lambda p: (torch._neg_view(torch.ones(1)).expand(4), torch.ones(4)),
        "grad of 0 of group 0 has elements that share memory",
    ),
}


@pytest.mark.parametrize("by_scaler", [False, True], ids=["step", "overflow"])
@pytest.mark.parametrize("make, match", REJECTED.values(), ids=REJECTED)
def test_gradients_that_cannot_become_zero(make, match, by_scaler):
    """Nothing has changed then."""
    params, _ = twins([(4,), (4,)])
    opt = front.AMSGrad(params, zero_grads=True)
    params[0].grad, params[1].grad = make(params)
    grads, before = [param.grad.clone() for param in params], Snapshot(opt)
    if by_scaler:
        opt.found_inf = torch.tensor(1.0)
    with pytest.raises(ValueError, match="grad of . of group 0 .* zero_grads sets" if by_scaler else match):
        opt.step()
    before.check()
    same_bits([param.grad for param in params], grads)


@pytest.mark.parametrize("options", [dict(zero_grads=True), dict(ema_decay=0.9)], ids=str)
def test_a_parameter_that_stands_twice_is_rejected(options):
    (param,), _ = twins([(4,)])
    with pytest.warns(UserWarning, match="duplicate"):
        opt = front.Adam([param, param], **options)
    param.grad = torch.ones(4)
    before = Snapshot(opt)
    with pytest.raises(ValueError, match=f"stepped twice; {next(iter(options))} need each parameter once"):
        opt.step()
    before.check()


@pytest.mark.parametrize("overflows", [False, True])
@pytest.mark.parametrize("fused", [False, True])
def test_under_a_scaler(fused, overflows):
    """Unscaling, average and zeros in one step. torch calls no step that overflows, unless it is fused."""
    params, twin = twins(SHAPES)
    opt = front.AMSGrad(params, zero_grads=True, ema_decay=0.9, fused=fused)
    plain = front.AMSGrad(twin)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    give_grads(twin, seed=0)
    factors = [param.grad.clone() for param in twin]
    plain.step()
    scaler.scale(sum((param * factor).sum() for param, factor in zip(params, factors, strict=True))).backward()
    if overflows:
        params[0].grad[3] = torch.inf
    before = Snapshot(opt)
    scaler.step(opt)
    scaler.update()
    if overflows:
        before.check()
    else:
        same_bits(params, twin)
        same_bits(opt.ema, [param.detach() for param in params])
    assert any(param.grad.any() for param in params) is (overflows and not fused)


def test_unscaled_gradients_are_not_written_twice():
    """Zeros are written where the scaled gradients were: their versions go on by one."""
    (param,), _ = twins([(4,)])
    opt = front.Adam([param], zero_grads=True)
    opt.grad_scale = torch.tensor(8.0)
    param.grad = torch.ones(4)
    opt.step()
    assert param.grad._version == 1 and not param.grad.any()


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
    for call in [*forbidden, lambda: pickle.dumps(opt)]:
        with pytest.raises(RuntimeError, match=r"swapped with their averages; call swap_ema\(\) again"):
            call()
    opt.swap_ema()
    same_bits([param.detach() for param in params], before)
    same_bits(opt.ema, expected)
    opt.step()


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
    opt.state[param]["ema"] = average
    saved["state"][0]["ema"] = torch.ones(5)
    with pytest.raises(ValueError, match=r"ema in the state of parameter 0 .* has shape \(5,\), expected \(4,\)"):
        opt.load_state_dict(saved)
    saved["state"][0]["ema"] = torch.ones(4, dtype=torch.float16)
    opt.load_state_dict(saved)
    same_bits(opt.ema[0], torch.ones(4))


def test_flattened_parameters():
    """Parts of one gradient become zero together, and parts of the parameter are swapped."""
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    twin = copy.deepcopy(module)
    flat = front.flatten_parameters(module)
    opt, plain = front.AMSGrad([flat], ema_decay=0.9, zero_grads=True), front.AMSGrad(twin.parameters(), ema_decay=0.9)
    for _ in range(3):
        for net in (module, twin):
            net(torch.ones(2, 4)).square().sum().backward()
        opt.step()
        plain.step()
        plain.zero_grad()
        assert not any(param.grad.any() for param in module.parameters())
    same_bits(opt.ema[0], torch.cat([average.flatten() for average in plain.ema]))
    for each in (opt, plain):
        each.swap_ema()
    same_bits(list(module.parameters()), list(twin.parameters()))


def test_meta_parameters():
    """They have averages without numbers."""
    meta, param = torch.nn.Parameter(torch.empty(3, device="meta")), torch.nn.Parameter(torch.ones(3))
    opt = front.Adam([meta, param], ema_decay=0.9, zero_grads=True)
    for _ in range(2):
        meta.grad, param.grad = torch.empty(3, device="meta"), torch.ones(3)
        opt.step()
    assert opt.state[meta]["ema"].is_meta and not param.grad.any()
    opt.swap_ema()
    opt.swap_ema()
    assert [average.is_meta for average in opt.ema] == [True, False]


def test_two_rules_in_one_optimizer():
    """Groups that the core steps by two rules; all averages have one decay."""
    (one, other), (one_alone, other_alone) = twins([(7,), (8,)])
    options = dict(ema_decay=0.5, zero_grads=True)
    opt = front.Adam([{"params": [one]}, {"params": [other], "amsgrad": True}], **options)
    alone = front.Adam([one_alone], **options), front.Adam([other_alone], amsgrad=True, **options)
    train(opt, [one, other])
    for each in range(4):
        give_grads([one_alone, other_alone], seed=each)
        for single in alone:
            single.step()
    same_bits(opt.ema, [alone[0].ema[0], alone[1].ema[0]])


@pytest.mark.parametrize(
    "more, error, match",
    [
        (dict(ema_start="zero"), ValueError, "need ema_decay"),
        (dict(ema_dtype=torch.float32), ValueError, "need ema_decay"),
        (dict(ema_decay=0.9, ema_debias=True), ValueError, "pass ema_start='zero' too"),
        (dict(ema_decay=0.9, ema_dtype=torch.float64), TypeError, "ema_dtype is torch.float64, expected torch.float32"),
        (dict(ema_decay=0.9, ema_dtype="float32"), TypeError, "ema_dtype is 'float32', expected a torch.dtype or None"),
        (dict(ema_decay=1.0), ValueError, "ema_decay is 1, expected a number at least 0 and below 1"),
        (dict(ema_decay=lambda _: 0.9), TypeError, "ema_decay is .*, expected a number"),
        (dict(zero_grads=1), TypeError, "zero_grads is 1, expected True or False"),
        (dict(ema_decay=0.9, ema_start="none"), ValueError, "ema_start is 'none', expected one of 'copy', 'zero'"),
    ],
)
def test_options_that_do_not_fit(more, error, match):
    with pytest.raises(error, match=match):
        front.Adam([torch.nn.Parameter(torch.ones(2))], **more)


def test_options_are_for_all_groups():
    """A group has no keys for them: torch's checkpoints have none."""
    param = torch.nn.Parameter(torch.ones(4))
    opt = front.Adam([param], ema_decay=0.9, ema_start="zero", zero_grads=True)
    assert opt.param_groups[0].keys() == front.Adam([param]).param_groups[0].keys()
    assert (opt.ema_decay, opt.ema_start, opt.ema_debias, opt.ema_dtype, opt.zero_grads) == (
        0.9,
        "zero",
        False,
        None,
        True,
    )
    with pytest.raises(ValueError, match="a group has ema_decay, which is for all groups together"):
        front.Adam([{"params": [param], "ema_decay": 0.5}])
    with pytest.raises(TypeError, match="ema_dtype is torch.float16, expected torch.float32 for parameters of"):
        front.Adam([torch.nn.Parameter(torch.ones(2).half())], ema_decay=0.9, ema_dtype=torch.float16).add_param_group(
            {"params": [param]}
        )
    plain = front.Adam([param])
    for use in (lambda: plain.ema, plain.swap_ema):
        with pytest.raises(AttributeError, match="this Adam has no averages; make it with ema_decay"):
            use()


@pytest.mark.parametrize("options", [dict(zero_grads=True), dict(ema_decay=0.9)], ids=str)
def test_parameters_on_other_devices_are_rejected(options):
    with FakeTensorMode():
        param = torch.nn.Parameter(torch.empty(2, device="cuda"))
    front.Adam([param])
    with pytest.raises(
        ValueError, match="a parameter is on cuda:0, but ema_decay and zero_grads are for parameters on"
    ):
        front.Adam([param], **options)


def test_a_copy_has_options_of_its_own():
    opt = front.Adam([torch.nn.Parameter(torch.ones(2))], ema_decay=0.9)
    other = copy.copy(opt)
    other.ema_decay = 0.5
    assert opt.ema_decay == 0.9
