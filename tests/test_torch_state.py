"""flatstep.torch's state: torch's own keys, checkpoints of torch.optim both ways, resuming bit for bit, refusals."""

from __future__ import annotations

import copy
import io

import pytest

import flatstep.torch as front
from torch_cases import (
    CASES,
    DEFAULT_PEERS,
    DEFAULTS,
    PEERS,
    Snapshot,
    assert_close,
    give_grads,
    parametrize,
    same_bits,
    torch,
    torch_peer,
    twins,
)

SHAPES = [(7, 3), (), (40,), (0,)]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64]
defaults = parametrize(DEFAULTS)


def saved_and_loaded(state_dict):
    """Through a file, as torch loads those of strangers."""
    buffer = io.BytesIO()
    torch.save(state_dict, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


WAYS = {"as it is": lambda saved: saved, "file": saved_and_loaded, "deepcopy": copy.deepcopy}


def run(opts_and_params, steps, first=0):
    for count in range(first, first + steps):
        give_grads(*[params for _, params in opts_and_params], seed=count)
        for opt, _ in opts_and_params:
            opt.step()


@parametrize(CASES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_resumes_bit_for_bit(case, dtype):
    for way in WAYS.values():
        params, resumed = twins(SHAPES, dtype)
        opt, other = case.make(params), case.make(resumed)
        run([(opt, params)], 3)
        other.load_state_dict(way(opt.state_dict()))
        for param, source in zip(resumed, params, strict=True):
            param.data = source.detach().clone()
        run([(opt, params), (other, resumed)], 2, first=3)
        same_bits(resumed, params)
        for param, source in zip(resumed, params, strict=True):
            same_bits(other.state[param], opt.state[source])


@defaults
def test_keys(case):
    params, _ = twins(SHAPES)
    opt = case.make(params)
    run([(opt, params)], 2)
    expected = {
        "amsgrad": ["step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"],
        "adam": ["step", "exp_avg", "exp_avg_sq"],
        "optimistic_adam": ["step", "exp_avg", "exp_avg_sq", "previous"],
    }[opt.rule]
    saved = opt.state_dict()
    assert [list(state) for state in saved["state"].values()] == [expected] * len(params)
    assert saved["param_groups"][0]["params"] == [0, 1, 2, 3]


@parametrize([case for case in PEERS if not case.settings.get("eps_root")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64], ids=str)
@pytest.mark.parametrize("ours_first", [True, False])
def test_goes_on_from_torchs_checkpoint_and_back(case, dtype, ours_first):
    """Half the way by one, half by the other, against torch's for-loop all the way."""
    halves, whole = twins(SHAPES, dtype)
    makers = [case.make, lambda params: torch_peer(case, params)][:: 1 if ours_first else -1]
    first, peer = makers[0](halves), torch_peer(case, whole)
    run([(first, halves), (peer, whole)], 4)
    second = makers[1](halves)
    second.load_state_dict(saved_and_loaded(first.state_dict()))
    run([(second, halves), (peer, whole)], 4, first=4)
    assert_close(halves, whole)
    for param, other in zip(halves, whole, strict=True):
        ours, theirs = second.state[param], peer.state[other]
        assert ours["step"] == theirs["step"] == 8
        for key in theirs:
            assert ours[key].dtype == theirs[key].dtype
            assert_close(ours[key], theirs[key])


@parametrize(DEFAULT_PEERS)
@pytest.mark.parametrize("flags", [dict(fused=True), dict(foreach=True)], ids=str)
def test_torchs_other_implementations(case, flags):
    """Their checkpoints carry the flags into our groups, and ours none that would hinder them."""
    params, whole = twins(SHAPES)
    first, peer = torch_peer(case, params, **{"fused": None, "foreach": None, **flags}), torch_peer(case, whole)
    run([(first, params), (peer, whole)], 2)
    ours = case.make(params)
    ours.load_state_dict(first.state_dict())
    run([(ours, params), (peer, whole)], 2, first=2)
    again = torch_peer(case, params, **{"fused": None, "foreach": None, **flags})
    again.load_state_dict(ours.state_dict())
    run([(again, params), (peer, whole)], 2, first=4)
    assert_close(params, whole)


@defaults
@pytest.mark.parametrize("way", WAYS)
def test_state_keeps_its_dtype(case, way):
    """float32 state of bfloat16 parameters, which torch would round to bfloat16."""
    params, others = twins([(9,), (3, 4)], torch.bfloat16)
    opt = case.make(params, mu_dtype=torch.float32)
    for param in params:
        opt.state[param] = {"step": torch.tensor(0.0)}
        for key in opt.state_keys:
            dtype = torch.bfloat16 if key == "previous" else torch.float32
            opt.state[param][key] = torch.zeros(param.shape, dtype=dtype)
    run([(opt, params)], 2)
    other = case.make(others, mu_dtype=torch.float32)
    other.load_state_dict(WAYS[way](opt.state_dict()))
    for ours, theirs in zip(others, params, strict=True):
        same_bits(other.state[ours], opt.state[theirs])
        assert other.state[ours]["exp_avg"].dtype == torch.float32
    assert other.param_groups[0]["mu_dtype"] == torch.float32


@defaults
def test_loading_copies(case):
    """Two optimizers never share state, nor does one with the dict that it was loaded from."""
    params, others = twins(SHAPES)
    opt, other = case.make(params), case.make(others)
    run([(opt, params)], 2)
    saved = opt.state_dict()
    other.load_state_dict(saved)
    before = [copy.deepcopy(saved), Snapshot(opt)]
    run([(other, others)], 2)
    before[1].check()
    same_bits(saved["state"], before[0]["state"])
    opt.load_state_dict(opt.state_dict())
    run([(opt, params)], 1)


@defaults
def test_counts_in_one_tensor(case):
    """Are refused: a step would count up twice, as torch does. Loaded, as FSDP unflattens them, each has its own."""
    params, others = twins(SHAPES)
    opt, other = case.make(params), case.make(others)
    run([(opt, params), (other, others)], 2)
    saved = opt.state_dict()
    for state in saved["state"].values():
        state["step"] = saved["state"][0]["step"]
    opt.load_state_dict(saved)
    run([(opt, params), (other, others)], 1, first=2)
    same_bits(params, others)
    steps = [opt.state[param]["step"] for param in params]
    assert [step.item() for step in steps] == [3] * len(SHAPES)
    for at in range(1, len(SHAPES)):
        opt.state[params[at]]["step"] = steps[0]
        before = Snapshot(opt)
        with pytest.raises(
            ValueError, match=f"param {at} of group 0 has its state 'step' in .* param 0 of group 0, .*"
        ):
            opt.step()
        before.check()
        opt.state[params[at]]["step"] = steps[at]
        run([(opt, params), (other, others)], 1, first=2 + at)
    same_bits(params, others)


@defaults
def test_counts_of_old_checkpoints(case):
    """Python numbers once; they become torch's tensors, and steps go on from them."""
    for kind in (int, float, lambda step: torch.tensor([step]), lambda step: torch.tensor(int(step))):
        params, others = twins(SHAPES)
        opt, other = case.make(params), case.make(others)
        run([(opt, params)], 2)
        saved = opt.state_dict()
        for state in saved["state"].values():
            state["step"] = kind(state["step"].item())
        other.load_state_dict(saved)
        for param, source in zip(others, params, strict=True):
            param.data = source.detach().clone()
        opt.load_state_dict(saved)
        run([(opt, params), (other, others)], 1, first=2)
        same_bits(others, params)
        step = other.state[others[0]]["step"]
        assert (step.dtype, step.shape, step.item()) == (torch.float32, (), 3)


@defaults
def test_counts_past_what_an_integer_of_float32_holds(case):
    """2^24 is where torch's stops, and so does ours; float64 goes on."""
    for dtype, after in [(torch.float32, 2.0**24), (torch.float64, 2.0**24 + 1)]:
        (param,), _ = twins([(3,)])
        opt = case.make([param])
        run([(opt, [param])], 1)
        opt.state[param]["step"] = torch.tensor(2.0**24, dtype=dtype)
        run([(opt, [param])], 1)
        assert opt.state[param]["step"].item() == after


def without(*keys):
    def change(saved):
        for state in saved["state"].values():
            for key in keys:
                state.pop(key, None)

    return change


def with_group(**changes):
    return lambda saved: saved["param_groups"][-1].update(changes)


REFUSED = {
    "no step": (without("step"), "lacks .'step'"),
    "no moment": (without("exp_avg"), "state of parameter 0 in the state_dict lacks .'exp_avg'"),
    "two keys": (without("exp_avg", "exp_avg_sq"), "lacks .'exp_avg', 'exp_avg_sq'"),
    "paper": (with_group(convention="paper"), "convention='paper'"),
    "fewer groups": (lambda saved: saved["param_groups"].pop(), "different number of parameter groups"),
    "fewer params": (lambda saved: saved["param_groups"][0]["params"].pop(), "doesn't match the size"),
}


@defaults
@pytest.mark.parametrize("name", [*REFUSED, "amsgrad"])
def test_a_refused_state_changes_nothing(case, name):
    params, _ = twins([(3,), (4,)])
    opt = case.make(params)
    run([(opt, params)], 2)
    is_amsgrad = opt.param_groups[0]["amsgrad"]
    change, message = REFUSED.get(name) or (with_group(amsgrad=not is_amsgrad), f"amsgrad={not is_amsgrad}")
    saved = copy.deepcopy(opt.state_dict())
    change(saved)
    before, given = Snapshot(opt), copy.deepcopy(saved)
    with pytest.raises(ValueError, match=message):
        opt.load_state_dict(saved)
    before.check()
    assert repr(saved) == repr(given)
    run([(opt, params)], 1)


def test_state_of_another_optimizer():
    """Each names what it lacks, or what means something else."""
    params, _ = twins([(3,)])
    makers = {
        "Adam": lambda: front.Adam(params),
        "AMSGrad": lambda: front.AMSGrad(params),
        "optax": lambda: front.AMSGrad(params, convention="optax"),
        "OptimisticAdam": lambda: front.OptimisticAdam(params),
        "torch's SGD": lambda: torch.optim.SGD(params, momentum=0.9),
        "torch's Adagrad": lambda: torch.optim.Adagrad(params),
    }
    for source, into, message in [
        ("Adam", "AMSGrad", "amsgrad=False"),
        ("AMSGrad", "Adam", "amsgrad=True"),
        ("AMSGrad", "optax", "convention='torch'"),
        ("optax", "AMSGrad", "convention='optax'"),
        ("Adam", "OptimisticAdam", "lacks .'previous'"),
        ("torch's SGD", "Adam", "lacks .'step', 'exp_avg', 'exp_avg_sq'"),
        ("torch's Adagrad", "Adam", "lacks .'exp_avg', 'exp_avg_sq'"),
    ]:
        opt, other = makers[source](), makers[into]()
        run([(opt, params)], 1)
        with pytest.raises(ValueError, match=message):
            other.load_state_dict(opt.state_dict())
    opt, other = front.OptimisticAdam(params), front.Adam(params)
    run([(opt, params)], 1)
    other.load_state_dict(opt.state_dict())
    run([(other, params)], 1)


@defaults
def test_parameters_without_state(case):
    """Not stepped yet when saved: they start after loading, and so do those of an optimizer that never stepped."""
    params, others = twins([(3,), (4,)])
    opt, other = case.make(params), case.make(others)
    params[0].grad = torch.ones(3)
    opt.step()
    for saved in (opt.state_dict(), case.make(params).state_dict()):
        other.load_state_dict(saved)
        run([(other, others)], 1)
        assert other.state[others[1]]["step"] == 1
        assert other.state[others[0]]["step"] == (2 if saved["state"] else 1)


def test_groups_come_back():
    """Their numbers; what torch's have no word for is what torch does."""
    params, others = twins([(3,), (4,)])
    saved = torch.optim.AdamW([{"params": params[0], "lr": 0.5}, {"params": params[1], "betas": (0.5, 0.75)}])
    opt = front.AdamW([{"params": param} for param in others], eps_root=0.25)
    opt.load_state_dict(saved.state_dict())
    assert [group["lr"] for group in opt.param_groups] == [0.5, 1e-3]
    assert [group["betas"] for group in opt.param_groups] == [(0.9, 0.999), (0.5, 0.75)]
    assert not any(group.get("eps_root") for group in opt.param_groups)
    run([(opt, others)], 1)


@defaults
def test_loading_into_other_layouts(case):
    """State saved from contiguous parameters goes on with transposed and sliced ones."""
    params, _ = twins([(4, 6), (4, 6)])
    opt = case.make(params)
    run([(opt, params)], 2)
    laid_out = [params[0].detach().t().contiguous().t(), torch.stack([params[1].detach()] * 2, -1)[..., 0]]
    others = [torch.nn.Parameter(values) for values in laid_out]
    other = case.make(others)
    other.load_state_dict(opt.state_dict())
    run([(opt, params), (other, others)], 3, first=2)
    same_bits(others, params)
    for param, source in zip(others, params, strict=True):
        same_bits(other.state[param], opt.state[source])
