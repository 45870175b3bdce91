"""What steps do besides their update, in jax.numpy: for _fallback.py, for devices, and for update."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

Array = Any
STARTS = ("copy", "zero")  # of averages, as AverageForm counts their forms


def computed_dtype(dtype: Any) -> np.dtype[Any]:
    """In which steps of such a parameter compute: float32, or float64 or complex ones."""
    wide = jnp.dtype(dtype) in (np.float64, np.complex128)
    is_complex = jnp.issubdtype(dtype, jnp.complexfloating)
    return np.result_type(np.float64 if wide else np.float32, np.complex64 if is_complex else np.float32)


def average_of(average: Array, param: Array, count: Array, form: tuple[str, float]) -> Array:
    """An average after an update, of the parameter as it is stored: as torch.lerp, or as optax.ema.

    ``form`` is what it started from and its decay; ``count`` has the first axes of the others.
    """
    start, decay = form
    dtype = computed_dtype(param.dtype)
    number = jnp.finfo(dtype).dtype.type
    old, new = average.astype(dtype), param.astype(dtype)
    weight = number(1 - decay)
    if start == "zero":
        return (weight * new + number(decay) * old).astype(average.dtype)
    moved = old + weight * (new - old) if weight < 0.5 else new - (new - old) * (number(1) - weight)
    return jnp.where(_spread(count == 1, param), new, moved).astype(average.dtype)


def completed(step: Any, operands: Sequence[Array], made: Sequence[Array]) -> list[Array]:
    """The results of a call.Step whose plain form has made these: averages added, and nothing changed if skipped."""
    results = list(made)
    if step.average is not None:
        first = step.first_grad - step.leaves
        pairs = zip(operands[first : step.first_grad], results[: step.leaves], strict=True)
        results += [average_of(average, param, operands[0], step.average) for average, param in pairs]
    if not step.skips:
        return results
    skip = operands[step.begin - 1]
    # An update is nothing then.
    before = [operands[i] if i < step.first_grad else jnp.zeros_like(operands[i]) for i in step.sources]
    return [jnp.where(_spread(skip, old), old, new) for old, new in zip(before, results, strict=True)]


def _spread(number: Array, like: Array) -> Array:
    """One number an entry, with as many axes as the entries have."""
    return number.reshape(number.shape + (1,) * (like.ndim - number.ndim))
