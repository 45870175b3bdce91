"""Taking over a state_dict: every check and conversion, before torch's own load_state_dict assigns anything.

Used by optimizer.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import chain, combinations
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .. import _core
from . import devices
from .numbers import UNSAID, Group
from .plain import count, dtype_name, is_abstract

if TYPE_CHECKING:
    from .optimizer import FusedOptimizer

_TOO_MANY = 2**62  # steps, for the count of the compiled core
_ALL_GROUPS_HAVE = ("lr", "betas", "eps", "weight_decay")  # of Adam and its relatives, in every version of torch


@dataclass
class _Ready:
    """A value that the state is to hold as it is. Hides it from torch, which would cast it to its parameter's dtype."""

    value: Any


def prepare(optimizer: Any, state_dict: dict[str, Any]) -> dict[str, Any]:
    """The state_dict, checked, in which our states are copies, each beside its parameter and ready to be stepped.

    ValueError or TypeError where it cannot be taken over. What torch's own load_state_dict checks is left to it, and
    so is what belongs to no parameter or to no slot.
    """
    _check_form(state_dict)
    for index, group in enumerate(state_dict["param_groups"]):
        _check_group(optimizer, f"group {index} of the state_dict", group)
    for own, loaded in zip(optimizer.param_groups, state_dict["param_groups"], strict=False):
        optimizer.check_group({**optimizer.defaults, **UNSAID, **loaded, "params": own["params"]})
    states = dict(state_dict["state"])
    for key, param, group in _parameters(optimizer, state_dict):
        if key in states:
            states[key] = _prepared(optimizer, key, states[key], param, group)
    return {**state_dict, "state": states}


def _check_form(state_dict: dict[str, Any]) -> None:
    """ValueError where it does not look like what ``state_dict`` returns."""
    for key, kinds in (("state", (dict,)), ("param_groups", (list, tuple))):
        if not isinstance(state_dict.get(key), kinds):
            found = f"is a {type(state_dict[key]).__name__}" if key in state_dict else "is missing"
            raise ValueError(f"{key!r} in the state_dict {found}, expected a {kinds[0].__name__}")
    for index, group in enumerate(state_dict["param_groups"]):
        if not isinstance(group, dict) or "params" not in group:
            raise ValueError(f"group {index} of the state_dict is {group!r}, expected a dict with 'params'")


def unwrap(state: dict[Any, Any]) -> None:
    """Puts what ``prepare`` has made ready into a state that no optimizer holds yet."""
    for own in state.values():
        if isinstance(own, dict):
            own.update({key: value.value for key, value in own.items() if isinstance(value, _Ready)})


def _parameters(optimizer: FusedOptimizer, state_dict: dict[str, Any]) -> Iterator[tuple[Any, Tensor, Group]]:
    """What the state_dict calls each parameter, the parameter, and its group as it will be."""
    for own, loaded in zip(optimizer.param_groups, state_dict["param_groups"], strict=False):
        group = {**optimizer.defaults, **UNSAID, **loaded}
        for key, param in zip(loaded["params"], own["params"], strict=False):
            yield key, param, group


def _check_group(optimizer: FusedOptimizer, what: str, group: Group) -> None:
    """ValueError where the group is of another optimizer, or means something else."""
    for name, mine, theirs in optimizer.unlike(group):
        raise ValueError(
            f"{what} has {name}={theirs!r}, but this optimizer has {name}={mine!r}, "
            f"under which the state means something else; make the optimizer with {name}={theirs!r}"
        )
    ours = type(optimizer).__name__
    missing = [name for name in _expected(optimizer, group) if name not in group]
    unknown = [name for name in _foreign(optimizer.rules) if name in group and group[name] != UNSAID.get(name)]
    if missing or unknown:
        lacks = f"lacks {', '.join(missing)}, which {ours} has" if missing else ""
        has = f"has {', '.join(unknown)}, which {ours} does not have" if unknown else ""
        raise ValueError(f"{what} {' and '.join(filter(None, (lacks, has)))}; it was saved by another optimizer")


def _expected(optimizer: FusedOptimizer, group: Group) -> Iterator[str]:
    """The keys that a group of this optimizer has, whichever version of torch or flatstep saved it."""
    yield from _ALL_GROUPS_HAVE
    if "foreach" in group:
        yield "amsgrad"  # older than foreach; torch's NAdam and RAdam have foreach alone
    for name in _core.hyperparameters(optimizer.rule):
        if name in optimizer.defaults and name not in UNSAID and name not in _ALL_GROUPS_HAVE:
            yield name


@cache
def _foreign(rules: tuple[str, ...]) -> tuple[str, ...]:
    """The numbers that other rules have, and none of these."""
    own = {name for rule in rules for name in _core.hyperparameters(rule)}
    others = [name for rule in _core.rules() for name in _core.hyperparameters(rule)]
    return tuple(name for name in dict.fromkeys(others) if name not in own)


def _prepared(optimizer: FusedOptimizer, key: Any, state: Any, param: Tensor, group: Group) -> Any:
    what = f"the state of parameter {key!r} in the state_dict"
    if not isinstance(state, dict):
        raise ValueError(f"{what} is a {type(state).__name__}, expected a dict")
    if not state:
        return state
    # Twice on its way where an interrupted load has left its hook.
    state = {name: value.value if isinstance(value, _Ready) else value for name, value in state.items()}
    slots = optimizer.keys_of(group)
    missing = [name for name in ("step", *slots) if name not in state]
    if missing:
        raise ValueError(
            f"{what} lacks {missing}, without which {type(optimizer).__name__} cannot go on; it was saved by another "
            "optimizer"
        )
    if unknown := [name for name in optimizer.foreign_keys() if name in state]:
        raise ValueError(
            f"{what} has {unknown}, which {type(optimizer).__name__} does not have; it was saved by another optimizer"
        )
    for name in slots:
        _check_slot(state[name], param, f"{name} in {what}")
    ready: dict[str, Any] = {"step": _step(state["step"], param, f"step in {what}")}
    for name, dtype in _dtypes(optimizer, state, param, group).items():
        ready[name] = _copy(state[name], param.device, dtype, f"{name} in {what}")
    return {**state, **{name: _Ready(value) for name, value in ready.items()}}


def _dtypes(optimizer: FusedOptimizer, state: dict[str, Any], param: Tensor, group: Group) -> dict[str, torch.dtype]:
    """The dtype that each slot is to have: as few are rounded to what a new state would have as the kernels allow.

    torch rounds all of them to the parameter's dtype, which may hold less than what was saved.
    """
    slots = optimizer.keys_of(group)
    fresh = {name: (group["mu_dtype"] if name == "exp_avg" else None) or param.dtype for name in slots}
    saved = {name: state[name].dtype for name in slots}
    wide = [name for name in slots if saved[name].is_floating_point and saved[name].itemsize > fresh[name].itemsize]
    own = dtype_name(param.dtype)
    for kept in chain.from_iterable(combinations(wide, size) for size in range(len(wide), 0, -1)):
        dtypes = {name: saved[name] if name in kept else fresh[name] for name in slots}
        if _core.has_kernel(optimizer.rule_of(group), own, own, [dtype_name(dtype) for dtype in dtypes.values()]):
            return dtypes
    return fresh


def _check_slot(value: Any, param: Tensor, what: str) -> None:
    if not isinstance(value, Tensor):
        raise ValueError(f"{what} is a {type(value).__name__}, expected a torch.Tensor")
    if value.layout != torch.strided:
        raise ValueError(f"{what} has layout {value.layout}, expected torch.strided")
    if value.shape != param.shape:
        raise ValueError(f"{what} has shape {tuple(value.shape)}, expected {tuple(param.shape)} like its parameter")


def _copy(value: Tensor, device: torch.device, dtype: torch.dtype | None, what: str) -> Tensor:
    if value.is_meta and device.type != "meta":
        raise ValueError(f"{what} is on the meta device, without numbers; load the file with map_location='cpu'")
    return value.detach().to(device, dtype, copy=True)


def _step(step: Any, param: Tensor, what: str) -> Tensor:
    is_tensor = isinstance(step, Tensor)
    if is_tensor and step.numel() != 1:
        raise ValueError(f"{what} has shape {tuple(step.shape)}, expected a tensor of one number")
    if is_tensor and is_abstract(step):
        return _copy(step, devices.of_count(param), None, what)
    number = step.item() if is_tensor else step
    if not (isinstance(number, (int, float)) and 0 <= number < _TOO_MANY and number == int(number)):
        raise ValueError(f"{what} is {number!r}, expected a whole number from 0 on")
    if not is_tensor:
        return count(number, param)
    # A device counts in float32, and a capturable or fused optimizer of torch does so too.
    return _copy(step, devices.of_count(param), torch.float32 if devices.is_apart(param.device) else None, what)
