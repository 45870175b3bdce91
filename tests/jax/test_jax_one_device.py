"""An explicit mesh of one device: a step has the bits that it has without a mesh, and results keep their shardings."""

from __future__ import annotations

import pytest

from jax_training import assert_close, front, jax, jnp

P, EXPLICIT = jax.sharding.PartitionSpec, jax.sharding.AxisType.Explicit
SPECS = {"w": P("a", "b"), "v": P("a", None, "b")}
SHAPES = {"w": (4, 8), "v": (4, 8, 2)}


def member(params, state, grads, rate):
    return front.adamw(rate, weight_decay=0.1).step(params, state, grads)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float8_e4m3fn], ids=["kernel", "formula"])
@pytest.mark.parametrize("under_vmap", [False, True])
def test_one_device(dtype, under_vmap):
    mesh = jax.make_mesh((1, 1), ("a", "b"), axis_types=(EXPLICIT, EXPLICIT))
    params = {name: jnp.full(shape, 0.5, dtype) for name, shape in SHAPES.items()}
    init, rate = front.adamw(0.1).init, jnp.full(4, 0.1) if under_vmap else 0.1
    step, init = (jax.vmap(member), jax.vmap(init)) if under_vmap else (member, init)
    expected = jax.jit(step)(params, init(params), params, rate)
    with jax.set_mesh(mesh):
        specs = {name: jax.sharding.NamedSharding(mesh, spec) for name, spec in SPECS.items()}
        placed = jax.device_put(params, specs)
        rate = jax.device_put(rate, jax.sharding.NamedSharding(mesh, P("a"))) if under_vmap else rate
        made = jax.jit(step)(placed, init(placed), placed, rate)
    assert {name: x.sharding.spec for name, x in made[0].items()} == SPECS
    assert_close(made, expected)
