"""Sets gradients to zero where the core does not: of skipped steps, and those of which it sees copies.

Used by _optimizer.py and _stand_ins.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch
from torch import Tensor

from ._overlap import first_overlap
from ._plain import in_memory, is_abstract, local


def calls(params: Sequence[Tensor], chosen: Iterable[int], name: Callable[[int], str]) -> list[Callable[[], object]]:
    """The call that sets the gradients of some of the parameters, by position, to zero; empty without any.

    ValueError where zeros would change more than these gradients.
    """
    grads = {at: _memory(param.grad) for at, param in enumerate(params) if param.grad is not None}
    zeroed = [grad for at in chosen if (grad := grads.get(at)) is not None]
    if not zeroed:
        return []
    for at, grad in grads.items():
        if grad is not None and torch._debug_has_internal_overlap(grad) == 1:
            what = f"grad of {name(at)}"
            raise ValueError(f"{what} has elements that share memory, but zero_grads sets it to zero; pass a copy")
    _check_apart([_memory(param) for param in params], [*grads.values()], [*grads], name)
    return [partial(torch._foreach_zero_, zeroed)]


def _memory(tensor: Tensor) -> Tensor | None:
    """This process's part of a tensor; None where it has no memory."""
    with torch._C.DisableTorchFunctionSubclass():
        own = local(tensor.detach())
    return None if own.layout != torch.strided or is_abstract(own) else in_memory(own)


def _check_apart(
    params: list[Tensor | None], grads: list[Tensor | None], positions: list[int], name: Callable[[int], str]
) -> None:
    tensors = [(at, "param", param) for at, param in enumerate(params) if param is not None]
    tensors += [(at, "grad of", grad) for at, grad in zip(positions, grads, strict=True) if grad is not None]
    overlap = first_overlap([tensor for *_, tensor in tensors])
    if overlap:
        other, own = (f"{tensors[index][1]} {name(tensors[index][0])}" for index in overlap)
        raise ValueError(f"{own} shares memory with {other}, and zero_grads sets gradients to zero; pass a copy")


def zero_gradients(params: Sequence[Tensor], name: Callable[[int], str]) -> None:
    """Sets all gradients to zero."""
    for call in calls(params, range(len(params)), name):
        call()
    torch.autograd.graph.increment_version([param.grad for param in params if param.grad is not None])
