"""Limits on gradients, as an optimizer has them: max_norm and skip_nonfinite. Used by _optimizer.py."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch

from .._numbers import Number
from . import _devices
from ._plain import is_distributed

_MAX_NORM = Number(at_least=0)


@dataclass
class Limits:
    """What a step asks of its gradients, and what it found."""

    max_norm: float | None = None
    skip_nonfinite: bool = False
    skipped_here: int = 0  # by the host
    norm_here: float | None = None  # of the last step's gradients, where the host has found it
    are_set: bool = False
    found: torch.Tensor | None = None  # the norm, a factor, steps skipped and a flag, where a device finds them
    is_norm_there: bool = False  # whether the device has found that of the last step

    @property
    def norm(self) -> float | None:
        """Of the last step's gradients. Waits for a device that has found it."""
        return self.norm_here if self.found is None or not self.is_norm_there else self.found[0].item()

    @property
    def skipped(self) -> int:
        """Waits for a device that counts."""
        return self.skipped_here + (0 if self.found is None else int(self.found[2].item()))

    def on_host(self) -> Limits:
        """A copy whose numbers the host knows."""
        return replace(self, skipped_here=self.skipped, norm_here=self.norm, found=None, is_norm_there=False)

    def set_max_norm(self, value: Any) -> None:
        """TypeError or ValueError where it is neither None nor a number of at least 0."""
        self.max_norm = value if value is None or value == float("inf") else _MAX_NORM.check("max_norm", value)
        self._note_setting()

    def set_skip_nonfinite(self, value: Any) -> None:
        if not isinstance(value, bool):
            raise TypeError(f"skip_nonfinite is {value!r}, expected True or False")
        self.skip_nonfinite = value
        self._note_setting()

    def _note_setting(self) -> None:
        self.are_set = self.max_norm is not None or self.skip_nonfinite
        if not self.are_set:
            self.norm_here, self.is_norm_there = None, False

    def for_core(self, params: Iterable[torch.Tensor]) -> tuple[float | None, bool, torch.Tensor | None]:
        """What the core takes. ValueError where the gradients of a parameter lie on several processes."""
        devices = set()
        for param in params:
            if not param.is_meta:
                devices.add(param.device)
            if is_distributed(param) or getattr(param, "_fsdp_flattened", False):
                raise ValueError(
                    "a parameter is divided among processes, but max_norm and skip_nonfinite see the gradients of one "
                    "process; leave them out and clip before the step, by torch.nn.utils.clip_grad_norm_ or FSDP's own"
                )
        return self.max_norm, self.skip_nonfinite, self._found_on(devices)

    def _found_on(self, devices: set[torch.device]) -> torch.Tensor | None:
        """Memory on the device of all parameters; None where the host knows their numbers."""
        there = [device for device in devices if _devices.is_apart(device)]
        if not there:
            return None
        if len(devices) > 1:
            names = " and ".join(sorted(map(str, devices)))
            raise ValueError(
                f"parameters lie on {names}, but max_norm and skip_nonfinite need all gradients in one memory; make an "
                "optimizer for the parameters of each device"
            )
        if self.found is None or self.found.device != there[0]:
            if _devices.is_capturing(there[0]):
                raise RuntimeError(
                    "the memory for the norm would be made in a CUDA graph; step once with max_norm or skip_nonfinite "
                    "before capturing"
                )
            self.skipped_here = self.skipped
            self.found = torch.zeros(4, dtype=torch.float64, device=there[0])
        return self.found

    def note(self, found: tuple[Any, ...]) -> bool:
        """Keeps what the core found out about the gradients; whether the step was skipped."""
        if len(found) == 2:
            return False
        *_, self.norm_here, is_skipped = found
        self.is_norm_there = self.norm_here is None
        self.skipped_here += is_skipped
        return bool(is_skipped)
