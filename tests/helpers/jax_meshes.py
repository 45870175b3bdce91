"""Steps of sharded arrays, on eight devices: test_jax_sharding.py starts this in a process of its own.

A scenario is a function that raises where something is wrong; what came of each is printed as a line of JSON.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import flatstep.jax
from jax_steps import OPTIMIZERS, buffers, by_update, calls, collectives, copies, same_bits

SCENARIOS: dict[str, Callable[[], None]] = {}
AUTO, EXPLICIT = AxisType.Auto, AxisType.Explicit
KINDS = {
    "auto": (AUTO, AUTO),
    "explicit": (EXPLICIT, EXPLICIT),
    "explicit+auto": (EXPLICIT, AUTO),
    "auto+explicit": (AUTO, EXPLICIT),
}
PURE = ("auto", "explicit")

# Leaves by their shapes, which state and gradients share: on both axes of the mesh, on one of them, on neither.
WHERE = {(16, 24): P("a", "b"), (32,): P("a"), (7, 4): P(None, "b"), (4, 6): P(("b"), None), (5,): P(), (): P()}
SHAPES = {"w": (16, 24), "b": (32,), "c": (7, 4), "d": (4, 6), "e": (5,), "s": ()}


def scenario(**variants: dict[str, Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Registers a function, or one with each of several sets of arguments."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        for name, arguments in (variants or {"": {}}).items():
            SCENARIOS["-".join(filter(None, (function.__name__, name)))] = partial(function, **arguments)
        return function

    return register


def mesh_of(kind: str) -> Any:
    return jax.make_mesh((4, 2), ("a", "b"), axis_types=KINDS[kind])


def entered(mesh: Any, inside: bool = True) -> Any:
    return jax.set_mesh(mesh) if inside else contextlib.nullcontext()


def numbers(seed: int, lead: tuple[int, ...] = (), dtype: Any = np.float32) -> dict[str, np.ndarray]:
    """Parameters or gradients, of the host: device_put may lend out a device's array, which donation then ends."""
    random = np.random.default_rng(seed)
    return {name: random.standard_normal(lead + shape).astype(dtype) for name, shape in SHAPES.items()}


def host(tree: Any) -> Any:
    return jax.tree.map(np.array, tree)


def place(tree: Any, mesh: Any, lead: tuple[Any, ...] = (), where: Any = None) -> Any:
    """A tree sharded leaf by leaf, batch axes as ``lead`` says."""
    where = WHERE if where is None else where

    def put(x: Any) -> Any:
        return jax.device_put(x, NamedSharding(mesh, P(*lead[: x.ndim], *where[x.shape[len(lead) :]])))

    return jax.tree.map(put, tree)


def alone(step: Any, *operands: Any, steps: int = 2) -> Any:
    """The results without a mesh."""
    for _ in range(steps):
        operands = (*jax.jit(step)(*operands), *operands[2:])
    return host(operands[:2])


def in_place(step: Any, *operands: Any) -> Any:
    """Results of two steps that exchange nothing, copy nothing and leave everything where it was, and their program.

    The first may be called with memory of NumPy's, which nobody writes to.
    """
    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(*operands).compile()
    program = compiled.as_text()
    assert collectives(program) == [] and copies(program) == []
    for is_first in (True, False):
        before = [(x.sharding, x.ndim) for x in jax.tree.leaves(operands[:2])]
        places = buffers(operands[:2])
        operands = (*compiled(*operands), *operands[2:])
        after = [x.sharding for x in jax.tree.leaves(operands[:2])]
        assert all(x.is_equivalent_to(y, ndim) for (x, ndim), y in zip(before, after, strict=True)), after
        assert is_first or buffers(operands[:2]) == places
    return operands[:2], program


EVERYWHERE = [(kind, True) for kind in KINDS] + [(kind, False) for kind in PURE]
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
    refused(ValueError, "replicat", lambda: compiled(together=False))


def refused(kind: type[Exception], words: str, function: Callable[[], Any]) -> None:
    with pytest.raises(kind, match=re.escape(words)):
        function()


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
            refused(ValueError, words[: len(name) + 14], lambda operands=operands: jax.jit(opt.step)(*operands))
            refused(ValueError, "jax.sharding.reshard", lambda operands=operands: jax.jit(opt.step)(*operands))


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
    opt, peer = getattr(flatstep.jax, name)(**own), getattr(optax, name)(**own)
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
    refused(ValueError, "jax.set_mesh", lambda: opt.step(params, place(host(opt.init(numbers(0))), mesh), params))


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


RATES = np.linspace(0.01, 0.1, 8, dtype=np.float32)


def with_rate(rate: Any) -> Any:
    return flatstep.jax.amsgrad(rate, b1=0.9 * rate)


def member(params: Any, state: Any, grads: Any, rate: Any) -> Any:
    return with_rate(rate).step(params, state, grads)


@scenario(
    **{
        f"{kind}-{'inside' if inside else 'outside'}-{name}": dict(kind=kind, inside=inside, rates=rates, where=where)
        for kind, inside in EVERYWHERE
        if kind in PURE
        for name, rates, where in (
            ("rates", True, {}),
            ("rate", False, {}),
            ("both", True, {(16, 24): P(None, "b"), (4, 6): P("b")}),
        )
    }
)
def ensemble(kind: str, inside: bool, rates: bool, where: Any) -> None:
    """Its members along one axis of the mesh, some leaves along the other too."""
    params, grads = numbers(0, (8,)), numbers(1, (8,))
    state = host(jax.vmap(with_rate(0.1).init)(params))
    rate = RATES if rates else RATES[3]
    step = jax.vmap(member, in_axes=(0, 0, 0, 0 if rates else None))
    mesh = mesh_of(kind)
    where = {**dict.fromkeys(WHERE, P()), **where}
    with entered(mesh, inside):
        operands = [place(tree, mesh, ("a",), where) for tree in (params, state, grads)]
        rate_there = jax.device_put(rate, NamedSharding(mesh, P("a") if rates else P()))
        made, program = in_place(step, *operands, rate_there)
        assert calls(program) == 1
    same_bits(made, alone(step, params, state, grads, rate))


@scenario()
def ensemble_otherwise_sharded() -> None:
    """The members of one leaf along another axis than those of the rest: right, if not in place."""
    params, grads = numbers(0, (8,)), numbers(1, (8,))
    state = host(jax.vmap(with_rate(0.1).init)(params))
    step = jax.vmap(member)
    mesh = mesh_of("auto")
    for axes, own in ((("a", "b"), P()), (("b", None), P()), ((None, "a"), P("a")), (("a", None), P(None, "b"))):
        where = {**dict.fromkeys(WHERE, P()), SHAPES["w"]: own}
        leads = dict(zip(SHAPES, axes * 3, strict=True))
        operands = [
            {name: place(x, mesh, (leads[name],), where) for name, x in tree.items()} for tree in (params, grads)
        ]
        made = jax.jit(step)(operands[0], state, operands[1], RATES)
        same_bits(made, alone(step, params, state, grads, RATES, steps=1))


@scenario()
def ensemble_on_a_mixture() -> None:
    mesh = mesh_of("auto+explicit")
    params = numbers(0, (8,))
    state = host(jax.vmap(with_rate(0.1).init)(params))
    where = dict.fromkeys(WHERE, P())
    with entered(mesh):
        operands = [place(tree, mesh, ("a",), where) for tree in (params, state, params)]
        refused(NotImplementedError, "all Auto", lambda: jax.vmap(member)(*operands, RATES))


@scenario(**{kind: dict(kind=kind) for kind in PURE})
def without_shardy(kind: str) -> None:
    """XLA's former partitioner ends the process where it gets no answer."""
    jax.config.update("jax_use_shardy_partitioner", False)
    try:
        for name in OPTIMIZERS:
            step(kind, True, name)
        state_of_one_device(True)
        ensemble_otherwise_sharded()
    finally:
        jax.config.update("jax_use_shardy_partitioner", True)


def main(names: list[str]) -> None:
    for name in names or SCENARIOS:
        try:
            SCENARIOS[name]()
            outcome = "passed"
        except Exception:
            outcome = traceback.format_exc()
        print(json.dumps([name, outcome]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
