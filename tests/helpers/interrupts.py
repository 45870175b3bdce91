"""Exceptions at chosen moments of a call, as a signal's handler raises them between two of Python's instructions."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import flatstep

PACKAGE = os.path.dirname(flatstep.__file__)


class Interrupt(BaseException):
    """What a signal's handler raises, like KeyboardInterrupt."""


def interrupted(
    call: Callable[[], Any], moment: int, within: str | None = None, folders: tuple[str, ...] = (PACKAGE,)
) -> bool:
    """Raises at that moment of a call's way through the code of these folders; False if it has fewer.

    The moments are its instructions, as far as the interpreter shows them, its lines and the ends of its functions:
    all, or those of the function of that name and of what it calls.
    """
    left, is_within = moment, within is None

    def enter(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal is_within
        is_within |= frame.f_code.co_name == within
        if not is_within or not frame.f_code.co_filename.startswith(folders):
            return None
        frame.f_trace_opcodes = True
        return go_on

    def go_on(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal left, is_within
        if event == "return" and frame.f_code.co_flags & inspect.CO_GENERATOR:
            return go_on  # an error here would get past the generator's own handlers, as no signal's does
        left -= 1
        if left == 0:
            raise Interrupt
        is_within &= event != "return" or frame.f_code.co_name != within
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
    return left <= 0  # where it was raised in a callback, from which nothing comes back
