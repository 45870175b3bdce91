"""A case's numbers as NumPy arrays. Used by the peers of the NumPy front end."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..data import Data

Array = np.ndarray[Any, Any]


def params(data: Data) -> list[Array]:
    return [param.astype(data.layout.param, copy=False) for param in data.params()]


def grads(data: Data) -> list[Array]:
    return data.shared("numpy", lambda: [grad.astype(data.layout.param, copy=False) for grad in data.grads])


def refresh(data: Data) -> None:
    for own, drawn in zip(grads(data), data.grads, strict=True):
        own[...] = drawn
