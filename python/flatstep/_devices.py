"""Which devices step on memory of their own. Used by _leaves.py, _optimizer.py and the front ends."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec


@cache
def backends() -> list[object]:
    """What the core steps on such devices with; empty where this build has none.

    Raises RuntimeError where there is no driver, or too old a one.
    """
    if find_spec("flatstep._cuda") is None:
        return []
    from . import _cuda

    _cuda.devices()  # a driver that will not do says so here
    return [_cuda.backend]
