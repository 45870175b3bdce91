"""Plain tensors that stand for others in a step: local shards, real views, dense copies. Used by _optimizer.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .. import _core
from . import _devices, _tail, _zeroing
from ._overlap import first_overlap
from ._plain import count, is_abstract, local, placement, plain, real, resolved

State = dict[str, Any]
Call = Callable[[], object]
"""A C function and its arguments, as ``partial`` puts them together."""


Slots = Mapping[str, torch.dtype | None]
"""The keys of a parameter's state, but for ``step``, and the dtype of each; None: the parameter's."""


def new_state(param: Tensor, slots: Slots) -> State:
    """The state of a parameter before its first step."""
    state: State = {"step": count(0, param)}
    for key, dtype in slots.items():
        state[key] = torch.zeros_like(param, dtype=dtype, memory_format=torch.preserve_format)
    return state


class StandIns:
    """What a step takes instead of parameters that are not plain, dense tensors, or have state that is not.

    Nothing is written before the step. What has to follow it is a list of calls (``completion``), all of them of C
    functions, which the core makes right after the step.
    """

    def __init__(
        self, states: dict[Tensor, State], name: Callable[[int], str], needs_count: bool, tail: _tail.Tail
    ) -> None:
        self._states = states
        self._name = name
        self._needs_count = needs_count
        self._tail = tail
        self._unseen: list[int] = []  # positions of parameters of whose gradients the core sees copies
        self._copies: list[tuple[Tensor, Tensor]] = []  # (a tensor, the copy of it that is stepped)
        self._copied: dict[int, Tensor] = {}  # parameters that are stepped in a copy, by position
        self._counters: dict[int, int] = {}  # the position of the parameter that counts at an address
        self._counted: list[Tensor] = []  # of parameters without numbers
        self._new_states: dict[Tensor, State] = {}
        self._placed: list[Tensor] = []  # parameters whose state was empty before
        self.tensors: dict[int, tuple[Tensor, ...] | None] = {}

    def add(self, position: int, param: Tensor, slots: Slots) -> None:
        """Prepares one parameter; TypeError, ValueError or RuntimeError where it cannot be stepped at all."""
        what = f"param {self._name(position)}"
        assert param.grad is not None
        if param in self._new_states:
            raise _core.Repeated
        if is_abstract(param):
            self._count_only(position, param, self._state(param, slots, what))
            return
        of_grad = f"grad of {self._name(position)}"
        grad = real(resolved(plain(_placed_like(param.grad, param, of_grad), of_grad)))
        if self._tail.zero_grads and grad.data_ptr() != local(param.grad).data_ptr():
            self._unseen.append(position)
        whole = plain(param, what)
        state = self._state(param, slots, what)
        own = self._dense(self._written(whole, what), what)
        if own.data_ptr() != whole.data_ptr():
            self._copied[position] = whole
        counter = self._counter(state, position, param)
        keys = [*slots, _tail.KEY] if self._tail.keeps_averages else [*slots]
        placed = [self._slot(state[key], param, own, f"state {key} of {what}") for key in keys]
        self.tensors[position] = (own, grad, counter, *placed)

    def _slot(self, slot: Tensor, param: Tensor, own: Tensor, what: str) -> Tensor:
        return self._like(self._part(slot, param, what), own, what)

    def _state(self, param: Tensor, slots: Slots, what: str) -> State:
        """What the state of a parameter will be: a copy of the dict, or a new one."""
        known = self._states.get(param, {})
        if not isinstance(known, dict):
            raise TypeError(f"{what} has a {type(known).__name__} as its state, expected a dict")
        if not known and _devices.is_capturing(param.device):
            raise RuntimeError(f"{what} has no state yet, and a graph would make it again; step once before capturing")
        state = self._new_states[param] = dict(known or new_state(param, slots))
        if not self._needs_count:
            state.setdefault("step", 0)
        missing = [key for key in ("step", *slots) if key not in state]
        if missing:
            raise ValueError(f"{what} has a state without {missing}; it is of another optimizer, or was loaded in part")
        if self._tail.keeps_averages and _tail.KEY not in state:
            state[_tail.KEY] = self._tail.begun(param, known)
        for key in [*slots, *([_tail.KEY] if self._tail.keeps_averages else [])]:
            if not isinstance(state[key], Tensor):
                raise TypeError(f"state {key} of {what} is a {type(state[key]).__name__}, expected a torch.Tensor")
        return state

    def _count_only(self, position: int, param: Tensor, state: State) -> None:
        """A parameter without numbers gets state, and its updates are counted; nothing else is computed."""
        self.tensors[position] = None
        if not isinstance(state["step"], Tensor):
            state["step"] = count(state["step"], param)
        self._counted.append(state["step"])

    def check_overlap(self, params: list[Tensor]) -> None:
        """ValueError where a parameter that is stepped in a copy shares memory with another: the core sees the copy."""
        if not self._copied:
            return
        places: dict[int, Tensor] = {}
        for position, param in enumerate(params):
            stand_in = self.tensors.get(position, (param,))
            if param.grad is not None and stand_in is not None:
                places[position] = self._copied.get(position, stand_in[0])
        overlap = first_overlap(list(places.values()))
        if overlap:
            first, second = (self._name([*places][index]) for index in overlap)
            raise ValueError(f"param {second} shares memory with param {first}; each parameter needs memory of its own")

    def place_states(self) -> None:
        """Gives parameters without state an empty one, which ``completion`` fills."""
        for param in self._new_states:
            if param not in self._states:
                self._states[param] = {}
                self._placed.append(param)

    def withdraw_states(self) -> None:
        """Undoes ``place_states`` where no step has followed."""
        for param in self._placed:
            if not self._states.get(param):
                self._states.pop(param, None)

    def completion(self) -> list[Call]:
        """What follows the step: copies are written back, the last made first, and new states are filled in."""
        return [
            *(partial(tensor.copy_, copy) for tensor, copy in reversed(self._copies)),
            *(partial(step.add_, 1) for step in self._counted if not is_abstract(step)),
            *(partial(self._states[param].update, state) for param, state in self._new_states.items()),
        ]

    def zeroing(self, params: list[Tensor]) -> list[Call]:
        """What sets the gradients to zero of which the core sees copies, in a skipped step too."""
        return _zeroing.calls(params, self._unseen, self._name) if self._unseen else []

    def count_abstract(self) -> None:
        """After the step: counts the updates of parameters whose counts have no number either."""
        for step in filter(is_abstract, self._counted):
            step += 1

    def _dense(self, param: Tensor, what: str) -> Tensor:
        if torch._debug_has_internal_overlap(param) == 1:
            raise ValueError(f"{what} has elements that share memory, as expand() makes them; pass a copy of it")
        if torch.empty_like(param, device="meta").stride() == param.stride():
            return param
        return self._copy_of(param, param.contiguous(), what)

    def _written(self, tensor: Tensor, what: str) -> Tensor:
        """The tensor as one whose memory holds its real numbers, or a copy that is."""
        own = resolved(tensor)
        return real(tensor if own is tensor else self._copy_of(tensor, own, what))

    def _like(self, slot: Tensor, param: Tensor, what: str) -> Tensor:
        """The state laid out as its parameter."""
        if slot.shape != param.shape or slot.stride() == param.stride():
            return slot  # one of another shape is the core's to reject
        return self._copy_of(slot, torch.empty_like(param, dtype=slot.dtype).copy_(slot), what)

    def _part(self, slot: Tensor, param: Tensor, what: str) -> Tensor:
        """This rank's part of a state, which must be that of the parameter's part."""
        own, wanted = placement(slot), placement(param)
        if own != wanted:
            raise ValueError(
                f"{what} lies as {_text(own)}, expected {_text(wanted)} like its parameter; "
                "load it by set_optimizer_state_dict of torch.distributed.checkpoint.state_dict"
            )
        return self._written(plain(slot, what), what)

    def _counter(self, state: State, position: int, param: Tensor) -> Tensor:
        """The tensor in which the core counts the parameter's updates: the state's own, or a copy written back."""
        step, what = state["step"], f"state step of param {self._name(position)}"
        if not isinstance(step, Tensor) or step.device != _devices.of_count(param):
            step = state["step"] = count(_one_number(step, what), param)
        _one_number(step, what)
        with torch._C.DisableTorchFunctionSubclass():
            step = step.detach()
        other = self._counters.setdefault(step.data_ptr(), position)
        if other != position:
            raise ValueError(
                f"param {self._name(position)} has its state 'step' in one tensor with param {self._name(other)}, "
                "which a step would count up twice; clone it"
            )
        if step.dtype in (torch.float32, torch.float64):
            return self._written(step, what)
        return self._copy_of(step, step.to(torch.float64), what)

    def _copy_of(self, tensor: Tensor, copy: Tensor, what: str) -> Tensor:
        """The copy, which will be written back. ValueError where that would fail, when the step is done."""
        if torch._debug_has_internal_overlap(tensor) == 1:
            raise ValueError(f"{what} has elements that share memory, as expand() makes them; pass a copy of it")
        self._copies.append((tensor, copy))
        return copy


def _one_number(step: Any, what: str) -> Any:
    if isinstance(step, (int, float)) or (isinstance(step, Tensor) and step.numel() == 1 and not step.is_complex()):
        return step
    found = f"has shape {tuple(step.shape)}" if isinstance(step, Tensor) else f"is a {type(step).__name__}"
    raise ValueError(f"{what} {found}, expected a tensor of one number")


def _placed_like(grad: Tensor, param: Tensor, what: str) -> Tensor:
    """The gradient of a distributed parameter, distributed as that is."""
    own, wanted = placement(grad), placement(param)
    if own == wanted:
        return grad
    if own is None or wanted is None:
        raise TypeError(
            f"{what} is a {type(grad).__name__}, but the parameter is a {type(param).__name__}; "
            "either both are distributed or none is"
        )
    return grad.redistribute(*wanted)  # type: ignore[attr-defined, no-any-return]


def _text(placement: Any) -> str:
    return "one plain tensor" if placement is None else f"{placement[1]} on {placement[0]}"
