"""What the optimizers of flatstep.jax equal in optax: its function of the same name, or its parts in a chain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

optax = pytest.importorskip("optax")


def peer_of(name: str) -> Callable[..., Any]:
    """The function of optax to which flatstep.jax's of that name is compared."""
    return getattr(optax, name, None) or globals()[name]  # type: ignore[no-any-return]
