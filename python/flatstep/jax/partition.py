"""Keeps steps of sharded arrays where their shards are. For flatstep.jax only.

Left to itself XLA would gather whole arrays on every device before a call that it does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P


def partitioned(call: Callable[..., Any], step: Any, operands: Sequence[Any]) -> Callable[..., Any]:
    """The call, carried out shard by shard: each leaf is sharded as the operand that its result takes the place of."""

    def positional(*arrays: Any) -> Any:
        return tuple(call(*arrays))

    mesh = _mesh(operands)
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


def by_shards(carry_out: Callable[..., Any], step: Any, operands: Sequence[Any]) -> Any:
    """The results of a step where shardings are part of types: shard by shard on the explicit axes of a mesh."""
    mesh = _mesh(operands)
    if mesh is None:
        return carry_out(*operands)
    _check_mixture(mesh, in_batches=operands[0].ndim > 0)
    explicit = {name for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True) if kind == AxisType.Explicit}
    if not explicit:
        return carry_out(*_varying_together(step, operands))
    specs = _specs(step, operands)
    sharded = jax.shard_map(
        lambda *shards: carry_out(*_varying_together(step, shards)),
        mesh=mesh,
        in_specs=specs,
        out_specs=tuple(specs[source] for source in step.sources),
        # Left out, they are all, but for those that a vmap goes along (which jax 0.8.1 to 0.9.1 then refuse in specs).
        axis_names=set() if len(explicit) == len(mesh.axis_names) else explicit,
    )
    return sharded(
        *(jax.sharding.reshard(x, NamedSharding(mesh, spec)) for x, spec in zip(operands, specs, strict=True))
    )


def _mesh(operands: Sequence[Any]) -> Any:
    """The mesh that the types of arrays know of, None where they know of none."""
    return next((mesh for mesh in (jax.typeof(x).sharding.mesh for x in operands) if not mesh.empty), None)


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


def merged(specs: Sequence[P]) -> P | None:
    """The sharding of the elementwise result of arrays with these: a dimension is split as one of them splits it.

    None where two of them split it in different ways, or where an axis of the mesh would be used twice.
    """
    rank = max(map(len, specs))
    entries = []
    for dimension in zip(*(_padded(spec, rank) for spec in specs), strict=True):
        split = {entry for entry in dimension if entry is not None}
        if len(split) > 1:
            return None
        entries.append(split.pop() if split else None)
    names = [name for entry in entries for name in _names(entry)]
    return P(*entries) if len(names) == len(set(names)) else None


def _specs(step: Any, operands: Sequence[Any]) -> tuple[P, ...]:
    """How operands are to be sharded: those of a leaf alike, as their types say, and all along a batch as the first."""
    specs = [jax.typeof(x).sharding.spec for x in operands]
    of_batch = tuple(specs[step.begin])[: operands[0].ndim]
    owners = _owners(step, len(operands))
    of_leaf: dict[int | None, P] = {}
    for leaf in range(step.leaves):
        own = [P(*tuple(spec)[len(of_batch) :]) for spec, owner in zip(specs, owners, strict=True) if owner == leaf]
        common = merged(own)
        if common is None:
            raise ValueError(f"the arrays of a leaf are sharded as {own}, along different axes; reshard them")
        of_leaf[leaf] = common
    return tuple(P(*of_batch) if owner is None else P(*of_batch, *of_leaf[owner]) for owner in owners)


def _varying_together(step: Any, operands: Sequence[Any]) -> Sequence[Any]:
    """Inside of shard_map: a leaf differs from device to device if its gradient or a number does, as do its results."""
    owners = _owners(step, len(operands))
    of_numbers: set[str] = set().union(*map(_varying, operands[: step.begin]))
    of_leaf = [set(of_numbers) for _ in range(step.leaves)]
    for owner, x in zip(owners, operands, strict=True):
        if owner is not None:
            of_leaf[owner] |= _varying(x)
    return [x if owner is None else _vary(x, of_leaf[owner]) for owner, x in zip(owners, operands, strict=True)]


def _varying(x: Any) -> set[str]:
    """The axes of the mesh along which an array differs from device to device, as far as its type says."""
    kind = jax.typeof(x)
    axes = kind.manual_axis_type.varying if hasattr(kind, "manual_axis_type") else kind.vma
    return set(axes)


def _vary(x: Any, axes: set[str]) -> Any:
    missing = tuple(sorted(axes - _varying(x)))
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
    of_batch = _padded(shardings[0].spec, batch)[:batch]
    taken = {axis for entry in of_batch for axis in _names(entry)}

    def align(sharding: Any) -> Any:
        own = [None if taken & set(_names(entry)) else entry for entry in sharding.spec[batch:]]
        return NamedSharding(sharding.mesh, P(*of_batch, *own))

    return [align(sharding) for sharding in shardings]


def _of_numbers(batch: int, of_leaf: Any, of_count: Any) -> Any:
    return NamedSharding(of_leaf.mesh, P(*_padded(of_leaf.spec, batch)[:batch])) if batch else of_count


def _padded(spec: P, length: int) -> tuple[Any, ...]:
    return (*spec, *(None,) * (length - len(spec)))


def _names(entry: Any) -> tuple[str, ...]:
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
