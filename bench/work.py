"""What the contenders of a front end do in a step: its bytes, and the gradients of its rule. Used by front_ends.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .layouts import Cost, Layout, cost

Array = np.ndarray[Any, Any]


def _as_they_are(grads: list[Array]) -> list[Array]:
    return grads


@dataclass(frozen=True)
class Work:
    """What is done in a step. A step alone is the default."""

    cost: Callable[[str, Layout], Cost] = cost
    gradients: Callable[[list[Array]], list[Array]] = _as_they_are  # those that the rule gets, in long double


STEP = Work()
