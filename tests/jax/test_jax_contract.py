"""What flatstep.jax promises beside numbers: optax's signatures and states, any structure, errors while tracing."""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import pickle
import re
import subprocess
import sys
from typing import Any, NamedTuple

import numpy as np
import pytest

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")
import jax.numpy as jnp  # noqa: E402

import flatstep.jax as front  # noqa: E402
from optax_peers import peer_of  # noqa: E402
from repository import ROOT  # noqa: E402
from table import JAX  # noqa: E402

NAMES = list(JAX)
by_name = pytest.mark.parametrize("name", NAMES)
ONES = jnp.ones(3)


def halving(count):
    return 0.1 * 0.5**count


def shape_of(tree: Any) -> Any:
    """A tree's structure with its leaves' shapes, dtypes and weak types."""
    return jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x), jax.typeof(x).weak_type), tree)


# Signatures and states ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in NAMES if hasattr(optax, name)])
def test_signature_is_optax_s(name):
    """The same parameters in the same order and of the same kinds and defaults; ours add some by keyword."""
    own = inspect.signature(getattr(front, name)).parameters
    peer = inspect.signature(getattr(optax, name)).parameters
    shared = [(p.name, p.kind, p.default) for p in own.values() if p.name in peer]
    assert shared == [(p.name, p.kind, p.default) for p in peer.values()]
    added = [p for p in own.values() if p.name not in peer]
    assert added and all(p.kind == p.KEYWORD_ONLY and p.default is not p.empty for p in added)


@by_name
def test_is_optax_s_object(name):
    opt = getattr(front, name)(0.1)
    assert isinstance(opt, optax.GradientTransformationExtraArgs)
    init, update = opt
    assert (init, update) == (opt.init, opt.update)
    names_of_step = "params state grads grad_scale max_norm"
    for function, names in ((opt.step, names_of_step), (opt.update, "updates state params extra")):
        assert list(inspect.signature(function).parameters) == names.split()
        assert function.__doc__


def filtered_jit(opt):
    """Through equinox.filter_jit, in short: taken apart into arrays and what is static, and put together inside."""
    leaves, structure = jax.tree.flatten(opt)
    return jax.jit(lambda *given: jax.tree.unflatten(structure, leaves).step(*given))


def through_a_field(opt, is_leaf):
    """Through a field of flax's, the copy of its owner that a program returns."""
    struct = pytest.importorskip("flax.struct")
    fields = {"opt": struct.field(pytree_node=is_leaf), "__annotations__": {"opt": Any}}
    owner = struct.dataclass(type("Owner", (), fields))
    made = owner(opt=opt)
    return (jax.tree.map(lambda x: x, made) if is_leaf else jax.jit(lambda x: x)(made)).opt.step


# Ways to an optimizer of the same two fields, which leads to step.
REBUILT: dict[str, Any] = {
    "jax.tree.map": lambda opt: jax.tree.map(lambda x: x, {"opt": opt, "params": ONES})["opt"].step,
    "filtered jit": filtered_jit,
    "a leaf of flax's": lambda opt: through_a_field(opt, True),
    "a static field of flax's": lambda opt: through_a_field(opt, False),
    "_replace": lambda opt: opt._replace(init=optax.adam(0.3).init, update=opt.update).step,
    "the fields": lambda opt: type(opt)(*opt).step,
    "_make": lambda opt: opt._make(iter(opt)).step,
    "copy": lambda opt: copy.copy(opt).step,
    "deepcopy": lambda opt: copy.deepcopy(opt).step,
    "cloudpickle": lambda opt: pickle.loads(pytest.importorskip("cloudpickle").dumps(opt)).step,  # as optax's can be
    "with_extra_args_support": lambda opt: optax.with_extra_args_support(opt).step,
}


@pytest.mark.parametrize("way", REBUILT)
def test_step_survives(way):
    """A rebuild from init and update has it, too: it is that of update."""
    opt = front.amsgrad(0.1)
    given = ONES, opt.init(ONES), ONES
    for made, expected in zip(*(jax.tree.leaves(step(*given)) for step in (REBUILT[way](opt), opt.step)), strict=True):
        assert np.array_equal(made, expected)


def test_step_is_one_function():
    """jax.jit knows its programs by it."""
    opt = front.adam(0.1)
    assert opt.step is opt.step is jax.tree.map(lambda x: x, opt).step


def test_another_update_brings_its_own_step():
    opt, other = front.adam(0.1), front.amsgrad(0.1)
    assert opt._replace(update=other.update).step is other.step
    for update in (optax.adam(0.1).update, functools.wraps(opt.update)(lambda *given: opt.update(*given))):
        replaced = opt._replace(update=update)
        assert not hasattr(replaced, "step")
        with pytest.raises(AttributeError, match="no fused step for update = <function .*make the optimizer with"):
            replaced.step(ONES, opt.init(ONES), ONES)


SETTINGS: list[dict[str, Any]] = [
    {},
    dict(learning_rate=halving),
    dict(mu_dtype="bfloat16"),
    dict(eps_in_sqrt=False, initial_scale=0.5),
    dict(centered=True),
    dict(momentum=0.9, nesterov=True, learning_rate=halving),
    dict(centered=True, momentum=0.5, bias_correction=True),
]
OF_ADAMW: list[dict[str, Any]] = [
    dict(weight_decay=0.0),
    dict(weight_decay=halving),
    dict(mask={"a": True, "b": False}),
    dict(mask=lambda tree: jax.tree.map(lambda x: jnp.ndim(x) > 1, tree), weight_decay=halving),
]
ROWS = [(name, row) for name in NAMES for row in SETTINGS if JAX[name].has(row)] + [("adamw", row) for row in OF_ADAMW]
by_row = pytest.mark.parametrize("name, row", ROWS, ids=lambda x: x if isinstance(x, str) else "-".join(x))
PARAMS = {"a": [jnp.full((2, 3), np.float32(0.5)), None, jnp.float16(2.0)], "b": (jnp.ones(4, jnp.bfloat16), {})}


def pair(name, row):
    settings = {"learning_rate": 0.1, **row}
    return getattr(front, name)(**settings), peer_of(name)(**settings)


@by_row
def test_states_are_optax_s(name, row):
    """Structure, names and dtypes after init; a step and an update keep them, where optax widens narrow slots."""
    ours, theirs = pair(name, row)
    first = ours.init(PARAMS)
    assert shape_of(first) == shape_of(theirs.init(PARAMS))
    params, stepped = jax.jit(ours.step)(PARAMS, first, PARAMS)
    updates, updated = jax.jit(ours.update)(PARAMS, first, PARAMS)
    assert shape_of(stepped) == shape_of(updated) == shape_of(first)
    assert shape_of(params) == shape_of(updates) == shape_of(PARAMS)


@by_row
@pytest.mark.parametrize("every", [1, 3])
def test_either_library_goes_on(name, row, every):
    """Nine steps by turns, as all nine by optax."""
    ours, theirs = pair(name, row)
    params = {"a": jnp.linspace(-1, 1, 6).reshape(2, 3), "b": jnp.ones(4)}

    @jax.jit
    def by_optax(params, state, grads):
        updates, state = theirs.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    fused, grads = jax.jit(ours.step), jax.tree.map(jnp.sin, params)
    expected = mixed = params, theirs.init(params)
    for count in range(9):
        scale = np.cos(np.float32(count))
        scaled = {key: grad * scale for key, grad in grads.items()}
        expected = by_optax(*expected, scaled)
        mixed = (fused if count // every % 2 else by_optax)(*mixed, scaled)
    assert shape_of(mixed) == shape_of(expected)
    for own, peer in zip(jax.tree.leaves(mixed), jax.tree.leaves(expected), strict=True):
        tolerance = 2e-2 if "mu_dtype" in row else 2e-4  # optax computes with mu as it is rounded
        np.testing.assert_allclose(*(np.asarray(x, np.float32) for x in (own, peer)), rtol=tolerance, atol=tolerance)


# Structures -----------------------------------------------------------------------------------------------------------


class Pair(NamedTuple):
    left: Any
    right: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Layer:
    weight: Any
    bias: Any


TREES = {
    "leaf": ONES,
    "empty": {},
    "nothing": None,
    "list": [ONES, [ONES]],
    "tuple": (ONES, (), [], {}),
    "dict": {"b": {"c": ONES}, "a": ONES},
    "named": Pair(ONES, Pair(None, ONES)),
    "dataclass": Layer([ONES], Layer(ONES, None)),
    "numpy": [np.ones(3, np.float32), np.float32(1)],
    "python": (1.0, [1.0]),
    "shapes": [jnp.ones(()), jnp.ones((0, 2)), jnp.ones((2, 1, 2))],
}


@by_name
def test_any_structure(name):
    """Comes back as it was, each leaf as if it had been alone."""
    opt = getattr(front, name)(0.1)
    alone = float(jax.jit(opt.step)(ONES, opt.init(ONES), ONES)[0][0])
    trees = TREES if name == "adam" else {key: TREES[key] for key in ("leaf", "named")}
    for key, tree in trees.items():
        params, state = jax.jit(opt.step)(tree, opt.init(tree), tree)
        updates, updated = jax.jit(opt.update)(tree, opt.init(tree), tree)
        assert jax.tree.structure(updates) == jax.tree.structure(tree), key
        for made in (params, optax.apply_updates(tree, updates)):
            assert jax.tree.structure(made) == jax.tree.structure(tree), key
            for own, start in zip(jax.tree.leaves(made), jax.tree.leaves(tree), strict=True):
                np.testing.assert_allclose(own, np.full(np.shape(start), alone), rtol=1e-6, err_msg=key)
        assert jax.tree.structure(state) == jax.tree.structure(updated) == jax.tree.structure(opt.init(tree)), key


@by_name
def test_none_gradients(name):
    """The leaf and its state stay as they are; counts, which all leaves share, go on."""
    opt, params = getattr(front, name)(0.1), {"a": ONES, "b": [ONES, ONES]}
    state = jax.jit(opt.step)(params, opt.init(params), params)[1]
    grads = {"a": None, "b": [2 * ONES, None]}
    made, after = jax.jit(opt.step)(params, state, grads)
    updates, updated = jax.jit(opt.update)(grads, state, params)  # optax would put None into the state
    assert updates["a"] is updates["b"][1] is None
    for before, now in ((state, after), (state, updated), (params, made)):
        kept = jax.tree_util.tree_flatten_with_path(before)[0]
        for (path, old), new in zip(kept, jax.tree.leaves(now), strict=True):
            is_moved = "'b'][0]" in jax.tree_util.keystr(path) or old.dtype == jnp.int32
            if old.dtype != bool:
                assert bool(np.any(old != new)) == is_moved, path


@pytest.mark.parametrize("function", ["step", "update"])
def test_optax_s_example(function):
    """Parameters that are Python's floats, in a scan, as in the docstring of optax.optimistic_adam_v2."""
    opt = front.optimistic_adam_v2(1.0, alpha=1e-2, beta=1.0)

    def by_update(params, state, grads):
        updates, state = opt.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    def play(carry, _):
        x, y = jax.grad(lambda x, y: x * y, argnums=(0, 1))(*carry[0])
        return step(*carry, (x, -y)), jnp.hypot(*carry[0])

    step, params = {"step": opt.step, "update": by_update}[function], (1.0, 2.0)
    distances = jax.lax.scan(play, (params, opt.init(params)), length=1025)[1]
    np.testing.assert_allclose(distances[4 ** np.arange(6)], [2.243, 2.195, 2.161, 2.055, 0.796, 0.001], atol=2e-3)


# Errors ---------------------------------------------------------------------------------------------------------------

GOOD = {"w": ONES, "b": jnp.ones(2)}
OPT = front.adam(0.1)
STATE = OPT.init(GOOD)
DECAYED = front.adamw(0.1)
LESS = {"w": ONES}
HALF = {"w": None, "b": jnp.ones(2)}


def with_w(value: Any) -> dict[str, Any]:
    return {**GOOD, "w": value}


def with_count(count: Any) -> Any:
    return (STATE[0]._replace(count=count), STATE[1])


# What is wrong with a step: params, state and grads of adam(0.1), or of another optimizer.
WRONG_STEPS: dict[str, tuple[Any, Any, Any, type[Exception], str]] = {
    "less grads": (GOOD, STATE, LESS, ValueError, "grads has another structure than params: .*'b'"),
    "grads' type": (GOOD, STATE, [ONES, ONES], ValueError, "grads has another structure .* Expected dict"),
    "grads' shape": (GOOD, STATE, with_w(jnp.ones(4)), ValueError, r"grads\['w'\] has shape \(4,\), expected \(3,\)"),
    "whole grads": (GOOD, STATE, with_w(jnp.arange(3)), TypeError, r"grads\['w'\] is int32, expected .*floating-point"),
    "whole params": (with_w(jnp.arange(3)), STATE, GOOD, TypeError, r"params\['w'\] is int32, .*optax.masked"),
    "complex grads": (
        GOOD,
        STATE,
        with_w(ONES * 1j),
        TypeError,
        r"params\['w'\] is float32, which cannot hold what grads\['w'\], complex64, brings; give the .* real part",
    ),
    "real mu of complex params": (
        with_w(ONES * 1j),
        front.adam(0.1, mu_dtype="bfloat16").init(with_w(ONES * 1j)),
        with_w(ONES * 1j),
        TypeError,
        r"state\[0\].mu\['w'\] is bfloat16, which cannot hold what .*complex64, brings; make the state without a real",
    ),
    "text": (with_w("x"), STATE, GOOD, TypeError, r"params\['w'\] is not an array"),
    "None in params": (HALF, STATE, GOOD, ValueError, r"grads\['w'\] is an array, but params\['w'\] is None"),
    "None in params, grads": (HALF, STATE, HALF, ValueError, r"mu\['w'\] is an array, but params\['w'\] is None"),
    "None in state": (GOOD, OPT.init(HALF), GOOD, ValueError, r"state\[0\].mu\['w'\] is None, but its gradient is"),
    "less state": (GOOD, OPT.init(LESS), GOOD, ValueError, r"state\[0\].mu has another structure than params"),
    "state's shape": (GOOD, OPT.init(with_w(jnp.ones(4))), GOOD, ValueError, r"mu\['w'\] has shape \(4,\), expected"),
    "no state": (GOOD, None, GOOD, TypeError, "state is NoneType, expected ScaleByAdamState and 1 more; give"),
    "part of a state": (GOOD, STATE[0], GOOD, TypeError, "state is ScaleByAdamState, expected"),
    "count of two": (GOOD, with_count(jnp.zeros(2, int)), GOOD, ValueError, r"count is int32\[2\], expected one whole"),
    "broken count": (GOOD, with_count(jnp.float32(0)), GOOD, ValueError, r"count is float32\[\], expected one whole"),
    "order": (STATE, GOOD, GOOD, TypeError, r"params\[0\].count is int32"),
}


@pytest.mark.parametrize("wrong", WRONG_STEPS)
def test_errors_of_steps(wrong):
    """Raised while tracing, by step and, where it takes part in that, by update: nothing donated is lost."""
    *trees, error, message = WRONG_STEPS[wrong]
    params, state, grads = jax.tree.map(lambda x: x if isinstance(x, str) else jnp.array(x), trees)
    if wrong != "text":  # which jit rejects itself
        with pytest.raises(error, match=message):
            jax.jit(OPT.step, donate_argnums=(0, 1, 2))(params, state, grads)
        assert not any(x.is_deleted() for x in jax.tree.leaves((params, state, grads)))
    with pytest.raises(error, match=message):
        OPT.step(params, state, grads)
    if "params" not in wrong and "grads" not in wrong and wrong not in ("text", "order"):
        with pytest.raises(error, match=message.replace("params", "updates")):
            OPT.update(grads, state, params)


def parts(state: Any) -> Any:
    return [type(part).__name__ for part in state] if type(state) is tuple else type(state).__name__


MASK = {"w": True, "b": False}
FOREIGN = ("sgd", "rmsprop", "lion", "adabelief", "lamb", "novograd")
# States of optimizers that optax and we have, and of others.
STATES = {
    **{name: peer_of(name)(0.1).init(GOOD) for name in NAMES},
    **{f"{name}, scheduled": peer_of(name)(halving).init(GOOD) for name in NAMES},
    "adamw, masked": optax.adamw(halving, mask=MASK, weight_decay=halving).init(GOOD),
    "adam, decayed": front.adam(0.1, weight_decay=0.1).init(GOOD),
    **{
        name: getattr(optax, name)(0.1).init(GOOD)
        for name in ("sgd", "rmsprop", "lion", "adabelief", "lamb", "novograd")
    },
    "momentum": optax.sgd(0.1, momentum=0.9).init(GOOD),
    "adam and a trace": optax.chain(optax.scale_by_adam(), optax.trace(0.9), optax.scale(0.1)).init(GOOD),
    "its part": optax.scale_by_adam().init(GOOD),
    "chain": optax.chain(optax.clip(1.0), optax.adam(0.1)).init(GOOD),
    "masked": optax.masked(optax.adam(0.1), MASK).init(GOOD),
    "injected": optax.inject_hyperparams(optax.adam)(0.1).init(GOOD),
}


@pytest.mark.parametrize("of", STATES)
@by_name
def test_state_of_another_rule(name, of):
    """Rejected by what it is made of, by step and update; of the same rule it is taken, with schedules or without."""
    opt, state = getattr(front, name)(0.1), STATES[of]
    message = re.escape(f"state is {parts(state)}, expected {parts(opt.init(GOOD))[0]}")
    for call in (opt.step, lambda params, state, grads: opt.update(grads, state, params)):
        if of.split(",")[0] == name:
            call(GOOD, state, GOOD)
        else:
            with pytest.raises(TypeError, match=message):
                call(GOOD, state, GOOD)


SCHEDULED = front.adam(halving).init(GOOD)
WRONG_CALLS: dict[str, tuple[Any, type[Exception], str]] = {
    "rate without count": (
        lambda: front.adam(halving).step(GOOD, STATE, GOOD),
        TypeError,
        r"state\[1\] is EmptyState",
    ),
    "decay without count": (
        lambda: front.adamw(0.1, weight_decay=halving).step(GOOD, DECAYED.init(GOOD), GOOD),
        TypeError,
        r"state\[1\] is EmptyState, without the count that a schedule needs; make",
    ),
    "vector schedule": (
        lambda: front.adam(lambda count: ONES).step(GOOD, SCHEDULED, GOOD),
        ValueError,
        r"learning_rate has shape \(3,\) .*expected one real",
    ),
    "grad_scale": (lambda: OPT.step(GOOD, STATE, GOOD, grad_scale=ONES), ValueError, r"grad_scale has shape \(3,\)"),
    "no params": (lambda: DECAYED.update(GOOD, DECAYED.init(GOOD)), ValueError, "needs the parameters: call update"),
    "other params": (
        lambda: DECAYED.update(GOOD, DECAYED.init(GOOD), LESS),
        ValueError,
        "params has another structure than updates",
    ),
    "None params": (
        lambda: DECAYED.update(GOOD, DECAYED.init(GOOD), HALF),
        ValueError,
        r"params\['w'\] is None, but its gradient",
    ),
    "mask": (
        lambda: front.adamw(0.1, mask=LESS).step(GOOD, DECAYED.init(GOOD), GOOD),
        ValueError,
        "mask has another structure than params",
    ),
    "mask of arrays": (
        lambda: front.adamw(0.1, mask=GOOD).step(GOOD, DECAYED.init(GOOD), GOOD),
        TypeError,
        "mask has Array.* in it, expected True or False",
    ),
}
WRONG_ARGUMENTS: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    ("adam", dict(learning_rate=ONES), ValueError, r"learning_rate has shape \(3,\) .*expected one real number"),
    ("adam", dict(learning_rate=jnp.array(True)), ValueError, "learning_rate has .*dtype bool, expected one real"),
    ("adam", dict(learning_rate=jnp.array(1j)), ValueError, "learning_rate has .*complex64, expected one real"),
    ("adam", dict(learning_rate="0.1"), TypeError, "learning_rate is '0.1', expected a number"),
    ("adam", dict(learning_rate=None), TypeError, "learning_rate is None, expected a number"),
    ("adam", dict(learning_rate=float("nan")), ValueError, "learning_rate is nan, expected a finite number"),
    ("amsgrad", dict(b1=1.0), ValueError, "b1 is 1, expected a number at least 0 and below 1"),
    ("adam", dict(b2=halving), TypeError, "b2 is <function halving.*, expected a number"),
    ("adam", dict(weight_decay=halving), TypeError, "weight_decay is <function halving.*, expected a number"),
    ("adamw", dict(weight_decay=-1.0), ValueError, "weight_decay is -1, expected a number at least 0"),
    ("adam", dict(eps=-1.0), ValueError, "eps is -1, expected a number at least 0"),
    ("optimistic_adam_v2", dict(nesterov=1), TypeError, "nesterov is 1, expected True or False"),
    ("adamw", dict(maximize=None), TypeError, "maximize is None, expected True or False"),
    ("amsgrad", dict(bias_correction_mu="yes"), TypeError, "bias_correction_mu is 'yes', expected True or False"),
    ("amsgrad", dict(bias_correction_nu=0), TypeError, "bias_correction_nu is 0, expected True or False"),
    ("amsgrad", dict(decoupled_weight_decay=0), TypeError, "decoupled_weight_decay is 0, expected True or False"),
    ("amsgrad", dict(convention="keras"), ValueError, "convention is 'keras', expected 'optax' or 'torch'$"),
    ("amsgrad", dict(convention="paper"), ValueError, "'paper', .*is bias_correction_mu=False, bias_correction_nu=F"),
    ("adam", dict(mu_dtype="brain"), TypeError, "mu_dtype is 'brain', expected None or a floating-point dtype"),
    ("adam", dict(mu_dtype=jnp.int32), TypeError, "mu_dtype is .*int32.*, expected None or a floating-point dtype"),
]
WRONG_CALLS |= {
    f"{name} {i}": (lambda name=name, own=own: getattr(front, name)(**{"learning_rate": 0.1, **own}), error, message)
    for i, (name, own, error, message) in enumerate(WRONG_ARGUMENTS)
}


@pytest.mark.parametrize("wrong", WRONG_CALLS)
def test_errors_of_calls(wrong):
    call, error, message = WRONG_CALLS[wrong]
    with pytest.raises(error, match=message):
        call()


def test_numpy_s_truth_is_a_flag():
    assert isinstance(front.adam(0.1, nesterov=np.True_), optax.GradientTransformationExtraArgs)


# Importing ------------------------------------------------------------------------------------------------------------

# Before flatstep.jax is imported, and what its ImportError says.
IMPORTS = {
    "old Python": ("import jax; sys.version_info = (3, 10, 13)", "needs Python 3.11 or later, which jax 0.7.1 needs"),
    "old jax": ("import jax; jax.__version__ = '0.5.3'", "needs jax 0.7.1 or later, found 0.5.3"),
    "old optax": ("import optax; optax.__version__ = '0.2.6'", "flatstep.jax needs optax 0.2.7 or later, found 0.2.6"),
    "no optax": ("sys.modules['optax'] = None", r"needs optax 0.2.7 or later: pip install --upgrade 'flatstep\[jax\]'"),
    "broken optax": ("broken('optax')", r"needs optax 0.2.7 or later: pip install .* \(no such option of jax\)"),
    "no _xla": ("sys.modules['flatstep._xla'] = None", "no part for XLA: .*reinstall flatstep"),
    "older interface": ("header(0, 0)", "built for version 0.* has 0.0; upgrade jaxlib"),
    "newer interface": ("header(1, 0)", "built for version 0.* has 1.0; upgrade flatstep, or use an older jaxlib"),
    "another core": (
        "import ctypes, flatstep._core as core\n"
        "capsule = ctypes.pythonapi.PyCapsule_New\n"
        "capsule.restype, capsule.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]\n"
        "name = b'version 9.9.9, build 1.2.3.4'\n"
        "core._api = capsule(ctypes.addressof((ctypes.c_void_p * 16)()), name, None)",
        "part of flatstep is version .*, its core version 9.9.9, build 1.2.3.4; reinstall flatstep",
    ),
    "another object": ("import flatstep._core as core; core._api = 1", "of an unknown version; reinstall flatstep"),
}
SCRIPT = """
import re, sys
from pathlib import Path

def header(major, minor):
    # A jaxlib whose header says so.
    import jax, tempfile
    folder = tempfile.mkdtemp()
    file = Path(folder, "xla", "ffi", "api", "c_api.h")
    file.parent.mkdir(parents=True)
    file.write_text(f"#define XLA_FFI_API_MAJOR {major}\\n#define XLA_FFI_API_MINOR {minor}\\n")
    jax.ffi.include_dir = lambda: folder

def broken(name):
    # A package too old for this jax.
    class Finder:
        def find_spec(self, found, *_):
            if found == name:
                raise AttributeError("no such option of jax")

    sys.meta_path.insert(0, Finder())

PREPARE
try:
    import MODULE
except ImportError as error:
    assert re.search(MESSAGE, str(error)), error
else:
    raise SystemExit("imported")
import jax
assert (jax.numpy.ones(3) * 2).sum() == 6
assert jax.jit(lambda x: x + 1)(1.0) == 2
"""


def run_python(script: str) -> None:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", IMPORTS)
def test_import_errors(name):
    """Each says what to do, and JAX itself goes on working."""
    prepare, message = IMPORTS[name]
    run_python(SCRIPT.replace("PREPARE", prepare).replace("MESSAGE", repr(message)).replace("MODULE", "flatstep.jax"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "prepare, message",
    [
        ("import flax; flax.__version__ = '0.12.7'", "flatstep.jax.flax needs flax 0.12.8 or later, found 0.12.7"),
        (
            "sys.modules['flax'] = None",
            r"flatstep.jax.flax needs flax 0.12.8 or later: pip install --upgrade .*\[flax\]",
        ),
    ],
)
def test_import_errors_of_flax(prepare, message):
    pytest.importorskip("flax")
    script = SCRIPT.replace("PREPARE", prepare).replace("MESSAGE", repr(message)).replace("MODULE", "flatstep.jax.flax")
    run_python(script)


@pytest.mark.parametrize("extra, names", [("jax", ["jax", "optax"]), ("flax", ["flax"])])
def test_what_is_installed_is_what_is_checked(extra, names):
    """The bounds of the package's extras are those at import."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    required = re.search(rf"^{extra} = (\[.*\])$", text, re.MULTILINE)[1]
    bounds = {name: ".".join(map(str, front._versions.OLDEST[name])) for name in names}
    assert dict(re.findall(r'"(\w+)>=([\d.]+)"', required)) == bounds


def test_without_jax():
    """flatstep does not import it, and says so where it is asked to."""
    run_python("import sys, flatstep; assert not {'jax', 'jaxlib', 'optax', 'flatstep._xla'} & set(sys.modules)")
    run_python(
        "import sys; sys.modules['jax'] = None\n"
        "try: import flatstep.jax\n"
        "except ImportError as error: assert 'needs jax 0.7.1 or later: pip install' in str(error)\n"
        "else: raise SystemExit('imported')"
    )
