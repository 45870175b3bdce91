"""Complex parameters in flatstep.jax: as optax defines them, with |g|^2 as the second moment."""

from __future__ import annotations

import numpy as np
import pytest

from jax_training import RULES, assert_close, front, jax, jnp, optax, pair

SETTINGS = {
    "default": {},
    "numbers": dict(b1=0.5, b2=0.75, eps=1e-3, eps_root=1e-4),
    "schedule": dict(learning_rate=optax.exponential_decay(0.1, 1, 0.5)),
}


def tree(seed: int, dtype: str) -> dict:
    """Complex leaves beside real ones."""
    rng = np.random.default_rng(seed)
    parts = rng.standard_normal((2, 3, 4)), rng.standard_normal((2, 5))
    values = {"w": parts[0][0] + 1j * parts[0][1], "b": parts[1][0] + 1j * parts[1][1], "s": 0.5j}
    made = {name: jnp.asarray(value, dtype) for name, value in values.items()}
    return {**made, "real": jnp.asarray(parts[1][0], jnp.zeros((), dtype).real.dtype)}


def run(step, params, state, dtype):
    for seed in range(1, 5):
        params, state = step(params, state, tree(seed, dtype))
    return params, state


def by_update(opt):
    def step(params, state, grads):
        updates, state = opt.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return step


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("rule", RULES)
def test_as_optax(rule, settings, dtype):
    """By step and by update, compiled and not; the state has optax's dtypes."""
    with jax.enable_x64(dtype == "complex128"):
        ours, theirs = pair(rule, **{"learning_rate": 0.1, **SETTINGS[settings]})
        params = tree(0, dtype)
        expected = run(jax.jit(by_update(theirs)), params, theirs.init(params), dtype)
        tolerance = dict(rtol=1e-12, atol=1e-13) if dtype == "complex128" else dict(rtol=2e-4, atol=2e-5)
        for step in (ours.step, jax.jit(ours.step), by_update(ours), jax.jit(by_update(ours))):
            assert_close(run(step, params, ours.init(params), dtype), expected, **tolerance)


def test_weight_decay_and_ascent():
    """Of both kinds, as by hand."""
    params, grads = tree(0, "complex64"), tree(1, "complex64")
    decay = jax.tree.map(lambda g, p: g + 0.25 * p, grads, params)
    coupled, plain = front.adam(0.1, weight_decay=0.25), front.adam(0.1)
    state = plain.init(params)
    close = dict(rtol=1e-5, atol=1e-6)
    assert_close(coupled.step(params, state, grads), plain.step(params, state, decay), **close)
    up = front.adam(0.1, maximize=True)
    down = jax.tree.map(lambda g: -g, grads)
    assert_close(up.step(params, state, grads), plain.step(params, state, down), **close)


def test_an_ensemble_in_a_scan():
    """Members and steps, as one by one."""
    opt = front.amsgrad(0.1)
    members = [tree(seed, "complex64") for seed in range(3)]
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    state = jax.vmap(opt.init)(params)

    def step(carry, _):
        return jax.vmap(opt.step)(*carry, params), None

    (made, _), _ = jax.jit(lambda carry: jax.lax.scan(step, carry, length=3))((params, state))
    for index, member in enumerate(members):
        alone, own = member, opt.init(member)
        for _ in range(3):
            alone, own = opt.step(alone, own, member)
        assert_close(jax.tree.map(lambda leaf, index=index: leaf[index], made), alone, rtol=1e-5, atol=1e-6)
