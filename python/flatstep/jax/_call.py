"""The step of some leaves as one operation: its form on each platform, under vmap, and sharded. For flatstep.jax only.

On the CPU and on CUDA devices it is a call of flatstep's kernels, which change parameters and state where they are;
elsewhere, and for dtypes without a kernel, it is the formula in jax.numpy (_fallback.py).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from .. import _core
from . import _fallback, _partition, _versions
from ._tail import STARTS, completed, computed_dtype

Array = Any


@dataclass(frozen=True)
class Step:
    """What is fixed when a step is compiled.

    Operands, in this order: the count, the traced numbers, whether to skip (if asked), the parameters (none where
    updates are made), for each slot the state of all leaves, the averages (if asked), the gradients. Count and numbers
    have the shape of the batch, () outside of vmap, whose axes are the first of all other operands. Results: the
    parameters or updates, the state and the averages, in the same order.
    """

    rule: str
    makes_update: bool
    numbers: tuple[float, ...]  # as SCALARS says, then the rule's own; 0 for those that are traced
    traced: tuple[int, ...]  # places in numbers
    leaves: int  # all of the same dtypes
    skips: bool = False
    average: tuple[str, float] | None = None  # what averages of the parameters start from, and their decay

    @property
    def slots(self) -> int:
        return len(_core.slots(self.rule))

    @property
    def begin(self) -> int:
        """The place of the first operand that is not a number."""
        return 1 + len(self.traced) + self.skips

    @property
    def first_grad(self) -> int:
        """The place of the first gradient, after which there are no others."""
        return self.begin + self.leaves * (self.slots + (not self.makes_update) + (self.average is not None))

    @property
    def sources(self) -> list[int]:
        """For each result the operand that it takes the place of."""
        state = list(range(self.begin, self.first_grad))
        grads = range(self.first_grad, self.first_grad + self.leaves)
        return [*grads, *state] if self.makes_update else state

    @property
    def names(self) -> tuple[str, ...]:
        return scalar_names(self.rule)

    def plain(self, operands: Sequence[Any]) -> tuple[Step, list[Any]]:
        """The same without skips and averages, and its operands."""
        numbers = operands[: self.begin - self.skips]
        averages = self.leaves * (self.average is not None)
        rest = [*operands[self.begin : self.first_grad - averages], *operands[self.first_grad :]]
        return replace(self, skips=False, average=None), [*numbers, *rest]

    def leaf(self, operands: Sequence[Any], index: int) -> tuple[Any, Any, dict[str, Any]]:
        """The parameter (or None), the gradient and the state by slot of one leaf of a plain step."""
        own = list(operands[self.begin + index :: self.leaves])
        param = None if self.makes_update else own.pop(0)
        return param, own.pop(), dict(zip(_core.slots(self.rule), own, strict=True))


@functools.cache
def scalar_names(rule: str) -> tuple[str, ...]:
    """The names of a step's numbers, in their order."""
    return (*_core.scalars, *_core.hyperparameters(rule))


def carry_out(step: Step, operands: Sequence[Array]) -> tuple[Array, ...]:
    """The results of the step."""
    form = functools.partial(_once, step) if is_searched() else _compiled(step)
    return tuple(form(*operands))


def is_searched() -> bool:
    """Whether JAX searches results for NaN or infinities: where jax.jit finds one, it calls its function again."""
    return bool(jax.debug_nans.value or jax.debug_infs.value)


@functools.lru_cache(maxsize=256)
def _compiled(step: Step) -> Any:
    # Inside of a larger program it becomes a part of that; alone, it is compiled once for a step.
    return jax.jit(functools.partial(_once, step), inline=True)


def _once(step: Step, *operands: Array) -> Any:
    together = _partition.sharded_together(step, operands)
    made = step_p.bind(*together, step=step, shards=_partition.on_all_devices())
    return _partition.sharded_as_before(step, operands, made)


def _dtypes(step: Step, operands: Sequence[Any]) -> tuple[str, str, list[str]]:
    """Of what is written, the gradient and the state of the first leaf, and so of all."""
    plain, own = step.plain(operands)
    param, grad, state = plain.leaf(own, 0)
    names = [np.dtype(x.dtype).name for x in (grad if param is None else param, grad, *state.values())]
    return names[0], names[1], names[2:]


def has_kernel(step: Step, operands: Sequence[Any]) -> bool:
    """Whether there is a kernel for the dtypes."""
    written, grad, state = _dtypes(step, operands)
    if step.average is not None:
        average = operands[step.first_grad - 1].dtype
        if average not in (np.dtype(operands[step.begin].dtype), computed_dtype(written)):
            return False
    return _core.has_kernel(step.rule, written, grad, state)


def kernel(*operands: Array, step: Step) -> list[Array]:
    """The call of the CPU's kernels: each result lies where its operand was."""
    return _call(_versions.registered_name(), step, operands, workspace=[])


def kernel_on_device(*operands: Array, step: Step) -> list[Array]:
    """The call of a device's kernels, and what they do not do: averages, and skipping."""
    plain, own = step.plain(operands)
    return completed(step, operands, _plain_on_device(plain, own))


def _plain_on_device(step: Step, operands: Sequence[Array]) -> list[Array]:
    """The kernels keep tables in one more result while they run."""
    batch = operands[0].shape
    counts = [math.prod(x.shape[len(batch) :]) for x in operands[-step.leaves :]]
    size = _versions.device_module().xla_workspace_bytes(
        step.rule, *_dtypes(step, operands), [count for count in counts if count > 0], math.prod(batch)
    )
    name = _versions.registered_name(on_device=True)
    return _call(name, step, operands, workspace=[jax.ShapeDtypeStruct((size,), np.uint8)])[: len(step.sources)]


def _call(name: str, step: Step, operands: Sequence[Array], workspace: list[Any]) -> list[Array]:
    call = jax.ffi.ffi_call(
        name,
        [jax.ShapeDtypeStruct(operands[i].shape, operands[i].dtype) for i in step.sources] + workspace,
        input_output_aliases={source: result for result, source in enumerate(step.sources)},
    )
    attributes = dict(
        rule=step.rule,
        makes_update=step.makes_update,
        numbers=np.array(step.numbers, np.float64),
        traced=np.array(step.traced, np.int32),
        skips=step.skips,
        average=np.int32(0 if step.average is None else 1 + STARTS.index(step.average[0])),
        decay=np.float64(0.0 if step.average is None else step.average[1]),
    )
    return list(call(*operands, **attributes))


def _shapes(*operands: Any, step: Step, shards: Any) -> list[Any]:
    return [operands[i].update(weak_type=False) for i in step.sources]


def _evaluate(*operands: Array, step: Step, shards: Any) -> list[Array]:
    # Where JAX runs operation by operation: jax.checkpoint outside of a program, jax.disable_jit, a search for NaN.
    # There JAX's own search would start again at each failure; so it is done here.
    with jax.disable_jit(False), jax.debug_nans(False), jax.debug_infs(False):
        made = list(carry_out(step, operands))
    _check_values(made)
    return made


def _check_values(arrays: Sequence[Array]) -> None:
    """FloatingPointError where jax_debug_nans or jax_debug_infs is on, and finds something."""
    searches = {"nan": (jax.debug_nans.value, jnp.isnan), "inf": (jax.debug_infs.value, jnp.isinf)}
    for kind, (is_on, is_found) in searches.items():
        if is_on and any(bool(is_found(x).any()) for x in arrays):
            raise FloatingPointError(f"invalid value ({kind}) encountered in {step_p.name}")


def _batched(operands: Sequence[Array], axes: Sequence[int | None], *, step: Step, shards: Any) -> Any:
    """Under vmap, a step whose operands have one axis more, the first, and which is still one call."""
    made = carry_out(step, widened(operands, axes))
    return made, [0] * len(made)


def widened(operands: Sequence[Array], axes: Sequence[int | None]) -> list[Array]:
    """The operands under vmap, all with the mapped axis first."""
    size = next(x.shape[axis] for x, axis in zip(operands, axes, strict=True) if axis is not None)
    return [
        jnp.broadcast_to(x, (size, *x.shape)) if axis is None else jnp.moveaxis(x, axis, 0)
        for x, axis in zip(operands, axes, strict=True)
    ]


def differentiated(*_: Any, **__: Any) -> NoReturn:
    raise TypeError(
        "a flatstep step cannot be differentiated: its kernels have no derivative; differentiate the loss alone, "
        "put jax.lax.stop_gradient around all that goes into the step, or, to train through steps, use optax"
    )


def _lower(form: Any, context: Any, *operands: Any, step: Step, shards: Any) -> Any:
    """The form itself where arrays are whole on a device, else a form for each device's shards."""

    def on_shards(*arrays: Array) -> Any:
        return _partition.by_shards(functools.partial(step_p.bind, step=step, shards=None), step, arrays)

    function = functools.partial(form, step=step) if on_one_device(context, shards) else on_shards
    return mlir.lower_fun(function, multiple_results=True)(context, *operands)


def on_one_device(context: Any, shards: Any) -> bool:
    """Whether arrays are whole on a device. Where the number of devices is not known, the longer way is right too."""
    return shards is None or getattr(context.module_context.axis_context, "num_devices", 0) == 1


def _lower_on_cpu(context: Any, *operands: Any, step: Step, shards: Any) -> Any:
    form = kernel if has_kernel(step, context.avals_in) else _fallback.step_leaves
    return _lower(form, context, *operands, step=step, shards=shards)


def _lower_on_cuda(context: Any, *operands: Any, step: Step, shards: Any) -> Any:
    avals = context.avals_in
    # The size of the tables follows from the shapes, which an export may leave open.
    is_known = all(isinstance(n, int) for aval in avals for n in aval.shape)
    fused = _versions.device_module() is not None and has_kernel(step, avals) and is_known
    return _lower(kernel_on_device if fused else _fallback.step_leaves, context, *operands, step=step, shards=shards)


# One operation for a step. ``shards`` is None where its arrays are those of one device. What a platform does is chosen
# when a program is lowered for it: to trace both forms takes seconds for large models.
step_p = Primitive("flatstep_step")
step_p.multiple_results = True
step_p.def_abstract_eval(_shapes)
step_p.def_impl(_evaluate)
batching.primitive_batchers[step_p] = _batched
ad.primitive_jvps[step_p] = differentiated
mlir.register_lowering(step_p, functools.partial(_lower, _fallback.step_leaves))
mlir.register_lowering(step_p, _lower_on_cpu, platform="cpu")
mlir.register_lowering(step_p, _lower_on_cuda, platform="cuda")
