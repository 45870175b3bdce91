"""Structures that raise where they are changed: for copies, whose change would be lost. For the package's own use."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, NoReturn


def read_only(structure: Any, why: str) -> Any:
    """The same structure of dicts, lists and tuples, equal to it, but whose dicts and lists cannot be changed.

    ``why`` is the message of the TypeError. What is put where it already is passes: so ends ``structure[key] *= 2``,
    which has changed an array in place by then.
    """
    made: Any
    if isinstance(structure, dict):
        made = _Dict({key: read_only(value, why) for key, value in structure.items()})
    elif isinstance(structure, list):
        made = _List([read_only(value, why) for value in structure])
    elif isinstance(structure, tuple):
        values = tuple([read_only(value, why) for value in structure])
        return type(structure)._make(values) if hasattr(structure, "_make") else values
    else:
        return structure
    made.why = why
    return made


def _reject(self: Any, *_: Any, **__: Any) -> NoReturn:
    raise TypeError(getattr(self, "why", "this is read-only; change a copy"))


def _set(self: Any, key: Any, value: Any) -> None:
    with suppress(LookupError, TypeError):
        if self[key] is value:
            return
    _reject(self)


class _Dict(dict[Any, Any]):
    __slots__ = ("why",)
    __setitem__ = _set
    __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _reject

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)  # a copy of it is the user's own


class _List(list[Any]):
    __slots__ = ("why",)
    __setitem__ = _set
    __delitem__ = __iadd__ = __imul__ = _reject
    append = clear = extend = insert = pop = remove = reverse = sort = _reject

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)
