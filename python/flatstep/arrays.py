"""What comes in as an array, dtypes by name, and memory for state. For the package's own use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import _core
from .trees import Tree

_CUDA = 2  # in DLPack's numbering of devices
ALIGNMENT = 64  # bytes: a cache line, and the widest vector
Array = np.ndarray[Any, Any]


def take_params(tree: Tree) -> list[Array]:
    """The tree's leaves as NumPy arrays over the same memory; TypeError where that cannot be.

    Their dtype, layout and memory are the compiled core's to check.
    """
    return [leaf if type(leaf) is np.ndarray else _take(leaf, tree, i) for i, leaf in enumerate(tree.leaves)]


def _take(leaf: Any, tree: Tree, index: int) -> Array:
    name, kind = f"params{tree.path(index)}", f"{type(leaf).__module__}.{type(leaf).__qualname__}"
    if isinstance(leaf, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, whose mask would be ignored; pass its .data")
    if isinstance(leaf, np.ndarray):
        return leaf
    if kind.startswith(("jax.", "jaxlib.")):
        raise TypeError(f"{name} is a {kind}, which is immutable; use flatstep.jax, or pass np.array(x)")
    if getattr(leaf, "requires_grad", False) or _is_torch_parameter(leaf):
        raise TypeError(f"{name} is a {kind}, which is autograd's; use flatstep.torch, or pass x.detach()")
    if not hasattr(leaf, "__dlpack__") or isinstance(leaf, np.generic):
        raise TypeError(f"{name} is a {kind}, expected a NumPy array")
    try:
        array: Array = _core.share(leaf, may_be_copy=False)
    except Exception as error:  # whatever the library at the other end raises
        if _device_type(leaf) == _CUDA:
            mend = "flatstep.torch steps those in place: pass it torch.from_dlpack(x)"
            raise TypeError(f"{name} is a {kind} on a CUDA device; {mend}") from None
        raise TypeError(f"{name} is a {kind} that cannot be shared by DLPack: {error}") from error
    return array


def _device_type(leaf: Any) -> int | None:
    """Whose memory it is, as DLPack numbers devices; None where it does not say."""
    try:
        return int(leaf.__dlpack_device__()[0])
    except Exception:  # whatever the library at the other end raises
        return None


def _is_torch_parameter(leaf: Any) -> bool:
    """Also one that is frozen for now: torch's own checks know it by its type, and so can we without importing it."""
    return any((cls.__module__, cls.__name__) == ("torch.nn.parameter", "Parameter") for cls in type(leaf).__mro__)


def largest_number(params: Sequence[Array]) -> float:
    """The largest of the type in which steps on all of these compute: float64 for float64, else float32."""
    computed = np.float64 if all(param.dtype == np.float64 for param in params) else np.float32
    return float(np.finfo(computed).max)


def check_same_memory(tree: Tree, arrays: Sequence[Array]) -> None:
    """ValueError where another library has moved what it shared: NumPy would go on at the old place."""
    for index, (leaf, array) in enumerate(zip(tree.leaves, arrays, strict=True)):
        if leaf is array:
            continue
        now = _take(leaf, tree, index)
        if _place(now) != _place(array):
            raise ValueError(
                f"params{tree.path(index)} has another shape, dtype or place in memory than when the optimizer was made"
            )


def _place(array: Array) -> tuple[Any, ...]:
    return array.ctypes.data, array.shape, array.strides, array.dtype, array.flags.writeable


def dtype_name(name: str, dtype: Any) -> str | None:
    """The name of a dtype, given by name or otherwise; None stays None. TypeError in terms of ``name``."""
    if dtype is None:
        return None
    try:
        found = dtype_of("bfloat16") if dtype == "bfloat16" else np.dtype(dtype)
        if not found.isnative:
            raise TypeError
        known: str = dtype_of(found.name).name
    except TypeError:
        raise TypeError(f"{name} is {dtype!r}, expected a dtype or its name") from None
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


def aligned_zeros(count: int) -> Array:
    """That many zero bytes, the first at a multiple of ALIGNMENT."""
    raw = np.zeros(count + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    aligned: Array = raw[start : start + count]
    return aligned


def view(shape: tuple[tuple[int, ...], tuple[int, ...]], buffer: Array, offset: int, dtype: str) -> Array:
    """An array over a buffer of bytes; ``shape`` is its shape and its strides in elements."""
    own = dtype_of(dtype)
    lengths, strides = shape
    made: Array = np.ndarray(lengths, own, buffer, offset, tuple([stride * own.itemsize for stride in strides]))
    return made
