"""Functions that run in processes of their own, and report there: registered by their names and variants."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

Scenarios = dict[str, Callable[[], None]]


def registered_in(scenarios: Scenarios, **variants: dict[str, Any]) -> Callable[[Callable[..., None]], Any]:
    """Registers a function, or one with each of several sets of arguments."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        for name, arguments in (variants or {"": {}}).items():
            scenarios["-".join(filter(None, (function.__name__, name)))] = partial(function, **arguments)
        return function

    return register
