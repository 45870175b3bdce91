"""The norm of gradients. Public as flatstep.global_norm."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from . import _core, _devices
from ._leaves import is_on_device
from ._trees import Tree


def global_norm(grads: Any) -> float:
    r"""The Euclidean norm of all gradients together, as if they were one vector.

    .. math:: \sqrt{\textstyle\sum_i g_i^2}

    Squares are added up in float64 over fixed blocks of each array, in the order of its shape, and the sums of blocks
    and arrays in fixed pairs. The bits are the same for any number of threads, target, strides and alignment. Another
    division of the same numbers into arrays may change the last bit.

    Args:
        grads: an array, or lists, tuples and dicts of arrays of float16, float32 or float64, of any shape and strides:
            NumPy's, or another library's by DLPack, which may be bfloat16 too, in the host's memory or all of them on
            one CUDA device, for which this waits. A leaf may be None.

    Returns:
        The norm; 0.0 without arrays. It is infinite or NaN if a number is.

    Raises:
        TypeError, ValueError: a leaf is no such array.

    Example:
        >>> import numpy as np, flatstep
        >>> flatstep.global_norm({"w": np.array([3.0, 0.0]), "b": np.array(4.0)})
        5.0

    References:
        ``optax.global_norm``, ``torch.nn.utils.get_total_norm``
    """
    tree = Tree(grads)
    if any(type(leaf) is not np.ndarray and is_on_device(leaf) for leaf in tree.leaves):
        return norms_on(*_backends(tree)).find(tree.leaves, tree.path)
    norm, _ = _core.global_norm(tree.leaves, 1.0, False, tree.path)
    return norm


def _backends(tree: Tree) -> list[object]:
    found = _devices.backends()
    if not found:
        at = next(index for index, leaf in enumerate(tree.leaves) if is_on_device(leaf))
        raise TypeError(f"grads{tree.path(at)} is on a CUDA device, but {_devices.why_none()}")
    return found


@cache
def norms_on(*backends: object) -> _core.DeviceNorms:
    """What finds norms on these devices; it keeps tables there."""
    return _core.DeviceNorms(list(backends))
