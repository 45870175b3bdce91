"""Tensors of all kinds as plain ones over the same memory. Used by _stand_ins.py, _loading.py and _scaling.py."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import _devices

_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)  # or complex numbers of these


def scalar_dtype() -> torch.dtype:
    """The dtype in which torch counts steps."""
    return torch.float64 if torch.get_default_dtype() == torch.float64 else torch.float32


def count(updates: Any, param: Tensor) -> Tensor:
    """The number of a parameter's updates, as its state counts them: in a 0-d tensor."""
    return torch.full((), float(updates), dtype=scalar_dtype(), device=_devices.of_count(param))  # waits for no device


def is_distributed(tensor: Tensor) -> bool:
    return type(tensor).__name__ == "DTensor" and type(tensor).__module__.startswith("torch.distributed")


def placement(tensor: Tensor) -> Any:
    """Where the parts of a distributed tensor lie; None for any other."""
    return (tensor.device_mesh, tensor.placements) if is_distributed(tensor) else None  # type: ignore[attr-defined]


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a distributed tensor; any other tensor itself."""
    if not is_distributed(tensor):
        return tensor
    part = tensor.to_local()  # type: ignore[attr-defined]
    return part.wait() if hasattr(part, "wait") else part  # type: ignore[no-any-return]  # of a collective under way


def is_abstract(tensor: Tensor) -> bool:
    """Whether the tensor has a shape and a dtype but no numbers: on the meta device, or under FakeTensorMode."""
    part = local(tensor)
    return part.is_meta or any(kind.__name__ == "FakeTensor" for kind in type(part).__mro__)


def dtype_name(dtype: torch.dtype) -> str:
    """The name by which the compiled core knows the numbers of such tensors; complex numbers are pairs of real ones."""
    return str(dtype.to_real() if dtype.is_complex else dtype).removeprefix("torch.")


def plain(tensor: Tensor, what: str) -> Tensor:
    """The tensor over the same memory, without subclass and autograd.

    RuntimeError, TypeError or ValueError, in terms of ``what``, where its memory cannot be stepped.
    """
    tensor = local(tensor)
    if tensor.layout != torch.strided:
        if tensor.is_sparse:
            raise RuntimeError(f"{what} is sparse, expected a dense tensor; consider torch.optim.SparseAdam instead")
        raise TypeError(f"{what} has layout {tensor.layout}, expected torch.strided")
    if why := _devices.why_rejected(tensor.device):
        raise ValueError(f"{what} {why}")
    if type(tensor).__torch_dispatch__ is not torch._C._disabled_torch_dispatch_impl:
        raise TypeError(
            f"{what} is a {type(tensor).__name__}, whose numbers are kept elsewhere; use torch.optim for it"
        )
    with torch._C.DisableTorchFunctionSubclass():
        own = tensor.detach()
    if (own.dtype.to_real() if own.is_complex() else own.dtype) not in _DTYPES:
        raise TypeError(f"{what} has dtype {tensor.dtype}, expected one of {', '.join(map(str, _DTYPES))}")
    try:
        own.data_ptr()
    except RuntimeError:
        raise TypeError(f"{what} has no memory that a step could write; torch.func's tensors, say, have none") from None
    return own


def real(tensor: Tensor) -> Tensor:
    """The tensor over the same memory, complex numbers as pairs of real ones."""
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def in_memory(tensor: Tensor) -> Tensor:
    """The numbers that lie in the tensor's memory, where it means their negatives or conjugates."""
    tensor = tensor.conj() if tensor.is_conj() else tensor
    return torch._neg_view(tensor) if tensor.is_neg() else tensor


def resolved(tensor: Tensor) -> Tensor:
    """A tensor whose memory holds its numbers: itself, or a copy where they are conjugated or negated when read."""
    return tensor.resolve_conj().resolve_neg()
