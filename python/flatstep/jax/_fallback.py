"""A step in jax.numpy: what runs where there is no kernel. For flatstep.jax only.

XLA may contract operations, so results agree with the kernels' within a few ulp, not to the bit. Complex leaves, which
no kernel takes, are stepped as optax steps them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from .._formulas import formula
from .._formulas.coefficients import Coefficients, Number, is_known
from ._tail import completed

Array = Any


class Traced(Coefficients):
    """Coefficients of which the count is traced, and some of the numbers may be. Traced ones have dtype ``compute``."""

    def __init__(self, numbers: Mapping[str, Number], count: Array, compute: Any) -> None:
        super().__init__(numbers)
        self._count, self._compute = count, compute

    def rounded(self, number: Number) -> Number:
        with np.errstate(over="ignore"):
            return self._compute(number) if is_known(number) else number.astype(self._compute)

    def select(self, condition: Number, one: Number, other: Number) -> Number:
        return super().select(condition, one, other) if is_known(condition) else jnp.where(condition != 0, one, other)

    def exact_correction(self, b: Number, ahead: int = 0) -> Array:
        """1 / (1 - b^(t + ahead)) by expm1: in float32 1 - b^t cancels."""
        t = self._count.astype(self._compute) + ahead  # in its own dtype the last count has none after it
        return -1 / jnp.expm1(t * _log(b))


def _log(b: Number) -> Number:
    if is_known(b):
        return math.log(b) if b > 0 else -math.inf
    return jnp.log1p(b - 1)


def step_leaves(*operands: Array, step: Any) -> list[Array]:
    """The results of a step, which is a call.Step, one leaf after the other."""
    plain, own = step.plain(operands)
    results = [_step_leaf(plain, own, index) for index in range(step.leaves)]
    return completed(step, operands, [x for of_leaves in zip(*results, strict=True) for x in of_leaves])


def _step_leaf(step: Any, operands: Sequence[Array], index: int) -> list[Array]:
    """The parameter and the state after the step, each in the dtype that it had. Without a parameter, the update."""
    param, grad, state = step.leaf(operands, index)
    given = [grad if param is None else param, *state.values()]
    is_wide = any(x.dtype in (np.float64, np.complex128) for x in (grad, *given))
    compute: Any = np.float64 if is_wide else np.float32
    is_complex = any(map(jnp.iscomplexobj, (given[0], grad)))
    wide = functools.partial(_computed, compute=compute, is_complex=is_complex)
    c = _coefficients(step, operands, compute, grad.ndim)
    before = None if param is None else wide(param)
    made, after = formula(step.rule)(jnp, before, wide(grad), {slot: wide(x) for slot, x in state.items()}, c)
    return [_stored(x, old.dtype) for x, old in zip((made, *(after[slot] for slot in state)), given, strict=True)]


def _coefficients(step: Any, operands: Sequence[Array], compute: Any, axes: int) -> Traced:
    """Those of a leaf with this number of axes, of which the first are the batch's."""

    def spread(number: Array) -> Array:
        return number.reshape(number.shape + (1,) * (axes - number.ndim))

    numbers = dict(zip(step.names, step.numbers, strict=True))
    for place, operand in zip(step.traced, operands[1 : step.begin], strict=True):
        numbers[step.names[place]] = spread(operand.astype(compute))
    return Traced(numbers, spread(operands[0]), compute)


def _computed(x: Array, compute: Any, is_complex: bool) -> Array:
    """As the formula computes with it: real in a real leaf, whose mu may be stored as complex."""
    if not jnp.iscomplexobj(x):
        return x.astype(compute)
    return x.astype(np.result_type(compute, np.complex64)) if is_complex else jnp.real(x).astype(compute)


def _stored(x: Array, dtype: Any) -> Array:
    return x.astype(dtype) if jnp.issubdtype(dtype, jnp.complexfloating) else jnp.real(x).astype(dtype)
