"""One buffer for all parameters."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ._arrays import Array, aligned_zeros
from ._device_arrays import DeviceArray
from ._leaves import Leaf, take_params
from ._trees import Tree


class Flat(NamedTuple):
    """A flat buffer and views of it.

    Attributes:
        buffer: one-dimensional array of all elements, without gaps, that begins at a multiple of 64 bytes.
        tree: views of it, in the structure from which it was made.
    """

    buffer: Array
    tree: Any


def flatten(params: Any) -> Flat:
    """Copies arrays into one buffer, so that one array can be updated, copied or sent instead of many.

    Args:
        params: arrays of one dtype, alone or nested in lists, tuples and dicts.

    Returns:
        The buffer and, in the structure of ``params``, views of it. An optimizer may be made over either.

    Raises:
        TypeError: a leaf is not an array, or the dtypes differ.

    Example:
        >>> import numpy as np, flatstep
        >>> flat = flatstep.flatten({"w": np.ones((2, 2)), "b": np.zeros(2)})
        >>> flat.buffer
        array([1., 1., 1., 1., 0., 0.])
        >>> opt = flatstep.Adam(flat.buffer, learning_rate=0.5)
        >>> opt.step(np.ones(6))
        >>> flat.tree["b"].round(6)
        array([-0.5, -0.5])
    """
    tree = Tree(params)
    leaves = [_in_host_memory(leaf, tree, i) for i, leaf in enumerate(take_params(tree))]
    dtype = leaves[0].dtype if leaves else np.dtype(np.float32)
    for index, leaf in enumerate(leaves):
        if leaf.dtype != dtype:
            raise TypeError(
                f"params{tree.path(index)} has dtype {leaf.dtype}, expected {dtype} like params{tree.path(0)}; "
                "a flat buffer has one dtype: flatten those of each apart"
            )
    buffer = aligned_zeros(sum(leaf.nbytes for leaf in leaves)).view(dtype)
    views, end = [], 0
    for leaf in leaves:
        view = buffer[end : end + leaf.size].reshape(leaf.shape)
        view[...] = leaf
        views.append(view)
        end += leaf.size
    return Flat(buffer, tree.build(views))


def _in_host_memory(leaf: Leaf, tree: Tree, index: int) -> Array:
    if isinstance(leaf, DeviceArray):
        raise TypeError(
            f"params{tree.path(index)} is on a CUDA device, expected an array in the host's memory; a step takes many "
            "arrays as fast as one there, so pass the optimizer these"
        )
    return leaf
