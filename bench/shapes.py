"""The shapes of models that front ends are timed on. Used by torch_steps.py and jax_steps.py."""

from __future__ import annotations

import numpy as np


def many() -> list[tuple[int, ...]]:
    """A thousand small arrays."""
    return [(int(length),) for length in np.random.default_rng(0).integers(64, 4097, 1000)]
