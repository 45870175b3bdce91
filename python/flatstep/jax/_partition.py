"""Keeps steps of sharded arrays where their shards are. For flatstep.jax only.

Left to itself XLA would gather whole arrays on every device before a call that it does not know.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P


@functools.cache
def on_all_devices() -> Any:
    """A parameter for an operation whose lowering needs to know the devices.

    jax tells them where custom_partitioning occurs in a program, or in the parameters of its operations.
    """
    wrapped = custom_partitioning(lambda x: x)
    wrapped.def_partition(None)
    return jax.make_jaxpr(wrapped)(0.0)


def sharded_together(step: Any, operands: Sequence[Any]) -> Sequence[Any]:
    """The operands with those of a leaf sharded alike, where shardings are part of types.

    They may come otherwise, as state does that each device holds a part of.
    """
    mesh = mesh_of(operands)
    if mesh is None:
        return operands
    _check_mixture(mesh, in_batches=operands[0].ndim > 0)
    if explicit_axes(mesh):
        together = _specs(step, operands)[1]
        operands = [_reshard(x, mesh, spec) for x, spec in zip(operands, together, strict=True)]
    return _varying_together(step, operands)


def sharded_as_before(step: Any, operands: Sequence[Any], results: Sequence[Any]) -> Sequence[Any]:
    """The results, with parameters and state sharded as they were; updates as jax's own arithmetic would have them."""
    mesh = mesh_of(operands)
    if mesh is None or not explicit_axes(mesh):
        return results
    own = _specs(step, operands)[0]
    return [
        x if source >= step.first_grad else _reshard(x, mesh, own[source])
        for source, x in zip(step.sources, results, strict=True)
    ]


def by_shards(call: Callable[..., Any], step: Any, operands: Sequence[Any]) -> Any:
    """The call on each device's shards, of operands that are sharded together."""
    mesh = mesh_of(operands)
    explicit = set() if mesh is None else explicit_axes(mesh)
    if not explicit:
        return _partitioned(call, step, operands)(*operands)

    def on_shards(*shards: Any) -> Any:
        return _partitioned(call, step, shards)(*_varying_together(step, shards))

    specs = [jax.typeof(x).sharding.spec for x in operands]
    return jax.shard_map(
        on_shards,
        mesh=mesh,
        in_specs=tuple(specs),
        out_specs=tuple(specs[source] for source in step.sources),
        # Left out, they are all, but for those that a vmap goes along (which jax 0.8.1 to 0.9.1 then reject in specs).
        axis_names=set() if len(explicit) == len(mesh.axis_names) else explicit,
    )(*operands)


def _partitioned(call: Callable[..., Any], step: Any, operands: Sequence[Any]) -> Callable[..., Any]:
    """The call that XLA's partitioner carries out shard by shard: each leaf is sharded as its first result."""

    def positional(*arrays: Any) -> Any:
        return tuple(call(*arrays))

    mesh = mesh_of(operands)
    if mesh is not None and AxisType.Auto not in mesh.axis_types:
        return positional
    owners = _owners(step, len(operands))
    batch = operands[0].ndim

    def infer(mesh: Any, operand_shapes: Any, result_shapes: Any) -> Any:
        # Called by XLA's partitioner before Shardy alone, and before all shardings are known.
        known: dict[int | None, Any] = {}
        for owner, x in zip(owners, operand_shapes, strict=True):
            if x.sharding is not None:
                known.setdefault(owner, x.sharding)
        return tuple(known.get(owners[source], NamedSharding(mesh, P())) for source in step.sources)

    def partition(mesh: Any, operand_shapes: Any, result_shapes: Any) -> Any:
        leaves = _aligned(batch, [shape.sharding for shape in result_shapes[: step.leaves]])
        numbers = _of_numbers(batch, leaves[0], operand_shapes[0].sharding)
        operand_shardings = tuple(numbers if owner is None else leaves[owner] for owner in owners)
        return mesh, positional, tuple(operand_shardings[source] for source in step.sources), operand_shardings

    rule = _sharding_rule(owners, [x.ndim for x in operands], step)
    wrapped = custom_partitioning(positional)
    wrapped.def_partition(partition, infer_sharding_from_operands=infer, sharding_rule=rule)
    return wrapped


def joined(one: P, other: P) -> P | None:
    """How jax shards the sum of two arrays: an axis as that one does which shards it. None where they contradict."""
    length = max(len(one), len(other))
    pairs = list(zip(padded(one, length), padded(other, length), strict=True))
    entries = [y if x is None else x for x, y in pairs]
    names = [name for entry in entries for name in axes_in(entry)]
    agree = all(x is None or y is None or x == y for x, y in pairs) and len(names) == len(set(names))
    return P(*entries) if agree else None


def mesh_of(operands: Sequence[Any]) -> Any:
    """The mesh that the types of arrays know of, None where they know of none."""
    return next((mesh for mesh in (jax.typeof(x).sharding.mesh for x in operands) if not mesh.empty), None)


def explicit_axes(mesh: Any) -> set[str]:
    """The names of its explicit axes."""
    return {name for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True) if kind == AxisType.Explicit}


def _check_mixture(mesh: Any, in_batches: bool) -> None:
    """Raises where jax cannot tell, on a mesh with Auto axes beside others, how arrays are sharded along these."""
    kinds = set(mesh.axis_types)
    if AxisType.Auto not in kinds or len(kinds) == 1:
        return
    if in_batches:
        raise NotImplementedError(
            f"vmap of a flatstep step on a mesh with Auto axes beside others ({mesh.axis_types}): make all of its axes "
            "Explicit, or all Auto"
        )
    if AxisType.Explicit in kinds and jax.sharding.get_abstract_mesh().empty:
        raise ValueError(
            f"a flatstep step on a mesh with Auto axes beside Explicit ones ({mesh.axis_types}) must be called within "
            "jax.set_mesh(mesh)"
        )


def _specs(step: Any, operands: Sequence[Any]) -> tuple[list[P], tuple[P, ...]]:
    """How operands are sharded by their types, and how they have to be for a step: all of a leaf alike.

    The axes of a batch are sharded as the first leaf's.
    """
    own = [jax.typeof(x).sharding.spec for x in operands]
    batch = operands[0].ndim
    of_batch = tuple(own[step.begin])[:batch]
    own = [P(*of_batch, *tuple(spec)[batch:]) for spec in own]
    owners = _owners(step, len(operands))
    of_leaf: dict[int | None, P] = {None: own[0]}
    for owner, spec in zip(owners, own, strict=True):
        if owner is not None:
            of_leaf[owner] = joined(of_leaf.get(owner, spec), spec) or spec
    return own, tuple(of_leaf[owner] for owner in owners)


def _reshard(x: Any, mesh: Any, spec: P) -> Any:
    kind = jax.typeof(x).sharding
    return x if kind.mesh == mesh and kind.spec == spec else jax.sharding.reshard(x, NamedSharding(mesh, spec))


def _varying_together(step: Any, operands: Sequence[Any]) -> Sequence[Any]:
    """Inside of shard_map: a leaf differs from device to device if its gradient or a number does, as do its results."""
    owners = _owners(step, len(operands))
    of_numbers: set[str] = set().union(*map(varying_axes, operands[: step.begin]))
    of_leaf = [set(of_numbers) for _ in range(step.leaves)]
    for owner, x in zip(owners, operands, strict=True):
        if owner is not None:
            of_leaf[owner] |= varying_axes(x)
    return [x if owner is None else vary(x, of_leaf[owner]) for owner, x in zip(owners, operands, strict=True)]


def varying_axes(x: Any) -> set[str]:
    """The axes of the mesh along which an array differs from device to device, as far as its type says."""
    kind = jax.typeof(x)
    axes = kind.manual_axis_type.varying if hasattr(kind, "manual_axis_type") else kind.vma
    return set(axes)


def vary(x: Any, axes: set[str]) -> Any:
    missing = tuple(sorted(axes - varying_axes(x)))
    if not missing:
        return x
    if hasattr(jax.lax, "pcast"):
        return jax.lax.pcast(x, missing, to="varying")
    return getattr(jax.lax, "pvary")(x, missing)  # noqa: B009  what it was called before


def _owners(step: Any, operands: int) -> list[int | None]:
    """For each operand the leaf that it belongs to: a result's index. None for numbers."""
    return [None if i < step.begin else (i - step.begin) % step.leaves for i in range(operands)]


def _aligned(batch: int, shardings: Sequence[Any]) -> Sequence[Any]:
    """The shardings of leaves, with one sharding of the batch's axes for all: the first leaf's."""
    if batch == 0:
        return shardings
    if not all(isinstance(sharding, NamedSharding) for sharding in shardings):
        raise NotImplementedError("flatstep: a batch of steps on a mesh of which only a part is manual")
    of_batch = padded(shardings[0].spec, batch)[:batch]
    taken = {axis for entry in of_batch for axis in axes_in(entry)}

    def align(sharding: Any) -> Any:
        own = [None if taken & set(axes_in(entry)) else entry for entry in sharding.spec[batch:]]
        return NamedSharding(sharding.mesh, P(*of_batch, *own))

    return [align(sharding) for sharding in shardings]


def _of_numbers(batch: int, of_leaf: Any, of_count: Any) -> Any:
    return NamedSharding(of_leaf.mesh, P(*padded(of_leaf.spec, batch)[:batch])) if batch else of_count


def padded(spec: P, length: int) -> tuple[Any, ...]:
    return (*spec, *(None,) * (length - len(spec)))


def axes_in(entry: Any) -> tuple[str, ...]:
    """The mesh axes of an entry of a PartitionSpec."""
    return () if entry is None else entry if isinstance(entry, tuple) else (entry,)


def _sharding_rule(owners: Sequence[int | None], axes: Sequence[int], step: Any) -> str:
    """What Shardy has to know: the axes of a leaf's operands and results go together, batch axes over all leaves."""
    batch = axes[0]

    def factors(owner: int | None, count: int) -> str:
        own = [f"l{owner}_{axis}" for axis in range(count - batch)]
        return " ".join([*(f"b{axis}" for axis in range(batch)), *own])

    operands = ", ".join(factors(owner, count) for owner, count in zip(owners, axes, strict=True))
    results = ", ".join(factors(owners[i], axes[i]) for i in step.sources)
    return f"{operands} -> {results}"


def axes_of(entries: Sequence[Any]) -> tuple[str, ...]:
    """The mesh axes of some entries of a PartitionSpec together."""
    return tuple(name for entry in entries for name in axes_in(entry))


def even(sharding: Any, shape: Sequence[int]) -> tuple[Any, ...]:
    """The entries of a sharding by which an array is divided into equal shards; None for other axes of it."""
    if not isinstance(sharding, NamedSharding):
        return (None,) * len(shape)
    sizes = sharding.mesh.shape
    return tuple(
        None if size % math.prod(sizes[name] for name in axes_in(entry)) else entry
        for entry, size in zip(padded(sharding.spec, len(shape)), shape, strict=True)
    )
