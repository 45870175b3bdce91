"""Counts what a call does, so that a test of its work needs no clock. For all tests."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def calls_of(action: Callable[[], Any]) -> int:
    """How many functions of Python's and of C's an action calls."""
    count = 0

    def see(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    gc.disable()  # which may call anything at any time; a collection first would take longer than the action
    sys.setprofile(see)
    try:
        action()
    finally:
        sys.setprofile(before)
        gc.enable()
    return count
