"""What comes in as an array, and memory for state. For the package's own use."""

from __future__ import annotations

from typing import Any

import numpy as np

from .trees import Tree

ALIGNMENT = 64  # bytes: a cache line, and the widest vector


def check_params(tree: Tree) -> list[np.ndarray[Any, Any]]:
    """The tree's leaves, if all are NumPy arrays; else TypeError. Dtype and memory are the compiled core's to check."""
    for index, leaf in enumerate(tree.leaves):
        if isinstance(leaf, np.ma.MaskedArray):
            raise TypeError(f"params{tree.path(index)} is a masked array, whose mask would be ignored; pass its .data")
        if not isinstance(leaf, np.ndarray):
            kind = f"{type(leaf).__module__}.{type(leaf).__qualname__}"
            raise TypeError(f"params{tree.path(index)} is a {kind}, expected a NumPy array")
    return tree.leaves


def aligned_zeros(count: int) -> np.ndarray[Any, Any]:
    """That many zero bytes, the first at a multiple of ALIGNMENT."""
    raw = np.zeros(count + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    aligned: np.ndarray[Any, Any] = raw[start : start + count]
    return aligned


def view_like(
    param: np.ndarray[Any, Any], buffer: np.ndarray[Any, Any], offset: int, dtype: str
) -> np.ndarray[Any, Any]:
    """An array over a buffer of bytes, of a parameter's shape and with its axes in the same order in memory."""
    item = np.dtype(dtype).itemsize
    strides = tuple(stride // param.itemsize * item for stride in param.strides)
    return np.ndarray(param.shape, dtype, buffer, offset, strides)
