"""An ensemble under vmap: one call, in place, and each member gets to the bit what it gets alone."""

from __future__ import annotations

import pytest

jax = pytest.importorskip("jax")
pytest.importorskip("optax")

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

import flatstep.jax  # noqa: E402
from jax_steps import buffers, by_update, calls, copies, same_bits  # noqa: E402

MEMBERS = 5
SHAPES = {"w": (6, 8), "b": (7,), "s": (), "none": (3, 0)}
RATES = np.linspace(0.01, 0.1, MEMBERS, dtype=np.float32)

# Each of a rate, which may be traced and then differ from member to member.
OPTIMIZERS = {
    "amsgrad": lambda rate: flatstep.jax.amsgrad(rate, b1=0.9 + rate),
    "optimistic": lambda rate: flatstep.jax.optimistic_adam_v2(rate, alpha=1 + rate, nesterov=False),
    "adam": lambda rate: flatstep.jax.adam(lambda count: rate / (count + 1), mu_dtype="bfloat16"),
    "adamw": lambda rate: flatstep.jax.adamw(
        rate, eps=rate, weight_decay=rate, mask={**dict.fromkeys(SHAPES, True), "b": False}
    ),
}
CALLS = {"amsgrad": 1, "optimistic": 1, "adam": 1, "adamw": 2}  # for leaves that decay, and those that do not


def numbers(seed: int, *lead: int, dtype: object = np.float32) -> dict:
    random = np.random.default_rng(seed)
    return {name: jnp.asarray(random.standard_normal(lead + shape), dtype) for name, shape in SHAPES.items()}


def entry(tree, *index):
    return jax.tree.map(lambda x: x[index], tree)


def member(name):
    def step(params, state, grads, rate):
        return OPTIMIZERS[name](rate).step(params, state, grads)

    return step


def state_of(name, params, lead=1):
    init = OPTIMIZERS[name](0.05).init
    for _ in range(lead):
        init = jax.vmap(init)
    return init(params)


def in_place(step, *operands):
    """Results, in the memory of the first two operands, and how often they call our kernels."""
    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(*operands).compile()
    assert copies(compiled.as_text()) == []
    places = buffers(operands[:2])
    made = compiled(*operands)
    assert buffers(made) == places
    return made, calls(compiled.as_text())


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_members_with_rates_of_their_own(name, dtype):
    params, grads = numbers(0, MEMBERS, dtype=dtype), numbers(1, MEMBERS, dtype=dtype)
    state = state_of(name, params)
    alone = [jax.jit(member(name))(*entry((params, state, grads, RATES), i)) for i in range(MEMBERS)]
    made, count = in_place(jax.vmap(member(name)), params, state, grads, RATES)
    assert count == CALLS[name]
    for i in range(MEMBERS):
        same_bits(entry(made, i), alone[i])


@pytest.mark.slow
@pytest.mark.parametrize(
    "axes",
    [(0, 0, 0, None), (0, 0, None, 0), (0, None, 0, 0), (None, 0, 0, 0), (None, None, 0, None), (None, None, None, 0)],
    ids=str,
)
@pytest.mark.parametrize("name", ["amsgrad", "optimistic"])
def test_what_members_share(name, axes):
    """Whatever of parameters, state, gradients and rate that is."""
    wide = numbers(0, MEMBERS), None, numbers(1, MEMBERS), RATES
    wide = wide[0], state_of(name, wide[0]), *wide[2:]
    # Two steps in, so that shared state is not zero.
    wide = (*jax.vmap(member(name))(*wide), *wide[2:])
    operands = [tree if axis == 0 else entry(tree, 2) for tree, axis in zip(wide, axes, strict=True)]
    step = jax.jit(jax.vmap(member(name), in_axes=axes))
    assert calls(step.lower(*operands).compile().as_text()) == 1
    made = step(*operands)
    for i in range(MEMBERS):
        own = [entry(tree, i) if axis == 0 else tree for tree, axis in zip(operands, axes, strict=True)]
        same_bits(entry(made, i), jax.jit(member(name))(*own))


def test_members_along_any_axis():
    params, grads = numbers(0, MEMBERS), numbers(1, MEMBERS)
    state = state_of("amsgrad", params)
    expected = jax.vmap(member("amsgrad"))(params, state, grads, RATES)

    def last(tree):
        return jax.tree.map(lambda x: jnp.moveaxis(x, 0, -1), tree)

    step = jax.vmap(member("amsgrad"), in_axes=(0, -1, -1, 0), out_axes=(-1, 0))
    made = step(params, last(state), last(grads), RATES)
    same_bits(made, (last(expected[0]), expected[1]))


def test_updates():
    """In optax's protocol the gradients' memory takes the updates."""
    params, grads = numbers(0, MEMBERS), numbers(1, MEMBERS)
    opt = flatstep.jax.optimistic_adam_v2(0.1)
    state = jax.vmap(opt.init)(params)
    alone = [jax.jit(by_update(opt))(*entry((grads, state, params), i)) for i in range(MEMBERS)]
    made, count = in_place(jax.vmap(by_update(opt)), grads, state, params)
    assert count == 1
    for i in range(MEMBERS):
        same_bits(entry(made, i), alone[i])


@pytest.mark.parametrize("inner", [0, None], ids=["grid", "rates shared"])
def test_vmap_of_vmap(inner):
    params, grads = numbers(0, 3, 4), numbers(1, 3, 4)
    state = state_of("adamw", params, lead=2)
    rates = np.linspace(0.01, 0.1, 12, dtype=np.float32).reshape(3, 4)[:, : 4 if inner == 0 else 1]
    rates = rates if inner == 0 else rates[:, 0]
    alone = {
        (i, j): jax.jit(member("adamw"))(*entry((params, state, grads), i, j), rates[(i, j)[: rates.ndim]])
        for i in range(3)
        for j in range(4)
    }
    step = jax.vmap(jax.vmap(member("adamw"), in_axes=(0, 0, 0, inner)))
    made, count = in_place(step, params, state, grads, rates)
    assert count == CALLS["adamw"]
    for at, expected in alone.items():
        same_bits(entry(made, *at), expected)


@pytest.mark.parametrize("outer", ["vmap", "scan"])
def test_scan_and_vmap(outer):
    params, grads = numbers(0, MEMBERS), numbers(1, MEMBERS)
    state = state_of("optimistic", params)

    def steps(step, params, state, grads, rate):
        return jax.lax.fori_loop(0, 4, lambda _, carry: step(*carry, grads, rate), (params, state))

    def alone(*operands):
        return steps(member("optimistic"), *operands)

    def together(*operands):
        return steps(jax.vmap(member("optimistic")), *operands)

    expected = [jax.jit(alone)(*entry((params, state, grads, RATES), i)) for i in range(MEMBERS)]
    made, count = in_place(jax.vmap(alone) if outer == "vmap" else together, params, state, grads, RATES)
    assert count == 1
    for i in range(MEMBERS):
        same_bits(entry(made, i), expected[i])


def test_a_large_ensemble():
    """Its work is split over threads without regard to where members end."""
    params = {"w": jnp.asarray(np.random.default_rng(0).standard_normal((3, 70_001)), jnp.float32)}
    grads = jax.tree.map(jnp.cos, params)
    state, rates = state_of("amsgrad", params), RATES[:3]
    made = jax.vmap(member("amsgrad"))(params, state, grads, rates)
    for i in range(3):
        same_bits(entry(made, i), jax.jit(member("amsgrad"))(*entry((params, state, grads, rates), i)))


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_no_members(name):
    params = numbers(0, 0)
    made = jax.vmap(member(name))(params, state_of(name, params), params, np.ones(0, np.float32))
    same_bits(made[0], params)
