"""A module's parameters and gradients in one buffer each. For users, by flatstep.torch."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from itertools import accumulate
from operator import is_
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from ._overlap import first_overlap


def flatten_parameters(module: torch.nn.Module) -> Parameter:
    """Lays the parameters of a module, and their gradients, into one buffer each.

    Every parameter stays the Parameter that it is, but its numbers become a view of one flat Parameter, which is
    returned, and its gradient a view of that one's gradient, into which autograd accumulates. An optimizer over the
    flat Parameter steps the whole module as one tensor, and its ``zero_grad(set_to_none=False)`` is one fill.

    The flat gradient, when it is read, has the parameters' gradients in it: those that autograd made, after a
    ``zero_grad()`` of optimizer or module, are moved into the buffer first, at the cost of a copy. A parameter without
    a gradient, one that was frozen since, say, counts as one whose gradient is zero, unless all are without: then the
    flat gradient is None.

    Replacing a parameter's ``.data``, or moving the module to another dtype or device, takes it out of the buffer, and
    the next step says so; replacing the Parameter itself cannot be noticed. Flatten again after either.

    Args:
        module: its parameters have one dtype and device, are dense and plain, and lie apart.

    Returns:
        The flat Parameter, one-dimensional. Its ``grad`` is zero where the module had no gradient yet.

    Raises:
        ValueError: the module has no parameters, or they differ in dtype or device, or one requires no gradient, or
            two share memory without being the same.
        TypeError: a parameter is not a plain torch.nn.Parameter.

    Example:
        >>> import torch, flatstep.torch
        >>> model = torch.nn.Linear(3, 2)
        >>> flat = flatstep.torch.flatten_parameters(model)
        >>> opt = flatstep.torch.AMSGrad([flat], lr=0.1)
        >>> model(torch.ones(1, 3)).sum().backward()
        >>> opt.step()
        >>> opt.zero_grad(set_to_none=False)
        >>> flat.shape, bool(model.weight.grad.any())
        (torch.Size([8]), False)
    """
    params = dict(module.named_parameters())
    _check(params)
    return FlatParameter.over(list(params), list(params.values()))


class FlatParameter(Parameter):
    """What flatten_parameters returns. Its gradient is that of its parts, also where those were replaced."""

    _names: list[str]  # of the parts
    _parts: list[Parameter]
    _addresses: list[int]  # of the buffer of parameters and of the parts in it, when last seen
    _buffer: Tensor  # of gradients
    _views: list[Tensor]  # of that buffer: a gradient for each part

    @staticmethod
    def over(names: list[str], parts: list[Parameter]) -> FlatParameter:
        """Moves the parts into a buffer of their own, and their gradients into another."""
        total = sum(part.numel() for part in parts)
        flat = FlatParameter(parts[0].new_empty(total))
        flat._names, flat._parts = names, parts
        for part, value in zip(parts, _views(flat.data, parts), strict=True):
            part.data = value.copy_(part.detach())
        flat._addresses = flat._addresses_now()
        flat._buffer = parts[0].new_zeros(total)
        flat._views = list(_views(flat._buffer, parts))
        flat._gather([part.grad for part in parts], None)
        return flat

    @property
    def grad(self) -> Tensor | None:
        self._check_places()
        grads = [part.grad for part in self._parts]
        own = _OWN_GRAD.__get__(self)  # where the flat parameter itself was part of a loss
        if own is None and all(map(is_, grads, self._views)):
            return self._buffer
        if own is None and all(grad is None for grad in grads):
            return None
        self._gather(grads, own)
        return self._buffer

    @grad.setter
    def grad(self, grad: Tensor | None) -> None:
        if grad is not None and (grad.shape, grad.dtype, grad.device) != (self.shape, self.dtype, self.device):
            raise ValueError(
                f"a flat gradient has shape {tuple(grad.shape)} and dtype {grad.dtype} on {grad.device}, expected "
                f"{tuple(self.shape)} and {self.dtype} on {self.device} like the flat parameter"
            )
        if grad is not None:
            self._buffer = grad.detach().contiguous()
            self._views = list(_views(self._buffer, self._parts))
        self._give(self._views if grad is not None else [None] * len(self._parts))

    @torch.no_grad()
    def _gather(self, grads: Sequence[Tensor | None], own: Tensor | None) -> None:
        """Makes the buffer, and views of it, the gradients."""
        for view, grad in zip(self._views, grads, strict=True):
            if grad is None:
                view.zero_()
            elif grad is not view:
                view.copy_(grad)
        if own is not None:
            self._buffer += own
        self._give(self._views)

    def _give(self, grads: Sequence[Tensor | None]) -> None:
        _OWN_GRAD.__set__(self, None)
        for part, grad in zip(self._parts, grads, strict=True):
            part.grad = grad

    def _addresses_now(self) -> list[int]:
        return list(map(Tensor.data_ptr, [self, *self._parts]))

    def _check_places(self) -> None:
        """RuntimeError where a part has moved. (All may have moved together, into shared memory, say.)"""
        start, *now = self._addresses_now()
        if [start, *now] == self._addresses:
            return
        before, *then = self._addresses
        for name, part, here, there in zip(self._names, self._parts, now, then, strict=True):
            if part.numel() and here - start != there - before:
                raise RuntimeError(
                    f"parameter {name} no longer lies in its flat buffer: its .data was set, or the module was moved "
                    "to another dtype or device, or flattened again; flatten it again and make another optimizer"
                )
        self._addresses = [start, *now]

    def __deepcopy__(self, memo: dict[int, Any]) -> FlatParameter:
        return FlatParameter.over(self._names, copy.deepcopy(self._parts, memo))

    def __reduce_ex__(self, protocol: Any) -> Any:
        return FlatParameter.over, (self._names, self._parts)


_OWN_GRAD: Any = Tensor.grad  # the slot that autograd fills, which FlatParameter.grad hides


def _views(flat: Tensor, parts: list[Parameter]) -> Iterator[Tensor]:
    """Consecutive parts of a buffer, laid out as the parameters are, or densely where these have gaps."""
    counts = [part.numel() for part in parts]
    for part, end, count in zip(parts, accumulate(counts), counts, strict=True):
        strides = torch.empty_like(part, device="meta").stride()
        yield flat[end - count : end].as_strided(part.shape, strides)


def _check(params: dict[str, Parameter]) -> None:
    if not params:
        raise ValueError("the module has no parameters to flatten")
    first_name, first = next(iter(params.items()))
    for name, param in params.items():
        if type(param) is not Parameter:
            raise TypeError(f"parameter {name} is a {type(param).__name__}, expected a plain torch.nn.Parameter")
        if (param.dtype, param.device) != (first.dtype, first.device):
            raise ValueError(
                f"parameter {name} is {param.dtype} on {param.device}, but {first_name} is {first.dtype} on "
                f"{first.device}; one buffer holds one dtype on one device: flatten the parts of the module apart"
            )
        if not param.requires_grad:
            raise ValueError(
                f"parameter {name} requires no gradient, and would be stepped with the others (by weight decay, say); "
                "flatten the parts of the module that train"
            )
    overlap = first_overlap(list(params.values()))
    if overlap:
        first_name, name = (list(params)[index] for index in overlap)
        raise ValueError(
            f"parameter {name} shares memory with {first_name}, and would no longer; make them the same Parameter"
        )
