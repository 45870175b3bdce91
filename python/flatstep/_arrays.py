"""Dtypes by name, memory for state and views of it. For the package's own use."""

from __future__ import annotations

from typing import Any

import numpy as np

ALIGNMENT = 64  # bytes: a cache line, and the widest vector
PAGE = 4096
LARGE = 2**15  # bytes from which a page more does not matter
Array = np.ndarray[Any, Any]


def dtype_name(name: str, dtype: Any) -> str | None:
    """The name of a dtype, given by name or otherwise; None stays None. TypeError in terms of ``name``."""
    if dtype is None:
        return None
    try:
        found = dtype_of("bfloat16") if dtype == "bfloat16" else np.dtype(dtype)
        known: str = dtype_of(found.name).name
    except TypeError:
        raise TypeError(f"{name} is {dtype!r}, expected a dtype or its name") from None
    if not found.isnative:
        raise TypeError(f"{name} is {dtype!r}, whose byte order is not this machine's; pass {known!r}")
    return known


def dtype_of(name: str) -> np.dtype[Any]:
    """The dtype of that name. ImportError where it takes a package that is not installed."""
    if name != "bfloat16":
        return np.dtype(name)
    try:
        from ml_dtypes import bfloat16
    except ImportError:
        raise ImportError('bfloat16 arrays need ml_dtypes: pip install "flatstep[bfloat16]"') from None
    dtype: np.dtype[Any] = np.dtype(bfloat16)
    return dtype


def aligned_zeros(count: int, page_offset: int = 0) -> Array:
    """That many zero bytes, the first at a multiple of ALIGNMENT; if they are many, at this offset in a page.

    Processors compare the offsets in a page of what they load and store. Where all arrays of a step lie at the same
    offset, as large arrays from the system do, the step takes up to 1.4 times as long.
    """
    unit = PAGE if count >= LARGE else ALIGNMENT
    raw = np.zeros(count + unit, np.uint8)
    start = (page_offset - raw.ctypes.data) % unit
    aligned: Array = raw[start : start + count]
    return aligned


def view(shape: tuple[tuple[int, ...], tuple[int, ...]], buffer: Array, offset: int, dtype: str) -> Array:
    """An array over a buffer of bytes; ``shape`` is its shape and its strides in elements."""
    own = dtype_of(dtype)
    lengths, strides = shape
    made: Array = np.ndarray(lengths, own, buffer, offset, tuple([stride * own.itemsize for stride in strides]))
    return made
