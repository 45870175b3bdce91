"""flatstep.torch keeps torch.optim's contract: groups, names, numbers, schedulers, hooks, closures, copies."""

from __future__ import annotations

import copy
import importlib
import io
import pickle
import sys
from unittest.mock import MagicMock

import pytest

import flatstep.torch as front
from flatstep.torch._optimizer import UNSAID
from torch_cases import (
    CLASSES,
    DEFAULT_PEERS,
    DEFAULTS,
    PEERS,
    Snapshot,
    assert_close,
    defaults_with,
    give_grads,
    loop,
    parametrize,
    same_bits,
    torch,
    torch_peer,
    twins,
)

lr_scheduler = torch.optim.lr_scheduler
all_optimizers = sys.modules["torch.optim.optimizer"]
SHAPES = [(7, 3), (), (40,), (0,)]
defaults = parametrize(DEFAULTS)


def run(opt, params, steps, first=0):
    for count in range(first, first + steps):
        give_grads(params, seed=count)
        opt.step()


@pytest.fixture(scope="module")
def torchs_table():
    """torch's own rows for the optimizers that flatstep.torch has too.

    The file imports torch's test framework, which sets flags of this process and wants more packages, but the rows need
    none of it.
    """
    package = "torch.testing._internal."
    with pytest.MonkeyPatch.context() as patch:
        for name in ("common_device_type", "common_methods_invocations", "common_utils"):
            patch.setitem(sys.modules, package + name, MagicMock(_TestParametrizer=object))
        table = importlib.import_module(package + "common_optimizers").optim_db
        patch.delitem(sys.modules, package + "common_optimizers")
    return [info for info in table if info.optim_cls in {getattr(torch.optim, case.peer[0]) for case in PEERS}]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128], ids=str)
def test_torchs_own_configurations(torchs_table, dtype):
    """Those that torch tests its optimizers with, against its for-loop; the odd parameter has no gradient."""
    rows = [(info.name, row.kwargs) for info in torchs_table for row in info.optim_inputs_func("cpu", dtype)]
    assert len(rows) >= 10
    for name, kwargs in rows:
        ours, theirs = twins(SHAPES, dtype)
        opt, peer = getattr(front, name)(ours, **kwargs), getattr(torch.optim, name)(theirs, **kwargs, **loop(name))
        for count in range(8):
            give_grads(ours, theirs, seed=count)
            for params in (ours, theirs):
                params[count % 3].grad = None
            opt.step()
            peer.step()
        assert_close(ours, theirs)
        for mine, other in zip(ours, theirs, strict=True):
            assert {key: value.dtype for key, value in opt.state[mine].items()} == {
                key: value.dtype for key, value in peer.state[other].items()
            }
            for key, value in peer.state[other].items():
                assert_close(opt.state[mine][key], value)


def error_of(make, *args, **kwargs):
    """The type of what a call raises; None where it raises nothing."""
    try:
        make(*args, **kwargs)
    except Exception as error:
        return type(error)
    return None


BAD_ARGUMENTS = [
    dict(lr="fast"),
    dict(lr=None),
    dict(lr=-1e-3),
    dict(lr=float("nan")),
    dict(lr=torch.ones(2)),
    dict(eps=-1e-8),
    dict(eps="1"),
    dict(betas=0.9),
    dict(betas=(1.0, 0.9)),
    dict(betas=(0.9, -0.1)),
    dict(betas=(0.9, "0.99")),
    dict(weight_decay=-0.5),
    dict(fused=True, foreach=True),
    dict(fused=True, differentiable=True),
]


def test_torchs_own_errors(torchs_table):
    """What torch rejects when an optimizer is made is rejected here with the same type of error."""
    rows = [(info.name, row) for info in torchs_table for row in info.optim_error_inputs_func("cpu", torch.float32)]
    given = [(name, row.optimizer_error_input.params, row.optimizer_error_input.kwargs) for name, row in rows]
    assert len(given) >= 10
    given += [(name, None, kwargs) for name in ("Adam", "AdamW") for kwargs in BAD_ARGUMENTS]
    for name, params, kwargs in given:
        params = [torch.nn.Parameter(torch.ones(2))] if params is None else params
        expected = error_of(getattr(torch.optim, name), params, **kwargs)
        assert error_of(getattr(front, name), params, **kwargs) is expected is not None, (name, kwargs)


def test_numbers_are_looked_at_before_parameters():
    for library in (torch.optim, front):
        with pytest.raises(ValueError, match=r"(?i)betas|beta parameter"):
            library.Adam([], betas=(1.0, 0.9))


SCHEDULERS = {
    "LambdaLR": lambda opt: lr_scheduler.LambdaLR(opt, lambda epoch: 0.9**epoch),
    "MultiplicativeLR": lambda opt: lr_scheduler.MultiplicativeLR(opt, lambda epoch: 0.95),
    "StepLR": lambda opt: lr_scheduler.StepLR(opt, 3, 0.5),
    "MultiStepLR": lambda opt: lr_scheduler.MultiStepLR(opt, [2, 5], 0.5),
    "ConstantLR": lambda opt: lr_scheduler.ConstantLR(opt, 0.4, 4),
    "LinearLR": lambda opt: lr_scheduler.LinearLR(opt, 0.4, total_iters=4),
    "ExponentialLR": lambda opt: lr_scheduler.ExponentialLR(opt, 0.9),
    "PolynomialLR": lambda opt: lr_scheduler.PolynomialLR(opt, 8, 0.9),
    "CosineAnnealingLR": lambda opt: lr_scheduler.CosineAnnealingLR(opt, 6),
    "CosineAnnealingWarmRestarts": lambda opt: lr_scheduler.CosineAnnealingWarmRestarts(opt, 4),
    "ReduceLROnPlateau": lambda opt: lr_scheduler.ReduceLROnPlateau(opt, patience=2),
    "SequentialLR": lambda opt: lr_scheduler.SequentialLR(
        opt, [lr_scheduler.ConstantLR(opt, 0.1, 3), lr_scheduler.ExponentialLR(opt, 0.9)], [3]
    ),
    "ChainedScheduler": lambda opt: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(opt, 0.1, 3), lr_scheduler.ExponentialLR(opt, 0.9)]
    ),
    "OneCycleLR": lambda opt: lr_scheduler.OneCycleLR(opt, 0.1, total_steps=12),
    "CyclicLR": lambda opt: lr_scheduler.CyclicLR(opt, 0.01, 0.1, step_size_up=3, cycle_momentum=True),
    "SWALR": lambda opt: torch.optim.swa_utils.SWALR(opt, 0.02, anneal_epochs=4),
}


def test_every_scheduler_of_torch_stands_in_the_table():
    assert {*SCHEDULERS} == {*lr_scheduler.__all__, "SWALR"} - {"LRScheduler"}


@pytest.mark.parametrize("tensor_lr", [False, True], ids=["number", "tensor"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers(name, tensor_lr):
    ours, theirs = twins(SHAPES)
    case = DEFAULTS[0]
    lr = {"lr": torch.tensor(0.05)} if tensor_lr else {}
    opt, peer = case.make(ours, **copy.deepcopy(lr)), torch_peer(case, theirs, **lr)
    schedulers = [SCHEDULERS[name](opt), SCHEDULERS[name](peer)]
    seen = set()
    for count in range(10):
        give_grads(ours, theirs, seed=count)
        opt.step()
        peer.step()
        for scheduler in schedulers:
            scheduler.step(*[1.0] if name == "ReduceLROnPlateau" else [])
        (own,), (other,) = opt.param_groups, peer.param_groups
        assert own["lr"] == other["lr"] and own["betas"] == other["betas"]
        seen.add((float(own["lr"]), own["betas"][0]))
    assert len(seen) > 1
    assert len({b1 for _, b1 in seen}) > 1 or name not in ("OneCycleLR", "CyclicLR")
    assert_close(ours, theirs)


GROUPS = [
    dict(lr=0.3, weight_decay=0.2),
    dict(betas=(0.5, 0.75), maximize=True),
    dict(eps=0.01, eps_root=0.1, decoupled_weight_decay=True, weight_decay=0.1),
    {},
]


@defaults
def test_groups_have_numbers_of_their_own(case):
    """The same bits as an optimizer for each."""
    ours, theirs = twins([(5,), (130,), (2, 3), ()])
    groups = [case.fitting(group) for group in GROUPS]
    opt = case.make([{"params": param, **group} for param, group in zip(ours, groups, strict=True)])
    apart = [case.make([param], **group) for param, group in zip(theirs, groups, strict=True)]
    for count in range(4):
        give_grads(ours, theirs, seed=count)
        for each in (opt, *apart):
            each.step()
    same_bits(ours, theirs)


@defaults
def test_a_group_added_later_counts_from_its_own_start(case):
    ours, theirs = twins([(5,), (7,)])
    opt = case.make(ours[:1])
    run(opt, ours[:1], 3)
    opt.add_param_group({"params": ours[1], "lr": 0.5})
    apart = [case.make(theirs[:1]), case.make(theirs[1:], lr=0.5)]
    run(apart[0], theirs[:1], 3)
    give_grads(ours, theirs, seed=9)
    for each in (opt, *apart):
        each.step()
    same_bits(ours, theirs)
    assert [opt.state[param]["step"].item() for param in ours] == [4, 1]


ITERABLES = {
    "tuple": tuple,
    "ParameterList": torch.nn.ParameterList,
    "values": lambda params: dict(enumerate(params)).values(),
    "iterator": iter,
}


@defaults
@pytest.mark.parametrize("kind", ITERABLES)
def test_a_group_may_hold_any_iterable(case, kind):
    """Put there by a script, as torch's loops allow."""
    ours, theirs = twins([(5,), (7,)])
    opt, peer = case.make(ours), case.make(theirs)
    for count in range(3):
        opt.param_groups[0]["params"] = ITERABLES[kind](ours)
        give_grads(ours, theirs, seed=count)
        opt.step()
        peer.step()
    same_bits(ours, theirs)


def test_a_group_that_changes_under_the_step():
    """By a gradient that is a property, say: the step goes over what stood there when it began."""

    class Emptying(torch.nn.Parameter):
        @property
        def grad(self):
            opt.param_groups[0]["params"].clear()
            return torch.ones(3)

    params = [Emptying(torch.zeros(3)), *twins([(3,)])[0]]
    params[1].grad = torch.ones(3)
    opt = front.Adam(params)
    opt.step()
    assert not opt.param_groups[0]["params"]
    assert [opt.state[param]["step"].item() for param in params] == [1, 1]


NO_NUMBERS = {
    "lr": ["fast", "1", None, 1j, True, torch.ones(2), [0.1]],
    "betas": [0.9, (0.9,), (0.9, 0.9, 0.9), (0.9, None), ("0.9", 0.9)],
    "eps": ["1", True],
    "eps_root": ["0"],
    "weight_decay": [b"0"],
    "maximize": ["yes", torch.ones(2)],
    "decoupled_weight_decay": ["no"],
    "nesterov": ["yes"],
    "alpha": ["1"],
    "beta": [None],
    "convention": ["nonsense"],
}
# Finite, but not in the type in which float32 parameters are stepped.
TOO_LARGE = {"lr": [1e39, -1e39, 10**400], "eps": [1e39], "weight_decay": [1e39]}
BAD = {**NO_NUMBERS, "differentiable": [True]}
OWN = {"Adam-amsgrad": {"nesterov": [True]}}  # which that rule does not have


def bad_values(case, **more):
    """By name what the groups of an optimizer reject; also another choice of what all of them share."""
    face = case.optimizer._declaration.torch
    fixed = {name: [not value] for name, value in face.fixed.items() if name not in face.forced}
    shared = {name: ["optax"] for name in face.shared}
    tables = [BAD, TOO_LARGE, fixed, shared, OWN.get(case.name, {}), more]
    known = {*case.arguments, *face.fixed}
    return [(name, value) for table in tables for name, values in table.items() for value in values if name in known]


@defaults
def test_a_rejected_group_changes_nothing(case):
    params, more = twins([(5,), (7,)])
    opt = case.make(params)
    run(opt, params, 2)
    before = Snapshot(opt)
    for name, value in bad_values(case, capturable=[True], mu_dtype=["float32", torch.float16, torch.int32]):
        with pytest.raises((TypeError, ValueError), match=r"is|has|capturable|differentiable"):
            opt.add_param_group({"params": more, name: value})
        before.check()
    for group in ({"params": [params[0]]}, {"params": [more[0] * 2]}, {"params": [1.0]}, {"params": {more[0]}}):
        with pytest.raises((TypeError, ValueError)):
            opt.add_param_group(group)
        before.check()
    opt.add_param_group({"params": more})
    run(opt, [*params, *more], 1)


@defaults
@pytest.mark.parametrize("steps", [0, 2])
def test_what_is_no_number_is_rejected_in_each_step(case, steps):
    """Set by hand in the last of two groups: nothing is done to the first."""
    params, _ = twins([(5,), (7,)])
    opt = case.make([{"params": param} for param in params])
    run(opt, params, steps)
    give_grads(params, seed=9)
    group = opt.param_groups[1]
    for name, value in bad_values(case):
        good = group.get(name, UNSAID.get(name))
        group[name] = value
        before = Snapshot(opt)
        with pytest.raises((TypeError, ValueError)):
            opt.step()
        before.check()
        group[name] = good
    opt.step()
    assert [opt.state[param]["step"].item() for param in params] == [steps + 1] * 2


MESSAGES = {
    "a text": ("lr", "1", TypeError, "lr is '1', expected a number"),
    "one beta": ("betas", 0.9, TypeError, "betas is 0.9, expected two numbers"),
    "a word": ("maximize", "yes", TypeError, "maximize is 'yes', expected True or False"),
    "too large": ("eps", 1e39, ValueError, r"eps is 1e\+39, infinite in float32"),
}


@pytest.mark.parametrize("name, value, error, message", MESSAGES.values(), ids=MESSAGES)
def test_messages_say_what_was_expected(name, value, error, message):
    (param,), _ = twins([(3,)])
    opt = front.Adam([param])
    run(opt, [param], 1)
    opt.param_groups[0][name] = value
    with pytest.raises(error, match=message):
        opt.step()


# As schedulers leave them: slightly out of the bounds that construction checks, or by intent.
OUT_OF_BOUNDS = [
    dict(lr=0.3 - 0.1 - 0.1 - 0.1),
    dict(lr=-0.5),
    dict(lr=0),
    dict(lr=float("nan")),
    dict(betas=(-1e-9, 0.999)),
    dict(betas=(1 + 1e-6, 0.999)),
    dict(betas=(0.9, -1e-9)),
    dict(eps=-1e-9),
    dict(weight_decay=-0.25),
    dict(weight_decay=float("nan")),
]


@parametrize(DEFAULT_PEERS)
@pytest.mark.parametrize("numbers", OUT_OF_BOUNDS, ids=str)
def test_a_step_takes_every_number_that_torch_takes(case, numbers):
    """Set in a group, or given with it; only an optimizer's own arguments are bounded."""
    ours, theirs = twins([(3, 2), (4,)])
    opt = case.make([{"params": ours[:1]}, {"params": ours[1:], **numbers}])
    peer = torch_peer(case, [{"params": theirs[:1]}, {"params": theirs[1:], **numbers}])
    for count in range(3):
        give_grads(ours, theirs, seed=count)
        opt.step()
        peer.step()
        for each in (opt, peer):
            each.param_groups[0].update(numbers)
    for param, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(param, other, rtol=2e-5, atol=2e-6, equal_nan=True)


def test_a_number_too_large_for_float32_steps_float64():
    (ours,), (theirs,) = twins([(3,)], torch.float64)
    for param, library in ((ours, front), (theirs, torch.optim)):
        opt = library.Adam([param], eps=1e300)
        give_grads([param], seed=0)
        opt.step()
    assert_close(ours, theirs)


MU_DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.complex64, torch.int32]


@defaults_with("mu_dtype")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.complex64])
@pytest.mark.parametrize("mu_dtype", MU_DTYPES)
def test_a_mu_dtype_steps_or_is_rejected_when_the_optimizer_is_made(case, dtype, mu_dtype):
    (param,), (other,) = twins([(3,)], dtype)
    try:
        opt = case.make([param], mu_dtype=mu_dtype)
    except TypeError as error:
        assert f"mu_dtype is {mu_dtype}" in str(error)  # noqa: PT017
        opt = case.make([other])
        with pytest.raises(TypeError, match=f"mu_dtype is {mu_dtype}.* of dtype {dtype}"):
            opt.add_param_group({"params": param, "mu_dtype": mu_dtype})
        return
    run(opt, [param], 1)
    assert opt.state[param]["exp_avg"].dtype == mu_dtype


AMSGRAD_BY_GROUP = [
    [dict(amsgrad=True), {}],
    [{}, dict(amsgrad=True)],
    [dict(amsgrad=True, lr=0.25), dict(amsgrad=False), dict(amsgrad=True, weight_decay=0.5)],
]


@pytest.mark.parametrize("groups", AMSGRAD_BY_GROUP, ids=str)
@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_groups_choose_amsgrad(name, groups):
    """As in torch: state, steps and what is loaded."""
    ours, theirs = twins([(5,), (2, 3), ()][: len(groups)])

    def make(library, params):
        given = [{"params": param, **group} for param, group in zip(params, groups, strict=True)]
        return getattr(library, name)(given, lr=0.05)

    opt, peer = make(front, ours), make(torch.optim, theirs)
    for count in range(4):
        give_grads(ours, theirs, seed=count)
        opt.step()
        peer.step()
        if count == 1:
            saved = peer.state_dict()
            opt = make(front, ours)
            opt.load_state_dict(saved)
    assert_close(ours, theirs)
    for own, other in zip(ours, theirs, strict=True):
        assert [*opt.state[own]] == [*peer.state[other]]


def test_groups_choose_their_slots():
    """What a group does is what an optimizer of its own does, and a slot that it does not need is not made."""
    options = [dict(centered=c, momentum=m) for c in (False, True) for m in (0, 0.7)]
    ours, alone = twins([(3,)] * len(options))
    opt = front.RMSprop([{"params": [param], **own} for param, own in zip(ours, options, strict=True)])
    opts = [front.RMSprop([param], **own) for param, own in zip(alone, options, strict=True)]
    for count in range(3):
        give_grads(ours, alone, seed=count)
        for each in (opt, *opts):
            each.step()
    same_bits(ours, alone)
    assert [len(opt.state[param]) for param in ours] == [2, 3, 3, 4]


def test_memory_is_checked_across_groups_that_choose_different_rules():
    memory = torch.zeros(8)
    params = [torch.nn.Parameter(memory[:5]), torch.nn.Parameter(memory[3:])]
    opt = front.Adam([{"params": params[0]}, {"params": params[1], "amsgrad": True}])
    give_grads(params, seed=0)
    before = Snapshot(opt)
    with pytest.raises(ValueError, match="param 0 of group 1 shares memory with param 0 of group 0"):
        opt.step()
    before.check()


@defaults
def test_options_of_torch(case):
    """foreach and fused mean what every step here is; together they are rejected, as in torch."""
    ours, theirs = twins(SHAPES)
    run(case.make(theirs), theirs, 2)
    for option in (dict(foreach=True), dict(fused=True), dict(foreach=False, fused=False)):
        params = copy.deepcopy(ours)
        run(case.make(params, **case.fitting(option)), params, 2)
        same_bits(params, theirs)
    for error, option in [
        (RuntimeError, dict(foreach=True, fused=True)),
        (ValueError, dict(differentiable=True)),
        (ValueError, dict(capturable=True)),
    ]:
        if case.fitting(option) != option:
            continue
        with pytest.raises(error, match=next(iter(option))):
            case.make(ours, **option)


@defaults_with("betas")
def test_betas_may_be_whole_numbers(case):
    """As recipes for GANs write them; torch 2.13 wants floats."""
    ours, theirs = twins(SHAPES)
    opt, peer = case.make(ours, betas=(0, 0.75)), case.make(theirs, betas=(0.0, 0.75))
    run(opt, ours, 2)
    run(peer, theirs, 2)
    same_bits(ours, theirs)
    with pytest.raises(ValueError, match="betas must be"):
        torch.optim.Adam(theirs, betas=(0, 0.75))


@defaults
def test_numbers_may_be_tensors(case):
    """Read anew in each step."""
    ours, theirs = twins(SHAPES)
    lr = torch.tensor(0.05, dtype=torch.float64)
    opt = case.make(ours, lr=lr, **case.fitting(dict(betas=(torch.tensor(0.5), torch.tensor([0.75])))))
    peer = case.make(theirs, **case.fitting(dict(betas=(0.5, 0.75))))
    run(opt, ours, 1)
    run(peer, theirs, 1)
    lr.fill_(0.25)
    peer.param_groups[0]["lr"] = 0.25
    run(opt, ours, 1)
    run(peer, theirs, 1)
    same_bits(ours, theirs)


def broken(param):
    """Its data is replaced by data of another shape, which autograd does not check."""
    param.data = torch.zeros(3, 2)


@defaults
def test_errors_name_the_parameter(case):
    params, _ = twins([(5,), (6,)])
    for given, name in [
        (list(zip(["first", "body.weight"], params, strict=True)), "grad of body.weight has shape"),
        (params, "grad of 1 of group 0 has shape"),
        ([{"params": param} for param in params], "grad of 0 of group 1 has shape"),
    ]:
        params[1].data = torch.zeros(6)
        give_grads(params, seed=0)
        broken(params[1])
        with pytest.raises(ValueError, match=name):
            case.make(given).step()


class Derived(front.AdamW):
    """A user's own."""


@pytest.mark.parametrize("optimizer", [*CLASSES, Derived])
def test_step_hooks_fire_once(optimizer):
    """Those of the optimizer and of all optimizers; arguments may be replaced, and gradients."""
    (param,), _ = twins([(3,)])
    opt, calls = optimizer([param], lr=0.5), []
    handles = [
        all_optimizers.register_optimizer_step_pre_hook(lambda *_: calls.append("all pre")),
        opt.register_step_pre_hook(lambda opt, args, kwargs: calls.append("pre") or ((opt, lambda: 3.0), {})),
        opt.register_step_pre_hook(lambda *_: setattr(param, "grad", torch.ones(3))),
        opt.register_step_post_hook(lambda *_: calls.append("post")),
        all_optimizers.register_optimizer_step_post_hook(lambda *_: calls.append("all post")),
    ]
    try:
        assert opt.step() == 3.0
    finally:
        for handle in handles:
            handle.remove()
    assert calls == ["all pre", "pre", "post", "all post"]
    assert opt.state[param]["step"] == 1
    assert opt.step() is None
    assert len(calls) == 4


@defaults
def test_state_hooks_fire_once(case):
    params, others = twins([(3,)])
    opt, other, calls = case.make(params), case.make(others), []
    run(opt, params, 1)
    opt.register_state_dict_pre_hook(lambda _: calls.append("save pre"))
    opt.register_state_dict_post_hook(lambda _, saved: calls.append("save post") or {**saved, "more": 1})
    other.register_load_state_dict_pre_hook(lambda _, saved: calls.append("load pre") or {**saved, "seen": True})
    other.register_load_state_dict_post_hook(lambda _: calls.append("load post"))
    saved = opt.state_dict()
    assert saved["more"] == 1
    other.load_state_dict(saved)
    assert calls == ["save pre", "save post", "load pre", "load post"]
    same_bits(other.state[others[0]], opt.state[params[0]])


@defaults
def test_closures(case):
    """Called once, with gradients enabled; the loss comes back."""
    ours, theirs = twins([(3,)])
    opt, peer, losses = case.make(ours), case.make(theirs), []

    def closure():
        opt.zero_grad()
        loss = ours[0].square().sum()
        loss.backward()
        losses.append(loss)
        return loss

    with torch.no_grad():
        loss = opt.step(closure)
    assert losses == [loss]
    theirs[0].grad = 2 * theirs[0].detach()
    assert peer.step() is None
    same_bits(ours, theirs)


@pytest.mark.parametrize("foreach", [None, True])
def test_zero_grad(foreach):
    params, _ = twins(SHAPES)
    opt = front.Adam(params, foreach=foreach)
    give_grads(params, seed=0)
    grads = [param.grad for param in params]
    opt.zero_grad(set_to_none=False)
    assert all(param.grad is grad and not grad.any() for param, grad in zip(params, grads, strict=True))
    opt.zero_grad()
    assert all(param.grad is None for param in params)


def through_torch_save(opt):
    buffer = io.BytesIO()
    torch.save(opt, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda opt: pickle.loads(pickle.dumps(opt)), "save": through_torch_save}


@defaults
@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("steps", [0, 2])
def test_copies_step_on(case, way, steps):
    """The same bits as the original, and nothing shared with it."""
    params, _ = twins(SHAPES)
    opt = case.make([("named" + str(index), param) for index, param in enumerate(params)])
    run(opt, params, steps)
    other = COPIES[way](opt)
    before = Snapshot(other)
    run(opt, params, 2, first=5)
    before.check()
    copies = other.param_groups[0]["params"]
    run(other, copies, 2, first=5)
    same_bits(copies, params)
    for ours, theirs in zip(params, copies, strict=True):
        same_bits(opt.state[ours], other.state[theirs])
    assert repr(other) == repr(opt)


@parametrize(DEFAULT_PEERS)
def test_gradients_that_come_and_go(case):
    """None now and then, and for ever; frozen and thawed: who is not stepped neither moves nor counts."""
    ours, theirs = twins([(3,), (4,), (5,)])
    opt, peer = case.make(ours), torch_peer(case, theirs)
    for count in range(6):
        give_grads(ours, theirs, seed=count)
        for params in (ours, theirs):
            params[0].grad = None if count % 2 else params[0].grad
            params[1].requires_grad_(count not in (2, 3))
            params[1].grad = params[1].grad if params[1].requires_grad else None
            params[2].grad = None
        opt.step()
        peer.step()
    assert_close(ours, theirs)
    assert [opt.state[param]["step"].item() for param in ours[:2]] == [3, 4]
    assert ours[2] not in opt.state


def test_only_what_is_stepped_counts_as_modified():
    """In autograd's eyes, which then rejects to use what it saved."""
    params, _ = twins([(3,), (3,)])
    opt = front.Adam(params)
    loss = (params[0] * params[1]).square().sum()
    untouched = params[1].square().sum()
    params[0].grad = torch.ones(3)
    versions = [param._version for param in params]
    opt.step()
    assert params[0]._version > versions[0] and params[1]._version == versions[1]
    untouched.backward()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_counts_have_torchs_dtype():
    """float64 where that is torch's default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        (param,), (other,) = twins([(3,)])
        opt, peer = front.Adam([param]), torch.optim.Adam([other])
        for params, each in ([[param], opt], [[other], peer]):
            run(each, params, 2)
        assert opt.state[param]["step"].dtype == peer.state[other]["step"].dtype == torch.float64
    finally:
        torch.set_default_dtype(before)
    assert opt.state[param]["step"] == 2


@defaults
def test_another_default_device(case):
    """Set by the user to make modules elsewhere: counts, from checkpoints too, and checks stay with the parameters."""
    (ours, theirs), (sliced, _) = twins([(3,)]), twins([(4, 2)])
    columns = [torch.nn.Parameter(sliced[0].detach()[:, at]) for at in (0, 1)]
    opt, peer = case.make([*ours, *columns]), case.make(theirs)
    for count in range(3):
        give_grads(ours, theirs, seed=count)
        give_grads(columns, seed=count)
        with torch.device("meta"):
            opt.step()
            saved = opt.state_dict()
            for state in saved["state"].values():
                state["step"] = state["step"].item()
            opt.load_state_dict(saved)
        peer.step()
    same_bits(ours, theirs)
    assert opt.state[columns[1]]["step"].item() == 3


def test_a_wrapper_may_say_who_unscales():
    """torch's optimizers keep that in an attribute, which wrappers set."""
    opt = front.Adam(twins([(3,)])[0])
    opt._step_supports_amp_scaling = True
    assert opt._step_supports_amp_scaling is True


def breakers(key="", last=""):
    """What may be wrong with the last parameter, or with its state, of which these are two keys.

    Each takes the optimizer and the parameter.
    """

    def state(**changes):
        def change(opt, param):
            opt.state[param].update(changes)

        return change

    def without(key):
        return lambda opt, param: opt.state[param].pop(key)

    def fresh(value):
        return lambda opt, param: setattr(param, "data", value)

    return {
        "shape": (fresh(torch.zeros(3, 2)), ValueError, "has shape"),
        "sparse": (lambda _, param: setattr(param, "grad", torch.ones(6).to_sparse()), RuntimeError, "is sparse"),
        "expanded": (fresh(torch.ones(1).expand(6)), ValueError, "share memory"),
        "dtype": (fresh(torch.ones(6, dtype=torch.float64)), TypeError, "no kernel"),
        "missing": (without(last), ValueError, f"without .'{last}'"),
        "no step": (without("step"), ValueError, "without .'step'"),
        "negative step": (state(step=torch.tensor(-1.0)), ValueError, "has a step of -1"),
        "half a step": (state(step=torch.tensor(0.5)), ValueError, "has a step of 0.5"),
        "NaN step": (state(step=torch.tensor(float("nan"))), ValueError, "has a step of nan"),
        "state's shape": (state(**{key: torch.zeros(5)}), ValueError, f"but its {key} has"),
        "state's dtype": (state(**{key: torch.zeros(6, dtype=torch.int32)}), (TypeError, ValueError), "1 of group 0"),
        "no dict": (lambda opt, param: opt.state.__setitem__(param, []), TypeError, "has a list as its state"),
        "expanded state": (state(**{key: torch.zeros(1).expand(6)}), ValueError, f"{key} of param 1 .* share memory"),
        "no tensor": (state(**{key: []}), TypeError, f"state {key} of param 1 of group 0 is a list"),
        "state on meta": (state(**{key: torch.zeros(6, device="meta")}), ValueError, "is on meta"),
    }


@pytest.mark.parametrize(
    "case, name",
    [
        pytest.param(case, name, id=f"{name}-{case.name}")
        for name in breakers()
        for case in DEFAULTS
        if name != "no step" or case.optimizer._declaration.torch.needs_count
    ],
)
def test_a_failed_step_changes_nothing(case, name):
    """The last of three parameters cannot be stepped; then the others are not, and counts stay."""
    params, _ = twins([(4,), (2, 2), (6,)])
    opt = case.make(params[:1])
    change, error, message = breakers(opt.state_keys[0], opt.state_keys[-1])[name]
    opt.add_param_group({"params": params[1].data[:, :1].detach().requires_grad_()})  # steps in a copy
    opt.param_groups[0]["params"].append(params[2])
    steps = 0 if name in ("shape", "sparse", "expanded") else 2
    everything = [param for group in opt.param_groups for param in group["params"]]
    run(opt, everything, steps)
    give_grads(everything, seed=9)
    change(opt, params[2])
    before = Snapshot(opt)
    with pytest.raises(error, match=message):
        opt.step()
    before.check()
