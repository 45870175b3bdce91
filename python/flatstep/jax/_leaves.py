"""The leaves of a step's trees, side by side and checked while a program is traced. For flatstep.jax only.

An error of a kernel would come after donation, when parameters and state are gone; so there must be none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ._partition import joined

Array = Any
PyTree = Any


def is_none(x: Any) -> bool:
    return x is None


class Leaves:
    """The leaves of ``tree`` (parameters, or gradients where there are none) and of the trees that go with it.

    None is a leaf here: a place without an array, whose gradient and state may be None too.
    """

    def __init__(self, name: str, tree: PyTree) -> None:
        self.name = name
        self.tree = tree
        leaves, structure = jax.tree.flatten(tree, is_leaf=is_none)
        self._structure: Any = structure
        self.arrays = [x if x is None else self._array(name, i, x) for i, x in enumerate(leaves)]
        self._shardings: list[Any] = [None if x is None else jax.typeof(x).sharding.spec for x in self.arrays]

    def path(self, index: int) -> str:
        """Where a leaf is, as one would write it."""
        paths = jax.tree_util.tree_flatten_with_path(self.tree, is_leaf=is_none)[0]
        return str(jax.tree_util.keystr(paths[index][0]))

    def match(self, name: str, tree: PyTree, may_have_more: bool = False) -> list[Array | None]:
        """The leaves of a tree of the same structure and shapes. ValueError or TypeError where it is not.

        Any may be None, and those that are None here too unless the tree ``may_have_more``.
        """
        try:
            leaves = self._structure.flatten_up_to(tree)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name} has another structure than {self.name}: {error}") from None
        arrays = [x if x is None else self._array(name, i, x) for i, x in enumerate(leaves)]
        for index, array in enumerate(arrays):
            if array is not None and not (may_have_more and self.arrays[index] is None):
                self._check_shape(name, index, array)
        return arrays

    def require(self, name: str, arrays: Sequence[Array | None], wanted: Sequence[Array | None]) -> None:
        """ValueError where a leaf that is wanted is None."""
        for index, (array, other) in enumerate(zip(arrays, wanted, strict=True)):
            if array is None and other is not None:
                raise ValueError(
                    f"{name}{self.path(index)} is None, but its gradient is an array; expected an array, or a "
                    "gradient of None, which leaves the parameter as it is"
                )

    def require_complex(
        self, name: str, arrays: Sequence[Array | None], source: str, wanted: Sequence[Array | None], remedy: str
    ) -> None:
        """TypeError where an array is real that takes up one that is complex: the imaginary part would be lost."""
        for index, (array, other) in enumerate(zip(arrays, wanted, strict=True)):
            if array is not None and other is not None and jnp.iscomplexobj(other) and not jnp.iscomplexobj(array):
                raise TypeError(
                    f"{name}{self.path(index)} is {array.dtype}, which cannot hold what {source}{self.path(index)}, "
                    f"{other.dtype}, brings; {remedy}"
                )

    def broadcast(self, name: str, tree: PyTree) -> list[bool]:
        """A tree of truth values that may end above the leaves: one value a leaf."""

        def below(value: Any, part: PyTree) -> PyTree:
            return jax.tree.map(lambda _: value, part, is_leaf=is_none)

        try:
            full = jax.tree.map(below, tree, self.tree)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name} has another structure than {self.name}: {error}") from None
        return [_truth(name, value) for value in jax.tree.leaves(full, is_leaf=is_none)]

    def build(self, leaves: Sequence[Array | None]) -> PyTree:
        return jax.tree.unflatten(self._structure, leaves)

    def _array(self, name: str, index: int, leaf: Any) -> Array:
        try:
            array = jnp.asarray(leaf)
        except TypeError as error:
            raise TypeError(f"{name}{self.path(index)} is not an array: {error}") from None
        if not jnp.issubdtype(array.dtype, jnp.inexact):
            raise TypeError(
                f"{name}{self.path(index)} is {array.dtype}, expected a floating-point or complex dtype; leave it out "
                "with optax.masked or optax.multi_transform"
            )
        return array

    def _check_shape(self, name: str, index: int, array: Array) -> None:
        own = self.arrays[index]
        if own is None:
            raise ValueError(f"{name}{self.path(index)} is an array, but {self.name}{self.path(index)} is None")
        if array.shape != own.shape:
            raise ValueError(
                f"{name}{self.path(index)} has shape {array.shape}, expected {own.shape}, as "
                f"{self.name}{self.path(index)} has"
            )
        self._join_sharding(name, index, array)

    def _join_sharding(self, name: str, index: int, array: Array) -> None:
        """ValueError where types say that two arrays of a leaf are sharded along axes that do not go together."""
        found, before = jax.typeof(array).sharding.spec, self._shardings[index]
        if found == before:
            return
        both = joined(found, before)
        if both is None:
            raise ValueError(
                f"{name}{self.path(index)} is sharded as {found}, which does not go together with {before}, as "
                f"{self.name}{self.path(index)} or what belongs to it is; call jax.sharding.reshard on it"
            )
        self._shardings[index] = both


def _truth(name: str, value: Any) -> bool:
    try:
        return bool(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} has {value!r} in it, expected True or False, known while tracing") from None
