"""A module's parameters and gradients in one buffer each. For users, by flatstep.torch."""

from __future__ import annotations

import torch


def flatten_parameters(module: torch.nn.Module) -> torch.nn.Parameter:
    """Lays the parameters of a module, and their gradients, into one buffer each.

    Every parameter stays the Parameter that it is, but its numbers become a view of one flat Parameter, which is
    returned, and its gradient a view of that one's gradient, into which autograd accumulates. An optimizer over the
    flat Parameter steps the whole module as one tensor, and its ``zero_grad(set_to_none=False)`` is one fill.

    Gradients must stay where they are: use ``zero_grad(set_to_none=False)``, on the module too. Replacing a parameter's
    ``.data`` or ``.grad``, or moving the module to another dtype or device, takes it out of the buffer; flatten again.

    Args:
        module: parameters that share memory stay shared; all have one dtype and device, and are dense and plain.

    Returns:
        The flat Parameter, one-dimensional. Its ``grad`` is zero where the module had no gradient yet.

    Raises:
        ValueError: the module has no parameters, or they differ in dtype or device, or one requires no gradient.
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
    first = next(iter(params.values()))
    total = sum(param.numel() for param in params.values())
    flat = torch.nn.Parameter(torch.empty(total, dtype=first.dtype, device=first.device))
    flat.grad = torch.zeros_like(flat)
    start = 0
    with torch.no_grad():
        for param in params.values():
            part = slice(start, start + param.numel())
            value, grad = flat.data[part].view(param.shape), flat.grad[part].view(param.shape)
            value.copy_(param)
            if param.grad is not None:
                grad.copy_(param.grad)
            param.data, param.grad = value, grad
            start = part.stop
    return flat


def _check(params: dict[str, torch.nn.Parameter]) -> None:
    if not params:
        raise ValueError("the module has no parameters to flatten")
    first_name, first = next(iter(params.items()))
    for name, param in params.items():
        if type(param) is not torch.nn.Parameter:
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
