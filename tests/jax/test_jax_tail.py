"""What steps of flatstep.jax do around their update: skip what is not finite, average parameters."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import averages
from jax_hlo import copies
from jax_steps import calls
from jax_training import RULES, assert_close, front, jax, jnp, optax, pair
from jax_x64 import enable_x64


def random_tree(seed, dtype="float32"):
    """Two leaves: XLA compiles the formulas leaf by leaf."""
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.standard_normal(n).astype(jnp.dtype(dtype))) for name, n in SHAPES.items()}


SHAPES = {"w": (5, 9), "b": (24,)}

# Skips ----------------------------------------------------------------------------------------------------------------


def by_update(opt):
    def step(params, state, grads):
        updates, state = opt.update(grads, state, params)
        return jax.tree.map(lambda p, u: p if u is None else optax.apply_updates(p, u), params, updates), state

    return step


WAYS = {"step": lambda opt: opt.step, "update": by_update}
each_way = pytest.mark.parametrize("way", WAYS)


def broken(tree, value=np.nan):
    """One number of one leaf is not finite."""
    b = np.array(tree["b"])
    b[7] = value
    return {**tree, "b": b}


def fast_for(fast, *rows):
    """The rows, slow but for those of these rules: XLA takes long to compile the formulas of all."""
    return [pytest.param(*row, marks=() if row[0] in fast else pytest.mark.slow) for row in rows]


@pytest.mark.parametrize(
    "rule, way",
    [*((rule, "step") for rule in RULES), *fast_for({"adamw", "lion"}, *((rule, "update") for rule in RULES))],
)
def test_skip_nonfinite(rule, way):
    """Such a step changes nothing but the counts of them; the others have the bits that they have without it."""
    schedule = optax.linear_schedule(0.1, 0.0, 5)
    opt, plain = getattr(front, rule)(schedule, skip_nonfinite=True), getattr(front, rule)(schedule)
    step, twin = jax.jit(WAYS[way](opt)), jax.jit(WAYS[way](plain))
    made = random_tree(0), opt.init(random_tree(0))
    expected = random_tree(0), plain.init(random_tree(0))
    seen = []
    for seed, value in enumerate((np.inf, None, np.nan, -np.inf, None)):
        grads = random_tree(seed) if value is None else broken(random_tree(seed), value)
        made = step(*made, grads)
        expected = expected if value is not None else twin(*expected, grads)
        assert_close((made[0], made[1].inner_state), expected)
        seen.append([int(x) for x in made[1][:3]])
    assert seen == [[1, 0, 1], [0, 1, 1], [1, 0, 2], [2, 0, 3], [0, 1, 3]]


ACCEPTING = [("adam", 0), ("adam", None), *((rule, 1) for rule in RULES)]


@pytest.mark.parametrize("rule, most", fast_for({"adam"}, *ACCEPTING))
def test_skips_as_optax(rule, most):
    """The state is that of optax.apply_if_finite, whose step and ours take turns."""
    opt, peer = pair(rule, 0.1)
    opt = getattr(front, rule)(0.1, skip_nonfinite=True, max_consecutive_errors=most)
    peer = optax.apply_if_finite(peer, 10**9 if most is None else most)
    assert_close(opt.init(random_tree(0)), peer.init(random_tree(0)))
    ours, update, theirs = jax.jit(opt.step), jax.jit(by_update(opt)), jax.jit(by_update(peer))
    mixed = alone = random_tree(0), peer.init(random_tree(0))
    for seed, is_broken in enumerate((False, True, False, True, True, False)):
        grads = broken(random_tree(seed)) if is_broken else random_tree(seed)
        mixed, alone = (theirs, ours, update)[seed % 3](*mixed, grads), theirs(*alone, grads)
        assert_close(mixed, alone, rtol=1e-4, atol=1e-5)
    assert int(mixed[1].total_notfinite) == 3
    assert np.isfinite(mixed[0]["b"]).all() == (most is None)


@each_way
def test_a_skip_leaves_parameters_that_are_not_finite(way):
    """No decay is added to them, which would make NaN of infinity."""
    opt = front.adamw(0.1, weight_decay=0.1, skip_nonfinite=True)
    params, grads = np.array([np.inf, -np.inf, 1], np.float32), np.array([1, np.nan, 1], np.float32)
    made, _ = jax.jit(WAYS[way](opt))(params, opt.init(params), grads)
    assert np.array_equal(made, params)


def test_a_search_for_nan_takes_skips():
    """What a skipped step makes is finite, though the scale of its gradients is not."""
    opt = front.adam(0.1, b1=0.85, skip_nonfinite=True)
    params, grads = jnp.ones(3), jnp.array([1, np.nan, 1])
    state = opt.init(params)
    with jax.debug_nans(True):
        for step in (opt.step, jax.jit(functools.partial(opt.step, max_norm=1.0))):
            for more in ({}, dict(max_norm=1.0)):
                made, after = step(params, state, grads, **more)
                assert int(after.total_notfinite) == 1 and np.array_equal(made, params)


def test_a_norm_that_overflows_skips_nothing():
    """Every number is finite. A scale with which one is not makes a skip."""
    opt, params = front.amsgrad(0.1, skip_nonfinite=True), np.ones(4, np.float32)
    huge, step = np.full(4, 3e38, np.float32), jax.jit(functools.partial(opt.step, max_norm=1.0))
    made, state = step(params, opt.init(params), huge)
    assert (int(state.total_notfinite), bool(state.last_finite)) == (0, True) and np.all(made != params)
    same, state = step(made, state, huge, grad_scale=100.0)
    assert (int(state.total_notfinite), bool(state.last_finite)) == (1, False) and np.array_equal(same, made)


# Averages -------------------------------------------------------------------------------------------------------------

ORACLES = {"copy": averages.interpolated, "zero": averages.weighted}


KINDS = [("adam", start, kind) for start in ORACLES for kind in ("bfloat16", "bfloat16 in its own", "float64")]
IN_FLOAT32 = [("adam", "zero", "float32"), *((rule, "copy", "float32") for rule in RULES)]


@pytest.mark.parametrize("rule, start, kind", KINDS + IN_FLOAT32)
def test_averages(rule, start, kind):
    """The oracle's bits, of parameters that have those of a step without averages."""
    dtype, own = kind.split()[0], " " in kind
    with enable_x64(dtype == "float64"):
        stored = np.dtype(dtype) if own or dtype == "float64" else np.dtype(np.float32)
        opt = getattr(front, rule)(0.1, ema_decay=0.6, ema_start=start, ema_dtype=dtype if own else None)
        plain = getattr(front, rule)(0.1)
        params = random_tree(0, dtype)
        made, expected = (params, opt.init(params)), (params, plain.init(params))
        first = jax.tree.map(lambda x: x.astype(stored) if start == "copy" else jnp.zeros_like(x, stored), params)
        assert_close(front.ema(made[1]), first)
        step, twin, history = jax.jit(opt.step), jax.jit(plain.step), []
        for seed in range(1, 4):
            made, expected = step(*made, random_tree(seed, dtype)), twin(*expected, random_tree(seed, dtype))
            history.append(jax.tree.map(np.asarray, expected[0]))
        assert_close((made[0], made[1][:-1]), (expected[0], tuple(expected[1])))
        found = {name: ORACLES[start]([each[name] for each in history], 0.6, stored) for name in params}
        assert_close(front.ema(made[1]), jax.tree.map(jnp.asarray, found))
        assert int(made[1][-1].count) == 3


@pytest.mark.parametrize("rule, start", fast_for({"adam"}, ("adam", "zero"), *((rule, "copy") for rule in RULES)))
def test_averages_by_update(rule, start):
    """Of what optax.apply_updates makes, up to rounding."""
    opt = getattr(front, rule)(0.1, ema_decay=0.9, ema_start=start)
    step, update = jax.jit(opt.step), jax.jit(by_update(opt))
    stepped = updated = random_tree(0), opt.init(random_tree(0))
    for seed in range(1, 4):
        stepped, updated = step(*stepped, random_tree(seed)), update(*updated, random_tree(seed))
    assert_close(updated, stepped, rtol=2e-5, atol=2e-6)


def test_averages_without_their_start():
    """As optax.ema corrects them; before the first step there is nothing to correct."""
    opt = front.adam(0.1, ema_decay=0.99, ema_start="zero")
    params = random_tree(0)
    state, peer = opt.init(params), optax.ema(0.99)
    theirs, step, update = peer.init(params), jax.jit(opt.step), jax.jit(peer.update)
    assert_close(front.ema(state, decay=0.99), front.ema(state))
    for seed in range(1, 30):
        params, state = step(params, state, random_tree(seed))
        expected, theirs = update(params, theirs)
    assert_close(front.ema(state), theirs.ema, rtol=1e-5, atol=1e-6)
    found = {name: averages.debiased(np.asarray(x), 0.99, 29) for name, x in front.ema(state).items()}
    for has_float64 in (False, True):  # the dtype does not change
        with enable_x64(has_float64):
            assert_close(front.ema(state, decay=0.99), expected, rtol=1e-4, atol=1e-5)
            assert_close(front.ema(state, decay=0.99), found, rtol=1e-6)


def test_averages_in_a_dtype_without_a_kernel():
    """A state may bring one that no init makes: the formulas take it, and keep it."""
    opt, params = front.optimistic_gradient_descent(0.1, ema_decay=0.9), np.ones(3, np.float32)
    *inner, average = opt.init(params)
    state = (*inner, average._replace(ema=average.ema.astype("float16")))
    made, state = jax.jit(opt.step)(params, state, params)
    assert_close(front.ema(state), np.asarray(made).astype(np.float16))


# All of it ------------------------------------------------------------------------------------------------------------

ALL = dict(skip_nonfinite=True, ema_decay=0.9)


@pytest.mark.parametrize("dtype, start", [("complex64", "copy"), ("float8_e4m3fn", "zero")])
def test_all_without_a_kernel(dtype, start):
    """The formulas; a skipped step changes nothing."""
    opt = front.adam(0.1, ema_start=start, **ALL)
    params = random_tree(0, dtype)
    step = jax.jit(functools.partial(opt.step, max_norm=1.0))
    first = step(params, opt.init(params), params)
    assert_close(front.ema(first[1]), scaled(first[0], 1.0 if start == "copy" else 0.1), rtol=1e-6)
    skipped = step(*first, broken(params, np.nan))
    assert_close((skipped[0], skipped[1].inner_state), (first[0], first[1].inner_state))
    assert int(skipped[1].total_notfinite) == 1


def scaled(tree, factor):
    wide = np.complex64 if jnp.iscomplexobj(tree["b"]) else np.float32
    return jax.tree.map(lambda x: np.asarray(x).astype(wide) * np.float32(factor), tree)


@each_way
def test_all_of_each_member(way):
    """Under vmap one member is skipped, and the others have the bits that they have alone."""
    opt = front.optimistic_adam_v2(0.1, ema_start="zero", **ALL)
    params, grads = (jax.tree.map(lambda *x: np.stack(x), *map(random_tree, range(i, i + 3))) for i in (0, 9))
    grads["w"][1, 2, 3] = np.inf
    state, step = jax.jit(jax.vmap(opt.init))(params), jax.jit(WAYS[way](opt))
    made = jax.jit(jax.vmap(step))(params, state, grads)
    assert made[1].total_notfinite.tolist() == [0, 1, 0]
    for i in range(3):
        given, found = (jax.tree.map(lambda x, i=i: np.asarray(x)[i], tree) for tree in ((params, state, grads), made))
        assert_close(found, step(*given), **({} if way == "step" else dict(rtol=1e-5, atol=1e-6)))


def test_a_skipped_update_without_a_kernel():
    """It is zero."""
    opt, params = front.optimistic_gradient_descent(0.1, skip_nonfinite=True), random_tree(0, "float8_e4m3fn")
    updates, _ = jax.jit(opt.update)(broken(params), opt.init(params))
    assert_close(updates, jax.tree.map(np.zeros_like, params))


def test_all_in_place():
    """Parameters, state and averages stay where they are, and no call is added but those for the norm."""
    opt, plain = front.amsgrad(0.1, **ALL), front.amsgrad(0.1)
    params, grads = random_tree(0), random_tree(1)
    run = jax.jit(functools.partial(opt.step, max_norm=1.0), donate_argnums=(0, 1))
    run = run.lower(params, opt.init(params), grads).compile()
    without = jax.jit(plain.step).lower(params, plain.init(params), grads).compile()
    assert copies(run.as_text(), params["b"].nbytes) == []
    assert calls(run.as_text()) == calls(without.as_text()) + 2
    given = params, jax.jit(opt.init)(params)
    places = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(given) if x.ndim]
    assert [x.unsafe_buffer_pointer() for x in jax.tree.leaves(run(*given, grads)) if x.ndim] == places


def test_all_in_a_scan():
    opt = front.adam(0.1, **ALL)
    given = random_tree(0), opt.init(random_tree(0))
    grads = [random_tree(1), broken(random_tree(2)), random_tree(3)]
    stacked = jax.tree.map(lambda *x: np.stack(x), *grads)
    found, _ = jax.jit(lambda *given: jax.lax.scan(lambda c, g: (opt.step(*c, g), None), given[:2], given[2]))(
        *given, stacked
    )
    for each in grads:
        given = opt.step(*given, each)
    assert_close(found, given)


def test_gradients_that_are_none():
    """Such a leaf's average stays too."""
    opt = front.adam(0.1, **ALL)
    params = {"w": jnp.ones(3), "frozen": jnp.ones(3), "nothing": None}
    made, state = opt.step(params, opt.init(params), {"w": jnp.ones(3), "frozen": None, "nothing": None})
    assert_close(front.ema(state), {"w": made["w"], "frozen": params["frozen"], "nothing": None})


@each_way
def test_averages_of_leaves_without_gradients(way):
    """Those that start at zero go on, since one count corrects all, but not where the step is skipped."""
    opt, peer = front.adam(0.1, ema_start="zero", **ALL), optax.ema(0.9)
    params, step, update = random_tree(0), jax.jit(WAYS[way](opt)), jax.jit(peer.update)
    state, theirs = opt.init(params), peer.init(params)
    nothing = dict.fromkeys(SHAPES)
    for grads in ({**nothing, "w": params["w"]}, random_tree(1), nothing):
        params, state = step(params, state, grads)
        expected, theirs = update(params, theirs)
    params, state = step(params, state, {**broken(params), "w": None})
    assert_close(front.ema(state, decay=0.9), expected, rtol=1e-5)


def test_averages_inside_of_wrappers():
    """A chain hands on the parameters, and ema finds the averages in its state."""
    chain = optax.chain(optax.clip(1.0), front.adam(0.1, **ALL))
    params = random_tree(0)
    made, state = jax.jit(by_update(chain))(params, chain.init(params), params)
    assert_close(front.ema(state), made)
    injected = optax.inject_hyperparams(front.adam, static_args=("ema_decay",))(0.1, **ALL)
    made, state = jax.jit(by_update(injected))(params, injected.init(params), params)
    assert_close(front.ema(state), made)


GOOD = {"w": jnp.ones(3)}
WRONG = {
    "flag": (dict(skip_nonfinite=1), TypeError, "skip_nonfinite is 1, expected True or False"),
    "errors": (dict(skip_nonfinite=True, max_consecutive_errors=-1), ValueError, "max_consecutive_errors is -1"),
    "errors alone": (dict(max_consecutive_errors=3), ValueError, "needs skip_nonfinite=True"),
    "decay": (dict(ema_decay=1.0), ValueError, "ema_decay is 1, expected a number at least 0 and below 1"),
    "traced decay": (dict(ema_decay=jnp.array(0.9)), TypeError, "ema_decay is an array, .*static_args"),
    "start": (dict(ema_decay=0.9, ema_start="one"), ValueError, "ema_start is 'one', expected 'copy' or 'zero'"),
    "start alone": (dict(ema_start="zero"), ValueError, "ema_start and ema_dtype need ema_decay"),
    "dtype": (dict(ema_decay=0.9, ema_dtype=jnp.int32), TypeError, "ema_dtype is .* floating-point dtype"),
    "zero": (dict(zero_grads=True), TypeError, "zero_grads"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_errors(wrong):
    arguments, error, message = WRONG[wrong]
    with pytest.raises(error, match=message):
        front.adam(0.1, **arguments)


def test_errors_of_states():
    plain, skipping, averaging = front.adam(0.1), front.adam(0.1, skip_nonfinite=True), front.adam(0.1, ema_decay=0.9)
    for opt, state, message in (
        (skipping, plain.init(GOOD), "state is tuple, expected ApplyIfFiniteState"),
        (averaging, plain.init(GOOD), "state ends with .*, expected EmaState"),
        (plain, averaging.init(GOOD), "state is .*'EmaState'"),
        (plain, skipping.init(GOOD), "state is ApplyIfFiniteState"),
    ):
        with pytest.raises(TypeError, match=message):
            opt.step(GOOD, state, GOOD)
    with pytest.raises(ValueError, match="averages need the parameters"):
        averaging.update(GOOD, averaging.init(GOOD))
    with pytest.raises(ValueError, match="the state has 0 parts of type EmaState"):
        front.ema(plain.init(GOOD))
    with pytest.raises(TypeError, match="ema_dtype is 'bfloat16', expected 'float32' for parameters of float32"):
        front.adam(0.1, ema_decay=0.9, ema_dtype="bfloat16").init(GOOD)
    lost = (*averaging.init(GOOD)[:-1], optax.EmaState(jnp.zeros((), jnp.int32), {"w": None}))
    with pytest.raises(ValueError, match=r"state\[2\].ema\['w'\] is None"):
        averaging.step(GOOD, lost, GOOD)
