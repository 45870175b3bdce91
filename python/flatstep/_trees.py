"""Nested structures of lists, tuples and dicts: taken apart into leaves, matched, put together again.

For the package's own use; knows nothing of arrays. What fits is walked in C++ (csrc/bind/trees.cpp), the rest here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

from . import _core

_DEEPEST = 100  # levels of nesting


class _Node(NamedTuple):
    """A list, tuple or dict: its keys or indices in order, what each holds (None: a leaf), and its type.

    The compiled core reads the first three by position (csrc/bind/trees.cpp).
    """

    is_dict: bool
    keys: tuple[Any, ...]
    children: tuple[_Node | None, ...]
    kind: type

    def make(self, values: list[Any]) -> Any:
        if self.is_dict:
            # A dict with a constructor of its own (defaultdict, say) comes back as a plain one.
            kind = self.kind if self.kind in (dict, OrderedDict) else dict
            return kind(zip(self.keys, values, strict=True))
        if issubclass(self.kind, tuple):
            return self.kind._make(values) if hasattr(self.kind, "_make") else tuple(values)
        return values

    def describe(self) -> str:
        if self.is_dict:
            return f"a dict with the keys {_some(self.keys)}"
        return f"a {'tuple' if issubclass(self.kind, tuple) else 'list'} of {len(self.keys)}"


class Tree:
    """The structure of nested lists, tuples and dicts; anything else in it is a leaf.

    Leaves are numbered depth first, dicts in their own order of keys.
    """

    def __init__(self, structure: Any) -> None:
        self.leaves: list[Any] = []
        self._root = self._read(structure, 0)

    def _read(self, value: Any, depth: int) -> _Node | None:
        if isinstance(value, dict):
            keys: tuple[Any, ...] = tuple(value)
            values: Iterable[Any] = value.values()
        elif isinstance(value, (list, tuple)):
            keys, values = tuple(range(len(value))), value
        else:
            self.leaves.append(value)
            return None
        if depth == _DEEPEST:
            raise ValueError(f"params is nested more than {_DEEPEST} levels deep, or contains itself; flatten it")
        children = tuple([self._read(child, depth + 1) for child in values])
        return _Node(isinstance(value, dict), keys, children, type(value))

    def match(self, structure: Any, name: str) -> list[Any]:
        """The leaves of another structure of the same shape, in this tree's order.

        Dicts are matched by key; a list may stand for a tuple. Raises ValueError, in terms of ``name``, where the
        structures differ.
        """
        leaves = _core.match(self._root, structure)
        if leaves is None:
            leaves = []
            _match(self._root, structure, name, leaves.append)
        return leaves

    def changed(self, structure: Any, name: str) -> int | None:
        """The first leaf of another structure of the same shape that is not this tree's own; None if there is none.

        Raises ValueError, in terms of ``name``, where the structures differ.
        """
        if _core.holds(self._root, structure, self.leaves):
            return None
        pairs = zip(self.match(structure, name), self.leaves, strict=True)
        return next((i for i, (leaf, own) in enumerate(pairs) if leaf is not own), None)

    def build(self, leaves: Iterable[Any]) -> Any:
        """A structure like this one that holds other leaves."""
        return _build(self._root, iter(leaves))

    def paths(self) -> list[str]:
        """Where each leaf stands, as one would index it: ``['layers'][0]``."""
        return list(_paths(self._root, ""))

    def path(self, leaf: int) -> str:
        """Where one leaf stands."""
        return next(islice(_paths(self._root, ""), leaf, None))


def _some(keys: Sequence[Any]) -> str:
    """The first few of them, for a message."""
    return f"[{', '.join(map(repr, keys[:5]))}{', ...' if len(keys) > 5 else ''}]"


def _match(node: _Node | None, value: Any, name: str, take: Callable[[Any], None]) -> None:
    if node is None:
        take(value)
        return
    if node.is_dict:
        if not isinstance(value, dict):
            raise ValueError(f"{name} is a {type(value).__name__}, expected {node.describe()}")
        known = set(node.keys)
        if value.keys() != known:
            missing = [key for key in node.keys if key not in value]
            unknown = [key for key in value if key not in known]
            raise ValueError(f"{name} lacks the keys {_some(missing)} and has the unknown keys {_some(unknown)}")
        values = [value[key] for key in node.keys]
    else:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{name} is a {type(value).__name__}, expected {node.describe()}")
        if len(value) != len(node.keys):
            raise ValueError(f"{name} has {len(value)} entries, expected {node.describe()}")
        fields = getattr(node.kind, "_fields", ())
        own = getattr(value, "_fields", fields)  # a plain list or tuple goes by position
        if fields and own != fields:
            raise ValueError(f"{name} has the fields {_some(own)}, expected {_some(fields)} in this order")
        values = list(value)
    for key, child, part in zip(node.keys, node.children, values, strict=True):
        if child is None:
            take(part)
        else:
            _match(child, part, f"{name}[{key!r}]", take)


def _build(node: _Node | None, leaves: Iterator[Any]) -> Any:
    if node is None:
        return next(leaves)
    return node.make([_build(child, leaves) for child in node.children])


def _paths(node: _Node | None, path: str) -> Iterator[str]:
    if node is None:
        yield path
        return
    for key, child in zip(node.keys, node.children, strict=True):
        yield from _paths(child, f"{path}[{key!r}]")
