"""A step of one leaf in jax.numpy: what runs where there is no kernel. For flatstep.jax only.

XLA may contract operations, so results agree with the kernels' within a few ulp, not to the bit. Complex leaves, which
no kernel takes, are stepped as optax steps them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from .._formulas import formula
from .._formulas.coefficients import Coefficients, Number, is_known

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


def step_leaf(
    rule: str, coefficients: Coefficients, compute: Any, param: Array | None, grad: Array, state: Mapping[str, Array]
) -> list[Array]:
    """The parameter and the state after one step, each in the dtype that it had. Without a parameter, the update."""
    dtypes = [grad.dtype if param is None else param.dtype, *(slot.dtype for slot in state.values())]
    is_complex = any(x is not None and jnp.iscomplexobj(x) for x in (param, grad))

    def wide(x: Array) -> Array:
        """Real in a real leaf, whose mu may be stored as complex."""
        if not jnp.iscomplexobj(x):
            return x.astype(compute)
        return x.astype(np.result_type(compute, np.complex64)) if is_complex else jnp.real(x).astype(compute)

    computed = {slot: wide(x) for slot, x in state.items()}
    before = None if param is None else wide(param)
    made, after = formula(rule)(jnp, before, wide(grad), computed, coefficients)
    return [_stored(x, dtype) for x, dtype in zip((made, *(after[slot] for slot in state)), dtypes, strict=True)]


def _stored(x: Array, dtype: Any) -> Array:
    return x.astype(dtype) if jnp.issubdtype(dtype, jnp.complexfloating) else jnp.real(x).astype(dtype)
