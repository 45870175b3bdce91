"""Exceptions at chosen moments of a call, as a signal's handler raises them between two of Python's instructions."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


class Interrupt(BaseException):
    """What a signal's handler raises, like KeyboardInterrupt."""


def interrupted(call: Callable[[], Any], moment: int, *folders: str) -> bool:
    """Raises at that moment of the call, counted over the code of these folders; False if it has fewer.

    The moments are instructions, as far as the interpreter shows them, lines and the ends of functions.
    """
    left = moment

    def enter(frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(folders):
            return None
        frame.f_trace_opcodes = True
        return go_on

    def go_on(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            raise Interrupt
        return go_on

    before = sys.gettrace()
    sys._getframe().f_trace_opcodes = True  # or some versions show no frame's
    sys.settrace(enter)
    try:
        call()
    except Interrupt:
        return True
    finally:
        sys.settrace(before)
    return False
