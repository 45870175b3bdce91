"""One row per torch optimizer and settings, with the core's optimizer and the oracle that it must equal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import flatstep
import reference

torch = pytest.importorskip("torch")
import flatstep.torch as front  # noqa: E402

SLOTS = {"mu": "exp_avg", "nu": "exp_avg_sq", "nu_max": "max_exp_avg_sq", "previous": "previous"}
DTYPES = {torch.float32: np.float32, torch.float64: np.float64, torch.float16: np.float16}


@dataclass(frozen=True)
class Case:
    """``settings`` in torch's words, ``own`` in the core's."""

    name: str
    optimizer: type[torch.optim.Optimizer]
    core: type[flatstep.Optimizer]
    oracle: Callable[..., Any]
    settings: dict[str, Any] = field(default_factory=dict)
    own: dict[str, Any] = field(default_factory=dict)

    def make(self, params: Any, **more: Any) -> Any:
        return self.optimizer(params, **{"lr": 0.05, **self.settings, **more})


def _rows(optimizer, core, oracle, rows):
    return [Case(f"{optimizer.__name__}-{name}", optimizer, core, oracle, *row) for name, row in rows.items()]


def _same(**settings):
    return settings, settings


COMMON = {
    "default": ({}, {}),
    "betas": (dict(betas=(0.5, 0.75)), dict(b1=0.5, b2=0.75)),
    "eps": _same(eps=1e-3, eps_root=1e-4),
    "weight_decay": _same(weight_decay=0.1),
    "decoupled": _same(weight_decay=0.1, decoupled_weight_decay=True),
    "maximize": _same(maximize=True, weight_decay=0.1),
}
TORCH = dict(convention="torch")
CASES = [
    *_rows(front.Adam, flatstep.Adam, reference.adam, {**COMMON, "nesterov": _same(nesterov=True)}),
    *_rows(front.AdamW, flatstep.AdamW, reference.adamw, {"default": ({}, {})}),
    *_rows(
        front.AMSGrad,
        flatstep.AMSGrad,
        reference.amsgrad,
        {
            **{name: (settings, {**own, **TORCH}) for name, (settings, own) in COMMON.items()},
            "optax": _same(convention="optax"),
            "paper": _same(convention="paper"),
        },
    ),
    *_rows(front.Adam, flatstep.AMSGrad, reference.amsgrad, {"amsgrad": (dict(amsgrad=True), TORCH)}),
    *_rows(
        front.OptimisticAdam,
        flatstep.OptimisticAdam,
        reference.optimistic_adam,
        {
            **COMMON,
            "plain": _same(nesterov=False),
            "alpha_beta": _same(alpha=0.25, beta=0.7),
            "no_optimism": _same(beta=0.0),
        },
    ),
]
DEFAULTS = [case for case in CASES if case.name.endswith(("default", "amsgrad"))]


def params_of(arrays, dtype=None):
    return [torch.nn.Parameter(torch.from_numpy(array.copy()).to(dtype)) for array in arrays]


def set_grads(params, arrays):
    for param, array in zip(params, arrays, strict=True):
        param.grad = None if array is None else torch.from_numpy(array.copy()).to(param.dtype)
