"""state_dict and load_state_dict: copies, resuming bit for bit, and rejecting what does not fit."""

from __future__ import annotations

import copy
import pickle
from functools import partial
from itertools import product

import numpy as np
import pytest

import flatstep
from cases import CASES, RULES, assert_same_bits, numbers
from saving import content

SHAPES = {"w": (5, 7), "v": [(70,), ()]}


def make(rng, shapes=SHAPES, dtype=np.float32):
    if isinstance(shapes, dict):
        return {key: make(rng, value, dtype) for key, value in shapes.items()}
    if isinstance(shapes, list):
        return [make(rng, value, dtype) for value in shapes]
    return numbers(rng, shapes, dtype)


def leaves(structure):
    return [structure["w"], *structure["v"]]


@pytest.mark.parametrize("through", [copy.deepcopy, lambda d: pickle.loads(pickle.dumps(d))], ids=["copy", "pickle"])
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_resume(case, through):
    """Interrupted after steps in which some leaves had no gradient, and gone on with: the same bits."""
    rng = np.random.default_rng(0)
    straight = make(rng)
    steps = [make(rng) for _ in range(8)]
    steps[1]["w"] = steps[4]["v"][1] = None
    interrupted = copy.deepcopy(straight)
    opt = case.make(straight)
    for grads in steps:
        opt.step(grads)

    first = case.make(interrupted)
    for grads in steps[:5]:
        first.step(grads)
    saved = through(first.state_dict())
    second = case.make(interrupted)
    second.load_state_dict(saved)
    assert second.count == 5
    for grads in steps[5:]:
        second.step(grads)
    for one, other in zip(leaves(interrupted), leaves(straight), strict=True):
        assert_same_bits(one, other)
    for slot in opt.state:
        for one, other in zip(leaves(second.state[slot]), leaves(opt.state[slot]), strict=True):
            assert_same_bits(one, other, slot)


def test_copies():
    """Neither what was saved nor what was loaded is tied to the optimizer."""
    param = np.ones(3)
    opt = flatstep.Adam(param, 0.1)
    opt.step(np.ones(3))
    saved = opt.state_dict()
    kept = copy.deepcopy(saved)
    opt.load_state_dict(saved)
    opt.step(np.ones(3))
    assert_same_bits(saved["state"]["mu"], kept["state"]["mu"])
    assert saved["count"] == kept["count"] == 1


def test_numbers_are_loaded_and_schedules_kept():
    opt = flatstep.OptimisticAdam(np.ones(2), learning_rate=0.5, b1=lambda count: 0.5, beta=0.25)
    saved = opt.state_dict()
    assert saved["numbers"]["learning_rate"] == 0.5 and "b1" not in saved["numbers"]
    schedule = lambda count: 0.1  # noqa: E731
    other = flatstep.OptimisticAdam(np.ones(2), learning_rate=schedule, b1=0.75, beta=1.0)
    other.load_state_dict(saved)
    assert other.learning_rate is schedule
    assert (other.b1, other.beta) == (0.75, 0.25)


def changed(path, value):
    """What makes a state_dict unfit: the entry at a path replaced (removed where the value is None)."""

    def change(saved):
        *outer, last = path
        part = saved
        for key in outer:
            part = part[key]
        if value is None:
            del part[last]
        else:
            part[last] = value
        return saved

    return change


UNFIT = {
    "not a dict": (lambda saved: 5, "state_dict lacks 'version'"),
    "empty": (lambda saved: {}, "state_dict lacks 'version'"),
    "newer": (changed(["version"], 3), "state_dict has version 3, expected at most 2"),
    "true for a version": (changed(["version"], True), "state_dict has version True, expected at most 2"),
    "1.0 for a version": (changed(["version"], 1.0), "state_dict has version 1.0, expected at most 2"),
    "unknown keys": (changed(["epoch"], 3), r"state_dict has the unknown keys \['epoch'\]; expected what state_dict"),
    "params": (changed(["params"], 3), r"state_dict has the unknown keys \['params'\]"),  # which only files have
    "other optimizer": (changed(["optimizer"], "Adam"), "state_dict is of Adam, expected AMSGrad"),
    "other convention": (
        changed(["options", "convention"], "torch"),
        "made with convention='torch', but this optimizer has convention='optax'",
    ),
    "missing option": (changed(["options", "maximize"], None), r"state_dict\['options'\] lacks \['maximize'\]"),
    "unknown number": (changed(["numbers", "b3"], 0.5), r"state_dict\['numbers'\] .* unknown \['b3'\]"),
    "number out of bounds": (changed(["numbers", "b2"], 1.0), r"state_dict\['numbers'\]\['b2'\] is 1"),
    "negative count": (changed(["count"], -1), r"state_dict\['count'\] is -1"),
    "broken count": (changed(["count"], 1.5), r"state_dict\['count'\] is 1.5"),
    "boundless count": (changed(["count"], 2**63), r"state_dict\['count'\] is 9223372036854775808, expected a whole"),
    "true": (changed(["count"], True), r"state_dict\['count'\] is True"),
    "number that no float holds": (changed(["numbers", "b2"], 10**400), r"\['b2'\] is inf, expected a finite number"),
    "numbers not a dict": (changed(["numbers"], 5), r"state_dict\['numbers'\] is a int, expected a dict"),
    "options not a dict": (changed(["options"], []), r"state_dict\['options'\] is a list, expected a dict"),
    "missing counts": (changed(["leaf_counts"], None), "state_dict lacks 'leaf_counts'"),
    "other counts": (changed(["leaf_counts", "v", 1], -2), r"state_dict\['leaf_counts'\]\['v'\]\[1\] is -2"),
    "larger counts": (
        changed(["leaf_counts", "w"], 3),
        r"state_dict\['leaf_counts'\]\['w'\] is 3, expected a whole number from 0 to 2, state_dict\['count'\]",
    ),
    "other structure": (
        changed(["leaf_counts", "v"], 3),
        r"state_dict\['leaf_counts'\]\['v'\] is a int, expected a list",
    ),
    "missing slot": (changed(["state", "nu_max"], None), r"state_dict\['state'\] lacks \['nu_max'\]"),
    "unknown slot": (changed(["state", "previous"], 1), r"state_dict\['state'\] .* unknown \['previous'\]"),
    "missing leaf": (changed(["state", "mu", "w"], None), r"state_dict\['state'\]\['mu'\] lacks the keys \['w'\]"),
    "wrong shape": (
        changed(["state", "nu", "v", 0], np.ones(69, np.float32)),
        r"state_dict\['state'\]\['nu'\]\['v'\]\[0\] has shape \(69,\) and dtype float32, expected \(70,\) and float32",
    ),
    "masked": (
        changed(["state", "nu", "w"], np.ma.masked_invalid(np.ones((5, 7), np.float32))),
        r"\['nu'\]\['w'\] is a masked array, whose mask would be ignored; pass its .data",
    ),
    "wrong dtype": (changed(["state", "nu", "v", 0], np.ones(70)), r"\['v'\]\[0\] has shape \(70,\) and dtype float64"),
}


@pytest.mark.parametrize("change, message", UNFIT.values(), ids=UNFIT)
def test_unfit_state_changes_nothing(change, message):
    rng = np.random.default_rng(1)
    opt = flatstep.AMSGrad(make(rng), learning_rate=0.1)
    opt.step(make(rng))
    before = opt.state_dict()
    other = flatstep.AMSGrad(make(rng), learning_rate=0.7)
    other.step(make(rng))
    other.step(make(rng))
    with pytest.raises(ValueError, match=message):
        opt.load_state_dict(change(other.state_dict()))
    after = opt.state_dict()
    for slot, structure in before.pop("state").items():
        for one, expected in zip(leaves(after["state"][slot]), leaves(structure), strict=True):
            assert_same_bits(one, expected)
    del after["state"]
    assert after == before


# Each meaning of an optimizer's state beside the others, and each optimizer beside the others.
PAIRS = [
    pytest.param(case, other, id=f"{case.name}-{other.name}")
    for case, other in product(RULES, RULES)
    if case.optimizer is other.optimizer or not (case.settings or other.settings)
]


@pytest.mark.parametrize("method", ["load_state_dict", "load"])
@pytest.mark.parametrize("case, other", PAIRS)
def test_a_state_of_another_rule_is_rejected_by_name(case, other, method, tmp_path):
    """Or of the same rule under an option by which it means something else."""
    opt, saved = case.make(np.ones(2)), other.make(np.zeros(2))
    opt.step(np.ones(2))
    saved.step(np.ones(2))
    if method == "load":
        pytest.importorskip("safetensors")
        saved.save(tmp_path / "model")
    load = (
        partial(opt.load, tmp_path / "model") if method == "load" else partial(opt.load_state_dict, saved.state_dict())
    )
    before = content(opt)
    if case is other:
        load()
        return
    name, own = other.optimizer.__name__, case.optimizer.__name__
    message = f"state_dict is of {name}, expected {own}"
    if name == own:
        message = r"state_dict was made with \w+=.*, but this optimizer has"
    with pytest.raises(ValueError, match=message):
        load()
    assert content(opt) == before


def test_every_optimizer_is_among_these_rules():
    public = {value for value in vars(flatstep).values() if isinstance(value, type)}
    assert {case.optimizer for case in RULES} == {kind for kind in public if issubclass(kind, flatstep.Optimizer)} - {
        flatstep.Optimizer
    }


class Mine(flatstep.Adam):
    """An optimizer of the user's own, which is made in another way but steps by the same rule."""

    def __init__(self, params):
        super().__init__(params, learning_rate=0.25, nesterov=True)


class AMSGrad(Mine):
    pass


@pytest.mark.parametrize("one", [Mine, AMSGrad, lambda params: flatstep.Adam(params, 0.1, nesterov=True)])
@pytest.mark.parametrize("other", [Mine, AMSGrad, lambda params: flatstep.Adam(params, 0.1, nesterov=True)])
def test_a_derived_class_is_the_same_optimizer(one, other):
    opt = one(np.ones(2))
    opt.step(np.ones(2))
    again = other(np.zeros(2))
    again.load_state_dict(opt.state_dict())
    assert again.count == 1 and again.learning_rate == opt.learning_rate
    with pytest.raises(ValueError, match="state_dict is of Adam, expected AMSGrad"):
        flatstep.AMSGrad(np.ones(2), 0.1).load_state_dict(opt.state_dict())
    with pytest.raises(ValueError, match="state_dict is of AdamW, expected Adam"):
        opt.load_state_dict(flatstep.AdamW(np.ones(2), 0.1, nesterov=True).state_dict())


def test_a_class_derived_from_none_of_ours_goes_by_its_own_name():
    def init(self, params):
        numbers = dict(learning_rate=0.1, alpha=1.0, beta=1.0, weight_decay=0.0)
        flags = dict(decoupled_weight_decay=False, maximize=False)
        flatstep.Optimizer.__init__(self, params, {**numbers, **flags})

    ours = flatstep.OptimisticGradientDescent
    own = {"__init__": init, **{name: getattr(ours, name) for name in ("alpha", "beta", "_declaration")}}
    one, other = (type(name, (flatstep.Optimizer,), own) for name in ("One", "Other"))
    saved = type("Two", (one,), {})(np.ones(2)).state_dict()
    one(np.ones(2)).load_state_dict(saved)
    with pytest.raises(ValueError, match="state_dict is of One, expected Other"):
        other(np.ones(2)).load_state_dict(saved)


def test_numbers_of_the_last_step_are_needed():
    opt = flatstep.OptimisticAdam(np.ones(2), 0.1, nesterov=False)
    opt.step(np.ones(2))
    saved = opt.state_dict()
    assert saved["leaf_numbers"] == {"b1": 0.9, "b2": 0.999, "eps": 1e-8, "eps_root": 0.0}
    for wrong in (1.0, float("nan"), None, lambda count: 0.5):
        saved["leaf_numbers"]["b2"] = wrong
        with pytest.raises((ValueError, TypeError), match=r"state_dict\['leaf_numbers'\]\['b2'\] is "):
            opt.load_state_dict(saved)
    del saved["leaf_numbers"]["b2"]
    with pytest.raises(ValueError, match=r"state_dict\['leaf_numbers'\] lacks \['b2'\]"):
        opt.load_state_dict(saved)


def test_parts_of_the_state_itself_in_other_places():
    opt = flatstep.Adam(np.ones(3), 0.1)
    opt.step(np.array([1.0, 2.0, 3.0]))
    saved, expected = opt.state_dict(), opt.state_dict()["state"]
    opt.load_state_dict({**saved, "state": {"mu": opt.state["nu"], "nu": opt.state["mu"]}})
    assert_same_bits(opt.state["mu"], expected["nu"])
    assert_same_bits(opt.state["nu"], expected["mu"])
