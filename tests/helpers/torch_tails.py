"""Runs of flatstep.torch's optimizers whose steps do more than their update: averages and zeroed gradients."""

from __future__ import annotations

import pytest

from torch_cases import DEFAULTS, give_grads, parametrize, torch

SHAPES = [(1500,), (), (3, 5, 7), (0, 4), (64,)]
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
defaults = parametrize(DEFAULTS)
by_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def train(opt, params, steps=4, zeroes=False):
    """The parameters after each step, as arrays."""
    seen = []
    for step in range(steps):
        give_grads(params, seed=step)
        opt.step()
        assert not zeroes or not any(param.grad.any() for param in params)
        seen.append([array_of(param) for param in params])
    return seen


def array_of(tensor):
    """bfloat16 as float32."""
    tensor = tensor.detach()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy().copy()
