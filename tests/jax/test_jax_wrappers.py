"""optax's wrappers around our optimizers give what they give around optax's own."""

from __future__ import annotations

import inspect
import itertools

import numpy as np
import pytest

from jax_training import RULES, assert_close, front, jax, jnp, loss, optax, pair, random_tree
from jax_x64 import enable_x64
from optax_peers import peer_of

pytestmark = pytest.mark.slow
each_rule = pytest.mark.parametrize("rule", RULES)
STEPS = 4
TARGET = jax.tree.map(np.asarray, random_tree(1))


@pytest.fixture(autouse=True)
def x64():
    """In float64, where two ways to compute the same differ by little, and a mistake by more."""
    with enable_x64(True):
        yield


def close(found, expected):
    assert_close(found, expected, rtol=1e-10, atol=1e-11)


def train(opt, params, grads_of, steps=STEPS, **extra):
    """Parameters and state after each of some steps, one program a step."""

    @jax.jit
    def step(params, state, count):
        updates, state = opt.update(grads_of(params, count), state, params, **extra)
        return optax.apply_updates(params, updates), state

    state, seen = opt.init(params), []
    for count in range(steps):
        params, state = step(params, state, count)
        seen.append((params, state))
    return seen


def train_in_a_scan(opt, params, grads_of):
    def step(carry, count):
        params, state = carry
        updates, state = opt.update(grads_of(params, count), state, params)
        carry = optax.apply_updates(params, updates), state
        return carry, carry

    return jax.jit(lambda carry: jax.lax.scan(step, carry, jnp.arange(STEPS)))((params, opt.init(params)))[1]


def of_loss(params, count):
    """The gradients of a quadratic form whose minimum moves."""
    return jax.tree.map(lambda p, to: p - (1 + count) * to, params, TARGET)


def with_nan(params, count):
    return jax.tree.map(lambda g: jnp.where(count == 1, jnp.nan, g), of_loss(params, count))


MASK = {"w": True, "v": False, "b": True, "scale": False}
LABELS = {"w": "ours", "v": "sgd", "b": "ours", "scale": "sgd"}
WRAPPERS = {
    "chain": lambda opt: optax.chain(optax.clip_by_global_norm(0.1), opt, optax.ema(0.9)),
    "chain of chains": lambda opt: optax.chain(optax.identity(), optax.chain(opt, optax.scale(0.5))),
    "weights in the chain": lambda opt: optax.chain(
        optax.add_decayed_weights(0.1), opt, optax.adaptive_grad_clip(0.1), optax.keep_params_nonnegative()
    ),
    "named_chain": lambda opt: optax.named_chain(("clip", optax.clip(0.1)), ("opt", opt)),
    "scale_by_schedule": lambda opt: optax.chain(opt, optax.scale_by_schedule(optax.linear_schedule(1.0, 0.1, 3))),
    "MultiSteps": lambda opt: optax.MultiSteps(opt, 2).gradient_transformation(),
    "MultiSteps that skips": lambda opt: optax.MultiSteps(
        opt, 1, should_skip_update_fn=optax.skip_not_finite
    ).gradient_transformation(),
    "apply_every": lambda opt: optax.chain(opt, optax.apply_every(2)),
    "masked": lambda opt: optax.masked(opt, MASK),
    "multi_transform": lambda opt: optax.multi_transform({"ours": opt, "sgd": optax.sgd(0.1)}, LABELS),
    "partition of one twice": lambda opt: optax.partition({"ours": opt, "sgd": opt}, LABELS),
    "selective_transform": lambda opt: optax.selective_transform(opt, freeze_mask=MASK),
    "apply_if_finite": lambda opt: optax.apply_if_finite(opt, 2),
    "conditionally_mask": lambda opt: optax.conditionally_mask(opt, lambda count: count % 2 == 0),
    "conditionally_transform": lambda opt: optax.conditionally_transform(opt, lambda count: count % 2 == 0),
    "flatten": optax.flatten,
    "with_extra_args_support": optax.with_extra_args_support,
    "split_real_and_imaginary": optax.contrib.split_real_and_imaginary,
    "schedule_free": lambda opt: optax.contrib.schedule_free(opt, 0.1),
    "mechanize": optax.contrib.mechanize,
    "sam": lambda opt: optax.contrib.sam(opt, optax.chain(optax.contrib.normalize(), optax.sgd(0.05))),
}


# The rule with the most in its state: every wrapper. The others: those that do most to a state.
AROUND = [
    *itertools.product(WRAPPERS, ["optimistic_adam_v2"]),
    *itertools.product(["chain", "MultiSteps", "masked", "flatten"], ["amsgrad", "adam", "adamw"]),
]


@pytest.mark.slow
@pytest.mark.parametrize("wrapper, rule", AROUND)
def test_as_around_optax(wrapper, rule):
    ours, theirs = (WRAPPERS[wrapper](opt) for opt in pair(rule, 0.05))
    params = random_tree(0, jnp.float64)
    close(train(ours, params, of_loss), train(theirs, params, of_loss))


@pytest.mark.slow
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_in_a_scan(wrapper):
    """With a schedule. optax's sam keeps no dtype of a bool, which optimistic_adam_v2's state has."""
    make = front.adamw if wrapper == "sam" else front.optimistic_adam_v2
    opt = WRAPPERS[wrapper](make(optax.linear_schedule(0.1, 0.01, 3)))
    params = random_tree(0, jnp.float64)
    every = train(opt, params, of_loss)
    close(train_in_a_scan(opt, params, of_loss), jax.tree.map(lambda *steps: jnp.stack(steps), *every))


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["amsgrad", "optimistic_adam_v2"])
@pytest.mark.parametrize("wrapper", ["apply_if_finite", "MultiSteps that skips"])
def test_steps_that_are_skipped(wrapper, rule):
    """NaN comes in the second step, and changes neither parameters nor our state."""
    ours, theirs = (WRAPPERS[wrapper](opt) for opt in pair(rule, 0.05))
    params = random_tree(0, jnp.float64)
    seen = train(ours, params, with_nan)
    close(seen, train(theirs, params, with_nan))
    assert_close(seen[1][0], seen[0][0])
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(seen))


@each_rule
def test_lookahead(rule):
    """It has its own parameters, of which the gradients are those of the fast ones."""
    ours, theirs = (optax.lookahead(opt, 2, 0.5) for opt in pair(rule, 0.05))
    params = optax.LookaheadParams.init_synced(random_tree(0, jnp.float64))

    def of_fast(params, count):
        return of_loss(params.fast, count)

    close(train(ours, params, of_fast), train(theirs, params, of_fast))


@each_rule
def test_extra_arguments(rule):
    """Those that other parts of a chain need go past us."""
    plateau = optax.contrib.reduce_on_plateau(factor=0.5, patience=1, cooldown=0)
    ours, theirs = (optax.chain(opt, plateau) for opt in pair(rule, 0.05))
    params = random_tree(0, jnp.float64)
    extra = dict(value=jnp.float64(1.0), grad=params, value_fn=loss)
    seen = train(ours, params, of_loss, **extra)
    close(seen, train(theirs, params, of_loss, **extra))
    assert seen[-1][1][1].scale < 1


# inject_hyperparams: the numbers of each rule, each with another value.
NUMBERS = dict(learning_rate=0.05, b1=0.8, b2=0.95, eps=1e-3, eps_root=1e-4, weight_decay=0.1, alpha=0.7, beta=0.6)


def numbers_of(make):
    return [name for name in inspect.signature(make).parameters if name in NUMBERS]


@pytest.mark.slow
@pytest.mark.parametrize("rule, name", [(rule, name) for rule in RULES for name in numbers_of(getattr(front, rule))])
@pytest.mark.parametrize("how", ["constant", "schedule", "changed"])
def test_injected(how, rule, name):
    """A number that is constant, of a schedule or changed between steps: as if each step had its own optimizer."""
    make = getattr(front, rule)
    values = [NUMBERS[name] / (1 if how == "constant" else 1 + count) for count in range(3)]
    settings = {"learning_rate": 0.05, name: values[0]}
    given = {**settings, name: lambda count: NUMBERS[name] / (1 + count)} if how == "schedule" else settings
    injected = optax.inject_hyperparams(make)(**given)
    params = expected = random_tree(0, jnp.float64)
    state, plain = injected.init(params), make(**settings).init(params)
    update = jax.jit(injected.update)
    for count, value in enumerate(values):
        grads = of_loss(expected, count)
        if how == "changed":
            state.hyperparams[name] = jnp.asarray(value)
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
        expected, plain = make(**{**settings, name: value}).step(expected, plain, grads)
        close((params, state.inner_state), (expected, plain))
    assert update._cache_size() == 1


@each_rule
def test_all_injected_as_in_optax(rule):
    """The state too, so that it goes on in either library."""
    settings = {name: NUMBERS[name] for name in numbers_of(peer_of(rule))}
    ours, theirs = (optax.inject_hyperparams(make)(**settings) for make in (getattr(front, rule), peer_of(rule)))
    params = random_tree(0, jnp.float64)
    close(train(ours, params, of_loss), train(theirs, params, of_loss))


@each_rule
def test_injected_in_float32(rule):
    """Where b1 and b2 are rounded to float32, which takes 1 - b2 with it."""
    with enable_x64(False):
        params = random_tree(0)
        grads = [random_tree(seed) for seed in (1, 2, 3)]
        make = getattr(front, rule)
        injected, plain = (
            train(opt, params, lambda _, count: jax.tree.map(lambda *g: jnp.stack(g)[count], *grads), steps=3)
            for opt in (optax.inject_hyperparams(make)(0.05), make(0.05))
        )
        for (ours, state), expected in zip(injected, plain, strict=True):
            assert_close((ours, state.inner_state), expected, rtol=2e-5, atol=1e-6)


@each_rule
@pytest.mark.parametrize("numbers", ["known", "injected"])
def test_parameters_are_not_needed(numbers, rule):
    """Except for weight decay."""
    ours, theirs = pair(rule, 0.05)
    if numbers == "injected":
        ours, theirs = (optax.inject_hyperparams(make)(0.05) for make in (getattr(front, rule), peer_of(rule)))
    grads = random_tree(1, jnp.float64)
    if inspect.signature(peer_of(rule)).parameters.get("weight_decay"):
        with pytest.raises(ValueError, match="weight decay needs the parameters"):
            ours.update(grads, ours.init(grads))
    else:
        close(ours.update(grads, ours.init(grads)), theirs.update(grads, theirs.init(grads)))
