"""Scenarios of sharded arrays: steps, loops and shard_map, and the shardings that they keep. See jax_meshes.py."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import flatstep.jax
from jax_meshes import (
    AUTO,
    EVERYWHERE,
    EXPLICIT,
    KINDS,
    PURE,
    WHERE,
    alone,
    entered,
    host,
    in_place,
    mesh_of,
    numbers,
    place,
    rejected,
    scenario,
)
from jax_steps import OPTIMIZERS, buffers, by_update, calls, collectives, same_bits

ROWS = {
    f"{kind}-{'inside' if inside else 'outside'}-{name}": dict(kind=kind, inside=inside, name=name)
    for kind, inside in EVERYWHERE
    for name in OPTIMIZERS
}


@scenario(**ROWS)
def step(kind: str, inside: bool, name: str) -> None:
    """bfloat16 for the half of them."""
    opt, dtype = OPTIMIZERS[name], jnp.bfloat16 if name in ("optimistic", "adamw") else np.float32
    params, grads = numbers(0, dtype=dtype), numbers(1, dtype=dtype)
    state = host(opt.init(params))
    mesh = mesh_of(kind)
    with entered(mesh, inside):
        made, _ = in_place(opt.step, *(place(tree, mesh) for tree in (params, state, grads)))
    same_bits(made, alone(opt.step, params, state, grads))


@scenario(**{kind: dict(kind=kind) for kind in KINDS})
def update(kind: str) -> None:
    opt = OPTIMIZERS["amsgrad"]
    params, grads = numbers(0), numbers(1)
    state = host(opt.init(params))
    mesh = mesh_of(kind)
    with entered(mesh):
        made, _ = in_place(by_update(opt), *(place(tree, mesh) for tree in (grads, state, params)))
    same_bits(made, alone(by_update(opt), grads, state, params))


@scenario(**{kind: dict(kind=kind) for kind in KINDS})
def init_keeps_shardings(kind: str) -> None:
    """What init makes of sharded parameters needs no more than a step's own results do."""
    opt = OPTIMIZERS["optimistic"]
    params, grads = numbers(0), numbers(1)
    mesh = mesh_of(kind)
    with entered(mesh):
        sharded = place(params, mesh)
        state = opt.init(sharded)
        assert all(
            x.sharding.is_equivalent_to(y.sharding, y.ndim)
            for x, y in zip(*(jax.tree.leaves(tree) for tree in (state[0].mu, sharded)), strict=True)
            if y.ndim
        )
        made, _ = in_place(opt.step, sharded, place(host(state), mesh), place(grads, mesh))
    same_bits(made, alone(opt.step, params, opt.init(params), grads))


@scenario(inside=dict(inside=True), outside=dict(inside=False))
def state_of_one_device(inside: bool) -> None:
    """Left to XLA, it takes the sharding of its parameters in the first step, and stays there."""
    opt = OPTIMIZERS["amsgrad"]
    params, grads = numbers(0), numbers(1)
    mesh = mesh_of("auto")
    with entered(mesh, inside):
        train = jax.jit(opt.step, donate_argnums=(0, 1))
        first = place(params, mesh), jax.jit(opt.init)(params), place(grads, mesh)
        assert collectives(train.lower(*first).compile().as_text()) == []
        then = train(*first)
        made, _ = in_place(opt.step, *then, first[2])
    same_bits(made, alone(opt.step, params, opt.init(params), grads, steps=3))


@scenario(auto=dict(kind=AUTO), explicit=dict(kind=EXPLICIT))
def one_axis(kind: Any) -> None:
    opt = OPTIMIZERS["adam"]
    mesh = jax.make_mesh((8,), ("a",), axis_types=(kind,))
    where = {(16, 24): P(None, "a"), (32,): P("a"), (7, 4): P(), (4, 6): P(), (5,): P(), (): P()}
    params, grads = numbers(0), numbers(1)
    state = host(opt.init(params))
    with entered(mesh):
        made, _ = in_place(opt.step, *(place(tree, mesh, where=where) for tree in (params, state, grads)))
    same_bits(made, alone(opt.step, params, state, grads))


@scenario(**{kind: dict(kind=kind) for kind in KINDS})
def scan(kind: str) -> None:
    opt = OPTIMIZERS["amsgrad"]
    params, grads = numbers(0), numbers(1)
    state = host(opt.init(params))

    def steps(params: Any, state: Any, grads: Any) -> Any:
        return jax.lax.fori_loop(0, 3, lambda _, carry: opt.step(*carry, grads), (params, state))

    mesh = mesh_of(kind)
    with entered(mesh):
        made, program = in_place(steps, *(place(tree, mesh) for tree in (params, state, grads)))
        assert calls(program) == 1
    same_bits(made, alone(opt.step, params, state, grads, steps=6))


REPLICATED, BY_ROWS = {(6, 4): P(), (4,): P()}, {(6, 4): P(None, "a"), (4,): P("a")}


@scenario(
    data_parallel_auto=dict(kind="auto", where=REPLICATED),
    data_parallel_explicit=dict(kind="explicit", where=REPLICATED),
    sharded_auto=dict(kind="auto", where=BY_ROWS),
)
def training(kind: str, where: Any) -> None:
    """The whole step exchanges what the gradients alone do."""
    opt = OPTIMIZERS["amsgrad"]
    random = np.random.default_rng(0)
    params = {"w": random.standard_normal((6, 4)), "b": random.standard_normal(4)}
    params = jax.tree.map(np.float32, params)
    batch = random.standard_normal((16, 6)).astype(np.float32)

    def loss(params: Any, batch: Any) -> Any:
        return jnp.mean(jnp.tanh(batch @ params["w"] + params["b"]) ** 2)

    def train(params: Any, state: Any, batch: Any) -> Any:
        value, grads = jax.value_and_grad(loss)(params, batch)
        return (*opt.step(params, state, grads), value)

    mesh = mesh_of(kind)
    with entered(mesh):
        sharded = place(params, mesh, where=where)
        state = place(host(opt.init(params)), mesh, where={**where, (): P()})
        rows = jax.device_put(batch, NamedSharding(mesh, P("a")))
        shardings = jax.tree.map(lambda x: x.sharding, sharded)
        grads = jax.jit(jax.value_and_grad(loss), out_shardings=(None, shardings))
        expected = collectives(grads.lower(sharded, rows).compile().as_text())
        compiled = jax.jit(train, donate_argnums=(0, 1)).lower(sharded, state, rows).compile()
        assert expected and collectives(compiled.as_text()) == expected
        first = compiled(sharded, state, rows)[:2]
        places = buffers(first)
        assert buffers(compiled(*first, rows)[:2]) == places


@scenario(
    **{
        f"{kind}-{'all' if axes is None else 'one'}-{'checked' if check else 'unchecked'}": dict(
            kind=kind, axes=axes, check=check
        )
        for kind in KINDS
        for axes in (None, {"a"})
        for check in (True, False)
        if kind != "auto+explicit" or axes is None
    }
)
def shard_map(kind: str, axes: set[str] | None, check: bool) -> None:
    """Along all axes of the mesh, or one. (Explicit ones that it leaves out, jax gathers on the way in.)"""
    opt = OPTIMIZERS["optimistic"]
    params, grads = numbers(0), numbers(1)
    state = host(opt.init(params))
    mesh = mesh_of(kind)
    manual = {shape: P(*(x if axes is None or x in axes else None for x in spec)) for shape, spec in WHERE.items()}
    where = manual if kind == "explicit" else WHERE
    operands = [place(tree, mesh, where=where) for tree in (params, state, grads)]
    specs = jax.tree.map(lambda x: manual[x.shape], tuple(operands))
    names = {} if axes is None else dict(axis_names=axes)
    step = jax.shard_map(opt.step, mesh=mesh, in_specs=specs, out_specs=specs[:2], check_vma=check, **names)
    made, _ = in_place(step, *operands)
    same_bits(made, alone(opt.step, params, state, grads))


@scenario(checked=dict(check=True), unchecked=dict(check=False))
def shard_map_makes_state(check: bool) -> None:
    """Zeros made inside are the same everywhere by their type, the gradients beside them are not."""
    opt = OPTIMIZERS["amsgrad"]
    params, grads = numbers(0), numbers(1)
    mesh = mesh_of("auto")
    specs = jax.tree.map(lambda x: WHERE[x.shape], params)

    def first(params: Any, grads: Any) -> Any:
        return opt.step(params, opt.init(params), grads)[0]

    step = jax.jit(jax.shard_map(first, mesh=mesh, in_specs=(specs, specs), out_specs=specs, check_vma=check))
    same_bits(
        step(place(params, mesh), place(grads, mesh)), alone(opt.step, params, opt.init(params), grads, steps=1)[0]
    )


@scenario(**{f"{kind}-{name}": dict(kind=kind, where=name) for kind in PURE for name in ("grads", "rate", "state")})
def what_differs_is_known(kind: str, where: str) -> None:
    """Replicated parameters differ after a step with what differs from device to device, and their type says so."""
    mesh = mesh_of(kind)
    params, axis = {"w": np.ones(4, np.float32)}, np.arange(16, dtype=np.float32)
    state = flatstep.jax.adam(0.1).init(params)

    def step(params: Any, state: Any, shard: Any, together: bool) -> Any:
        shard = jax.lax.psum(shard, "a") if together else shard
        opt = flatstep.jax.adam(shard[0] if where == "rate" else 0.1)
        if where == "state":
            state = (state[0]._replace(nu={"w": state[0].nu["w"] + shard}), *state[1:])
        return opt.step(params, state, {"w": shard} if where == "grads" else params)

    def compiled(together: bool) -> Any:
        call = partial(step, together=together)
        sharded = jax.shard_map(call, mesh=mesh, in_specs=(P(), P(), P("a")), out_specs=P())
        return jax.jit(sharded).lower(*operands).compile()

    operands = jax.device_put((params, state, axis), tuple(NamedSharding(mesh, spec) for spec in (P(), P(), P("a"))))
    assert collectives(compiled(together=True).as_text()) == ["all-reduce"]
    rejected(ValueError, "replicat", lambda: compiled(together=False))


OTHERWISE = {**WHERE, (16, 24): P("b", "a")}


@scenario(grads=dict(place_of=2), state=dict(place_of=1))
def otherwise_sharded(place_of: int) -> None:
    """On Auto axes XLA moves what lies elsewhere; where shardings are types, the leaf that contradicts is named."""
    opt = OPTIMIZERS["amsgrad"]
    params, grads = numbers(0), numbers(1)
    trees = params, host(opt.init(params)), grads
    for kind in KINDS:
        mesh = mesh_of(kind)
        with entered(mesh):
            operands = [place(x, mesh, where=OTHERWISE if i == place_of else WHERE) for i, x in enumerate(trees)]
            if kind == "auto":
                same_bits(jax.jit(opt.step)(*operands), alone(opt.step, *trees, steps=1))
                continue
            name = ("", "state[0].mu['w']", "grads['w']")[place_of]
            words = f"{name} is sharded as {jax.typeof(jax.tree.leaves(operands[place_of])[-1]).sharding.spec}"
            rejected(ValueError, words[: len(name) + 14], lambda operands=operands: jax.jit(opt.step)(*operands))
            rejected(ValueError, "jax.sharding.reshard", lambda operands=operands: jax.jit(opt.step)(*operands))
