"""Limits on gradients as one operation: their norm together, and whether all of them are finite. For flatstep.jax only.

On the CPU kernels read the gradients, block by block in the order of each shape, and add in float64; elsewhere, and for
dtypes without kernels, it is the formula in jax.numpy.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.custom_partitioning import custom_partitioning
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from . import _partition, _versions
from ._call import differentiated, is_searched, on_one_device, widened

Array = Any

_DTYPES = ("float16", "bfloat16", "float32", "float64")
_WORDS = 4  # of a sum of squares and its check, as the handlers pass them (xla_norm.h)
_NONE, _FIXED, _OPERAND = range(3)  # where max_norm is


@dataclass(frozen=True)
class Limits:
    """What is fixed when a step is compiled.

    Operands: the scale, max_norm where it is traced, and the gradients that have elements. Under vmap all have the
    axes of the batch first. Results: the scale to step with, and whether all numbers are finite.
    """

    max_norm: float | None
    is_traced: bool
    leaves: int

    @property
    def begin(self) -> int:
        """The place of the first gradient."""
        return 2 if self.is_traced else 1

    @property
    def attributes(self) -> dict[str, Any]:
        where = _OPERAND if self.is_traced else _NONE if self.max_norm is None else _FIXED
        return dict(max_norm=np.float64(self.max_norm or 0.0), limit=np.int32(where))


def limited(grads: Sequence[Array], scale: Array, max_norm: Any) -> tuple[Array, Array]:
    """The scale with which gradients of that norm are stepped, and whether all numbers are finite, times the scale.

    ``max_norm`` is None, a float, or an array of no axes. Of gradients without elements the scale stays.
    """
    grads = [grad for grad in grads if 0 not in grad.shape]
    if not grads:
        return scale, jnp.ones((), bool)
    is_traced = not isinstance(max_norm, (float, type(None)))
    limits = Limits(None if is_traced else max_norm, is_traced, len(grads))
    found = _carry_out(limits, [scale, *([max_norm] if is_traced else []), *grads])
    return found[0], found[1]


def _carry_out(limits: Limits, operands: Sequence[Array]) -> tuple[Array, ...]:
    form = functools.partial(_once, limits) if is_searched() else _compiled(limits)
    return tuple(form(*operands))


@functools.lru_cache(maxsize=256)
def _compiled(limits: Limits) -> Any:
    return jax.jit(functools.partial(_once, limits), inline=True)


def _once(limits: Limits, *operands: Array) -> Any:
    scale, *others = _partition.sharded_together(limits, operands)
    axes: set[str] = set().union(*map(_partition.varying_axes, [scale, *others]))
    return limits_p.bind(_partition.vary(scale, axes), *others, limits=limits, shards=_partition.on_all_devices())


def _shapes(*operands: Any, **_: Any) -> list[Any]:
    scale = operands[0].update(weak_type=False)
    return [scale, scale.update(dtype=np.dtype(bool))]


def _evaluate(*operands: Array, limits: Limits, shards: Any) -> list[Array]:
    # A scale that is not finite is none of the results that JAX searches: the step is skipped, or makes others.
    with jax.disable_jit(False), jax.debug_nans(False), jax.debug_infs(False):
        return list(_carry_out(limits, operands))


def _batched(operands: Sequence[Array], axes: Sequence[int | None], *, limits: Limits, shards: Any) -> Any:
    made = _carry_out(limits, widened(operands, axes))
    return made, [0] * len(made)


# --- The kernels' form: three calls, the sums in two words of 32 bits for each float64. ------------------------------


def _foreign(name: str, shapes: Any) -> Primitive:
    """An operation that is a call of one of the CPU's handlers. Under shard_map types are as the first operand's."""

    def lower(context: Any, *operands: Any, **attributes: Any) -> Any:
        return jax.ffi.ffi_lowering(_versions.registered_norm(name))(context, *operands, **attributes)

    primitive = Primitive(f"flatstep_{name}")
    primitive.multiple_results = True
    primitive.def_abstract_eval(shapes)
    mlir.register_lowering(primitive, lower, platform="cpu")
    return primitive


def _words(like: Any, shape: tuple[int, ...]) -> list[Any]:
    sharding = NamedSharding(like.sharding.mesh, P(*(None for _ in shape)))
    return [like.update(shape=shape, dtype=np.dtype(np.uint32), weak_type=False, sharding=sharding)]


_square_sums_p = _foreign("square_sums", lambda scale, *grads: _words(scale, (*scale.shape, len(grads), _WORDS)))
_add_sums_p = _foreign("add_sums", lambda sums: _words(sums, sums.shape[1:]))
_limits_p = _foreign("limits", _shapes)


def kernel(*operands: Array, limits: Limits) -> list[Array]:
    """The calls of the CPU's kernels, which give the bits of flatstep.global_norm."""
    sums = _square_sums_p.bind(operands[0], *operands[limits.begin :])
    return list(_limits_p.bind(*operands[: limits.begin], *sums, **limits.attributes))


def _kernel_on_shards(
    operands: Sequence[Array], limits: Limits, axes: Sequence[tuple[str, ...]], sizes: dict[str, int]
) -> list[Array]:
    """The same of each device's shards, where the axes of the mesh along which each gradient is sharded are known."""
    everywhere = tuple(sorted({axis for own in axes for axis in own}))
    numbers, grads = operands[: limits.begin], operands[limits.begin :]
    is_typed = _partition.mesh_of(grads) is not None  # in shard_map, but not in XLA's partitioner
    [sums] = _square_sums_p.bind(_partition.vary(numbers[0], set(everywhere)) if is_typed else numbers[0], *grads)
    alike: dict[tuple[str, ...], list[int]] = {}
    for index, own in enumerate(axes):
        alike.setdefault(own, []).append(index)
    parts = []
    for own, chosen in alike.items():
        part = sums if len(alike) == 1 else sums[..., np.array(chosen), :]
        parts.append(_across(part, own, everywhere, sizes) if everywhere else part)
    return list(_limits_p.bind(*numbers, *parts, **limits.attributes))


def _across(sums: Array, own: tuple[str, ...], everywhere: tuple[str, ...], sizes: dict[str, int]) -> Array:
    """The sums of shards added up. Each stands alone in its place until then, so that words are added to zeros."""
    count = math.prod(sizes[axis] for axis in own)
    is_first = jnp.ones((), bool)  # of those that hold the same
    for axis in everywhere:
        if axis not in own:
            is_first &= jax.lax.axis_index(axis) == 0
    at = jax.lax.axis_index(own) if own else 0
    is_here = (jnp.arange(count) == at) & is_first
    alone = jnp.where(is_here.reshape(-1, *(1 for _ in sums.shape)), sums, jnp.zeros((), np.uint32))
    [total] = _add_sums_p.bind(jax.lax.psum(alone, everywhere))
    return total


def _kernel_by_shards(*operands: Array, limits: Limits) -> Any:
    mesh = _partition.mesh_of(operands)
    if mesh is None or AxisType.Auto in mesh.axis_types:
        return _partitioned(limits, operands)(*operands)
    if AxisType.Explicit not in mesh.axis_types:  # inside of shard_map
        return kernel(*operands, limits=limits)
    specs = [jax.typeof(x).sharding.spec for x in operands]
    batch = operands[0].ndim
    axes = [_partition.axes_of(tuple(spec)[batch:]) for spec in specs[limits.begin :]]
    of_numbers = P(*_partition.padded(specs[limits.begin], batch)[:batch])
    explicit = _partition.explicit_axes(mesh)
    return jax.shard_map(
        lambda *shards: _kernel_on_shards(shards, limits, axes, dict(mesh.shape)),
        mesh=mesh,
        in_specs=tuple(specs),
        out_specs=[of_numbers, of_numbers],
        axis_names=set() if len(explicit) == len(mesh.axis_names) else explicit,
    )(*operands)


def _partitioned(limits: Limits, operands: Sequence[Array]) -> Any:
    """The call that XLA's partitioner carries out shard by shard."""
    batch = operands[0].ndim

    def partition(mesh: Any, operand_shapes: Any, result_shapes: Any) -> Any:
        grads = operand_shapes[limits.begin :]
        specs = [_partition.even(x.sharding, x.shape) for x in grads]
        of_batch = specs[0][:batch]
        of_numbers = NamedSharding(mesh, P(*of_batch))
        taken = {name for entry in of_batch for name in _partition.axes_in(entry)}
        own = [[None if taken & {*_partition.axes_in(e)} else e for e in spec[batch:]] for spec in specs]
        axes = [_partition.axes_of(entries) for entries in own]
        shardings = [of_numbers] * limits.begin + [NamedSharding(mesh, P(*of_batch, *entries)) for entries in own]

        def on_shards(*shards: Array) -> Any:
            return tuple(_kernel_on_shards(shards, limits, axes, dict(mesh.shape)))

        return mesh, on_shards, (of_numbers, of_numbers), tuple(shardings)

    def infer(mesh: Any, operand_shapes: Any, result_shapes: Any) -> Any:
        of_batch = _partition.even(operand_shapes[limits.begin].sharding, operand_shapes[limits.begin].shape)[:batch]
        return (NamedSharding(mesh, P(*of_batch)),) * 2

    wrapped = custom_partitioning(lambda *arrays: tuple(kernel(*arrays, limits=limits)))
    rule = _sharding_rule([x.ndim for x in operands], limits)
    wrapped.def_partition(partition, infer_sharding_from_operands=infer, sharding_rule=rule)
    return wrapped


def _sharding_rule(axes: Sequence[int], limits: Limits) -> str:
    """What Shardy has to know: the axes of the batch go through all, and no others belong together."""
    batch = " ".join(f"b{axis}" for axis in range(axes[0]))
    own = [" ".join(f"l{leaf}_{axis}" for axis in range(count - axes[0])) for leaf, count in enumerate(axes)]
    return ", ".join(f"{batch} {factors}".strip() for factors in own) + f" -> {batch}, {batch}"


# --- The formula. -----------------------------------------------------------------------------------------------------


def formula(*operands: Array, limits: Limits) -> list[Array]:
    """The same in jax.numpy, as optax has it. Sums are float32, or float64 where a gradient is."""
    scale, grads = operands[0], operands[limits.begin :]
    wide = any(grad.dtype in (np.float64, np.complex128) for grad in grads)
    compute: Any = np.float64 if wide else np.float32
    total, is_finite = jnp.zeros(scale.shape, compute), jnp.ones(scale.shape, bool)
    for grad in grads:
        own = tuple(range(scale.ndim, grad.ndim))
        numbers = jnp.expand_dims(scale.astype(compute), own) * _computed(grad, compute)
        total += jnp.sum(jnp.real(numbers) ** 2 + jnp.imag(numbers) ** 2, axis=own)
        is_finite &= jnp.all(jnp.isfinite(numbers), axis=own)
    if not limits.is_traced and limits.max_norm is None:
        return [scale, is_finite]
    norm = jnp.sqrt(total)
    most = operands[1].astype(compute) if limits.is_traced else compute(limits.max_norm)
    factor = jnp.where(norm <= most, 1, most / norm)
    return [scale * factor.astype(scale.dtype), is_finite]


def _computed(grad: Array, compute: Any) -> Array:
    return grad.astype(np.result_type(compute, np.complex64) if jnp.iscomplexobj(grad) else compute)


# --- The operation. ---------------------------------------------------------------------------------------------------


def _lower(context: Any, *operands: Any, limits: Limits, shards: Any) -> Any:
    function = functools.partial(formula, limits=limits)
    return mlir.lower_fun(function, multiple_results=True)(context, *operands)


def _lower_on_cpu(context: Any, *operands: Any, limits: Limits, shards: Any) -> Any:
    grads = context.avals_in[limits.begin :]
    form = kernel if on_one_device(context, shards) else _kernel_by_shards
    if any(np.dtype(grad.dtype).name not in _DTYPES for grad in grads) or _is_mixed(context, grads, shards):
        form = formula
    return mlir.lower_fun(functools.partial(form, limits=limits), multiple_results=True)(context, *operands)


def _is_mixed(context: Any, grads: Sequence[Any], shards: Any) -> bool:
    """Whether arrays are on a mesh that has Auto axes beside others: XLA alone adds up over those."""
    meshes = [grad.sharding.mesh for grad in grads if not grad.sharding.mesh.empty]
    kinds = {kind for mesh in meshes for kind in mesh.axis_types}
    return AxisType.Auto in kinds and len(kinds) > 1 and not on_one_device(context, shards)


limits_p = Primitive("flatstep_limits")
limits_p.multiple_results = True
limits_p.def_abstract_eval(_shapes)
limits_p.def_impl(_evaluate)
batching.primitive_batchers[limits_p] = _batched
ad.primitive_jvps[limits_p] = differentiated
mlir.register_lowering(limits_p, _lower)
mlir.register_lowering(limits_p, _lower_on_cpu, platform="cpu")
