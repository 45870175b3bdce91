"""A case for each torch optimizer and its settings, from table.py, with the optimizer and the oracle that it equals."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import flatstep
from cases import assert_same_bits
from table import TABLE, TORCH_SETTINGS, in_torch_words

torch = pytest.importorskip("torch")
import flatstep.torch as front  # noqa: E402

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
    peer: tuple[str, dict[str, Any]] | None = None  # a class of torch.optim, and more arguments

    def make(self, params: Any, **more: Any) -> Any:
        return self.optimizer(params, **{"lr": 0.05, **self.settings, **more})

    @property
    def keys(self) -> dict[str, str]:
        """Where a parameter's state has each slot."""
        return dict(self.optimizer._declaration.torch.keys)

    @property
    def arguments(self) -> set[str]:
        """What its class takes."""
        return {*inspect.signature(self.optimizer).parameters}

    def fitting(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Those of the settings that its class takes."""
        return {name: value for name, value in settings.items() if name in self.arguments}


def _cases() -> Iterator[Case]:
    for entry in TABLE:
        for face in entry.torch:
            optimizer = getattr(front, face.name)
            takes = {"b1", "b2", *inspect.signature(optimizer).parameters}
            rows = TORCH_SETTINGS if face.rows is None else face.rows
            for name, own in rows.items():
                if entry.has(own) and takes.issuperset(own):
                    settings = {**face.arguments, **in_torch_words(entry, own)}
                    equals = entry.optimizer, entry.oracle, settings, {**face.own, **own}, face.peer
                    yield Case(f"{face.name}-{name}", optimizer, *equals)


CASES = list(_cases())
CLASSES = list(dict.fromkeys(case.optimizer for case in CASES))
DEFAULTS = [case for case in CASES if case.name.endswith(("default", "amsgrad", "all_slots"))]
PEERS = [case for case in CASES if case.peer]
DEFAULT_PEERS = [case for case in DEFAULTS if case in PEERS]


def defaults_with(argument):
    return parametrize([case for case in DEFAULTS if argument in case.arguments])


def params_of(arrays, dtype=None):
    return [torch.nn.Parameter(torch.from_numpy(array.copy()).to(dtype)) for array in arrays]


def set_grads(params, arrays):
    for param, array in zip(params, arrays, strict=True):
        param.grad = None if array is None else torch.from_numpy(array.copy()).to(param.dtype)


def loop(name: str) -> dict[str, bool]:
    """How a class of torch.optim is told to run its for-loop."""
    taken = inspect.signature(getattr(torch.optim, name)).parameters
    return {option: False for option in ("foreach", "fused") if option in taken}


def torch_peer(case, params, **more):
    """The optimizer of torch.optim that a case should equal, running its for-loop."""
    name, needed = case.peer
    settings = {name: value for name, value in case.settings.items() if name != "eps_root"}
    return getattr(torch.optim, name)(params, **{"lr": 0.05, **settings, **needed, **loop(name), **more})


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


def in_a_bucket(grads):
    """Equal gradients as DDP's ``gradient_as_bucket_view`` lays them out: parts of one buffer, here an element late."""
    bucket = torch.cat([grads[0].new_zeros(1), *(grad.flatten() for grad in grads)])
    parts = bucket[1:].split([grad.numel() for grad in grads])
    return [part.view(grad.shape) for part, grad in zip(parts, grads, strict=True)]


# Gradients that cost a kernel another path, by what they are made of.
GRADIENTS = {"in a bucket": in_a_bucket, "all zero": lambda grads: [torch.zeros_like(grad) for grad in grads]}


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


def first(key, param, slot):
    """What a slot holds before any update; an average begins as a copy."""
    return param.detach().to(slot.dtype) if key == "ema" else torch.zeros_like(slot)


class Snapshot:
    """What a rejected call must leave as it was."""

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
            states = [(param, {key: first(key, param, slot) for key, slot in own.items()}) for param, own in states_now]
        assert [id(param) for param, _ in states_now] == [id(param) for param, _ in states]
        for (_, now), (_, then) in zip(states_now, states, strict=True):
            same_bits(now, then)
