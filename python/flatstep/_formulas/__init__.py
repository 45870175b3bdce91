"""Each rule's formula in Python, written once over any array library. For flatstep.jax, the benchmark and the oracle.

A module here has the name of its rule, and one function::

    update(xp, param, grad, state, coefficients) -> (param, state)

``xp`` is numpy or jax.numpy. ``state`` is a mapping by slot; a slot that an option turns off is not in it. ``param``
may be None, and then the first result is what would be added to it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib import import_module
from typing import Any

Formula = Callable[..., tuple[Any, dict[str, Any]]]


@functools.cache
def formula(rule: str) -> Formula:
    """The rule's ``update``. LookupError where the rule has none."""
    try:
        module = import_module(f".{rule}", __name__)
    except ModuleNotFoundError:
        raise LookupError(f"{rule} has no formula in flatstep._formulas") from None
    update: Formula = module.update
    return update
