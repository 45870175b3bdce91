"""The Python face: structures, counts, schedules, attributes, None gradients, threads and targets."""

from __future__ import annotations

import array
import copy
import ctypes
import gc
import pickle
import threading
import warnings
import weakref
from collections import OrderedDict, namedtuple
from functools import reduce
from importlib.util import find_spec
from itertools import pairwise, product

import numpy as np
import pytest

import flatstep
from cases import CASES, DEFAULTS, RULES, assert_same_bits, numbers
from table import TABLE

Point = namedtuple("Point", "x y")


def like(structure, make):
    """A structure with each array replaced by what ``make`` returns for it."""
    if isinstance(structure, dict):
        return type(structure)((key, like(value, make)) for key, value in structure.items())
    if isinstance(structure, tuple) and hasattr(structure, "_fields"):
        return type(structure)(*[like(value, make) for value in structure])
    if isinstance(structure, (list, tuple)):
        return type(structure)(like(value, make) for value in structure)
    return make(structure)


STRUCTURES = {
    "array": np.ones(3),
    "list": [np.ones(3), np.ones(())],
    "tuple": (np.ones(3), np.ones((2, 2))),
    "dict": {"w": np.ones(3), 7: np.ones(2)},
    "ordered": OrderedDict(b=np.ones(3), a=np.ones(2)),
    "named": Point(np.ones(2), np.ones(3)),
    "nested": {"layers": [{"w": np.ones((2, 3)), "b": np.ones(3)}, (np.ones(1), [])], "scale": np.ones(()), "none": {}},
    "nothing": [],
    "deep": reduce(lambda inner, _: [inner], range(100), np.ones(2)),
}


@pytest.mark.parametrize("structure", STRUCTURES.values(), ids=STRUCTURES)
def test_structures(structure):
    params = like(structure, np.copy)
    opt = flatstep.AMSGrad(params, learning_rate=0.1)
    assert opt.params is params
    assert opt.step(like(params, np.ones_like)) is None
    expected = np.ones(1)
    flatstep.AMSGrad(expected, learning_rate=0.1).step(np.ones(1))
    like(params, lambda array: assert_same_bits(array, np.full_like(array, expected[0])))
    assert set(opt.state) == {"mu", "nu", "nu_max"}
    for slot, saved in opt.state_dict()["state"].items():
        assert like(opt.state[slot], np.shape) == like(params, np.shape)
        assert like(saved, np.shape) == like(params, np.shape) and type(saved) is type(params)


def test_dicts_are_matched_by_key():
    params = {"a": np.zeros(2), "b": np.zeros(2)}
    flatstep.Adam(params, 0.1).step({"b": np.full(2, -1.0), "a": np.full(2, 1.0)})
    assert params["a"][0] < 0 < params["b"][0]


def test_a_list_may_stand_for_a_tuple():
    params = (np.zeros(2), [np.zeros(2)])
    flatstep.Adam(params, 0.1).step([np.ones(2), (np.ones(2),)])
    assert params[1][0][0] != 0


def test_a_named_tuple_is_not_another():
    """Whose fields stand in another order: each gradient would go to another parameter."""
    params = {"p": Point(np.zeros(2), np.zeros(2))}
    opt = flatstep.Adam(params, 0.1)
    with pytest.raises(ValueError, match=r"grads\['p'\] has the fields \['y', 'x'\], expected \['x', 'y'\]"):
        opt.step({"p": namedtuple("Reversed", "y x")(np.ones(2), np.ones(2))})
    for grads in (namedtuple("Gradient", "x y")(np.ones(2), -np.ones(2)), (np.ones(2), -np.ones(2))):
        opt.step({"p": grads})
    assert params["p"].x[0] < 0 < params["p"].y[0]


MISMATCHES = {
    "missing key": ({"a": np.ones(2)}, r"grads lacks the keys \['b'\]"),
    "unknown key": ({"a": np.ones(2), "b": [np.ones(2)], "c": 1}, r"grads .* unknown keys \['c'\]"),
    "misspelt key": ({"a": np.ones(2), "B": [np.ones(2)]}, r"grads lacks the keys \['b'\] .* \['B'\]"),
    "not a dict": ([np.ones(2), np.ones(2)], r"grads is a list, expected a dict with the keys \['a', 'b'\]"),
    "not a list": ({"a": np.ones(2), "b": np.ones(2)}, r"grads\['b'\] is a ndarray, expected a list of 1"),
    "too long": ({"a": np.ones(2), "b": [np.ones(2)] * 2}, r"grads\['b'\] has 2 entries, expected a list of 1"),
    "wrong shape": ({"a": np.ones(2), "b": [np.ones(3)]}, r"grads\['b'\]\[0\] has shape \(3,\), expected \(2,\)"),
    "wrong axes": ({"a": np.ones((1, 2)), "b": [np.ones(2)]}, r"grads\['a'\] has shape \(1, 2\), expected \(2,\)"),
    "wrong dtype": (
        {"a": np.ones(2), "b": [np.ones(2, np.float32)]},
        r"grads\['b'\]\[0\] has dtype float32, expected float64 like its parameter; convert it to float64",
    ),
    "integers": ({"a": np.ones(2, int), "b": [np.ones(2)]}, r"grads\['a'\] has dtype int64, expected float64"),
    "swapped bytes": (
        {"a": np.ones(2, ">f8"), "b": [np.ones(2)]},
        r"grads\['a'\] has dtype >f8, whose byte order is not this machine's, expected float64",
    ),
    "not an array": ({"a": "word", "b": [np.ones(2)]}, r"grads\['a'\] is a builtins.str, expected a NumPy array"),
    "dates": (
        {"a": np.ones(2, "M8[s]"), "b": [np.ones(2)]},
        r"grads\['a'\] is a numpy.ndarray of dtype datetime64\[s\], expected a NumPy array of float16, f",
    ),
}


@pytest.mark.parametrize("grads, message", MISMATCHES.values(), ids=MISMATCHES)
def test_unfit_gradients_change_nothing(grads, message):
    params = {"a": np.ones(2), "b": [np.ones(2)]}
    opt = flatstep.AMSGrad(params, learning_rate=lambda count: 0.1 / (count + 1))
    opt.step({"a": np.ones(2), "b": [np.ones(2)]})
    before, state = like(params, np.copy), opt.state_dict()
    with pytest.raises((ValueError, TypeError), match=message):
        opt.step(grads)
    assert_equal_nested(params, before)
    assert_equal_nested(opt.state_dict(), state)
    opt.step({"a": np.ones(2), "b": [np.ones(2)]})
    assert opt.count == 2


def assert_equal_nested(actual, expected):
    if isinstance(expected, dict):
        assert list(actual) == list(expected)
        for key in expected:
            assert_equal_nested(actual[key], expected[key])
    elif isinstance(expected, (list, tuple)):
        assert len(actual) == len(expected)
        for one, other in zip(actual, expected, strict=True):
            assert_equal_nested(one, other)
    elif isinstance(expected, np.ndarray):
        assert_same_bits(actual, expected)
    else:
        assert actual == expected


def read_only(array):
    array.flags.writeable = False
    return array


def inside_itself(structure, put):
    put(structure, structure)
    return structure


whole = np.ones(10)
UNFIT_PARAMS = {
    "list of floats": ([1.0, 2.0], r"params\[0\] is a builtins.float, expected a NumPy array"),
    "none": ({"w": None}, r"params\['w'\] is a builtins.NoneType"),
    "generator": ((x for x in ()), r"params is a builtins.generator"),
    "numpy scalar": ({"w": np.float32(1)}, r"params\['w'\] is a numpy.float32, expected a NumPy array"),
    "masked": (np.ma.array([1.0, 2.0], mask=[0, 1]), r"params is a masked array"),
    "integers": ([np.ones(2), np.ones(2, int)], r"params\[1\] has dtype int64, expected float16, float32 or float64; "),
    "swapped bytes": (
        np.ones(2, ">f4"),
        "params has dtype >f4, whose byte order is not this machine's, expected",
    ),
    "complex": (np.ones(2, complex), r"params has dtype complex128"),
    "long double": (np.ones(2, np.longdouble), r"params has dtype (longdouble|float128)"),
    "read-only": ({"w": read_only(np.ones(2))}, r"params\['w'\] is read-only"),
    "gaps": ({"w": np.ones((4, 6))[:, ::2]}, r"params\['w'\] has gaps, .*\(shape \(4, 3\), strides \(6, 2\) elements"),
    "reversed": (np.ones(4)[::-1], r"params has gaps, repeats or reversed axes"),
    "expanded": (np.lib.stride_tricks.as_strided(np.ones(1), (4,), (0,), writeable=True), r"params has gaps, repeats"),
    "misaligned": (np.frombuffer(bytearray(17), np.uint8)[1:].view(np.float64), r"params is not aligned"),
    "overlapping": ({"a": whole[:6], "b": whole[5:]}, r"params\['b'\] shares memory with params\['a'\]"),
    "list in itself": (inside_itself([], list.append), "params is nested more than 100 levels .*contains itself"),
    "dict in itself": (inside_itself({}, lambda d, x: d.update(a=x, b=x)), "params is nested .* or contains itself"),
    "deeply nested": (reduce(lambda inner, _: (inner,), range(10_000), whole), "params is nested more than 100 levels"),
    "twice": ([whole, np.ones(3), whole], r"params\[2\] shares memory with params\[0\]"),
}


@pytest.mark.parametrize("params, message", UNFIT_PARAMS.values(), ids=UNFIT_PARAMS)
def test_unfit_params(params, message):
    with pytest.raises((ValueError, TypeError), match=message):
        flatstep.Adam(params, 0.1)


def test_neighbours_do_not_overlap():
    buffer = np.ones(10)
    opt = flatstep.Adam([buffer[5:], buffer[:0], buffer[:5]], 0.1)
    opt.step([np.ones(5), np.ones(0), np.ones(5)])
    assert np.all(buffer == buffer[0]) and buffer[0] != 1


def test_gradients_in_memory_that_is_written():
    buffer = np.ones(10)
    opt = flatstep.Adam({"w": buffer[:5], "v": buffer[5:]}, 0.1)
    with pytest.raises(ValueError, match=r"grads\['w'\] shares memory with params\['v'\], which the step overwrites"):
        opt.step({"w": buffer[5:], "v": np.ones(5)})
    with pytest.raises(ValueError, match=r"grads\['v'\] shares memory with params\['w'\]"):
        opt.step({"w": np.ones(5), "v": buffer[:5]})
    with pytest.raises(ValueError, match=r"grads\['w'\] shares memory with the optimizer's state"):
        opt.step({"w": opt.state["mu"]["v"], "v": np.ones(5)})
    assert opt.count == 0 and np.all(buffer == 1) and not opt.state["mu"]["v"].any()


def test_parameter_changed_under_the_optimizer():
    param = np.ones(4)
    opt = flatstep.Adam({"w": param}, 0.1)
    param.resize((2, 2), refcheck=False)
    with pytest.raises(ValueError, match=r"params\['w'\] has another shape"):
        opt.step({"w": np.ones((2, 2))})
    param.resize(4, refcheck=False)
    param.flags.writeable = False
    with pytest.raises(ValueError, match=r"params\['w'\] has become read-only"):
        opt.step({"w": np.ones(4)})
    param.flags.writeable = True
    opt.step({"w": np.ones(4)})
    assert param[0] < 1


def test_gradient_may_be_a_numpy_scalar_or_read_only():
    param = np.ones(())
    opt = flatstep.Adam(param, 0.1)
    opt.step(param * 2)
    assert isinstance(param * 2, np.float64) and param < 1
    opt.step(read_only(np.ones(())))


BOUNDS = {
    "learning_rate": (-1e-3, "inf", "nan"),
    "b1": (-0.1, 1.0, "nan"),
    "b2": (-0.1, 1.0, 1.5),
    "eps": (-1e-8, "nan"),
    "eps_root": (-1e-8, "inf"),
    "weight_decay": (-0.1, "nan"),
    "alpha": ("nan", "inf"),
    "beta": ("nan", "-inf"),
}


@pytest.mark.parametrize("name, value", [(name, float(value)) for name, values in BOUNDS.items() for value in values])
def test_numbers_out_of_bounds(name, value):
    """Rejected when made, when set, and when a schedule returns them; then nothing has changed."""
    params = np.ones(3)
    with pytest.raises(ValueError, match=f"{name} is "):
        flatstep.OptimisticAdam(params, **{"learning_rate": 0.1, name: value})
    opt = flatstep.OptimisticAdam(params, learning_rate=0.1)
    before = getattr(opt, name)
    with pytest.raises(ValueError, match=f"{name} is "):
        setattr(opt, name, value)
    assert getattr(opt, name) == before
    setattr(opt, name, lambda count: value)
    with pytest.raises(ValueError, match=rf"{name}\(0\) is "):
        opt.step(np.ones(3))
    assert opt.count == 0 and np.all(params == 1)


@pytest.mark.parametrize("name", [name for name in BOUNDS if name not in ("b1", "b2")])
def test_numbers_beyond_the_precision(name):
    """Finite in double, they would be infinite in float32, and the step silently wrong."""
    largest = float(np.finfo(np.float32).max)
    grads = [np.ones(3), np.ones(3, np.float32)]
    opt = flatstep.OptimisticAdam([np.ones(3), np.ones(3, np.float32)], learning_rate=0.1)
    for value in (1e300, np.nextafter(largest, np.inf)):
        with pytest.raises(ValueError, match=f"{name} is .*, infinite at these parameters' precision"):
            setattr(opt, name, value)
        with pytest.raises(ValueError, match="grad_scale is .*, infinite at these parameters' precision"):
            opt.step(grads, grad_scale=-value)
    setattr(opt, name, lambda count: 1e300)
    with pytest.raises(ValueError, match=rf"{name}\(0\) is 1e\+300, infinite at these parameters' precision"):
        opt.step(grads)
    setattr(opt, name, largest)
    double = flatstep.OptimisticAdam(np.ones(3), learning_rate=0.1)
    setattr(double, name, 1e300)
    double.step(np.ones(3), grad_scale=-1e300)


def test_numbers_that_are_none():
    with pytest.raises(TypeError, match="learning_rate is 'fast', expected a number"):
        flatstep.Adam(np.ones(1), "fast")
    with pytest.raises(TypeError, match="learning_rate is True, expected a number"):
        flatstep.Adam(np.ones(1), True)
    for text in ("0.1", b"0.1", bytearray(b"0.1"), memoryview(b"1"), array.array("b", b"1")):
        with pytest.raises(TypeError, match="learning_rate is .*, expected a number"):
            flatstep.Adam(np.ones(1), text)
    for of_numpy in (np.str_("0.1"), np.bytes_(b"0.1"), np.array("0.1"), np.array("0.1", object), np.array(True)):
        with pytest.raises(TypeError, match="learning_rate is .*, expected a number"):
            flatstep.Adam(np.ones(1), of_numpy)
    for part in (1j, np.complex64(0.1 + 5j), np.array(0.1 + 5j)):
        with pytest.raises(TypeError, match="learning_rate is .*, expected a number"):
            flatstep.Adam(np.ones(1), part)
    with pytest.raises(TypeError, match="grad_scale is None, expected a number"):
        flatstep.Adam(np.ones(1), 0.1).step(np.ones(1), grad_scale=None)
    with pytest.raises(ValueError, match="grad_scale is nan, expected a finite number"):
        flatstep.Adam(np.ones(1), 0.1).step(np.ones(1), grad_scale=np.nan)
    with pytest.raises(TypeError, match="unexpected keyword"):
        flatstep.Adam(np.ones(1), 0.1, amsgrad=True)


DTYPES = ["float16", "float32", "float64", "int32", "complex64", "longdouble", ">f4"]


@pytest.mark.parametrize("case", RULES, ids=[case.name for case in RULES])
def test_what_a_constructor_takes_a_step_takes(case):
    """All pairs of dtypes of a parameter and of its first moment: rejected when the optimizer is made, or good."""
    brain = ["bfloat16"] if find_spec("ml_dtypes") else []
    moments = [None, *DTYPES, *brain] if hasattr(case.optimizer, "mu_dtype") else [None]
    taken = []
    for dtype, moment in product(DTYPES, moments):
        param = np.ones(3, dtype)
        try:
            opt = case.make(param, **({} if moment is None else {"mu_dtype": moment}))
        except TypeError:
            continue
        taken.append((dtype, moment))
        for _ in range(2):
            opt.step(np.ones(3, dtype))
        opt.load_state_dict(opt.state_dict())
    assert {("float32", None), ("float64", None)} <= set(taken)
    assert all(moment in (dtype, None, "float32", "bfloat16") for dtype, moment in taken)


def test_conventions():
    with pytest.raises(ValueError, match="convention is 'keras', expected one of 'optax', 'torch', 'paper'"):
        flatstep.AMSGrad(np.ones(1), 0.1, convention="keras")
    for flag in ("bias_correction_mu", "bias_correction_nu"):
        with pytest.raises(ValueError, match="convention='paper' corrects no bias"):
            flatstep.AMSGrad(np.ones(1), 0.1, convention="paper", **{flag: True})
    paper = flatstep.AMSGrad(np.ones(1), 0.1, convention="paper", bias_correction_mu=False)
    assert (paper.bias_correction_mu, paper.bias_correction_nu) == (False, False)


def test_options_are_true_or_false():
    for name in ("bias_correction_mu", "bias_correction_nu", "decoupled_weight_decay", "maximize"):
        with pytest.raises(TypeError, match=f"{name} is 'no', expected True or False"):
            flatstep.AMSGrad(np.ones(1), 0.1, **{name: "no"})
    with pytest.raises(TypeError, match="nesterov is 'no', expected True or False"):
        flatstep.OptimisticAdam(np.ones(1), 0.1, nesterov="no")


def test_attributes():
    opt = flatstep.AMSGrad(np.ones(2), learning_rate=0.1)
    opt.learning_rate = np.float32(0.25)
    assert opt.learning_rate == 0.25 and type(opt.learning_rate) is float
    for name in ("convention", "bias_correction_mu", "bias_correction_nu", "maximize", "decoupled_weight_decay"):
        with pytest.raises(AttributeError, match=f"{name} is fixed when the optimizer is made"):
            setattr(opt, name, getattr(opt, name))
    with pytest.raises(AttributeError, match="AMSGrad has no 'lr'; its numbers are .*'learning_rate'"):
        opt.lr = 0.1
    for name in ("count", "params", "state", "target"):
        with pytest.raises(AttributeError):
            setattr(opt, name, 5)
    for name, message in {"learning_rate": "set it to another number", "maximize": "it is fixed"}.items():
        with pytest.raises(AttributeError, match=f"{name} cannot be deleted; {message}"):
            delattr(opt, name)
    for name in ("step", "save", "load_state_dict"):
        with pytest.raises(AttributeError, match=f"{name} is a method; make a subclass"):
            setattr(opt, name, 5)
    assert "learning_rate=0.25" in repr(opt) and "convention='optax'" in repr(opt)


def test_attributes_of_a_users_class():
    """Are its own, also before the base is initialised; those of the base stay what they are."""

    class Mine(flatstep.Adam):
        kind = "old"

        def __init__(self, params):
            self.note = "first"
            super().__init__(params, 0.1)
            self.kind = "new"

        @property
        def half(self):
            return self.learning_rate / 2

        @half.setter
        def half(self, value):
            self.learning_rate = 2 * value

    opt = Mine(np.ones(1))
    opt.half = 0.25
    assert (opt.note, opt.kind, opt.learning_rate) == ("first", "new", 0.5)
    for name, message in (("step", "Adam.step is a method"), ("nesterov", "is fixed"), ("count", "count")):
        with pytest.raises(AttributeError, match=message):
            setattr(opt, name, 5)


@pytest.mark.parametrize("name, value", [("learning_rate", 0.1), ("nesterov", True), ("b1", property(lambda _: 0.5))])
def test_numbers_hidden_by_a_users_class(name, value):
    """What is set there would have no effect."""
    with pytest.raises(TypeError, match=rf"Mine.{name} = .* hides the optimizer's own {name}; pass it to super"):
        type("Mine", (flatstep.Adam,), {name: value})(np.ones(1), 0.1)


@pytest.mark.parametrize("case", DEFAULTS, ids=[case.name for case in DEFAULTS])
def test_numbers_set_between_steps(case):
    """Setting an attribute equals a schedule that changes then."""
    rng = np.random.default_rng(0)
    param, grads = numbers(rng, 40, np.float64), [numbers(rng, 40, np.float64) for _ in range(6)]
    values = {"learning_rate": [0.1, 0.2], "b1": [0.9, 0.8], "b2": [0.99, 0.9], "eps": [1e-8, 1e-3], "beta": [1, 0.5]}
    values = {name: value for name, value in values.items() if hasattr(case.optimizer, name)}
    scheduled, assigned = param.copy(), param.copy()
    first = case.make(scheduled, **{name: (lambda count, v=v: v[count >= 3]) for name, v in values.items()})
    second = case.make(assigned, **{name: v[0] for name, v in values.items()})
    for count, grad in enumerate(grads):
        if count == 3:
            for name, v in values.items():
                setattr(second, name, v[1])
        first.step(grad)
        second.step(grad)
    assert_same_bits(assigned, scheduled)


def test_schedules_are_called_once_a_step_with_the_count():
    calls = []
    opt = flatstep.Adam([np.ones(2)] * 0 + [np.ones(2), np.ones(2)], lambda count: calls.append(count) or 0.1)
    for grads in ([np.ones(2), np.ones(2)], [None, np.ones(2)], [None, None], [np.ones(2), None]):
        opt.step(grads)
    assert calls == [0, 1, 2, 3] and opt.count == 4


# Schedules follow the optimizer's count, and the oracle knows only the leaf's.
UNSCHEDULED = [case for case in CASES if not any(callable(value) for value in case.settings.values())]


@pytest.mark.parametrize("case", UNSCHEDULED, ids=[case.name for case in UNSCHEDULED])
def test_leaves_without_gradient(case):
    """A leaf whose gradient is None stays as it is, and its own count drives its bias correction."""
    rng = np.random.default_rng(1)
    params = [numbers(rng, size, np.float32) for size in (5, 70, 0, 64)]
    mine = [param.copy() for param in params]
    opt = case.make(mine)
    seen = [[] for _ in params]
    for count in range(8):
        turns = [(count + leaf) % (leaf + 1) == 0 for leaf in range(len(params))]
        grads = [numbers(rng, p.size, np.float32) if turn else None for p, turn in zip(params, turns, strict=True)]
        opt.step(grads)
        for leaf, grad in enumerate(grads):
            if grad is not None:
                seen[leaf].append(grad)
    for leaf, param in enumerate(params):
        expected, state = case.expect(param, seen[leaf])
        assert_same_bits(mine[leaf], expected, f"leaf {leaf}")
        for slot, value in opt.state.items():
            assert_same_bits(value[leaf], state[slot], slot)
    assert opt.count == 8
    assert opt.state_dict()["leaf_counts"] == [len(grads) for grads in seen]


def test_state_is_a_view():
    params = {"w": np.ones((3, 4), order="F"), "b": np.ones(5, np.float32)}
    opt = flatstep.AMSGrad(params, 0.1)
    for slot in opt.state.values():
        assert slot["w"].dtype == np.float64 and slot["b"].dtype == np.float32
        assert slot["w"].strides == params["w"].strides
        for name, view in slot.items():
            assert view.ctypes.data % 64 == params[name].ctypes.data % 64, "state begins a cache line where params do"
    opt.state["nu_max"]["w"][1, 2] = 1e6
    opt.step({"w": np.ones((3, 4)), "b": np.ones(5, np.float32)})
    assert opt.state["nu_max"]["w"][1, 2] == 1e6
    assert params["w"][1, 2] > params["w"][0, 0]


LOST = {
    "a slot": lambda state: state.update(mu=0),
    "a new slot": lambda state: state.setdefault("more", 0),
    "all of a slot": lambda state: state.__setitem__("nu", dict(state["nu"])),
    "a leaf": lambda state: state["mu"].__setitem__("w", np.zeros(3)),
    "an equal leaf": lambda state: state["mu"].__setitem__("w", state["mu"]["w"].copy()),
    "in a list": lambda state: state["mu"]["v"].__setitem__(0, np.zeros(2)),
    "longer": lambda state: state["mu"]["v"].append(np.zeros(2)),
    "no more": lambda state: state["nu"].pop("w"),
    "a field": lambda state: setattr(state["mu"]["p"], "x", np.zeros(2)),
}


def with_state():
    opt = flatstep.Adam({"w": np.ones(3), "v": [np.ones(2)], "p": Point(np.ones(2), np.ones(2))}, 0.1)
    opt.step(like(opt.params, np.copy))
    return opt


@pytest.mark.parametrize("entry", TABLE, ids=lambda entry: entry.optimizer.__name__)
def test_large_slots_lie_apart_in_a_page(entry):
    """Where they do not, processors take loads for those of the stores before them."""
    param = np.zeros(100_000, np.float32)
    opt = entry.optimizer(param, 0.1)
    places = sorted((view.ctypes.data - param.ctypes.data) % 4096 for view in opt.state.values())
    assert all(after - before >= 512 for before, after in pairwise(places))
    assert {place % 64 for place in places} == {0}


def test_what_is_written_into_arrays_of_the_state_stays():
    opt = with_state()
    plain = opt.state_dict()["state"]
    for state in (opt.state, plain):
        state["nu"]["w"][...] = 2
        state["mu"]["w"] *= 2
        state["mu"]["v"][0] += 1
        state["nu"]["p"].x[...] = 3
    assert_equal_nested(opt.state, plain)
    assert_equal_nested(opt.state_dict()["state"], plain)


@pytest.mark.parametrize("change", LOST.values(), ids=LOST)
def test_what_is_put_in_the_place_of_an_array_of_the_state_is_rejected(change):
    """Or of a structure around it: the optimizer would not know."""
    opt = with_state()
    before = opt.state_dict()
    with pytest.raises(
        (TypeError, AttributeError), match=r'opt.state\["mu"\]\["w"\]\[...\] = value|can.t set attribute'
    ):
        change(opt.state)
    assert_equal_nested(opt.state_dict(), before)


def test_threads():
    before = flatstep.get_num_threads()
    try:
        for wrong in (0, -1):
            with pytest.raises(ValueError, match="num_threads must be at least 1"):
                flatstep.set_num_threads(wrong)
        flatstep.set_num_threads(3)
        assert flatstep.get_num_threads() == 3
    finally:
        flatstep.set_num_threads(before)


def test_targets(monkeypatch):
    names = flatstep.targets()
    assert names and names[-1] in ("baseline", "neon")
    monkeypatch.delenv("FLATSTEP_TARGET", raising=False)
    assert flatstep.Adam(np.ones(1), 0.1).target == names[0]
    for name in names:
        monkeypatch.setenv("FLATSTEP_TARGET", name)
        assert flatstep.Adam(np.ones(1), 0.1).target == name
    monkeypatch.setenv("FLATSTEP_TARGET", "")
    assert flatstep.Adam(np.ones(1), 0.1).target == names[0]
    for wrong in ("abacus", names[0].upper(), f" {names[0]}", ",".join([*names, names[0]])):
        monkeypatch.setenv("FLATSTEP_TARGET", wrong)
        with pytest.raises(RuntimeError, match=f"FLATSTEP_TARGET={wrong} cannot run here: .* name one of: {names[0]}"):
            flatstep.Adam(np.ones(1), 0.1)


def test_one_optimizer_used_while_it_steps():
    """By a schedule of its own, or by another thread: rejected, and the step goes on."""
    opt = flatstep.Adam(np.ones(3), 0.1)
    saved = opt.state_dict()
    rejected = []

    def attempt(action):
        try:
            action()
        except RuntimeError as error:
            rejected.append(str(error))

    def schedule(count):
        for action in (lambda: opt.step(np.ones(3)), opt.state_dict, lambda: opt.load_state_dict(saved)):
            attempt(action)
            thread = threading.Thread(target=attempt, args=(action,))
            thread.start()
            thread.join()
        return 0.1

    opt.learning_rate = schedule
    opt.step(np.ones(3))
    assert len(rejected) == 6
    assert all(text.startswith("this optimizer is in use") for text in rejected)
    assert opt.count == 1
    opt.learning_rate = 0.1
    opt.step(np.ones(3))


def test_parameters_put_into_the_structure_later():
    """They would never be updated, and whoever put them there would not know."""
    params = {"w": np.ones(3), "b": [np.ones(2)]}
    opt = flatstep.Adam(params, 0.1)
    kept, params["b"][0] = params["b"][0], np.zeros(2)
    with pytest.raises(ValueError, match=r"params\['b'\]\[0\] is another array than when the optimizer was made"):
        opt.step({"w": np.ones(3), "b": [np.ones(2)]})
    params["b"][0] = kept
    opt.step({"w": np.ones(3), "b": [np.ones(2)]})
    del params["b"]
    with pytest.raises(ValueError, match=r"params lacks the keys \['b'\]"):
        opt.step({"w": np.ones(3), "b": [np.ones(2)]})
    assert opt.count == 1


def moved(param):
    param.resize(100_000, refcheck=False)  # to another place
    param.resize(4, refcheck=False)


def retyped(param):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        param.dtype = np.int64


def restrided(param):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        param.shape = (2, 2)
        param.strides = (8, 16)


@pytest.mark.parametrize("change", [moved, retyped, restrided])
def test_parameter_is_not_what_it_was(change):
    param = np.ones(4) if change is not restrided else np.ones((2, 2))
    opt = flatstep.AMSGrad([param, np.ones(4)], 0.1)
    grads = [np.ones(param.shape), np.ones(4)]
    opt.step(grads)
    place = param.ctypes.data
    change(param)
    if change is moved and param.ctypes.data == place:
        pytest.skip("the allocator gave the same memory again")
    with pytest.raises(ValueError, match=r"params\[0\] has another shape, dtype or place in memory"):
        opt.step(grads)
    assert opt.state["mu"][0].shape == grads[0].shape
    assert not np.shares_memory(opt.state["mu"][0], opt.state["mu"][1])


def test_gradients_in_packed_records():
    """Aligned where they begin, but not from there on."""
    grads = np.ones(5, [("grad", np.float32), ("flag", np.uint8)])["grad"]
    with pytest.raises(ValueError, match="grads is not aligned to its item size"):
        flatstep.Adam(np.ones(5, np.float32), 0.1).step(grads)


GRADIENTS_AROUND = {  # of a parameter that lies in the middle row of a (5, 4, 6) buffer
    "rows on both sides": (lambda around: around[1:4:2, 0], False),
    "rows upwards": (lambda around: around[3:0:-2, 0], False),
    "the row itself": (lambda around: around[2:4, 0], True),
    "its own blocks": (lambda around: around[1::2], False),
    "blocks with it": (lambda around: around[::2], True),
    "beside it in its block": (lambda around: around[:, 1::2], False),
    "across it": (lambda around: around[:, :, 2].T, True),
    "every other, up to it": (lambda around: around.reshape(-1)[1:48:2], False),
    "every other, into it": (lambda around: around.reshape(-1)[1:50:2], True),
    "windows": (lambda around: np.lib.stride_tricks.sliding_window_view(around[2, 1:].reshape(-1), 4), False),
    "windows over it": (lambda around: np.lib.stride_tricks.sliding_window_view(around.reshape(-1), 4), True),
    "the same row again": (lambda around: np.broadcast_to(around[1, 0], (3, 6)), False),
}


@pytest.mark.parametrize("view, is_shared", GRADIENTS_AROUND.values(), ids=GRADIENTS_AROUND)
def test_gradients_around_memory_that_is_written(view, is_shared):
    """What counts is the memory of their elements, not what lies between these."""
    around = np.random.default_rng(0).standard_normal((5, 4, 6))
    grad = view(around)
    assert np.shares_memory(grad, around[2, 0]) == is_shared
    other, expected = np.ones(grad.shape), np.ones(grad.shape)
    opt = flatstep.Adam([around[2, 0], other], 0.1)
    if is_shared:
        with pytest.raises(ValueError, match=r"grads\[1\] shares memory with params\[0\], which the step overwrites"):
            opt.step([np.ones(6), grad])
        return
    flatstep.Adam(expected, 0.1).step(grad.copy())
    opt.step([np.ones(6), grad])
    assert_same_bits(other, expected)


def test_reversed_gradients_in_memory_that_is_written():
    buffer = np.ones(10)
    opt = flatstep.Adam(buffer[:5], 0.1)
    with pytest.raises(ValueError, match="grads shares memory with params"):
        opt.step(buffer[4:9][::-1])
    opt.step(buffer[5:][::-1])


def test_masked_gradients():
    with pytest.raises(
        TypeError, match=r"grads is a numpy.ma.*MaskedArray of dtype float64, whose mask would be ignored"
    ):
        flatstep.Adam(np.ones(2), 0.1).step(np.ma.array([1.0, 2.0], mask=[0, 1]))


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps], ids=lambda f: f.__name__)
def test_copies_are_rejected(copied):
    """A copy would share state, or be without."""
    with pytest.raises(TypeError, match="Adam cannot be copied or pickled; make another one"):
        copied(flatstep.Adam(np.ones(2), 0.1))


def test_gradients_that_do_not_say_how_they_lie():
    with pytest.raises(TypeError, match=r"grads is a .*c_double_Array_3 that does not say how it lies in memory"):
        flatstep.Adam(np.ones(3), 0.1).step((ctypes.c_double * 3)(1, 2, 3))


def test_schedules_may_change_what_differs_by_leaf():
    """From the next step on."""
    opt = flatstep.Adam([np.ones(3), np.ones(3)], 0.1, weight_decay=[0.1, 0.2])

    def schedule(count):
        opt.weight_decay = [0.5, 0.1] if count % 2 else 0.25
        return 0.1

    opt.learning_rate = schedule
    for _ in range(4):
        opt.step([np.ones(3), np.ones(3)])
    assert opt.weight_decay == [0.5, 0.1]


def test_schedules_that_replace_parameters():
    params = [np.ones(3)]
    opt = flatstep.Adam(params, lambda count: params.__setitem__(0, np.zeros(3)) or 0.1)
    with pytest.raises(ValueError, match=r"params\[0\] is another array"):
        opt.step([np.ones(3)])
    assert opt.count == 0


def test_cycles_through_parameters_are_collected():
    class Holding(np.ndarray):
        pass

    param = np.ones(3).view(Holding)
    param.opt = flatstep.Adam([param], 0.1)
    param.opt.step([np.ones(3)])
    gone = weakref.ref(param)
    del param
    gc.collect()
    assert gone() is None
