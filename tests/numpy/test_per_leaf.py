"""Learning rates and weight decays that differ by leaf, and flat buffers."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import flatstep
from cases import DEFAULTS, assert_same_bits, numbers


def structure(make):
    """Three leaves of different sizes, from make(size, leaf)."""
    return {"w": make(70, 0), "b": [make(5, 1), make(130, 2)]}


def leaves(of):
    return [of["w"], *of["b"]]


RATES = [0.1, 0.0, lambda count: 0.3 / (1 + count)]
DECAYS = [0.0, 0.2, 0.2]


@pytest.mark.parametrize("case", DEFAULTS, ids=[case.name for case in DEFAULTS])
def test_equals_one_optimizer_a_leaf(case):
    """Numbers and schedules, leaves that agree and leaves that do not, a leaf without gradient now and then."""
    rng = np.random.default_rng(0)
    params = structure(lambda size, leaf: numbers(rng, size, np.float32))
    apart = [leaf.copy() for leaf in leaves(params)]
    together = case.make(
        params,
        learning_rate=structure(lambda size, leaf: RATES[leaf]),
        weight_decay=structure(lambda size, leaf: DECAYS[leaf]),
    )
    each = [case.make(param, learning_rate=RATES[i], weight_decay=DECAYS[i]) for i, param in enumerate(apart)]
    for count in range(6):
        grads = structure(lambda size, leaf: numbers(rng, size, np.float32))
        if count == 2:
            grads["b"][0] = None
        together.step(grads)
        for opt, grad in zip(each, leaves(grads), strict=True):
            opt.step(grad)
    for one, other in zip(leaves(params), apart, strict=True):
        assert_same_bits(one, other)


def test_attribute():
    params = structure(lambda size, leaf: np.ones(size))
    opt = flatstep.AdamW(params, learning_rate=0.1)
    opt.weight_decay = {"w": 0.5, "b": (0, np.float32(0.25))}
    assert opt.weight_decay == {"w": 0.5, "b": [0.0, 0.25]}
    opt.learning_rate = {"w": 0.1, "b": [0.2, 0.3]}
    saved = opt.state_dict()
    assert saved["numbers"]["learning_rate"] == {"w": 0.1, "b": [0.2, 0.3]}
    other = flatstep.AdamW(structure(lambda size, leaf: np.ones(size)), learning_rate=0.7)
    other.load_state_dict(saved)
    assert other.learning_rate == {"w": 0.1, "b": [0.2, 0.3]}
    opt.learning_rate = 0.5
    assert opt.learning_rate == 0.5


CHANGES = {
    "set": lambda rates: rates.__setitem__("w", 1.0),
    "set in a list": lambda rates: rates["b"].__setitem__(0, 1.0),
    "times": lambda rates: rates["b"].__imul__(2),
    "merged": lambda rates: rates.__ior__({"w": 1.0}),
    "update": lambda rates: rates.update(w=1.0),
    "pop": lambda rates: rates.pop("w"),
    "append": lambda rates: rates["b"].append(1.0),
    "sort": lambda rates: rates["b"].sort(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_structure_cannot_be_changed_in_part(change):
    """The optimizer would not learn of it. A copy is the user's, and so is what state_dict returns."""
    rates = {"w": 0.1, "b": [0.3, 0.2]}
    opt = flatstep.Adam(structure(lambda size, leaf: np.ones(size)), rates)
    with pytest.raises(TypeError, match="a copy of what the optimizer holds; set the attribute as a whole"):
        change(opt.learning_rate)
    assert opt.learning_rate == rates and repr(opt.learning_rate) == repr(rates)
    opt.learning_rate = opt.learning_rate
    opt.learning_rate = {**opt.learning_rate, "w": 0.5}
    assert opt.learning_rate == {**rates, "w": 0.5}
    for own in (copy.deepcopy(opt.learning_rate), opt.state_dict()["numbers"]["learning_rate"]):
        assert type(own) is dict and type(own["b"]) is list
        change(own)


def test_errors():
    params = structure(lambda size, leaf: np.ones(size))
    with pytest.raises(ValueError, match=r"learning_rate lacks the keys \['b'\]"):
        flatstep.Adam(params, {"w": 0.1})
    with pytest.raises(ValueError, match=r"learning_rate\['b'\]\[1\] is -1, expected a number at least 0"):
        flatstep.Adam(params, {"w": 0.1, "b": [0.1, -1]})
    with pytest.raises(TypeError, match=r"b1 is \{.*\}, expected a number"):
        flatstep.Adam(params, 0.1, b1={"w": 0.1, "b": [0.1, 0.1]})
    opt = flatstep.Adam(params, {"w": 0.1, "b": [lambda count: "fast", 0.1]})
    with pytest.raises(TypeError, match=r"learning_rate\['b'\]\[0\]\(0\) is 'fast', expected a number"):
        opt.step(structure(lambda size, leaf: np.ones(size)))
    assert opt.count == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_flatten(dtype):
    """An optimizer over the buffer, or over the views of it, does what one over the arrays does."""
    rng = np.random.default_rng(1)
    params = structure(lambda size, leaf: numbers(rng, size, dtype))
    grads = structure(lambda size, leaf: numbers(rng, size, dtype))
    by_buffer, by_view = flatstep.flatten(params), flatstep.flatten(params)
    assert by_buffer.buffer.ctypes.data % 64 == 0
    assert_same_bits(by_buffer.buffer, np.concatenate(leaves(params)))
    flatstep.AMSGrad(by_buffer.buffer, 0.1).step(flatstep.flatten(grads).buffer)
    flatstep.AMSGrad(by_view.tree, 0.1).step(grads)
    flatstep.AMSGrad(params, 0.1).step(grads)
    for flat in (by_buffer, by_view):
        assert_same_bits(flat.buffer, np.concatenate(leaves(params)))
        assert all(np.shares_memory(leaf, flat.buffer) for leaf in leaves(flat.tree))


def test_flatten_shapes():
    flat = flatstep.flatten((np.ones(()), [], np.ones((2, 3), order="F"), np.ones((0, 4))))
    assert [leaf.shape for leaf in (flat.tree[0], *flat.tree[2:])] == [(), (2, 3), (0, 4)]
    assert flat.buffer.shape == (7,)
    assert flatstep.flatten([]).buffer.shape == (0,)


def test_flatten_rejects_mixed_dtypes():
    with pytest.raises(TypeError, match=r"params\['b'\] has dtype float64, expected float32 like params\['a'\]"):
        flatstep.flatten({"a": np.ones(2, np.float32), "b": np.ones(2)})
    with pytest.raises(TypeError, match=r"params\[0\] is a builtins.int, expected a NumPy array"):
        flatstep.flatten([1])
