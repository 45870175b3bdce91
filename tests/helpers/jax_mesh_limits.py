"""Scenarios of sharded arrays: norms across a mesh, skips and averages. See jax_meshes.py."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import flatstep.jax
import norms
from flatstep.jax._norm import limited
from jax_meshes import EVERYWHERE, KINDS, PURE, WHERE, alone, entered, host, mesh_of, numbers, place, scenario
from jax_steps import OPTIMIZERS, buffers, calls, collectives, copies, same_bits

MOST = 7.5
WITHIN = {"rtol": 1e-5, "atol": 1e-7}  # the last bit of a factor is another one where gradients are divided


@jax.jit
def limits(grads: Any) -> Any:
    return limited(jax.tree.leaves(grads), jnp.float32(1), MOST)


def oracle(grads: Any, index: Any = ()) -> Any:
    """The factor, rounded as the operand of a step is."""
    return np.float32(norms.factor(norms.global_norm([x[index] for x in jax.tree.leaves(grads)]), MOST))


def close(found: Any, expected: Any) -> None:
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(np.asarray(x, np.float64), np.asarray(y, np.float64), **WITHIN)


@scenario(
    **{f"{kind}-{'inside' if inside else 'outside'}": dict(kind=kind, inside=inside) for kind, inside in EVERYWHERE}
)
def norm(kind: str, inside: bool) -> None:
    """Each number counts once, on whichever devices it lies; one that is not finite is seen by all."""
    grads, mesh = numbers(1), mesh_of(kind)
    with entered(mesh, inside):
        factor, is_finite = limits(place(grads, mesh))
        assert is_finite
        close(factor, oracle(grads))
        assert kind not in PURE or factor == oracle(grads)
        for name, x in grads.items():
            wrong = {**grads, name: np.where(np.arange(x.size).reshape(x.shape) == x.size - 1, np.inf, x)}
            assert not limits(place(wrong, mesh))[1]


@scenario(**{kind: dict(kind=kind) for kind in KINDS})
def max_norm(kind: str) -> None:
    """A step adds up across the mesh, moves nothing else, and stays in place."""
    opt = OPTIMIZERS["amsgrad"]
    step = partial(opt.step, max_norm=MOST)
    params, grads = numbers(0), numbers(1)
    state, mesh = host(opt.init(params)), mesh_of(kind)
    with entered(mesh):
        operands = [place(tree, mesh) for tree in (params, state, grads)]
        compiled = jax.jit(step, donate_argnums=(0, 1)).lower(*operands).compile()
        assert set(collectives(compiled.as_text())) == {"all-reduce"}
        made = compiled(*operands)
        places = buffers(made)
        made = compiled(*made, operands[2])
        assert buffers(made) == places
    close(made, alone(step, params, state, grads))


@scenario(**{kind: dict(kind=kind) for kind in KINDS})
def skips_and_averages(kind: str) -> None:
    """In place too; one number on one device skips the step on all."""
    opt = flatstep.jax.adam(0.1, skip_nonfinite=True, ema_decay=0.9)
    params, grads = numbers(0), numbers(1)
    wrong = {**grads, "w": np.where(grads["w"] == grads["w"][3, 20], np.nan, grads["w"])}
    state, mesh = host(opt.init(params)), mesh_of(kind)
    with entered(mesh):
        first = [place(tree, mesh) for tree in (params, state, grads)]
        compiled = jax.jit(opt.step, donate_argnums=(0, 1)).lower(*first).compile()
        assert set(collectives(compiled.as_text())) == {"all-reduce"} and copies(compiled.as_text()) == []
        once = compiled(*first)
        same_bits(once, alone(opt.step, params, state, grads, steps=1))
        before, places = host(once), buffers(once)
        made = compiled(*once, place(wrong, mesh))
        assert buffers(made) == places
    same_bits((made[0], made[1].inner_state), (before[0], before[1].inner_state))
    assert made[1].total_notfinite == 1


@scenario(**{kind: dict(kind=kind) for kind in PURE})
def replicated(kind: str) -> None:
    """Where nothing is sharded, devices exchange nothing."""
    grads, mesh = numbers(1), mesh_of(kind)
    with entered(mesh):
        operands = place(grads, mesh, where=dict.fromkeys(WHERE, P()))
        compiled = (
            jax.jit(lambda grads: limited(jax.tree.leaves(grads), jnp.float32(1), MOST)).lower(operands).compile()
        )
        assert collectives(compiled.as_text()) == [] and calls(compiled.as_text()) == 2
        assert compiled(operands)[0] == oracle(grads)


@scenario(
    **{
        f"{kind}-{name}": dict(kind=kind, where=where)
        for kind in PURE
        for name, where in (("members", {}), ("both", {(16, 24): P(None, "b"), (4, 6): P("b")}))
    }
)
def norm_of_each_member(kind: str, where: Any) -> None:
    """Members along one axis of the mesh, some leaves along the other too."""
    grads, mesh = numbers(1, (8,)), mesh_of(kind)
    found = jax.jit(jax.vmap(limits))
    with entered(mesh):
        factors, is_finite = found(place(grads, mesh, ("a",), {**dict.fromkeys(WHERE, P()), **where}))
    assert is_finite.all()
    close(factors, np.array([oracle(grads, i) for i in range(8)]))


@scenario(checked=dict(check=True), unchecked=dict(check=False))
def norm_in_shard_map(check: bool) -> None:
    """Each device has the norm of what it holds, as optax has it there."""
    mesh = mesh_of("auto")
    grads = {"w": np.arange(32, dtype=np.float32).reshape(8, 4), "b": np.ones(3, np.float32)}

    def found(grads: Any) -> Any:
        return limited(jax.tree.leaves(grads), jnp.float32(1), MOST)[0][None]

    specs = {"w": P(("a", "b")), "b": P()}
    step = jax.jit(jax.shard_map(found, mesh=mesh, in_specs=(specs,), out_specs=P(("a", "b")), check_vma=check))
    rows = [oracle({"b": grads["b"], "w": grads["w"][i]}) for i in range(8)]
    sharded = jax.device_put(grads, jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs))
    assert np.array_equal(step(sharded), rows)


@scenario(**{kind: dict(kind=kind) for kind in PURE})
def norm_in_shard_map_along_one_axis(kind: str) -> None:
    """Along the other axis XLA adds up."""
    mesh = mesh_of(kind)
    grads = {"b": np.ones(3, np.float32), "w": np.arange(32, dtype=np.float32).reshape(8, 4)}

    def found(grads: Any) -> Any:
        return limited(jax.tree.leaves(grads), jnp.float32(1), MOST)[0][None]

    specs = {"b": P(), "w": P("a")}
    with entered(mesh):
        step = jax.jit(jax.shard_map(found, mesh=mesh, in_specs=(specs,), out_specs=P("a"), axis_names={"a"}))
        where = {"b": P(), "w": P("a", "b")} if kind == "auto" else specs
        sharded = jax.device_put(grads, jax.tree.map(lambda spec: NamedSharding(mesh, spec), where))
        rows = [oracle({"b": grads["b"], "w": grads["w"][2 * i : 2 * i + 2]}) for i in range(4)]
        close(step(sharded), np.array(rows))
