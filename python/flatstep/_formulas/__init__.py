"""Each rule's formula in Python, written once over any array library. For flatstep.jax, the benchmark and the oracle.

A module here has the name of its rule, or of several: ``rmsprop`` is that of ``rmsprop_centered`` too, whose name goes
on. It has one function::

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
    name = rule
    while name:
        try:
            update: Formula = import_module(f".{name}", __name__).update
        except ModuleNotFoundError:
            name = name.rpartition("_")[0]
        else:
            return update
    raise LookupError(f"{rule} has no formula in flatstep._formulas")
