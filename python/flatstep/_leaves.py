"""What comes in as parameters: NumPy's arrays, and other libraries' by DLPack. For the package's own use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import _core, _devices
from ._arrays import Array
from ._device_arrays import DeviceArray
from ._trees import Tree

_CUDA = (2, 13)  # in DLPack's numbering of devices: their own memory, and what they share with the processor
_NO_COPY: dict[str, Any] = {"copy": False} if np.lib.NumpyVersion(np.__version__) >= "2.1.0" else {}
Leaf = Array | DeviceArray


def take_params(tree: Tree) -> list[Leaf]:
    """The tree's leaves as arrays over the same memory; TypeError where that cannot be.

    Their dtype, layout and memory are the compiled core's to check.
    """
    return [leaf if type(leaf) is np.ndarray else _take(leaf, tree, i) for i, leaf in enumerate(tree.leaves)]


def _take(leaf: Any, tree: Tree, index: int) -> Leaf:
    def unfit(why: str) -> TypeError:
        return TypeError(f"params{tree.path(index)} is a {why}")  # only here: a path is found from the first leaf on

    if isinstance(leaf, np.ma.MaskedArray):
        raise unfit("masked array, whose mask would be ignored; pass its .data")
    if isinstance(leaf, np.ndarray):
        return leaf
    kind = _kind(leaf)
    if kind.startswith(("jax.", "jaxlib.")):
        raise unfit(f"{kind}, which is immutable; use flatstep.jax, or pass np.array(x)")
    if getattr(leaf, "requires_grad", False) or _is_torch_parameter(leaf):
        raise unfit(f"{kind}, which is autograd's; use flatstep.torch, or pass x.detach()")
    if not hasattr(leaf, "__dlpack__") or isinstance(leaf, np.generic):
        raise unfit(f"{kind}, expected a NumPy array")
    is_on_device = _device_type(leaf) in _CUDA
    backends = _devices.backends() if is_on_device else []
    try:
        taken: Leaf = DeviceArray(_core.borrow(leaf, backends)) if backends else _share(leaf)
    except Exception as error:  # whatever the library at the other end raises
        if is_on_device and not backends:
            raise unfit(f"{kind} on a CUDA device, but {_devices.why_none()}") from None
        raise unfit(f"{kind} that cannot be shared by DLPack: {error}{_advice(leaf)}") from error
    return taken


def _share(leaf: Any) -> Array:
    """An array over another library's memory, by DLPack. TypeError where that does not hold the leaf's numbers."""
    _core.check_meaning(leaf)
    return np.from_dlpack(leaf, **_NO_COPY)


def _advice(leaf: Any) -> str:
    is_brain = str(getattr(leaf, "dtype", "")).endswith("bfloat16")
    return " bfloat16 is for mu_dtype, or for the parameters of flatstep.torch" if is_brain else ""


def _kind(leaf: Any) -> str:
    return f"{type(leaf).__module__}.{type(leaf).__qualname__}"


def is_on_device(leaf: Any) -> bool:
    """Whether another library's array is on a CUDA device."""
    return _device_type(leaf) in _CUDA


def _device_type(leaf: Any) -> int | None:
    """Whose memory it is, as DLPack numbers devices; None where it does not say."""
    try:
        return int(leaf.__dlpack_device__()[0])
    except Exception:  # whatever the library at the other end raises
        return None


def _is_torch_parameter(leaf: Any) -> bool:
    """Also one that is frozen for now: torch's own checks know it by its type, and so can we without importing it."""
    return any((cls.__module__, cls.__name__) == ("torch.nn.parameter", "Parameter") for cls in type(leaf).__mro__)


def stores_exactly(leaves: Sequence[Leaf], first_moment: str) -> bool:
    """Whether no state of these parameters is rounded when it is stored."""
    return not first_moment and all(leaf.dtype.itemsize >= 4 for leaf in leaves)


def largest_number(params: Sequence[Leaf]) -> float:
    """The largest of the type in which steps on all of these compute: float64 for float64, else float32."""
    computed = np.float64 if all(param.dtype == np.float64 for param in params) else np.float32
    return float(np.finfo(computed).max)


def check_same_memory(tree: Tree, arrays: Sequence[Leaf]) -> None:
    """ValueError where another library has moved what it shared with NumPy, which would go on at the old place.

    A step checks arrays on a device itself, in the compiled core.
    """
    for index, (leaf, array) in enumerate(zip(tree.leaves, arrays, strict=True)):
        if leaf is array or isinstance(array, DeviceArray):
            continue
        now = _take(leaf, tree, index)
        if isinstance(now, DeviceArray) or _place(now) != _place(array):
            raise _has_moved(tree, index)


def as_they_are(tree: Tree, arrays: Sequence[Leaf]) -> list[Leaf]:
    """The parameters; those on devices are read from their libraries again. ValueError where one has moved."""
    return [_as_it_is(array, tree, i) if isinstance(array, DeviceArray) else array for i, array in enumerate(arrays)]


def _as_it_is(array: DeviceArray, tree: Tree, index: int) -> DeviceArray:
    try:
        now = array.memory.again()
    except Exception as error:  # whatever the library at the other end raises
        kind = _kind(array.memory.source)
        raise TypeError(f"params{tree.path(index)} is a {kind} that cannot be shared by DLPack: {error}") from error
    if not now.lies_as(array.memory):
        raise _has_moved(tree, index)
    return DeviceArray(now)


def _has_moved(tree: Tree, index: int) -> ValueError:
    return ValueError(
        f"params{tree.path(index)} has another shape, dtype or place in memory than when the optimizer was made"
    )


def _place(array: Array) -> tuple[Any, ...]:
    # An empty tensor has no address, and NumPy gives its array another one each time.
    address = array.ctypes.data if array.size else 0
    return address, array.shape, array.strides, array.dtype, array.flags.writeable
