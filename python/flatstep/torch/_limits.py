"""Limits on gradients, as an optimizer has them: max_norm and skip_nonfinite. Used by _optimizer.py."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from .._numbers import Number
from . import _devices
from ._meshes import ALONE, Meshes, are_several
from ._plain import is_distributed

_MAX_NORM = Number(at_least=0, may_be_infinite=True)


def check_is_visible(params: Iterable[torch.Tensor]) -> None:
    """ValueError where parameters are divided among processes without saying how."""
    if are_several() and any(getattr(param, "_fsdp_flattened", False) for param in params):
        raise ValueError(
            "FullyShardedDataParallel divides a parameter among processes, so that the norm of its gradient cannot be "
            "known here; call the module's own clip_grad_norm_ instead, or use fully_shard"
        )


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
        self.max_norm = None if value is None else _MAX_NORM.check("max_norm", value)
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

    def for_core(self, params: Sequence[torch.Tensor], meshes: Meshes) -> tuple[Any, ...]:
        """What the core takes, where they are set."""
        of_processes = (meshes.parts, meshes.combine) if meshes else ([], None)
        return self.max_norm, self.skip_nonfinite, *of_processes, self._found_on({p.device for p in params})

    def _found_on(self, devices: set[torch.device]) -> torch.Tensor | None:
        """Memory on the device of all parameters; None where the host knows their numbers."""
        devices = {device for device in devices if device.type != "meta"}
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

    def meshes_of(self, params: Sequence[torch.Tensor]) -> Meshes:
        """Those on which the parameters lie. ValueError where a step could not know the norm of their gradients."""
        if not are_several():
            return ALONE
        check_is_visible(params)
        if not any(map(is_distributed, params)):
            return ALONE
        meshes = Meshes(list(params))
        if meshes and any(param.device.type != "cpu" for param in params):
            raise ValueError(
                "max_norm and skip_nonfinite are for parameters on the CPU where a device mesh divides them; leave "
                "them out and call torch.nn.utils.clip_grad_norm_ before the step"
            )
        return meshes

    def note(self, found: tuple[Any, ...]) -> bool:
        """Keeps what the core found out about the gradients; whether the step was skipped."""
        if len(found) == 2:
            return False
        *_, self.norm_here, is_skipped = found
        self.is_norm_there = self.norm_here is None
        self.skipped_here += is_skipped
        return bool(is_skipped)
