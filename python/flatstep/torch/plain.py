"""Plain tensors that stand for others in a step: local shards, real views, dense copies. Used by optimizer.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .. import _core
from . import devices
from .overlap import first_overlap

State = dict[str, Any]

_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)  # or complex numbers of these


def scalar_dtype() -> torch.dtype:
    """The dtype in which torch counts steps."""
    return torch.float64 if torch.get_default_dtype() == torch.float64 else torch.float32


def count(updates: Any, param: Tensor) -> Tensor:
    """So many updates of a parameter, as its state counts them: in a 0-d tensor."""
    return torch.full((), float(updates), dtype=scalar_dtype(), device=devices.of_count(param))  # waits for no device


def new_state(param: Tensor, keys: list[str], mu_dtype: torch.dtype | None) -> State:
    """The state of a parameter before its first step, in the dtypes that torch would use; exp_avg in mu_dtype."""
    state: State = {"step": count(0, param)}
    for key in keys:
        dtype = mu_dtype if key == "exp_avg" else None
        state[key] = torch.zeros_like(param, dtype=dtype, memory_format=torch.preserve_format)
    return state


class StandIns:
    """What a step takes instead of parameters that are not plain, dense tensors, or have state that is not."""

    def __init__(self, states: dict[Tensor, State], keys: list[str], name: Callable[[int], str]) -> None:
        self._states = states
        self._keys = keys
        self._name = name
        self._made: list[tuple[Tensor, Tensor]] = []
        self._copied: dict[int, Tensor] = {}  # parameters with gaps, by position
        self._new_states: dict[Tensor, State] = {}
        self.tensors: dict[int, tuple[Tensor, ...]] = {}

    def add(self, position: int, param: Tensor, mu_dtype: torch.dtype | None) -> None:
        """Prepares one parameter; TypeError, ValueError or RuntimeError where it cannot be stepped at all."""
        what = f"param {self._name(position)}"
        assert param.grad is not None
        if param in self._new_states:
            raise _core.Repeated
        of_grad = f"grad of {self._name(position)}"
        grad = _plain(_placed_like(param.grad, param, of_grad), of_grad)
        if param.is_conj() or param.is_neg():
            raise TypeError(f"{what} is a view whose numbers are conjugated or negated when read; pass a copy of it")
        plain = _plain(param, what)
        known = self._states.get(param)
        if not known and devices.is_capturing(param.device):
            raise RuntimeError(f"{what} has no state yet, and a graph would make it anew; take a step before capturing")
        state = dict(known or new_state(param, self._keys, mu_dtype))
        missing = [key for key in ("step", *self._keys) if key not in state]
        if missing:
            raise ValueError(f"{what} has a state without {missing}; it is of another optimizer, or was loaded in part")
        odd = [key for key in self._keys if not isinstance(state[key], Tensor)]
        if odd:
            raise TypeError(f"state {odd[0]} of {what} is a {type(state[odd[0]]).__name__}, expected a torch.Tensor")
        own = self._dense(plain, what)
        if own is not plain:
            self._copied[position] = plain
        state["step"] = _counter(state["step"], param)
        state.update({key: state[key].resolve_conj() for key in self._keys if state[key].is_conj()})
        slots = [self._like(_own_part(state[key], param, f"state {key} of {what}"), own) for key in self._keys]
        self.tensors[position] = (own, grad.resolve_neg(), state["step"], *slots)
        self._new_states[param] = state

    def check_overlap(self, params: list[Tensor]) -> None:
        """ValueError where a parameter with gaps shares memory with another: the core sees only its copy."""
        if not self._copied:
            return
        plain = {at: self._copied.get(at, self.tensors.get(at, (param,))[0]) for at, param in enumerate(params)}
        positions = [at for at, param in enumerate(params) if param.grad is not None]
        overlap = first_overlap([plain[at] for at in positions])
        if overlap:
            first, second = (self._name(positions[index]) for index in overlap)
            raise ValueError(f"param {second} shares memory with param {first}; each parameter needs memory of its own")

    def take_effect(self) -> None:
        """After the step: writes what was stepped in copies to where it belongs, and new states to the optimizer's."""
        for to, made in self._made:
            to.copy_(made)
        for param, state in self._new_states.items():
            self._states.setdefault(param, {}).update(state)

    def _dense(self, param: Tensor, what: str) -> Tensor:
        if torch._debug_has_internal_overlap(param) == 1:
            raise ValueError(f"{what} has elements that share memory, as expand() makes them; pass a copy of it")
        if torch.empty_like(param, device="meta").stride() == param.stride():
            return param
        return self._copy_of(param, param.contiguous())

    def _like(self, slot: Tensor, param: Tensor) -> Tensor:
        """The state laid out as its parameter."""
        if slot.shape != param.shape or (slot.stride() == param.stride() and not slot.is_neg()):
            return slot  # of another shape: whoever takes it says so
        return self._copy_of(slot, torch.empty_like(param, dtype=slot.dtype).copy_(slot))

    def _copy_of(self, tensor: Tensor, made: Tensor) -> Tensor:
        self._made.append((tensor, made))
        return made


def _counter(step: Any, param: Tensor) -> Tensor:
    """The count of a parameter's updates as a 0-d tensor where it is counted."""
    is_own = isinstance(step, Tensor) and step.device == devices.of_count(param) and step.dim() == 0
    if is_own and step.dtype in (torch.float32, torch.float64):
        return step  # type: ignore[no-any-return]
    return count(step, param)


def _placement(tensor: Tensor) -> Any:
    """Where the parts of a distributed tensor lie; None for any other."""
    return (tensor.device_mesh, tensor.placements) if _is_distributed(tensor) else None  # type: ignore[attr-defined]


def _placed_like(grad: Tensor, param: Tensor, what: str) -> Tensor:
    """The gradient of a distributed parameter, distributed as that is."""
    own, wanted = _placement(grad), _placement(param)
    if own == wanted:
        return grad
    if own is None or wanted is None:
        raise TypeError(
            f"{what} is a {type(grad).__name__}, but the parameter is a {type(param).__name__}; "
            "either both are distributed or none is"
        )
    return grad.redistribute(*wanted)  # type: ignore[attr-defined, no-any-return]


def _own_part(slot: Tensor, param: Tensor, what: str) -> Tensor:
    """This rank's part of a state, which must be that of the parameter's part."""
    own, wanted = _placement(slot), _placement(param)
    if own != wanted:
        raise ValueError(
            f"{what} lies as {_text(own)}, expected {_text(wanted)} like its parameter; "
            "load it by set_optimizer_state_dict of torch.distributed.checkpoint.state_dict"
        )
    return _plain(slot, what)


def _text(placement: Any) -> str:
    return "one plain tensor" if placement is None else f"{placement[1]} on {placement[0]}"


def _is_distributed(tensor: Tensor) -> bool:
    return type(tensor).__name__ == "DTensor" and type(tensor).__module__.startswith("torch.distributed")


def _plain(tensor: Tensor, what: str) -> Tensor:
    """The tensor over the same memory, without subclass, autograd or complex numbers."""
    if _is_distributed(tensor):
        tensor = tensor.to_local()  # type: ignore[attr-defined]
        if hasattr(tensor, "wait"):  # what collectives return before they are done
            tensor = tensor.wait()
    if tensor.layout != torch.strided:
        if tensor.is_sparse:
            raise RuntimeError(f"{what} is sparse, expected a dense tensor; consider torch.optim.SparseAdam instead")
        raise TypeError(f"{what} has layout {tensor.layout}, expected torch.strided")
    if refusal := devices.refusal(tensor.device):
        raise ValueError(f"{what} {refusal}")
    if type(tensor).__torch_dispatch__ is not torch._C._disabled_torch_dispatch_impl:
        raise TypeError(
            f"{what} is a {type(tensor).__name__}, whose numbers are kept elsewhere; use torch.optim for it"
        )
    with torch._C.DisableTorchFunctionSubclass():
        plain = tensor.detach()
        plain = torch.view_as_real(plain.resolve_conj()) if plain.is_complex() else plain
    if plain.dtype not in _DTYPES:
        raise TypeError(f"{what} has dtype {tensor.dtype}, expected one of {', '.join(map(str, _DTYPES))}")
    try:
        plain.data_ptr()
    except RuntimeError:
        raise TypeError(f"{what} has no memory that a step could write; torch.func's tensors, say, have none") from None
    return plain
