"""Which devices step on memory of their own, and count there. Used by the other files of flatstep.torch."""

from __future__ import annotations

from typing import Any

import torch

from .. import _devices

CPU = torch.device("cpu")


def backends() -> list[object]:
    """What the core steps on such devices with; empty where there are none."""
    return [] if torch.version.cuda is None else _devices.backends()


def is_apart(device: torch.device) -> bool:
    """Whether it steps on memory of its own, so that the host need not know the numbers that lie there."""
    return device.type == "cuda" and bool(backends())


def in_use() -> list[object]:
    """What steps on such devices, once there can be tensors on them: who has none need not have it work."""
    return backends() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]


def is_capturing(device: torch.device) -> bool:
    """Whether what runs on the device now goes into a graph, to be replayed."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def make_room() -> bool:
    """Lets devices have the memory that torch keeps for later; False under capture, where that is not allowed."""
    if torch.cuda.is_current_stream_capturing():
        return False
    torch.cuda.empty_cache()
    return True


def holds(value: Any) -> bool:
    """Whether the value is a tensor on such a device."""
    return isinstance(value, torch.Tensor) and is_apart(value.device)


def of_count(param: torch.Tensor) -> torch.device:
    """Where a parameter's updates are counted."""
    return param.device if is_apart(param.device) else CPU


def why_rejected(device: torch.device) -> str:
    """Why tensors on a device cannot be stepped; empty where they can."""
    if device.type == "cpu" or is_apart(device):
        return ""
    if device.type == "cuda":
        return f"is on {device}, but {_devices.why_none()}, or move the model to the CPU"
    return f"is on {device}, but flatstep steps tensors on the CPU and on CUDA devices"
