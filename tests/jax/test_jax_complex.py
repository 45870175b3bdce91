"""Complex leaves: the formula, for there is no kernel, gives what optax gives; real leaves beside them have kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from jax_training import RULES, assert_close, front, jax, jnp, optax
from jax_x64 import enable_x64
from optax_peers import peer_of
from table import JAX

pytestmark = pytest.mark.slow
each_rule = pytest.mark.parametrize("rule", RULES)


def of(rule: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Those of the settings that the rule has."""
    return {name: value for name, value in settings.items() if JAX[rule].has([name])}


HALVING = optax.exponential_decay(0.1, 1, 0.5)
ROWS: list[tuple[str, dict[str, Any]]] = [
    *((rule, {}) for rule in RULES),
    *((rule, of(rule, dict(learning_rate=HALVING, b1=0.7, b2=0.95, eps=1e-3, eps_root=1e-3))) for rule in RULES),
    ("amsgrad", dict(bias_correction_mu=False)),
    ("amsgrad", dict(bias_correction_nu=False)),
    ("optimistic_adam_v2", dict(alpha=0.25, beta=0.7, nesterov=False)),
    ("adam", dict(nesterov=True)),
    ("adamw", dict(weight_decay=0.3, mask={"w": True, "b": False, "s": True})),
    ("adamw", dict(weight_decay=HALVING, nesterov=True)),
]
SHAPES = {"w": (7, 3), "b": (9,), "s": ()}
# What each leaf's parameter and gradient are, and how far apart two ways to compute them are.
MIXED = {
    "single": ([("complex64", "complex64"), ("float32", "float32"), ("complex64", "float32")], 2e-5),
    "double": ([("complex128", "complex128"), ("float64", "float64"), ("complex128", "float64")], 1e-11),
}
AS_OPTAX = [*((*row, "double") for row in ROWS), *((rule, {}, "single") for rule in RULES)]


@pytest.fixture(autouse=True)
def x64():
    with enable_x64(True):
        yield


def numbers(seed: int, dtypes: list[str], *lead: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    made = {}
    for (name, shape), dtype in zip(SHAPES.items(), dtypes, strict=True):
        x = rng.standard_normal((*lead, *shape)) + (1j * rng.standard_normal((*lead, *shape)) if "c" in dtype else 0)
        made[name] = jnp.asarray(x, dtype)
    return made


def data(width: str, steps: int = 3) -> tuple[Any, list[Any], float]:
    leaves, rounding = MIXED[width]
    of_params, of_grads = zip(*leaves, strict=True)
    return numbers(0, of_params), [numbers(seed, of_grads) for seed in range(1, steps + 1)], rounding


def by_update(opt):
    def step(params, state, grads):
        updates, state = opt.update(grads, state, params)
        return optax.apply_updates(params, updates), (state, updates)

    return step


def as_wide_as(first, state):
    """optax's state, complex where it was at first: a real gradient of a complex parameter is kept as it is."""
    return jax.tree.map(lambda x, y: y.astype(jnp.promote_types(x.dtype, y.dtype)), first, state)


@pytest.mark.slow
@pytest.mark.parametrize("rule, settings, width", AS_OPTAX, ids=lambda x: x if isinstance(x, str) else "-".join(x))
def test_as_optax(rule, settings, width):
    """Parameters, updates and states, in the dtypes that optax has: nu is stored as the parameter is."""
    settings = {"learning_rate": 0.1, **settings}
    ours, theirs = (make(**settings) for make in (getattr(front, rule), peer_of(rule)))
    start, grads, rounding = data(width)
    stepped, updated, expected = [(start, opt.init(start)) for opt in (ours, ours, theirs)]
    step, update, of_optax = map(jax.jit, (ours.step, by_update(ours), by_update(theirs)))
    for row in grads:
        stepped = step(*stepped, row)
        params, (state, updates) = update(*updated, row)
        peer, (peer_state, peer_updates) = of_optax(*expected, row)
        peer_state = as_wide_as(theirs.init(start), peer_state)
        assert_close((params, state, updates), (peer, peer_state, peer_updates), rtol=rounding, atol=rounding)
        assert_close(stepped, (peer, peer_state), rtol=rounding, atol=rounding)
        updated, expected = (params, state), (peer, peer_state)


@each_rule
def test_real_leaves_keep_their_kernel(rule):
    """The bits of a real leaf and of its state are those that they have alone."""
    params, (grads, *_), _ = data("single")
    opt, only = getattr(front, rule)(0.1), {"b": params["b"]}
    made = dict(jax.tree_util.tree_leaves_with_path(jax.jit(opt.step)(params, opt.init(params), grads)))
    alone = jax.jit(opt.step)(only, opt.init(only), {"b": grads["b"]})
    for path, leaf in jax.tree_util.tree_leaves_with_path(alone):
        assert_close(made[path], leaf)


@pytest.mark.slow
@pytest.mark.parametrize("rule", [rule for rule in RULES if JAX[rule].has(["mu_dtype"])])
def test_mu_in_another_complex_dtype(rule):
    """Of real leaves, too, whose mu then has no imaginary part."""
    params, rows, _ = data("double")
    opts = [getattr(front, rule)(0.1, mu_dtype=dtype) for dtype in ("complex64", "complex128", None)]
    made = [(params, opt.init(params)) for opt in opts]
    for row in rows:
        made = [jax.jit(opt.step)(*own, row) for opt, own in zip(opts, made, strict=True)]
    assert [x.dtype for x in jax.tree.leaves(made[0][1][0].mu)] == [np.complex64] * 3
    assert_close(made[0][0], made[2][0], rtol=1e-6, atol=1e-6)
    assert_close(made[1][0], made[2][0], rtol=1e-11, atol=1e-11)


@pytest.mark.slow
@each_rule
def test_terms_that_optax_lacks(rule):
    """A scale, ascent, and a gradient of None."""
    params, (grads, *_), rounding = data("double")
    plain, ascending = (getattr(front, rule)(0.1, maximize=flag) for flag in (False, True))
    expected = plain.step(params, plain.init(params), jax.tree.map(lambda g: -0.5 * g, grads))
    found = ascending.step(params, plain.init(params), grads, grad_scale=0.5)
    assert_close(found, expected, rtol=rounding, atol=rounding)
    kept = plain.step(params, plain.init(params), {**grads, "w": None})[0]
    assert_close(kept, {**plain.step(params, plain.init(params), grads)[0], "w": params["w"]})


@pytest.mark.parametrize("decoupled", [False, True])
def test_weight_decay(decoupled):
    """Of adam's own: coupled, it is optax's add_decayed_weights before adam."""
    params, (grads, *_), rounding = data("double")
    opt = front.adam(0.1, weight_decay=0.3, decoupled_weight_decay=decoupled)
    decay, lr = optax.add_decayed_weights(0.3), optax.scale_by_learning_rate(0.1)
    parts = [optax.scale_by_adam(), decay] if decoupled else [decay, optax.scale_by_adam()]
    peer = optax.chain(*parts, lr)
    updates, _ = peer.update(grads, peer.init(params), params)
    expected = optax.apply_updates(params, updates)
    assert_close(opt.step(params, opt.init(params), grads)[0], expected, rtol=rounding, atol=rounding)


@pytest.mark.slow
@each_rule
def test_members_of_an_ensemble(rule):
    """Under vmap, in a scan, with a rate each."""
    leaves, rounding = MIXED["double"]
    params, grads = (numbers(seed, kinds, 3) for seed, kinds in enumerate(zip(*leaves, strict=True)))
    rates = jnp.array([0.1, 0.01, 0.3])

    def train(rate, params, grads):
        opt = getattr(front, rule)(rate)
        return jax.lax.fori_loop(0, 3, lambda _, carry: opt.step(*carry, grads), (params, opt.init(params)))

    made = jax.vmap(train)(rates, params, grads)
    for i, rate in enumerate(rates):
        own = train(rate, *jax.tree.map(lambda x, i=i: x[i], (params, grads)))
        assert_close(jax.tree.map(lambda x, i=i: x[i], made), own, rtol=rounding, atol=rounding)
