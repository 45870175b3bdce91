"""Loads an OpenMP runtime, as importing torch does. For beside.py, and for tests of steps on its threads."""

from __future__ import annotations

import ctypes
from contextlib import suppress

from flatstep import _core

NAMES = ("libgomp.so.1", "libomp.so.5", "libomp.dylib")


def load() -> bool:
    """Whether the process has one now: the one that is loaded, or the first that this machine has."""
    for name in NAMES:
        if _core.has_openmp():
            break
        with suppress(OSError):
            ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
    return _core.has_openmp()
