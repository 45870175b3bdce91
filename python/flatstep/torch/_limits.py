"""Limits on gradients, as an optimizer has them: max_norm and skip_nonfinite. Used by _optimizer.py."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from .._numbers import Number
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
    skipped: int = 0
    norm: float | None = None  # of the last step's gradients
    are_set: bool = False

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
        self.norm = self.norm if self.are_set else None

    def for_core(self, meshes: Meshes) -> tuple[Any, ...]:
        """What the core takes, where they are set."""
        of_processes = (meshes.parts, meshes.combine) if meshes else ([], None)
        return self.max_norm, self.skip_nonfinite, *of_processes

    def meshes_of(self, params: Iterable[torch.Tensor]) -> Meshes:
        """Those on which the parameters lie. ValueError where a step could not know the norm of their gradients."""
        if not are_several():
            return ALONE
        each = list(params)
        check_is_visible(each)
        if not any(map(is_distributed, each)):
            return ALONE
        meshes = Meshes(each)
        if meshes and any(param.device.type != "cpu" for param in each):
            raise ValueError(
                "max_norm and skip_nonfinite are for parameters on the CPU where a device mesh divides them; leave "
                "them out and call torch.nn.utils.clip_grad_norm_ before the step"
            )
        return meshes

    def note(self, found: tuple[Any, ...]) -> bool:
        """Keeps what the core found out about the gradients; whether the step was skipped."""
        if len(found) == 2:
            return False
        *_, self.norm, is_skipped = found
        self.skipped += is_skipped
        return bool(is_skipped)
