"""What steps do around their update, as users read and set it. Base of KeepsAverages in _averages.py."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .. import _core
from ._limits import Limits
from ._names import Names
from ._tail import Tail


class Around(torch.optim.Optimizer):
    """The options of all groups together: limits on gradients, averages of parameters, zeroed gradients."""

    _limits: Limits
    _tail: Tail
    _made: tuple[_core.TorchStepper, _core.Exclusive] | None = None  # made when first needed: it cannot be copied

    def _params(self) -> Iterator[Tensor]:
        return (param for group in self.param_groups for param in group["params"])

    def _names(self) -> Names:
        """The names of these parameters by their positions, for messages."""
        return Names(self.param_groups, [(group["params"],) for group in self.param_groups])

    @property
    def max_norm(self) -> float | None:
        """The largest norm of all gradients together, or None. May be set between steps."""
        return self._limits.max_norm

    @max_norm.setter
    def max_norm(self, value: float | None) -> None:
        self._limits.set_max_norm(value)

    @property
    def skip_nonfinite(self) -> bool:
        """Whether a step with a gradient that is not finite changes nothing. May be set between steps."""
        return self._limits.skip_nonfinite

    @skip_nonfinite.setter
    def skip_nonfinite(self, value: bool) -> None:
        self._limits.set_skip_nonfinite(value)

    @property
    def skipped(self) -> int:
        """Steps that changed nothing because a gradient was not finite, with ``skip_nonfinite=True``."""
        return self._limits.skipped

    @property
    def grad_norm(self) -> float | None:
        """The norm of the last step's unscaled gradients; None without max_norm and skip_nonfinite.

        A step that was skipped here is one too; one that raised, or that GradScaler has skipped, is not.
        """
        return self._limits.norm

    @property
    def ema_decay(self) -> float | None:
        """The decay rate of the averages, or None. A number may be set between steps, but not with ema_debias."""
        return self._tail.decay

    @ema_decay.setter
    def ema_decay(self, value: float | None) -> None:
        self._tail.set_decay(value)
        self._note_tail()

    @property
    def ema_start(self) -> str:
        """What averages start from."""
        return self._tail.start

    @property
    def ema_debias(self) -> bool:
        """Whether ``ema`` corrects the start at zero."""
        return self._tail.debias

    @property
    def ema_dtype(self) -> torch.dtype | None:
        """The dtype of the averages; None: that in which steps compute."""
        return self._tail.dtype

    @property
    def zero_grads(self) -> bool:
        """Whether a step sets the gradients to zero where it has read them. May be set between steps."""
        return self._tail.zero_grads

    @zero_grads.setter
    def zero_grads(self, value: bool) -> None:
        self._tail.set_zero_grads(value)
        self._note_tail()

    def _note_tail(self) -> None:
        if self._made is not None:
            self._made[0].set_tail(*self._tail.for_core())
