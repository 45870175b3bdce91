"""One row per torch optimizer and settings, with the core's optimizer and the oracle that it must equal."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import flatstep
import reference
from cases import assert_same_bits

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


LOOP = dict(foreach=False, fused=False)  # how torch.optim spells its for-loop
PEERS = [
    case
    for case in CASES
    if case.optimizer is not front.OptimisticAdam
    and "nesterov" not in case.name
    and case.settings.get("convention", "torch") == "torch"
]
DEFAULT_PEERS = [case for case in DEFAULTS if case in PEERS]


def torch_peer(case, params, **more):
    """The optimizer of torch.optim that a case should equal, running its for-loop."""
    settings = {name: value for name, value in case.settings.items() if name != "eps_root"}
    if case.optimizer is front.AMSGrad:
        settings["amsgrad"] = True
    optimizer = getattr(torch.optim, case.optimizer.__name__, torch.optim.Adam)
    return optimizer(params, **{"lr": 0.05, **settings, **LOOP, **more})


def parametrize(cases):
    return pytest.mark.parametrize("case", cases, ids=[case.name for case in cases])


def twins(shapes, dtype=torch.float32, seed=0):
    """Two lists of equal parameters."""
    generator = torch.Generator().manual_seed(seed)
    values = [torch.randn(shape, dtype=dtype, generator=generator) for shape in shapes]
    return tuple([torch.nn.Parameter(value.clone()) for value in values] for _ in range(2))


def give_grads(*lists, seed):
    """Equal random gradients to each of the lists of parameters."""
    generator = torch.Generator().manual_seed(seed)
    for params in zip(*lists, strict=True):
        grad = torch.randn(params[0].shape, dtype=params[0].dtype, generator=generator)
        for param in params:
            param.grad = grad.clone()


def same_bits(ours, theirs, what=""):
    """Of tensors, or lists and dicts of them."""
    if isinstance(ours, torch.Tensor):
        assert ours.dtype == theirs.dtype, what
        if ours.is_meta:
            return
        wide = [tensor.detach().resolve_conj().resolve_neg() for tensor in (ours, theirs)]
        wide = [torch.view_as_real(tensor) if tensor.is_complex() else tensor for tensor in wide]
        wide = [tensor.float() if tensor.dtype == torch.bfloat16 else tensor for tensor in wide]
        assert_same_bits(*[tensor.numpy() for tensor in wide], what)
        return
    keys = ours if isinstance(ours, dict) else range(len(ours))
    assert len(ours) == len(theirs), what
    for key in keys:
        same_bits(ours[key], theirs[key], f"{what} {key}")


def assert_close(ours, theirs):
    """Within the few ulp, of the largest number that took part, by which roundings in another order differ."""
    torch.testing.assert_close(ours, theirs, rtol=2e-5 if single(ours) else 1e-12, atol=2e-6 if single(ours) else 1e-14)


def single(tensors):
    first = tensors if isinstance(tensors, torch.Tensor) else tensors[0]
    return first.dtype in (torch.float32, torch.complex64)


class Snapshot:
    """What a refused call must leave as it was."""

    host_knows = True  # whether a step was skipped: else versions go on all the same

    def __init__(self, opt):
        self._opt = opt
        self._before = self._now(copy.deepcopy)

    def _now(self, keep):
        groups = [{key: value for key, value in group.items() if key != "params"} for group in self._opt.param_groups]
        params = [param for group in self._opt.param_groups for param in group["params"]]
        values = [param.detach().clone() for param in params]
        state = [(param, keep(dict(state))) for param, state in self._opt.state.items()]
        return keep(groups), params, values, [param._version for param in params], state

    def check(self):
        groups, params, values, versions, states = self._before
        groups_now, params_now, values_now, versions_now, states_now = self._now(lambda value: value)
        assert repr(groups_now) == repr(groups)
        assert list(map(id, params_now)) == list(map(id, params))
        same_bits(values_now, values)
        if self.host_knows:
            assert versions_now == versions
        elif not states:  # made for the step that was skipped then
            states = [(p, {key: torch.zeros_like(slot) for key, slot in own.items()}) for p, own in states_now]
        assert [id(param) for param, _ in states_now] == [id(param) for param, _ in states]
        for (_, now), (_, then) in zip(states_now, states, strict=True):
            same_bits(now, then)
