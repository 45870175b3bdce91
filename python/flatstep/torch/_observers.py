"""Whether anything observes the steps of an optimizer: hooks, profilers, tracers. Used by _optimizer.py.

torch's wrapper around ``step`` serves them. It takes longer than a small step, and does nothing where there are none.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import torch
from torch.optim import optimizer as _hooks

_LIBRARIES = ("libtorch_cpu.so", "libtorch_cpu.dylib")


def _always() -> bool:
    return True


def _find_has_callbacks() -> Callable[[], bool]:
    """torch's own at::hasCallbacks, which says whether a profiler or tracer wants ranges. Where it is missing, True."""
    for name in _LIBRARIES:
        path = Path(torch.__file__).parent / "lib" / name
        try:
            function = ctypes.PyDLL(str(path))._ZN2at12hasCallbacksEv  # loaded already; keeps the GIL
        except (OSError, AttributeError):
            continue
        function.argtypes, function.restype = [], ctypes.c_bool
        return function
    return _always


_has_callbacks = _find_has_callbacks()


def is_observed(optimizer: torch.optim.Optimizer) -> bool:
    """Whether a step of the optimizer is to go through torch's wrapper."""
    return bool(
        optimizer._optimizer_step_pre_hooks
        or optimizer._optimizer_step_post_hooks
        or _hooks._global_optimizer_pre_hooks
        or _hooks._global_optimizer_post_hooks
        or _has_callbacks()
    )
