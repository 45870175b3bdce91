"""A rule whose state in optax has no count: optimistic gradient descent. Its step is optax's."""

from __future__ import annotations

import numpy as np
import pytest

from jax_training import assert_close, front, jax, jnp, optax, random_tree

ROWS = {"constant": 0.1, "schedule": optax.linear_schedule(0.1, 0.0, 4)}


def pair(rate):
    return tuple(library.optimistic_gradient_descent(rate, alpha=0.7, beta=0.4) for library in (front, optax))


@pytest.mark.parametrize("rate", ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("dtype", [np.float32, jnp.float8_e4m3fn], ids=["kernel", "formula"])
@pytest.mark.parametrize("members", [None, 3])
def test_as_optax(rate, dtype, members):
    """Parameters, updates and the state, under vmap too."""
    lead = () if members is None else (members,)
    params = jax.tree.map(lambda x: jnp.broadcast_to(x, lead + x.shape).astype(dtype), random_tree(0))
    (opt, peer), wrap = pair(rate), jax.jit if members is None else lambda step: jax.jit(jax.vmap(step))

    def by_update(own):
        def step(params, state, grads):
            updates, state = own.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        return step

    state = (wrap(peer.init))(params)
    stepped = updated = expected = (params, state)
    for seed in range(1, 4):
        grads = jax.tree.map(lambda x, y: jnp.broadcast_to(x, y.shape).astype(dtype), random_tree(seed), params)
        stepped, updated = wrap(opt.step)(*stepped, grads), wrap(by_update(opt))(*updated, grads)
        expected = wrap(by_update(peer))(*expected, grads)
    rounding = 2e-6 if dtype == np.float32 else 0.25
    assert_close(stepped, expected, rtol=rounding, atol=rounding)
    assert_close(updated, expected, rtol=rounding, atol=rounding)
