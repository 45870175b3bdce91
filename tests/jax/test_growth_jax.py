"""The work of flatstep.jax grows with the leaves and no faster: calls are counted for some and twice as many."""

from __future__ import annotations

from functools import partial

import pytest

jax = pytest.importorskip("jax")
pytest.importorskip("optax")
import jax.numpy as jnp  # noqa: E402

import flatstep.jax  # noqa: E402
from counting import calls_of  # noqa: E402

pytestmark = pytest.mark.slow

FEW = 32
OPTIMIZERS = {
    "amsgrad": flatstep.jax.amsgrad(0.1),
    "optimistic_adam_v2": flatstep.jax.optimistic_adam_v2(lambda count: 0.1, weight_decay=0.1),
    "adam, skipping and averaging": flatstep.jax.adam(0.1, skip_nonfinite=True, ema_decay=0.9),
    "adam, masked": flatstep.jax.adamw(0.1, mask=lambda params: jax.tree.map(lambda x: x.ndim > 1, params)),
}


def tree(layers: int):
    return {f"layer{i}": {"w": jnp.ones((2, 3)), "b": jnp.ones(3), "none": None} for i in range(layers)}


def init(opt, params, state):
    jax.eval_shape(lambda: opt.init(params))


def step(opt, params, state):
    opt.step(params, state, params)


def trace_step(opt, params, state):
    jax.make_jaxpr(lambda: opt.step(params, state, params))()


def trace_clipped_step(opt, params, state):
    jax.make_jaxpr(lambda: opt.step(params, state, params, max_norm=1.0))()


def trace_update(opt, params, state):
    jax.make_jaxpr(lambda: opt.update(params, state, params))()


def trace_an_error(opt, params, state):
    """One leaf is wrong, and named."""
    wrong = {**params, "layer7": {**params["layer7"], "w": jnp.ones(1)}}
    with pytest.raises(ValueError, match=r"\['layer7'\]\['w'\]"):
        trace_step(opt, params, opt.init(wrong))


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("call", [init, step, trace_step, trace_clipped_step, trace_update, trace_an_error])
def test_calls_grow_with_the_leaves(call, name):
    opt, counts = OPTIMIZERS[name], []
    for layers in (FEW, 2 * FEW):
        params = tree(layers)
        given = opt, params, opt.init(params)
        call(*given)  # what is compiled once
        counts.append(calls_of(partial(call, *given)))
    assert counts[0] > FEW and counts[1] < 2.5 * counts[0], counts
