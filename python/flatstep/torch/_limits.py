"""Limits on gradients, as an optimizer has them: max_norm and skip_nonfinite. Used by _optimizer.py."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from .._numbers import Number
from ._plain import is_distributed

_MAX_NORM = Number(at_least=0)


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
        self.max_norm = value if value is None or value == float("inf") else _MAX_NORM.check("max_norm", value)
        self._note_setting()

    def set_skip_nonfinite(self, value: Any) -> None:
        if not isinstance(value, bool):
            raise TypeError(f"skip_nonfinite is {value!r}, expected True or False")
        self.skip_nonfinite = value
        self._note_setting()

    def _note_setting(self) -> None:
        self.are_set = self.max_norm is not None or self.skip_nonfinite
        self.norm = self.norm if self.are_set else None

    def for_core(self, params: Iterable[torch.Tensor]) -> tuple[float | None, bool]:
        """What the core takes. ValueError where the gradients of a parameter lie on several processes."""
        for param in params:
            if is_distributed(param) or getattr(param, "_fsdp_flattened", False):
                raise ValueError(
                    "a parameter is divided among processes, but max_norm and skip_nonfinite see the gradients of one "
                    "process; leave them out and clip before the step, by torch.nn.utils.clip_grad_norm_ or FSDP's own"
                )
        return self.max_norm, self.skip_nonfinite

    def note(self, found: tuple[Any, ...]) -> bool:
        """Keeps what the core found out about the gradients; whether the step was skipped."""
        if len(found) == 2:
            return False
        *_, self.norm, is_skipped = found
        self.skipped += is_skipped
        return bool(is_skipped)
