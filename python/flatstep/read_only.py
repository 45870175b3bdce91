"""Structures that refuse to be changed: for copies, whose change would be lost. For the package's own use."""

from __future__ import annotations

from typing import Any, NoReturn


def read_only(structure: Any) -> Any:
    """The same structure of dicts, lists and tuples, equal to it, but whose dicts and lists cannot be changed."""
    if isinstance(structure, dict):
        return _Dict((key, read_only(value)) for key, value in structure.items())
    if isinstance(structure, list):
        return _List(map(read_only, structure))
    if isinstance(structure, tuple):
        values = tuple(map(read_only, structure))
        return type(structure)._make(values) if hasattr(structure, "_make") else values
    return structure


def _refuse(self: Any, *_: Any, **__: Any) -> NoReturn:
    raise TypeError(
        "this is a copy of what the optimizer holds; set the attribute as a whole, as in "
        'opt.learning_rate = {**opt.learning_rate, "w": 0.1}'
    )


class _Dict(dict[Any, Any]):
    __slots__ = ()
    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)  # a copy of it is the user's own


class _List(list[Any]):
    __slots__ = ()
    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = clear = extend = insert = pop = remove = reverse = sort = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)
