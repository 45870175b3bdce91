"""The oracle of averages of parameters: torch's and optax's formulas, in the type in which steps compute."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reference import power


def computed(dtype) -> type[np.floating]:
    return np.float64 if dtype == np.float64 else np.float32


def interpolated(params: Sequence[np.ndarray], decay: float, dtype) -> np.ndarray:
    """torch.lerp over the parameters after each step, from a copy of the first."""
    T = computed(params[0].dtype)
    weight, average = T(1 - decay), params[0].astype(dtype)
    for param in params[1:]:
        old, new = average.astype(T), param.astype(T)
        made = old + weight * (new - old) if weight < 0.5 else new - (new - old) * (T(1) - weight)
        average = made.astype(dtype)
    return average


def weighted(params: Sequence[np.ndarray], decay: float, dtype) -> np.ndarray:
    """optax.ema over the parameters after each step, without the correction."""
    T = computed(params[0].dtype)
    average = np.zeros(params[0].shape, dtype)
    for param in params:
        average = (T(1 - decay) * param.astype(T) + T(decay) * average.astype(T)).astype(dtype)
    return average


def debiased(average: np.ndarray, decay: float, updates: int) -> np.ndarray:
    T = computed(average.dtype)
    return average.astype(T) / T(1 - power(decay, updates))
