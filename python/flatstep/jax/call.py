"""The step of some leaves as one operation: its form on each platform, under vmap, and sharded. For flatstep.jax only.

On the CPU and on CUDA devices it is a call of flatstep's kernels, which change parameters and state where they are;
elsewhere, and for dtypes without a kernel, it is the formula in jax.numpy.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jax.extend.core import Primitive
from jax.interpreters import mlir

from .. import _core
from . import fallback, partition, versions

Array = Any


@dataclass(frozen=True)
class Step:
    """What is fixed when a step is compiled.

    Operands, in this order: the count, the traced numbers, the parameters (none where updates are made), for each slot
    the state of all leaves, the gradients. Count and numbers have the shape of the batch, () outside of vmap, whose
    axes are the first of all other operands. Results: the parameters or updates, and the state, in the same order.
    """

    rule: str
    makes_update: bool
    numbers: tuple[float, ...]  # as SCALARS says, then the rule's own; 0 for those that are traced
    traced: tuple[int, ...]  # places in numbers
    leaves: int  # all of the same dtypes

    @property
    def slots(self) -> int:
        return len(_core.slots(self.rule))

    @property
    def begin(self) -> int:
        """The place of the first operand that is not a number."""
        return 1 + len(self.traced)

    @property
    def first_grad(self) -> int:
        """The place of the first gradient, after which there are no others."""
        return self.begin + self.leaves * (self.slots + (0 if self.makes_update else 1))

    @property
    def sources(self) -> list[int]:
        """For each result the operand that it takes the place of."""
        state = list(range(self.begin, self.first_grad))
        grads = range(self.first_grad, self.first_grad + self.leaves)
        return [*grads, *state] if self.makes_update else state

    def leaf(self, operands: Sequence[Any], index: int) -> tuple[Any, Any, list[Any]]:
        """The parameter (or None), the gradient and the state of one leaf."""
        streams = [operands[i : i + self.leaves] for i in range(self.begin, len(operands), self.leaves)]
        param = None if self.makes_update else streams.pop(0)[index]
        return param, streams[-1][index], [slot[index] for slot in streams[:-1]]


@functools.cache
def scalar_names(rule: str) -> tuple[str, ...]:
    """The names of a step's numbers, in their order."""
    return (*versions.handler_module().scalars, *_core.hyperparameters(rule))


def carry_out(step: Step, operands: Sequence[Array]) -> tuple[Array, ...]:
    """The results of the step."""
    return tuple(_compiled(step)(*operands))


@functools.lru_cache(maxsize=256)
def _compiled(step: Step) -> Any:
    # Inside of a larger program it becomes a part of that; alone, it is compiled once for a step.
    return jax.jit(functools.partial(_once, step), inline=True)


def _once(step: Step, *operands: Array) -> Any:
    def by_shards(*arrays: Array) -> Any:
        return partition.by_shards(on_shards, step, arrays)

    def on_shards(*arrays: Array) -> Any:
        return partition.partitioned(functools.partial(step_p.bind, step=step), step, arrays)(*arrays)

    return _not_differentiable(_batchable(step, by_shards))(*operands)


def _batchable(step: Step, call: Any) -> Any:
    """Under vmap, a step whose operands have one axis more, and which is still one call."""

    def batched(size: int, is_batched: Sequence[bool], *operands: Array) -> Any:
        wide = [
            x if has_axis else jnp.broadcast_to(x, (size, *x.shape))
            for x, has_axis in zip(operands, is_batched, strict=True)
        ]
        made = carry_out(step, wide)
        return made, (True,) * len(made)

    wrapped = custom_vmap(call)
    wrapped.def_vmap(batched)
    return wrapped


def _not_differentiable(call: Any) -> Any:
    def refuse(*_: Any) -> NoReturn:
        raise TypeError(
            "a flatstep step cannot be differentiated: its kernels have no derivative; differentiate the loss alone, "
            "put jax.lax.stop_gradient around all that goes into the step, or, to train through steps, use optax"
        )

    wrapped = jax.custom_jvp(call)
    wrapped.defjvp(refuse)
    return wrapped


def formula(*operands: Array, step: Step) -> list[Array]:
    """The step in jax.numpy."""
    results = []
    names = scalar_names(step.rule)
    for index in range(step.leaves):
        param, grad, state = step.leaf(operands, index)

        def spread(number: Array, axes: int = grad.ndim) -> Array:
            return number.reshape(number.shape + (1,) * (axes - number.ndim))

        is_wide = any(x is not None and x.dtype in (np.float64, np.complex128) for x in (param, grad, *state))
        compute: Any = np.float64 if is_wide else np.float32
        numbers: dict[str, Any] = dict(zip(names, step.numbers, strict=True))
        for place, operand in zip(step.traced, operands[1 : step.begin], strict=True):
            numbers[names[place]] = spread(operand.astype(compute))
        coefficients = fallback.Traced(numbers, spread(operands[0]), compute)
        slots = dict(zip(_core.slots(step.rule), state, strict=True))
        results.append(fallback.step_leaf(step.rule, coefficients, compute, param, grad, slots))
    return [stream for streams in zip(*results, strict=True) for stream in streams]


def _dtypes(step: Step, operands: Sequence[Any]) -> tuple[str, str, list[str]]:
    """Of what is written, the gradient and the state of the first leaf, and so of all."""
    param, grad, state = step.leaf(operands, 0)
    names = [np.dtype(x.dtype).name for x in (grad if param is None else param, grad, *state)]
    return names[0], names[1], names[2:]


def has_kernel(step: Step, operands: Sequence[Any]) -> bool:
    """Whether there is a kernel for the dtypes."""
    return bool(versions.handler_module().has_kernel(step.rule, *_dtypes(step, operands)))


def kernel(*operands: Array, step: Step) -> list[Array]:
    """The call of the CPU's kernels: each result lies where its operand was."""
    return _call(versions.registered_name(), step, operands, workspace=[])


def kernel_on_device(*operands: Array, step: Step) -> list[Array]:
    """The call of a device's kernels, which keep tables in one more result while they run."""
    batch = operands[0].shape
    counts = [math.prod(x.shape[len(batch) :]) for x in operands[-step.leaves :]]
    size = versions.device_module().xla_workspace_bytes(
        step.rule, *_dtypes(step, operands), [count for count in counts if count > 0], math.prod(batch)
    )
    name = versions.registered_name(on_device=True)
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
    )
    return list(call(*operands, **attributes))


def _shapes(*operands: Any, step: Step) -> list[Any]:
    return [operands[i].update(weak_type=False) for i in step.sources]


def _evaluate(*operands: Array, step: Step) -> list[Array]:
    # Where JAX runs operation by operation: jax.checkpoint outside of a program, jax.disable_jit, a search for NaN.
    with jax.disable_jit(False):
        return list(carry_out(step, operands))


def _lower_to(form: Any, context: Any, *operands: Any, step: Step) -> Any:
    return mlir.lower_fun(functools.partial(form, step=step), multiple_results=True)(context, *operands)


def _lower_on_cpu(context: Any, *operands: Any, step: Step) -> Any:
    return _lower_to(kernel if has_kernel(step, context.avals_in) else formula, context, *operands, step=step)


def _lower_on_cuda(context: Any, *operands: Any, step: Step) -> Any:
    avals = context.avals_in
    # The size of the tables follows from the shapes, which an export may leave open.
    is_known = all(isinstance(n, int) for aval in avals for n in aval.shape)
    fused = versions.device_module() is not None and has_kernel(step, avals) and is_known
    return _lower_to(kernel_on_device if fused else formula, context, *operands, step=step)


# What a platform does is chosen when a program is lowered for it: to trace both forms takes seconds for large models.
step_p = Primitive("flatstep_step")
step_p.multiple_results = True
step_p.def_abstract_eval(_shapes)
step_p.def_impl(_evaluate)
mlir.register_lowering(step_p, mlir.lower_fun(formula, multiple_results=True))
mlir.register_lowering(step_p, _lower_on_cpu, platform="cpu")
mlir.register_lowering(step_p, _lower_on_cuda, platform="cuda")
