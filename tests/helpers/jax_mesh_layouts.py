"""Scenarios of sharded arrays: params, state and gradients that are sharded in different ways. See jax_meshes.py."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import flatstep.jax
import optax_peers
from jax_meshes import (
    EVERYWHERE,
    PURE,
    WHERE,
    alone,
    entered,
    host,
    mesh_of,
    numbers,
    place,
    rejected,
    scenario,
)
from jax_steps import OPTIMIZERS, buffers, by_update, collectives, same_bits

NOWHERE = dict.fromkeys(WHERE, P())
ALONG = {axis: {shape: P(*(x if x == axis else None for x in spec)) for shape, spec in WHERE.items()} for axis in "ab"}
# How parameters, state and gradients are sharded where they are not alike: what one leaves whole, another divides.
DIVIDED = {
    "state": (NOWHERE, WHERE, NOWHERE),  # ZeRO-1
    "state and grads": (NOWHERE, WHERE, ALONG["a"]),  # ZeRO-2
    "params": (WHERE, NOWHERE, NOWHERE),
    "axes": (ALONG["a"], ALONG["b"], NOWHERE),
}


def specs_of(tree: Any) -> list[P]:
    return [P(*x.sharding.spec, *(None,) * (x.ndim - len(x.sharding.spec))) for x in jax.tree.leaves(tree)]


@scenario(
    **{
        f"{kind}-{'inside' if inside else 'outside'}-{name}": dict(kind=kind, inside=inside, layout=layout)
        for kind, inside in EVERYWHERE
        for name, layout in DIVIDED.items()
        if name == "state" or (inside and kind in PURE)
    }
)
def divided(kind: str, inside: bool, layout: Any) -> None:
    """A step leaves all where it is, one operation at a time, in a program and in a loop; on Auto axes XLA decides."""
    opt = OPTIMIZERS["adamw"]
    params, grads = numbers(0), numbers(1)
    state = host(opt.init(params))

    def loop(params: Any, state: Any, grads: Any) -> Any:
        return jax.lax.fori_loop(0, 2, lambda _, carry: opt.step(*carry, grads), (params, state))

    mesh = mesh_of(kind)
    with entered(mesh, inside):
        operands = [place(tree, mesh, where=where) for tree, where in zip((params, state, grads), layout, strict=True)]
        for step, steps in ((opt.step, 1), (jax.jit(opt.step), 1), (jax.jit(loop), 2)):
            made = step(*operands)
            same_bits(made, alone(opt.step, params, state, grads, steps=steps))
            assert kind != "explicit" or specs_of(made) == specs_of(operands[:2])


@scenario(**{f"{kind}-{name}": dict(kind=kind, layout=layout) for kind in PURE for name, layout in DIVIDED.items()})
def divided_updates(kind: str, layout: Any) -> None:
    """Updates are sharded as optax's, and state stays where it is."""
    name, own = "optimistic_adam_v2", dict(learning_rate=0.1)
    opt, peer = getattr(flatstep.jax, name)(**own), optax_peers.peer_of(name)(**own)
    params, grads = numbers(0), numbers(1)
    state = host(opt.init(params))
    mesh = mesh_of(kind)
    with entered(mesh):
        operands = [place(x, mesh, where=where) for x, where in zip((grads, state, params), layout[::-1], strict=True)]
        for update in (by_update(opt), jax.jit(by_update(opt))):
            made, after = update(*operands)
            same_bits((made, after), alone(by_update(opt), grads, state, params, steps=1))
            if kind == "explicit":
                assert specs_of(made) == specs_of(by_update(peer)(*operands)[0])
                assert specs_of(after) == specs_of(operands[1])


@scenario(auto=dict(kind="auto"), explicit=dict(kind="explicit"))
def a_share_of_the_state(kind: str) -> None:
    """ZeRO-1 whole: each device steps its share, and the new parameters are all that is exchanged."""
    opt = OPTIMIZERS["amsgrad"]
    mesh = mesh_of(kind)
    with entered(mesh):
        params, state, grads = (
            place(tree, mesh, where=where)
            for tree, where in zip((numbers(0), host(opt.init(numbers(0))), numbers(1)), DIVIDED["state"], strict=True)
        )
        shardings = jax.tree.map(lambda x: x.sharding, (params, state))
        step = jax.jit(opt.step, donate_argnums=(0, 1), out_shardings=shardings)
        program = step.lower(params, state, grads).compile()
        found = collectives(program.as_text())
        assert found and set(found) == {"all-gather"}
        assert len(found) <= sum(entry is not None for spec in WHERE.values() for entry in spec)
        params, state = program(params, state, grads)
        places = buffers(state)
        assert buffers(program(params, state, grads)[1]) == places


@scenario()
def grads_without_a_mesh() -> None:
    """They are taken to where their parameters are, as by jax's own arithmetic."""
    opt = OPTIMIZERS["adam"]
    mesh = mesh_of("explicit")
    params, grads = numbers(0), numbers(1)
    sharded, state = place(params, mesh), place(host(opt.init(params)), mesh)
    made = opt.step(sharded, state, grads)
    same_bits(made, alone(opt.step, params, opt.init(params), grads, steps=1))
    assert specs_of(made) == specs_of((sharded, state))


@scenario(**{kind: dict(kind=kind) for kind in ("explicit+auto", "auto+explicit")})
def mixtures_outside_of_their_mesh(kind: str) -> None:
    opt = OPTIMIZERS["adam"]
    mesh = mesh_of(kind)
    params = place(numbers(0), mesh)
    rejected(ValueError, "jax.set_mesh", lambda: opt.step(params, place(host(opt.init(numbers(0))), mesh), params))


@scenario()
def uneven_shards() -> None:
    """XLA pads the last of them."""
    opt = OPTIMIZERS["amsgrad"]
    params = {"w": np.arange(39, dtype=np.float32).reshape(13, 3)}
    state = host(opt.init(params))
    by_rows = NamedSharding(mesh_of("auto"), P("a"))

    def step(params: Any, state: Any, grads: Any) -> Any:
        return opt.step(jax.lax.with_sharding_constraint(params, by_rows), state, grads)

    assert "f32[4,3]" in jax.jit(step).lower(params, state, params).compile().as_text()
    same_bits(jax.jit(step)(params, state, params), alone(opt.step, params, state, params, steps=1))
