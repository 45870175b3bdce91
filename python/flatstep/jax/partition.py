"""Keeps steps of sharded arrays where their shards are. For flatstep.jax only.

Left to itself XLA would gather whole arrays on every device before a call that it does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from jax.experimental.custom_partitioning import custom_partitioning


def partitioned(call: Callable[..., Any], step: Any, operands: Sequence[Any]) -> Callable[..., Any]:
    """The call, carried out shard by shard: each leaf is sharded as the operand that its result takes the place of."""
    owners = _owners(step, len(operands))

    def infer(mesh: Any, operand_shapes: Any, result_shapes: Any) -> Any:
        return [operand_shapes[source].sharding for source in step.sources]

    def partition(mesh: Any, operand_shapes: Any, result_shapes: Any) -> Any:
        results = [shape.sharding for shape in result_shapes]
        shardings = [
            operand_shapes[i].sharding if owner is None else results[owner] for i, owner in enumerate(owners)
        ]
        return mesh, call, results, shardings

    def positional(*arrays: Any) -> Any:
        return call(*arrays)

    rule = _sharding_rule(owners, [x.ndim for x in operands], step)
    wrapped = custom_partitioning(positional)
    wrapped.def_partition(partition, infer_sharding_from_operands=infer, sharding_rule=rule)
    return wrapped


def _owners(step: Any, operands: int) -> list[int | None]:
    """For each operand the leaf that it belongs to: a result's index. None for numbers."""
    return [None if i < step.begin else (i - step.begin) % step.leaves for i in range(operands)]


def _sharding_rule(owners: Sequence[int | None], axes: Sequence[int], step: Any) -> str:
    """What Shardy has to know: the axes of a leaf's operands and results go together, batch axes over all leaves."""
    batch = axes[0]

    def factors(owner: int | None, count: int) -> str:
        own = [f"l{owner}_{axis}" for axis in range(count - batch)]
        return " ".join([*(f"b{axis}" for axis in range(batch)), *own])

    operands = ", ".join(factors(owner, count) for owner, count in zip(owners, axes, strict=True))
    results = ", ".join(factors(owners[i], axes[i]) for i in step.sources)
    return f"{operands} -> {results}"
