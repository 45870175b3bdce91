"""What a step does besides its update: averages of parameters, and zeroed gradients. Used by _optimizer.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._average import check_options, power
from .._numbers import Number
from .._rules.common import AROUND, LIMITS
from ._numbers import Group, check_dtype
from ._plain import is_abstract, is_distributed, real, resolved

KEY = "ema"
"""The key of a parameter's average in its state."""
_DECAY = Number(at_least=0, below=1)
_OPTIONS = {argument.name: argument.default for argument in AROUND if argument not in LIMITS}
_COMPUTED = {torch.float64: torch.float64, torch.complex128: torch.complex128}
_NARROW = (torch.float16, torch.bfloat16, torch.complex32)


@dataclass
class Tail:
    """The options, and the parameters while their averages stand in their place."""

    zero_grads: bool = False
    decay: float | None = None
    start: str = "copy"
    debias: bool = False
    dtype: torch.dtype | None = None
    saved: list[tuple[Tensor, Tensor]] | None = None  # (a parameter, what it was)

    @classmethod
    def taken_from(cls, defaults: Group) -> Tail:
        """Takes the options out of the defaults of groups. ValueError or TypeError where they do not fit together."""
        decay, start, debias, dtype, zero_grads = (defaults.pop(name, off) for name, off in _OPTIONS.items())
        tail = cls(
            zero_grads=_flag("zero_grads", zero_grads),
            decay=None if decay is None else _DECAY.check("ema_decay", decay),
            start=start,
            debias=_flag("ema_debias", debias),
            dtype=check_dtype("ema_dtype", dtype),
        )
        if start not in ("copy", "zero"):
            raise ValueError(f"ema_start is {start!r}, expected one of 'copy', 'zero'")
        check_options(decay, start, debias, dtype)
        return tail

    @property
    def keeps_averages(self) -> bool:
        return self.decay is not None

    @property
    def is_on(self) -> bool:
        """Whether steps have more to do than their update."""
        return self.zero_grads or self.keeps_averages

    def in_use(self) -> list[str]:
        """The names of what steps have to do besides their update."""
        return [*(["ema_decay"] if self.keeps_averages else []), *(["zero_grads"] if self.zero_grads else [])]

    def set_decay(self, value: Any) -> None:
        """ValueError or TypeError where the decay cannot become that."""
        if (value is None) != (self.decay is None):
            made = "None" if self.decay is None else "a number"
            raise ValueError(
                f"ema_decay is {value!r}, but the optimizer was made with {made}; to change that, make another"
            )
        decay = None if value is None else _DECAY.check("ema_decay", value)
        if self.debias and decay != self.decay:
            raise ValueError(
                f"ema_decay is {decay!r} and was {self.decay!r}; with ema_debias=True it is fixed when the optimizer "
                "is made"
            )
        self.decay = decay

    def set_zero_grads(self, value: Any) -> None:
        self.zero_grads = _flag("zero_grads", value)

    def for_core(self) -> tuple[bool, bool, bool, bool, float]:
        """As TorchStepper.set_tail takes it."""
        decay = 0.0 if self.decay is None else self.decay
        return self.zero_grads, self.keeps_averages, self.dtype in _NARROW, self.start == "copy", decay

    def check_group(self, group: Group) -> None:
        """ValueError or TypeError where the options are not for the parameters of a group, or stand in it."""
        for argument in AROUND:
            if argument.name in group:
                raise ValueError(f"a group has {argument.name}, which is for all groups together; pass it to the class")
        for param in group["params"] if self.keeps_averages else []:
            self.dtype_of(param)

    def check_not_swapped(self) -> None:
        """RuntimeError while averages stand in the place of parameters."""
        if self.saved is not None:
            raise RuntimeError("the parameters are swapped with their averages; call swap_ema() again first")

    def dtype_of(self, param: Tensor) -> torch.dtype:
        """That of the average of a parameter. TypeError where there is none such."""
        computed = computed_in(param.dtype)
        if self.dtype not in (None, param.dtype, computed):
            expected = " or ".join(map(str, dict.fromkeys([param.dtype, computed])))
            raise TypeError(f"ema_dtype is {self.dtype}, expected {expected} for parameters of {param.dtype}")
        return self.dtype or computed

    def begun(self, param: Tensor, state: Group) -> Tensor:
        """The average after the updates that a state counts, of a parameter that has always been what it is.

        A count on a device is read only where the average starts from zero and the state is not new.
        """
        average = torch.zeros_like(param, dtype=self.dtype_of(param), memory_format=torch.preserve_format)
        if self.start == "copy":
            average.copy_(param)
        elif updates := updates_of(state):
            assert self.decay is not None
            average.copy_(param).mul_(1 - power(self.decay, updates))
        return average

    def value(self, param: Tensor, state: Group) -> Tensor:
        """The average of a parameter, with that state, as users see it: corrected, if it is to be."""
        if KEY not in state:
            return self.begun(param, state) if not self.debias else self._copy(param)
        average: Tensor = state[KEY]
        if not self.debias:
            return average
        updates = updates_of(state)
        return self._corrected(average, updates) if updates else self._copy(param)

    def _copy(self, param: Tensor) -> Tensor:
        return torch.zeros_like(param, dtype=self.dtype_of(param)).copy_(param)

    def _corrected(self, average: Tensor, updates: int) -> Tensor:
        """The average without its start at zero."""
        assert self.decay is not None
        wide = average.to(computed_in(average.dtype))
        divisor = 1 - power(self.decay, updates)
        if is_distributed(wide):
            return wide / divisor
        numbers = real(resolved(wide))  # complex division would round more often
        quotient = numbers / torch.tensor(divisor, dtype=numbers.dtype)
        return torch.view_as_complex(quotient) if wide.is_complex() else quotient


def updates_of(state: Group) -> int:
    """A state's count; 0 where it has none, or none with a number."""
    step = state.get("step", 0)
    return 0 if isinstance(step, Tensor) and is_abstract(step) else int(step)


def computed_in(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which steps compute with parameters of a dtype."""
    return _COMPUTED.get(dtype, torch.complex64 if dtype.is_complex else torch.float32)


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}, expected True or False")
    return value
