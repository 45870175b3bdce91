"""Taking over a state_dict: what torch's own way would lose or share. Used by optimizer.py."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from . import devices
from .plain import count

if TYPE_CHECKING:
    from .optimizer import FusedOptimizer


@dataclass
class _Kept:
    """Hides a tensor from torch's load_state_dict, which would cast it to its parameter's dtype and share it."""

    tensor: torch.Tensor


@contextmanager
def keeping_dtypes(optimizer: FusedOptimizer) -> Iterator[None]:
    """What is loaded meanwhile is checked first, after all hooks, and keeps its dtype."""

    def keep(_: torch.optim.Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
        _check(optimizer, state_dict)
        return {**state_dict, "state": {key: _hide(value) for key, value in state_dict["state"].items()}}

    handle = optimizer.register_load_state_dict_pre_hook(keep)
    try:
        yield
    finally:
        handle.remove()


def _hide(state: Any) -> Any:
    if not isinstance(state, dict):
        return state
    return {key: _Kept(value) if isinstance(value, torch.Tensor) else value for key, value in state.items()}


def _check(optimizer: FusedOptimizer, state_dict: dict[str, Any]) -> None:
    """ValueError where the state belongs to another rule."""
    for index, group in enumerate(state_dict["param_groups"]):
        for name, mine, theirs in optimizer.unlike(group):
            raise ValueError(
                f"group {index} of the state_dict has {name}={theirs!r}, but this optimizer has {name}={mine!r}, "
                f"under which the state means something else; make the optimizer with {name}={theirs!r}"
            )
    for key, state in state_dict["state"].items():
        missing = [name for name in ("step", *optimizer.state_keys) if name not in state] if state else []
        if missing:
            raise ValueError(
                f"the state of parameter {key!r} in the state_dict lacks {missing}, without which "
                f"{type(optimizer).__name__} cannot go on; it was saved by another optimizer"
            )


def take_over(optimizer: FusedOptimizer) -> None:
    """Brings what was hidden back, as copies beside their parameters; counts become tensors."""
    for param, state in optimizer.state.items():
        for key, value in state.items() if isinstance(state, dict) else ():
            if isinstance(value, _Kept):
                device = devices.of_count(param) if key == "step" else param.device
                state[key] = value.tensor.detach().to(device, copy=True)
            if key == "step" and not isinstance(state[key], torch.Tensor):
                state[key] = count(state[key], param)
