"""clip_grad_norm_: torch's, with the norm in one pass. Public as flatstep.torch.clip_grad_norm_."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from functools import reduce
from types import GeneratorType

import torch
from torch import Tensor

from .. import _core
from .._norm import norms_on
from . import _devices
from ._limits import check_is_visible
from ._meshes import Meshes, are_several
from ._plain import in_memory, is_distributed, local, placement

_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_COMPLEX = (torch.complex64, torch.complex128)


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
    without writing gradients. Processes that share DTensors find the norm together, and have the same bits. On one CUDA
    device the norm and the factor stay there, and the host does not wait. Gradients on several devices, sparse ones,
    those of subclasses other than DTensor, and norms other than 2 and infinity are left to torch's own function.

    Args:
        parameters: a tensor or tensors, whose ``grad`` is clipped; without a gradient they are left out.
        max_norm: the largest norm, at least 0.
        norm_type: 2.0, ``inf`` for the largest magnitude, or another number. Default 2.0.
        error_if_nonfinite: whether to raise if the norm is infinite or NaN. Default False.
        foreach: as torch's; without effect on the host. Default None.

    Returns:
        The norm before, as a tensor of the gradients' dtype; a replicated DTensor if the gradients are DTensors on one
        mesh.

    Raises:
        RuntimeError: the norm is not finite, and ``error_if_nonfinite`` is set; or another process of a mesh has
            failed. Then no gradient has changed.
        ValueError: a parameter is one of FullyShardedDataParallel, or lies on a mesh without this process.

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
    params = _listed(parameters)
    order, limit = float(norm_type), float(max_norm)
    grads = [param.grad for param in params if param.grad is not None]
    is_compiling = torch.compiler.is_compiling()
    if not is_compiling:
        check_is_visible(params)
    is_ours = not is_compiling and order in (2.0, float("inf"))
    is_ours = is_ours and all(param.is_cpu for param in params if is_distributed(param))
    memories: list[Tensor | None] = list(map(_memory, grads)) if is_ours else [None]
    is_there = _are_on_one_device(memories)
    find = _found_there if is_there else _found_here
    can_read = all(memory is not None and (is_there or memory.is_cpu) for memory in memories)
    norm, factor = find(params, memories, order != 2.0, limit) if can_read else (None, 1.0)
    if norm is None:
        return torch.nn.utils.clip_grad_norm_(params, max_norm, norm_type, error_if_nonfinite, foreach)
    total = norm.to((grads or params)[0].device, _norm_dtype(grads or params))
    if error_if_nonfinite and not torch.isfinite(total):
        raise RuntimeError(
            f"The total norm of order {order} for gradients from `parameters` is non-finite, so it cannot be clipped: "
            f"it is {norm.item()} ({total.item()} in {total.dtype}). To clip all the same, pass "
            "error_if_nonfinite=False"
        )
    if isinstance(factor, Tensor) or not factor >= 1:
        _scale(grads, factor)
    return _placed_like(grads or params, total)


def _listed(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    if isinstance(parameters, Tensor):
        return [parameters]
    params = list(parameters)
    if not params and isinstance(parameters, GeneratorType):
        warnings.warn("`parameters` is an empty generator; no gradient is clipped", stacklevel=4)
    return params


def _memory(grad: Tensor) -> Tensor | None:
    """The part of a gradient here, as real numbers whose bits say what they mean; None where no kernel reads it."""
    own = grad if type(grad) is Tensor else local(grad)
    if type(own) is not Tensor or own.layout != torch.strided:
        return None
    if not (own.is_cpu or (own is grad and _devices.is_apart(own.device))) or not _has_memory(own):
        return None
    if own.dtype not in _DTYPES:
        if own.dtype not in _COMPLEX:
            return None
        own = torch.view_as_real(own.resolve_conj())
    own = own.resolve_neg() if own.is_neg() else own
    return own.detach() if own.requires_grad else own


def _has_memory(tensor: Tensor) -> bool:
    """Not so tensors of torch.func, or those that are all zeros without storing them."""
    try:
        tensor.data_ptr()
    except RuntimeError:
        return False
    return not tensor._is_zerotensor()


def _summed(grad: Tensor) -> Tensor:
    """The gradient; where its parts on a mesh dimension are still to be added up, their sum."""
    where = placement(grad)
    if where is None or not any(how.is_partial() for how in where[1]):
        return grad
    from torch.distributed.tensor import Replicate

    return grad.redistribute(where[0], [Replicate() if how.is_partial() else how for how in where[1]])  # type: ignore[attr-defined, no-any-return]


def _are_on_one_device(memories: list[Tensor | None]) -> bool:
    """Whether all of them are on the same device, which is not the host."""
    places = {None if memory is None else memory.device for memory in memories}
    first = next(iter(places), None)
    return len(places) == 1 and first is not None and _devices.is_apart(first)


def _found_there(
    params: list[Tensor], memories: list[Tensor | None], is_largest: bool, limit: float
) -> tuple[Tensor, Tensor]:
    """The norm, and the factor, of at most 1, on the device of the gradients; nothing is waited for."""
    found = torch.zeros(4, dtype=torch.float64, device=memories[0].device)  # type: ignore[union-attr]
    norms_on(*_devices.backends()).find_into(memories, is_largest, limit, found, _names_of_grads(params))
    return found[0], found[1]


def _found_here(
    params: list[Tensor], memories: list[Tensor | None], is_largest: bool, limit: float
) -> tuple[Tensor | None, float]:
    """The same on the host, where the factor may be larger than 1."""
    norm = _norm(params, memories, is_largest)
    if norm is None:
        return None, 1.0
    return torch.tensor(norm, dtype=torch.float64, device="cpu"), limit / (norm + 1e-6)


def _norm(params: list[Tensor], memories: list[Tensor | None], is_largest: bool) -> float | None:
    """The norm of the gradients, of which ``memories`` are those here. None where no process can have any."""
    if are_several() and any(map(is_distributed, params)):
        return _norm_on_meshes(params, is_largest)
    return _core.global_norm(memories, 1.0, is_largest, _names_of_grads(params))[0] if memories else None


def _names_of_grads(params: list[Tensor]) -> Callable[[int], str]:
    """The name of a gradient by its position among those that there are."""
    with_grad = [at for at, param in enumerate(params) if param.grad is not None]
    return lambda at: _name(with_grad[at])


def _norm_on_meshes(params: list[Tensor], is_largest: bool) -> float:
    """The same on all processes, of which each may have other gradients or none."""
    tensors = [param if param.grad is None else _summed(param.grad) for param in params]
    meshes = Meshes(tensors)
    with meshes:
        memories = [None if p.grad is None else _memory(t) for p, t in zip(params, tensors, strict=True)]
        totals = []
        for part in range(max(meshes.parts) + 1):
            own = [memory if at == part else None for memory, at in zip(memories, meshes.parts, strict=True)]
            totals.append(_core.norm_total(own, is_largest, _name))
        return meshes.combine_largest(totals) if is_largest else meshes.combine(totals, True)[0]


_name = " of parameter {}".format


def _scale(grads: list[Tensor], factor: float | Tensor) -> None:
    torch._foreach_mul_([in_memory(local(grad)) for grad in grads], factor)
    if distributed := [grad for grad in grads if is_distributed(grad)]:
        torch.autograd.graph.increment_version(distributed)


def _norm_dtype(tensors: list[Tensor]) -> torch.dtype:
    """The dtype in which torch's function returns the norm."""
    first, *others = dict.fromkeys([tensor.dtype for tensor in tensors])
    dtype = reduce(torch.promote_types, others, first)
    return dtype.to_real() if dtype.is_complex else dtype


def _placed_like(tensors: list[Tensor], norm: Tensor) -> Tensor:
    """The norm as a DTensor, if the tensors are DTensors on one mesh: as torch's function returns it."""
    first = placement(tensors[0])
    if first is None or any((placement(tensor) or [None])[0] != first[0] for tensor in tensors):
        return norm
    from torch.distributed.tensor import DTensor, Replicate

    mesh = first[0]
    return DTensor.from_local(norm, mesh, [Replicate()] * mesh.ndim, run_check=False)
