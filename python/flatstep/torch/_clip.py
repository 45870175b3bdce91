"""clip_grad_norm_: torch's, with the norm in one pass. Public as flatstep.torch.clip_grad_norm_."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from .. import _core
from .._norm import norms_on
from . import _devices
from ._plain import in_memory, is_abstract

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@torch.no_grad()
def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    r"""Scales all gradients down, in place, so that their norm together is at most ``max_norm``.

    .. math:: g \leftarrow g \cdot \min\left(1, \frac{\mathit{max\_norm}}{\mathit{norm} + 10^{-6}}\right)

    Takes the place of ``torch.nn.utils.clip_grad_norm_``. The norm is taken in float64, with the same bits for any
    number of threads; gradients are written only if the factor is not 1. The optimizers' own ``max_norm`` does the same
    without writing gradients. On one CUDA device the norm and the factor stay there, and the host does not wait.
    Gradients on several devices, of DTensor or other subclasses, sparse ones, and norms other than 2 and infinity are
    torch's own function's.

    Args:
        parameters: a tensor or tensors, whose ``grad`` is clipped; without a gradient they are left out.
        max_norm: the largest norm, at least 0.
        norm_type: 2.0, ``inf`` for the largest magnitude, or another number. Default 2.0.
        error_if_nonfinite: whether to raise if the norm is infinite or NaN. Default False.
        foreach: as torch's; without effect on the host. Default None.

    Returns:
        The norm before, as a tensor of the gradients' dtype.

    Raises:
        RuntimeError: the norm is not finite, and ``error_if_nonfinite`` is set. Then no gradient has changed.

    Example:
        >>> import torch, flatstep.torch
        >>> p = torch.nn.Parameter(torch.zeros(2))
        >>> p.grad = torch.tensor([3.0, 4.0])
        >>> flatstep.torch.clip_grad_norm_([p], max_norm=1.0)
        tensor(5.)
        >>> p.grad
        tensor([0.6000, 0.8000])

    References:
        ``torch.nn.utils.clip_grad_norm_``
    """
    params = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    grads = [param.grad for param in params if param.grad is not None]
    order = float(norm_type)
    if torch.compiler.is_compiling() or not grads or order not in (2.0, float("inf")) or not _are_ours(grads):
        return torch.nn.utils.clip_grad_norm_(params, max_norm, norm_type, error_if_nonfinite, foreach)
    own, largest = list(map(_memory, grads)), order != 2.0
    is_there = _devices.is_apart(grads[0].device)
    found = _found_there(own, largest, float(max_norm)) if is_there else _found_here(own, largest, float(max_norm))
    total = found[0].to(_norm_dtype(grads))
    if error_if_nonfinite and not torch.isfinite(total):
        raise RuntimeError(
            f"the norm of order {order} of the gradients is {found[0].item()} ({total.item()} in {total.dtype}), so "
            "that they cannot be clipped; to clip all the same, pass error_if_nonfinite=False"
        )
    if is_there or not found[1] >= 1:
        torch._foreach_mul_(list(map(in_memory, grads)), found[1] if is_there else found[1].item())
    return total


def _found_here(grads: list[Any], largest: bool, max_norm: float) -> Tensor:
    """The norm and the factor."""
    norm, _ = _core.global_norm(grads, 1.0, largest, " of parameter {}".format)
    return torch.tensor([norm, max_norm / (norm + 1e-6)], dtype=torch.float64, device="cpu")


def _found_there(grads: list[Any], largest: bool, max_norm: float) -> Tensor:
    """The same on the device of the gradients, which makes the factor at most 1; nothing is waited for."""
    found = torch.zeros(4, dtype=torch.float64, device=grads[0].device)
    norms_on(*_devices.backends()).find_into(grads, largest, max_norm, found)
    return found


def _are_ours(grads: list[Tensor]) -> bool:
    """Whether the core can read the gradients: they are on the CPU, or on one device."""
    return all(map(_is_ours, grads)) and len({grad.device for grad in grads}) == 1


def _is_ours(grad: Tensor) -> bool:
    is_here = grad.device.type == "cpu" or _devices.is_apart(grad.device)
    is_plain = type(grad) is Tensor and grad.layout == torch.strided and is_here
    is_plain = is_plain and (grad.dtype in _DTYPES or (grad.dtype.is_complex and grad.dtype != torch.complex32))
    return is_plain and not is_abstract(grad)


def _memory(grad: Tensor) -> Any:
    """The gradient as real numbers whose bits say what they mean."""
    own = grad.detach().resolve_conj().resolve_neg()
    return torch.view_as_real(own) if own.is_complex() else own


def _norm_dtype(grads: list[Tensor]) -> torch.dtype:
    """The dtype in which torch's function returns the norm."""
    dtypes = [grad.dtype.to_real() if grad.dtype.is_complex else grad.dtype for grad in grads]
    dtype = dtypes[0]
    for other in dtypes[1:]:
        dtype = torch.promote_types(dtype, other)
    return dtype
