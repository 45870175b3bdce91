"""Methods of an optimizer that admit one caller at a time. For the package's own use."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from . import _core


class _Guarded(Protocol):
    _exclusive: _core.Exclusive


Self = TypeVar("Self", bound=_Guarded)
P = ParamSpec("P")
T = TypeVar("T")


def exclusive(method: Callable[Concatenate[Self, P], T]) -> Callable[Concatenate[Self, P], T]:
    """The method, called by the ``run`` of its object's ``_exclusive``: RuntimeError while another such call lasts.

    Not a ``with``: a signal's handler may raise right after what takes a lock, or right before what gives it back, and
    the optimizer would stay locked. ``run`` does both in C, where no handler is called.
    """

    @wraps(method)
    def alone(self: Self, /, *args: P.args, **kwargs: P.kwargs) -> T:
        result: T = self._exclusive.run(method, self, *args, **kwargs)
        return result

    return alone
