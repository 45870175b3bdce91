"""Loss scaling inside of a step, as torch.amp.GradScaler asks for it. Used by _optimizer.py."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from .._numbers import Number
from . import _devices
from ._plain import in_memory, is_abstract, local
from ._stand_ins import Call

_SCALE = Number(at_least=2.0**-1022)

OnDevice = tuple[torch.Tensor | None, ...]
"""A loss's scale and overflow flag on a device."""
Factors = Callable[[torch.device], Any]
"""What the gradients on a device are multiplied with: a float or, on a device of their own, a tensor there."""


def factor_of(scale: Any) -> float:
    """What gradients are multiplied with. TypeError or ValueError where the scale is not a positive number."""
    return 1.0 if scale is None else 1.0 / _SCALE.check("grad_scale", scale)


def on_devices(params: Iterable[torch.Tensor], *numbers: Any) -> list[OnDevice]:
    """The scale and the flag on each device of the parameters. Empty where one of them is on the host.

    The host does not wait for them.
    """
    if not all(number is None or _devices.holds(number) for number in numbers):
        return []
    places = {param.device for param in params}
    if not all(map(_devices.is_apart, places)):
        return []
    return [tuple(n if n is None else n.to(p, torch.float32, non_blocking=True) for n in numbers) for p in places]


def factors_on(scalings: Sequence[OnDevice]) -> Factors:
    """One over the scale of each device, and 1 where its flag says that the step is skipped."""
    factors = {}
    for scale, overflow in scalings:
        if scale is not None:
            inverse = scale.double().reciprocal()
            factor = inverse if overflow is None else torch.where(overflow == 0, inverse, 1.0)
            factors[scale.device] = factor.reshape(())
    return factors.__getitem__


def write_back(grads: Mapping[int, torch.Tensor], factors: Factors, name: Callable[[int], str]) -> list[Call]:
    """The calls that leave the unscaled gradients where the scaled ones were, as torch's fused optimizers do.

    ValueError where a gradient, named by its position, cannot be written to.
    """
    by_device: dict[torch.device, list[torch.Tensor]] = {}
    for position, grad in {id(grad): (position, grad) for position, grad in grads.items()}.values():
        own = local(grad.detach())
        if own.layout != torch.strided or is_abstract(own):
            continue  # the step raises, or computes nothing
        if torch._debug_has_internal_overlap(own) == 1:
            raise ValueError(
                f"grad of {name(position)} has elements that share memory, so that it cannot be unscaled in place; "
                "clone it, or pass fused=False"
            )
        by_device.setdefault(own.device, []).append(in_memory(own))
    return [partial(torch._foreach_mul_, own, factors(device)) for device, own in by_device.items()]
