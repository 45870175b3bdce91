"""Scenarios of sharded arrays: ensembles under vmap, and the older partitioner. See jax_meshes.py."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import flatstep.jax
from jax_mesh_limits import max_norm, norm
from jax_mesh_steps import state_of_one_device, step
from jax_meshes import (
    EVERYWHERE,
    PURE,
    SHAPES,
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
from jax_steps import OPTIMIZERS, calls, same_bits

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
        rejected(NotImplementedError, "all Auto", lambda: jax.vmap(member)(*operands, RATES))


@scenario(**{kind: dict(kind=kind) for kind in PURE})
def without_shardy(kind: str) -> None:
    """XLA's former partitioner ends the process where it gets no answer."""
    jax.config.update("jax_use_shardy_partitioner", False)
    try:
        for name in OPTIMIZERS:
            step(kind, True, name)
        state_of_one_device(True)
        ensemble_otherwise_sharded()
        norm(kind, True)
        max_norm(kind)
    finally:
        jax.config.update("jax_use_shardy_partitioner", True)
