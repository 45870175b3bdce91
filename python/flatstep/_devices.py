"""Which devices step on memory of their own. Used by _leaves.py, _optimizer.py and the front ends."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

from . import _core


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


def why_none() -> str:
    """Why ``backends`` is empty, and what to do about it."""
    why = _core.why_no_cuda or "only one for NVIDIA's devices, which this is not"
    return f"this build of flatstep has no cuda target ({why}); install it where nvcc can build that"
