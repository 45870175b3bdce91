"""Numbers, truth values and dtypes as torch's users write them. Used by _schema.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

Group = dict[str, Any]

LARGEST = 2.0**128 - 2.0**104  # that float32 can hold
_WORDS = ("no", "one", "two", "three")
_WIDE = (torch.float64, torch.complex128)


def check_range(group: Group, numbers: Mapping[str, float], labels: Mapping[str, str]) -> None:
    """ValueError where a finite number is infinite in float32, and not every parameter of the group is wider."""
    if not any(map(LARGEST.__lt__, map(abs, numbers.values()))):
        return
    if all(param.dtype in _WIDE for param in group["params"]):
        return
    for name, number in numbers.items():
        if LARGEST < abs(number) < float("inf"):
            raise ValueError(
                f"{labels[name]} is {number:g}, infinite in float32, in which the group's parameters are stepped; the "
                f"limit is {LARGEST:g}"
            )


def as_number(name: str, value: Any) -> float:
    """The value as a float. TypeError or ValueError in terms of its name where it is not one real number."""
    if type(value) is float:
        return value
    if isinstance(value, (bool, str, bytes)) or not (hasattr(value, "__float__") or hasattr(value, "__index__")):
        raise TypeError(f"{name} is {value!r}, expected a number")
    if isinstance(value, torch.Tensor) and value.numel() != 1:
        raise ValueError(f"{name} is a tensor of shape {tuple(value.shape)}, expected a tensor of one number")
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name} is {value!r}, expected a number") from None
    except OverflowError:  # an integer that no float can hold
        raise ValueError(f"{name} is {value!r}, too large for a float") from None


def as_flag(name: str, value: Any) -> float:
    """1.0 or 0.0 for a truth value or a number that stands for one. TypeError in terms of its name for any other."""
    if type(value) is bool:
        return float(value)
    try:
        if isinstance(value, (str, bytes)) or not hasattr(value, "__bool__"):
            raise TypeError
        return float(bool(value))
    except (TypeError, ValueError, RuntimeError):  # of arrays of several elements
        raise TypeError(f"{name} is {value!r}, expected True or False") from None


def check_dtype(name: str, dtype: Any) -> torch.dtype | None:
    """The dtype. TypeError where it is neither None nor a dtype of torch."""
    if dtype is not None and not isinstance(dtype, torch.dtype):
        raise TypeError(f"{name} is {dtype!r}, expected a torch.dtype or None")
    return dtype


def several(name: str, values: Any, length: int) -> tuple[Any, ...]:
    """As many numbers as there should be. TypeError or ValueError in terms of their name where it is something else."""
    if type(values) is tuple and len(values) == length:
        return values
    try:
        found = tuple(values)
    except TypeError:
        raise TypeError(f"{name} is {values!r}, expected {_WORDS[length]} numbers") from None
    if len(found) != length:
        raise ValueError(f"{name} is {values!r}, expected {_WORDS[length]} numbers")
    return found
