"""Taking over a state_dict: every check and conversion, before anything is assigned.

Used by _optimizer.py.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from itertools import chain, combinations
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from .. import _core
from . import _devices, _tail
from ._numbers import Group
from ._plain import count, dtype_name, is_abstract
from ._schema import UNSAID, Schema

_TOO_MANY = 2**62  # steps, for the count of the compiled core


class Destination(NamedTuple):
    """The optimizer into which a state_dict is loaded."""

    name: str
    schema: Schema
    defaults: Group
    param_groups: Sequence[Group]
    check_group: Callable[[Group], None]
    tail: _tail.Tail


def prepare(into: Destination, state_dict: dict[str, Any]) -> dict[str, Any]:
    """The state and the groups that the optimizer is to have: copies, each beside its parameter.

    ValueError or TypeError where the state_dict cannot be taken over.
    """
    _check_form(state_dict)
    groups = [_group(into, *pair) for pair in _pairs(into, state_dict["param_groups"])]
    by_key = {
        key: (param, group)
        for loaded, group in zip(state_dict["param_groups"], groups, strict=True)
        for key, param in zip(loaded["params"], group["params"], strict=True)
    }
    state: dict[Any, Any] = defaultdict(dict)
    for key, own in state_dict["state"].items():
        if key in by_key:
            param, group = by_key[key]
            state[param] = _prepared(into, key, own, param, group)
        else:
            state[key] = own  # of no parameter: a number that a subclass keeps, say
    return {"state": state, "param_groups": groups}


def _pairs(into: Destination, loaded: Sequence[Group]) -> Iterator[tuple[int, Group, Group]]:
    """The optimizer's groups beside those that are loaded."""
    if len(loaded) != len(into.param_groups):
        raise ValueError("the state_dict has a different number of parameter groups than the optimizer")
    for index, (own, other) in enumerate(zip(into.param_groups, loaded, strict=True)):
        if len(own["params"]) != len(other["params"]):
            raise ValueError(f"group {index} of the state_dict doesn't match the size of the optimizer's group")
        yield index, own, other


def _group(into: Destination, index: int, own: Group, loaded: Group) -> Group:
    """A group as it will be: the optimizer's parameters with the numbers and options that are loaded."""
    _check_group(into, f"group {index} of the state_dict", loaded)
    kept: Group = {name: own[name] for name in ("params", "param_names") if name in own}
    taken = deepcopy({name: value for name, value in loaded.items() if name != "params"})
    group = into.schema.filled({**kept, **taken}, into.defaults)
    into.check_group({**UNSAID, **group})
    return group


def _check_form(state_dict: dict[str, Any]) -> None:
    """ValueError where it does not look like what ``state_dict`` returns."""
    for key, kinds in (("state", (dict,)), ("param_groups", (list, tuple))):
        if not isinstance(state_dict.get(key), kinds):
            found = f"is a {type(state_dict[key]).__name__}" if key in state_dict else "is missing"
            raise ValueError(f"{key!r} in the state_dict {found}, expected a {kinds[0].__name__}")
    for index, group in enumerate(state_dict["param_groups"]):
        if not isinstance(group, dict) or "params" not in group:
            raise ValueError(f"group {index} of the state_dict is {group!r}, expected a dict with 'params'")


def _check_group(into: Destination, what: str, group: Group) -> None:
    """ValueError where the group is of another optimizer, or means something else."""
    for name, mine, theirs in into.schema.unlike(group, into.defaults):
        raise ValueError(
            f"{what} has {name}={theirs!r}, but this optimizer has {name}={mine!r}, "
            f"under which the state means something else; make the optimizer with {name}={theirs!r}"
        )
    ours = into.name
    missing, unknown = into.schema.missing(group), into.schema.unknown(group)
    if missing or unknown:
        lacks = f"lacks {', '.join(missing)}, which {ours} has" if missing else ""
        has = f"has {', '.join(unknown)}, which {ours} does not have" if unknown else ""
        raise ValueError(f"{what} {' and '.join(filter(None, (lacks, has)))}; it was saved by another optimizer")


def _prepared(into: Destination, key: Any, state: Any, param: Tensor, group: Group) -> Any:
    what = f"the state of parameter {key!r} in the state_dict"
    if not isinstance(state, dict):
        raise ValueError(f"{what} is a {type(state).__name__}, expected a dict")
    if not state:
        return state
    if not into.schema.needs_count:
        state = {"step": 0, **state}
    slots = into.schema.slots_of(group)
    missing = [name for name in ("step", *slots) if name not in state]
    if missing:
        raise ValueError(
            f"{what} lacks {missing}, without which {into.name} cannot go on; it was saved by another optimizer"
        )
    if unknown := [name for name in into.schema.foreign_slot_keys() if name in state]:
        raise ValueError(f"{what} has {unknown}, which {into.name} does not have; it was saved by another optimizer")
    for name in slots:
        _check_slot(state[name], param, f"{name} in {what}")
    ready: dict[str, Any] = {"step": _step(state["step"], param, f"step in {what}")}
    for name, dtype in _dtypes(into, state, param, group).items():
        ready[name] = _copy(state[name], param.device, dtype, f"{name} in {what}")
    if into.tail.keeps_averages and _tail.KEY in state:
        _check_slot(state[_tail.KEY], param, f"{_tail.KEY} in {what}")
        dtype = into.tail.dtype_of(param)
        ready[_tail.KEY] = _copy(state[_tail.KEY], param.device, dtype, f"{_tail.KEY} in {what}")
    extras = {name: _cast(value, param) for name, value in state.items() if name not in ready}
    # Averages that no step would update are left out.
    return {name: ready.get(name, extras.get(name)) for name in state if name in ready or name != _tail.KEY}


def _cast(value: Any, param: Tensor) -> Any:
    """What is in no slot, as torch takes it over: tensors in it go to the parameter's device and dtype."""
    if isinstance(value, Tensor):
        return value.to(param.device, param.dtype if param.is_floating_point() else None)
    if isinstance(value, dict):
        return {key: _cast(inner, param) for key, inner in value.items()}
    if type(value) in (list, tuple, set):
        return type(value)([_cast(inner, param) for inner in value])
    return value


def _dtypes(into: Destination, state: dict[str, Any], param: Tensor, group: Group) -> dict[str, torch.dtype]:
    """The dtype that each slot is to have: as few are rounded to what a new state would have as the kernels allow.

    torch rounds all of them to the parameter's dtype, which may hold less than what was saved.
    """
    slots = into.schema.slots_of(group)
    fresh = {name: dtype or param.dtype for name, dtype in slots.items()}
    saved = {name: state[name].dtype for name in slots}
    wide = [name for name in slots if saved[name].is_floating_point and saved[name].itemsize > fresh[name].itemsize]
    own = dtype_name(param.dtype)
    for kept in chain.from_iterable(combinations(wide, size) for size in range(len(wide), 0, -1)):
        dtypes = {name: saved[name] if name in kept else fresh[name] for name in slots}
        if _core.has_kernel(into.schema.rule_of(group), own, own, [dtype_name(dtype) for dtype in dtypes.values()]):
            return dtypes
    return fresh


def _check_slot(value: Any, param: Tensor, what: str) -> None:
    if not isinstance(value, Tensor):
        raise ValueError(f"{what} is a {type(value).__name__}, expected a torch.Tensor")
    if value.layout != torch.strided:
        raise ValueError(f"{what} has layout {value.layout}, expected torch.strided")
    if not is_lazy(param) and value.shape != param.shape:
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
        return _copy(step, _devices.of_count(param), None, what)
    number: Any = step.item() if is_tensor else step
    is_real = isinstance(number, Real)  # as NumPy's numbers are too
    if not (is_real and 0 <= number < _TOO_MANY and number == int(number)):
        raise ValueError(f"{what} is {number!r}, expected a whole number from 0 on")
    if type(step) is not Tensor or step.layout != torch.strided or step.is_quantized:
        return count(number, param)
    # A device counts in float32, and a capturable or fused optimizer of torch does so too.
    return _copy(step, _devices.of_count(param), torch.float32 if _devices.is_apart(param.device) else None, what)
