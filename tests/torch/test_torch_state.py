"""flatstep.torch's state: torch's own keys, checkpoints of torch.optim both ways, resuming bit for bit, messages."""

from __future__ import annotations

import copy
import io
import re
from functools import partial

import numpy as np
import pytest

import flatstep.torch as front
from torch_cases import (
    CASES,
    CLASSES,
    DEFAULT_PEERS,
    DEFAULTS,
    PEERS,
    Snapshot,
    assert_close,
    defaults_with,
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
    expected = ["step", *[case.keys[slot] for slot in case.core([np.ones(1)], 0.1, **case.own).state]]
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
    flags = case.fitting({"fused": None, "foreach": None, **flags})
    first, peer = torch_peer(case, params, **flags), torch_peer(case, whole)
    run([(first, params), (peer, whole)], 2)
    ours = case.make(params)
    ours.load_state_dict(first.state_dict())
    run([(ours, params), (peer, whole)], 2, first=2)
    again = torch_peer(case, params, **flags)
    again.load_state_dict(ours.state_dict())
    run([(again, params), (peer, whole)], 2, first=4)
    assert_close(params, whole)


@defaults_with("mu_dtype")
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
    """Are rejected: a step would count up twice, as torch does. Loaded, as FSDP unflattens them, each has its own."""
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
            ValueError, match=f"param {at} of group 0 has (a|its) state '?step.* param 0 of group 0[,;] .*"
        ):
            opt.step()
        before.check()
        opt.state[params[at]]["step"] = steps[at]
        run([(opt, params), (other, others)], 1, first=2 + at)
    same_bits(params, others)


@defaults
def test_state_in_shared_memory(case):
    """Is rejected by name: one slot of two parameters, and two slots of one; without it the step goes on."""
    shapes = [(3, 2), (3, 2)]
    params, others = twins(shapes)
    opt, other = case.make(params), case.make(others)
    run([(opt, params), (other, others)], 2)
    first, second = (opt.state[param] for param in params)
    keys = [key for key in first if key != "step"]
    shared = {
        "of another": (second, keys[0], first[keys[0]], f"param 1 .* {keys[0]} .* the state {keys[0]} of param 0"),
        "of its own": (first, keys[-1], first[keys[0]], "param 0 .* shares memory with the state .* of param 0"),
        "parameter": (second, keys[0], params[0].data, f"param 1 .* {keys[0]} that shares memory with param 0"),
    }
    if len(keys) == 1:
        del shared["of its own"]
    for state, key, tensor, message in shared.values():
        own, state[key] = state[key], tensor
        before = Snapshot(opt)
        with pytest.raises(ValueError, match=message):
            opt.step()
        before.check()
        state[key] = own
    run([(opt, params), (other, others)], 1, first=2)
    same_bits(params, others)


def test_state_in_shared_memory_of_groups_with_other_rules():
    """The rule that is second has more slots than the first."""
    params, _ = twins([(8,), (8,)])
    opt = front.Adam([{"params": params[:1]}, {"params": params[1:], "amsgrad": True}])
    run([(opt, params)], 1)
    opt.state[params[1]]["max_exp_avg_sq"] = opt.state[params[1]]["exp_avg_sq"]
    with pytest.raises(ValueError, match="has a state max_exp_avg_sq that shares memory with the state exp_avg_sq"):
        opt.step()


@defaults
def test_counts_of_old_checkpoints(case):
    """Python numbers once, which become torch's tensors; tensors of one element stay what they are."""
    usual = (torch.float32, ())
    for kind, expected in (
        (int, usual),
        (float, usual),
        (lambda step: torch.tensor([step]), (torch.float32, (1,))),
        (lambda step: torch.tensor(int(step)), (torch.int64, ())),
    ):
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
        assert (step.dtype, step.shape) == (expected if Snapshot.host_knows else (torch.float32, expected[1]))
        assert step.item() == 3


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


def with_state(**changes):
    return lambda saved: saved["state"][1].update(changes)


def rejected(keys=("",)):
    """What may be wrong with a saved state, which has these keys, and what the error says."""
    key, last = keys[0], keys[-1]
    return {
        "no step": (without("step"), "lacks .'step'"),
        "no slot": (without(key), f"state of parameter 0 in the state_dict lacks .'{key}'"),
        "no slots": (without(*keys), re.escape(f"lacks {keys}")),
        "no numbers": (with_state(**{key: torch.zeros(4, device="meta")}), f"{key} in .* is on the meta device"),
        "a text": (with_state(**{last: "zeros"}), f"{last} in the state of parameter 1 .* is a str, expected a torch"),
        "another shape": (
            with_state(**{key: torch.zeros(3)}),
            rf"{key} in .* has shape \(3,\), expected \(4,\) like its",
        ),
        "sparse": (with_state(**{last: torch.ones(4).to_sparse()}), f"{last} in .* has layout torch.sparse_coo"),
        "a list": (with_state(**{key: [0.0, 0.0, 0.0, 0.0]}), f"{key} in the state of parameter 1 .* is a list"),
        **{
            f"a count of {count!r}": (
                with_state(step=count),
                "step in the state of parameter 1 .* expected a whole number",
            )
            for count in ("2", -1, 1.5, 10**400, *map(torch.tensor, (-1, 0.5, float("nan"), 1e30, 1j)))
        },
        "two counts": (with_state(step=torch.ones(2)), "step in the state of parameter 1 .* has shape .2,."),
        "no dict": (
            lambda saved: saved["state"].update({1: "nothing"}),
            "state of parameter 1 .* is a str, expected a dict",
        ),
        "nothing": (lambda saved: saved.clear(), "'state' in the state_dict is missing, expected a dict"),
        "states in a list": (
            lambda saved: saved.update(state=[]),
            "'state' in the state_dict is a list, expected a dict",
        ),
        "groups in a dict": (
            lambda saved: saved.update(param_groups={}),
            "'param_groups' in .* is a dict, expected a",
        ),
        "a group's name": (lambda saved: saved.update(param_groups=["first"]), "group 0 of the state_dict is 'first'"),
        "a text as lr": (with_group(lr="1"), "lr is '1', expected a number"),
        "one beta": (with_group(betas=0.9), "betas is 0.9, expected two numbers"),
        "too large": (with_group(lr=1e39), "infinite in float32"),
        "differentiable": (
            with_group(differentiable=True),
            "differentiable=True needs a step that autograd can follow",
        ),
        "mu_dtype": (with_group(mu_dtype=torch.int32), "mu_dtype is torch.int32"),
        "paper": (with_group(convention="paper"), "convention='paper'"),
        "fewer groups": (lambda saved: saved["param_groups"].pop(), "different number of parameter groups"),
        "fewer params": (lambda saved: saved["param_groups"][0]["params"].pop(), "doesn't match the size"),
    }


NEEDED = {"one beta": "betas", "mu_dtype": "mu_dtype"}  # in the groups, for these rows


@pytest.mark.parametrize(
    "case, name",
    [
        pytest.param(case, name, id=f"{name}-{case.name}")
        for name in rejected()
        for case in DEFAULTS
        if name not in NEEDED or NEEDED[name] in case.arguments
        if name != "no step" or case.optimizer._declaration.torch.needs_count
    ],
)
def test_a_rejected_state_changes_nothing(case, name):
    params, _ = twins([(3,), (4,)])
    opt = case.make(params)
    run([(opt, params)], 2)
    change, message = rejected(opt.state_keys)[name]
    saved = copy.deepcopy(opt.state_dict())
    saved["param_groups"][0]["lr"] = 0.75
    change(saved)
    before, given = Snapshot(opt), copy.deepcopy(saved)
    with pytest.raises((TypeError, ValueError), match=message):
        opt.load_state_dict(saved)
    before.check()
    assert repr(saved) == repr(given)
    run([(opt, params)], 1)


@pytest.mark.parametrize("optimizer", CLASSES)
@pytest.mark.parametrize("way", ["loaded", "placed"])
def test_a_state_without_its_count(optimizer, way):
    """It is taken where the rule needs no count, which then starts at 0; else it is an error."""
    (param,), (other,) = twins([(4,)])
    opt, resumed = optimizer([param], lr=0.05), optimizer([other], lr=0.05)
    run([(opt, [param]), (resumed, [other])], 2)
    saved = copy.deepcopy(opt.state_dict())
    del saved["state"][0]["step"]
    give_grads([param], [other], seed=2)

    def go_on():
        if way == "loaded":
            resumed.load_state_dict(saved)
        else:
            resumed.state[other] = saved["state"][0]
        resumed.step()

    if optimizer._declaration.torch.needs_count:
        with pytest.raises(ValueError, match=r"(lacks|without) .'step'"):
            go_on()
    else:
        go_on()
        assert resumed.state[other]["step"].item() == 1
        opt.step()
        same_bits(other, param)


SOURCES = {
    "Adam, amsgrad": partial(front.Adam, amsgrad=True),
    "OptimisticAdam, amsgrad": partial(front.OptimisticAdam, amsgrad=True),
    "optax": partial(front.AMSGrad, convention="optax"),
    "paper": partial(front.AMSGrad, convention="paper"),
    **{optimizer.__name__: optimizer for optimizer in CLASSES},
}
OTHERS = {
    f"torch's {name}": getattr(torch.optim, name)
    for name in ("SGD", "RMSprop", "Adagrad", "Adadelta", "Adamax", "NAdam", "RAdam", "ASGD", "Rprop", "SparseAdam")
}
# torch's Adam takes the choice of amsgrad from what it loads, and its AdamW goes on from Adam.
ADAMS = ("Adam", "Adam, amsgrad", "AdamW")
OPTIMISTIC = ("OptimisticAdam", "OptimisticAdam, amsgrad")
TAKEN = {
    *((source, into) for source in ADAMS for into in ADAMS),
    *((source, into) for source in OPTIMISTIC for into in OPTIMISTIC),
    ("torch's RMSprop", "RMSprop"),
    *(("AMSGrad", into) for into in ADAMS),
    *(("OptimisticAMSGrad", into) for into in OPTIMISTIC),
    ("Adam, amsgrad", "AMSGrad"),
    ("OptimisticAdam, amsgrad", "OptimisticAMSGrad"),
    *((name, name) for name in SOURCES),
}


@pytest.mark.parametrize("steps", [0, 1])
@pytest.mark.parametrize("into", SOURCES)
@pytest.mark.parametrize("source", [*SOURCES, *OTHERS])
def test_state_of_another_optimizer(source, into, steps):
    """Is taken where it means the same, and else rejected, saved before the first step or after it."""
    params, others = twins([(3,)])
    opt, other = {**SOURCES, **OTHERS}[source](params), SOURCES[into](others)
    if steps and source != "torch's SparseAdam":
        run([(opt, params)], steps)
    run([(other, others)], 1)
    if (source, into) in TAKEN:
        other.load_state_dict(opt.state_dict())
        run([(other, others)], 1)
        assert other.state[others[0]]["step"] == steps + 1
        return
    before = Snapshot(other)
    with pytest.raises(ValueError, match=r"the state_dict (has|lacks) .*(make the optimizer with|saved by another)"):
        other.load_state_dict(opt.state_dict())
    before.check()
    run([(other, others)], 1)


def test_adamw_decouples_what_adam_saved():
    """As in torch, where the optimizer that loads decides."""
    results = []
    for library in (front, torch.optim):
        (param,), _ = twins([(3,)])
        opt, other = library.Adam([param], weight_decay=0.5), library.AdamW([param])
        run([(opt, [param])], 1)
        other.load_state_dict(opt.state_dict())
        run([(other, [param])], 1, first=1)
        results.append(param)
    assert_close(*results)


WIDTHS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@defaults
@pytest.mark.parametrize("after", WIDTHS, ids=str)
@pytest.mark.parametrize("before", WIDTHS, ids=str)
def test_resuming_in_another_dtype(case, before, after):
    """Steps as torch does, which rounds every state to the parameter's dtype; wider moments may stay."""
    shapes = [(5,), (2, 3), (), (0, 4)]
    params, _ = twins(shapes, before)
    opt = case.make(params)
    run([(opt, params)], 3)
    ours, theirs, wide = (
        [torch.nn.Parameter(param.detach().to(after).to(dtype, copy=True)) for param in params]
        for dtype in (after, after, torch.float64)
    )
    resumed = [(case.make(ours), ours), (case.make(wide), wide)]
    if case in DEFAULT_PEERS:
        resumed.append((torch_peer(case, theirs), theirs))
    for other, _ in resumed:
        other.load_state_dict(copy.deepcopy(opt.state_dict()))
    give_grads(ours, seed=9)
    for other, own in resumed:
        for param, source in zip(own, ours, strict=True):
            param.grad = source.grad.to(param.dtype)
        other.step()
    narrow = torch.finfo(after).bits == 16 or before == torch.float16
    close = dict(rtol=2e-2, atol=2e-2) if narrow else dict(rtol=1e-5, atol=1e-5)
    for _, own in resumed[1:]:
        for param, other in zip(ours, own, strict=True):
            torch.testing.assert_close(param.double(), other.double(), **close)
    for param in ours:
        for key in resumed[0][0].state_keys:
            dtype = resumed[0][0].state[param][key].dtype
            assert dtype == after or torch.finfo(dtype).bits > torch.finfo(after).bits
    run(resumed[:1], 1, first=10)


EXTRAS = {
    "a number": 7,
    "a tensor": torch.tensor([1.0, 2.0]),
    "an integer tensor": torch.tensor(3),
    "a dict of tensors": {"norm": torch.tensor(0.5), "step": 3},
    "an empty dict": {},
    "a list": [1, torch.tensor(2.0)],
    "a text": "warm",
    "nothing": None,
}


@pytest.mark.parametrize("of", ["no parameter", "a parameter"])
@pytest.mark.parametrize("name", EXTRAS)
def test_state_that_is_the_users_own(name, of):
    """Comes back as from torch."""
    found = []
    for make in (torch.optim.Adam, front.Adam, front.OptimisticAdam):
        params, others = twins([(3,)])
        opt, other = make(params), make(others)
        run([(opt, params)], 1)
        if of == "a parameter":
            if name == "a text" and make is torch.optim.Adam:
                found.append(repr("warm"))  # torch makes a generator's name of it
                continue
            opt.state[params[0]]["mine"] = copy.deepcopy(EXTRAS[name])
        else:
            opt.state["mine"] = copy.deepcopy(EXTRAS[name])
        other.load_state_dict(saved_and_loaded(opt.state_dict()))
        run([(other, others)], 1)
        found.append(repr((other.state if of == "no parameter" else other.state[others[0]])["mine"]))
    assert found[1:] == found[:1] * 2


COUNTS = {
    "0-d float32": lambda: torch.tensor(0.0),
    "0-d float64": lambda: torch.tensor(0.0, dtype=torch.float64),
    "one element": lambda: torch.zeros(1),
    "one element of a matrix": lambda: torch.zeros(1, 1, dtype=torch.float64),
    "0-d int64": lambda: torch.tensor(0),
    "int32": lambda: torch.zeros(1, dtype=torch.int32),
    "float16": lambda: torch.zeros((), dtype=torch.float16),
    "part of a table": lambda: torch.zeros(3)[1:2],
}


@defaults
@pytest.mark.parametrize("kind", COUNTS)
def test_counts_stay_in_their_tensor(case, kind):
    """A tensor of one element, shared with another process, say, counts the updates. Any shape and dtype will do."""
    (param,), (plain,) = twins([(6,)])
    opt, peer = case.make([param]), case.make([plain])
    count = COUNTS[kind]()
    opt.state[param] = {"step": count, **{key: torch.zeros(6) for key in opt.state_keys}}
    run([(opt, [param]), (peer, [plain])], 3)
    assert opt.state[param]["step"] is count
    assert count.item() == 3
    same_bits(param, plain)


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


def through_setstate(make, change):
    """A user's class that does something to the state before it is taken over, or takes it over by itself."""

    class Own(make):
        def __setstate__(self, state):
            for own in state["state"].values():
                own.update({key: value.clone() for key, value in own.items()})
            if change == "looks":
                super().__setstate__(state)
            else:
                self.__dict__.update(state)

    return Own


@pytest.mark.parametrize("change", ["looks", "takes"])
def test_a_subclass_sees_tensors(change):
    results = []
    for library in (front, torch.optim):
        (param,), _ = twins([(3,)])
        opt = through_setstate(library.Adam, change)([param])
        run([(opt, [param])], 2)
        opt.load_state_dict(opt.state_dict())
        run([(opt, [param])], 1, first=2)
        assert {type(value) for value in opt.state[param].values()} == {torch.Tensor}
        results.append(param)
    assert_close(*results)


def test_hooks_of_a_load_may_do_anything():
    """Remove themselves, load another state, replace the dict; a load's hooks are the user's alone."""
    params, others = twins([(3,)])
    opt, other = front.Adam(params), front.Adam(others)
    run([(opt, params)], 2)
    seen = []

    def once(_, state_dict):
        seen.append({type(value) for own in state_dict["state"].values() for value in own.values()})
        handle.remove()
        other.load_state_dict(opt.state_dict())
        return {**state_dict, "param_groups": [{**group, "lr": 0.5} for group in state_dict["param_groups"]]}

    handle = other.register_load_state_dict_pre_hook(once)
    other.load_state_dict(opt.state_dict())
    assert seen == [{torch.Tensor}]
    assert other.param_groups[0]["lr"] == 0.5
    assert not other._optimizer_load_state_dict_pre_hooks


@pytest.mark.parametrize(
    "options", [dict(maximize=True), dict(decoupled_weight_decay=True, weight_decay=0.5), dict(amsgrad=True)], ids=str
)
def test_options_that_an_old_checkpoint_lacks(options):
    """Are what they were then, as in torch, and not what the new optimizer was made with."""
    results = []
    for library in (front, torch.optim):
        (param,), _ = twins([(3,)])
        opt = library.Adam([param])
        run([(opt, [param])], 1)
        saved = opt.state_dict()
        for name in (
            "maximize",
            "foreach",
            "capturable",
            "differentiable",
            "fused",
            "decoupled_weight_decay",
            "amsgrad",
        ):
            del saved["param_groups"][0][name]
        opt = library.Adam([param], **options)
        opt.load_state_dict(saved)
        run([(opt, [param])], 2, first=1)
        results.append(param)
    assert_close(*results)


class Counted(torch.Tensor):
    """A subclass in Python."""


@pytest.mark.parametrize("loaded", [True, False])
@pytest.mark.parametrize(
    "kind",
    [
        np.int64,
        np.float32,
        lambda step: torch.tensor(float(step)).as_subclass(Counted),
        lambda step: torch.tensor([step]),
    ],
)
def test_counts_of_other_kinds(kind, loaded):
    """Numbers of NumPy's and tensors of subclasses; put into the state by hand, too, where they are tensors."""
    params, plain = twins([(3,)])
    opt, peer = front.Adam(params), front.Adam(plain)
    run([(opt, params), (peer, plain)], 2)
    if loaded:
        saved = opt.state_dict()
        saved["state"][0]["step"] = kind(2)
        opt.load_state_dict(saved)
    elif isinstance(kind(2), torch.Tensor):
        opt.state[params[0]]["step"] = kind(2)
    run([(opt, params), (peer, plain)], 2, first=2)
    same_bits(params, plain)
    assert opt.state[params[0]]["step"] == 4


def test_a_state_before_a_lazy_module_knows_its_shape():
    module, ready = torch.nn.LazyLinear(2), torch.nn.Linear(3, 2)
    opt = front.Adam(ready.parameters())
    run([(opt, list(ready.parameters()))], 1)
    other = front.Adam(module.parameters())
    other.load_state_dict(opt.state_dict())
    module(torch.ones(1, 3)).sum().backward()
    other.step()
    assert other.state[module.weight]["step"] == 2
