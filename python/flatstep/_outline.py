"""The structure of parameters as JSON: leaf numbers for leaves, dicts with their keys spelled out. Used by _files.py.

A named tuple is an object too, of its fields in order, each after a dot, with which no spelled key begins.
"""

from __future__ import annotations

from collections import namedtuple
from enum import Enum
from typing import Any

import numpy as np

from ._trees import Tree


def write(structure: Any, path: str) -> Any:
    """A structure of leaf numbers for JSON: keys are spelled out, plain tuples are lists."""
    if fields := getattr(structure, "_fields", ()):
        return {f".{field}": write(value, f"{path}.{field}") for field, value in zip(fields, structure, strict=True)}
    if isinstance(structure, dict):
        written = {_text(key, path): write(value, f"{path}[{key!r}]") for key, value in structure.items()}
        if len(written) != len(structure):
            raise ValueError(f"{path} has different keys that print alike, so that a file could not tell them apart")
        return written
    if isinstance(structure, (list, tuple)):
        return [write(value, f"{path}[{index}]") for index, value in enumerate(structure)]
    return structure


def read(written: Any, tree: Tree) -> Tree:
    """The structure of leaf numbers that ``write`` has made, under the keys of the tree's dicts where there are such.

    Raises ValueError where leaves are not numbered.
    """
    layout = Tree(_matched(written, tree.build(tree.leaves)))
    numbers, expected = layout.leaves, list(range(len(layout.leaves)))
    if any(type(number) is not int for number in numbers) or sorted(numbers) != expected:
        raise ValueError(f"its metadata's structure does not have each number from 0 to {len(numbers) - 1} once")
    return layout


def _text(key: Any, path: str) -> str:
    text = _spelled(key)
    if text is None:
        kind = f"{type(key).__module__}.{type(key).__qualname__}"
        raise ValueError(
            f"{path} has the key {key!r}, a {kind}, which another process may not find again; for a file, use keys "
            "that are str, int, float, bool, None, bytes, members of an Enum, or tuples of these"
        )
    return text


def _spelled(key: Any) -> str | None:
    """What stands for a key: the same in every process, and the same for keys that are equal. None for other kinds.

    Subclasses are spelled as the plain values that they are equal to, whatever they print.
    """
    if isinstance(key, (np.bool_, np.integer, np.floating)) and not isinstance(key, np.timedelta64):
        key = key.item()  # NumPy's reprs depend on its version
    if isinstance(key, float) and float.is_integer(key):
        key = int(key)
    for plain in (str, int, float, bytes):
        if isinstance(key, plain):
            return plain.__repr__(key)
    if isinstance(key, tuple):
        parts = [part for part in map(_spelled, key) if part is not None]
        return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})" if len(parts) == len(key) else None
    if isinstance(key, Enum) and key.name is not None:  # without its module, which may be __main__
        return f"{type(key).__qualname__}.{key.name}"
    return "None" if key is None else None


class _Unknown:
    """Stands for a key that params does not have. Equal to nothing else, so that it is reported."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _matched(written: Any, params: Any) -> Any:
    """What ``write`` has made, with the keys of ``params`` where they are spelled alike."""
    if isinstance(written, dict) and written and all(text.startswith(".") for text in written):
        names = [text[1:] for text in written]  # these and their order are a Tree's to compare
        named: Any = namedtuple("named", names, rename=True)  # type: ignore[misc]
        return named._make(_matched(list(written.values()), params))
    if isinstance(written, dict):
        mine = {_spelled(key): key for key in params} if isinstance(params, dict) else {}
        keys = {text: mine.get(text, _Unknown(text)) for text in written}
        return {
            keys[text]: _matched(value, params[keys[text]] if text in mine else None) for text, value in written.items()
        }
    if isinstance(written, list):
        is_alike = isinstance(params, (list, tuple)) and len(params) == len(written)
        return [_matched(*pair) for pair in zip(written, params if is_alike else [None] * len(written), strict=True)]
    return written
