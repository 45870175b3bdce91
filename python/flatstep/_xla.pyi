"""flatstep's step for XLA (csrc/bind/xla.cpp), absent where it was not built."""

from collections.abc import Sequence
from typing import Any

version: str
api_version: tuple[int, int]
scalars: tuple[str, ...]
handler: Any

def has_kernel(rule: str, written: str, grad: str, state: Sequence[str]) -> bool: ...
