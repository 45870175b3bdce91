"""Python values with arrays in them, as JSON that keeps every bit. For the golden files alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np


def encode(value: Any) -> Any:
    """The value as JSON can hold it. Arrays become hexadecimal bytes, in C order."""
    if isinstance(value, dict):
        return {"dict": [[encode(key), encode(own)] for key, own in value.items()]}
    if isinstance(value, (list, tuple)):
        return {type(value).__name__: [encode(own) for own in value]}
    if isinstance(value, (np.ndarray, np.generic)):
        return {"array": value.tobytes().hex(), "dtype": value.dtype.name, "shape": list(value.shape)}
    return value


def decode(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if "dict" in value:
        return {decode(key): decode(own) for key, own in value["dict"]}
    if "array" in value:
        if value["dtype"] == "bfloat16":
            import ml_dtypes  # noqa: F401, makes NumPy know the name
        array = np.frombuffer(bytes.fromhex(value["array"]), np.dtype(value["dtype"]))
        return array.reshape(value["shape"]).copy()
    return tuple(map(decode, value["tuple"])) if "tuple" in value else list(map(decode, value["list"]))


def write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(encode(value), separators=(",", ":")) + "\n")


def read(path: Path) -> Any:
    return decode(json.loads(path.read_text()))
