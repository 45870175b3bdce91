"""FusedOptimizer: a torch.optim.Optimizer that steps by one call of the compiled core. Base of those in rules.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, wraps
from typing import Any

import torch
from torch._compile import _disable_dynamo

from .. import _core
from ..numbers import Number, finite
from . import devices, loading
from .flat import FlatParameter
from .plain import StandIns

# What torch calls the slots.
KEYS = {"mu": "exp_avg", "nu": "exp_avg_sq", "nu_max": "max_exp_avg_sq", "previous": "previous"}

_AT_LEAST_0 = Number(at_least=0)
_SCALE = Number(at_least=2.0**-1022)
_LARGEST = 2.0**128 - 2.0**104  # that float32 can hold
_DECAY_RATE = Number(at_least=0, below=1)

_hyperparameters = cache(_core.hyperparameters)
_slots = cache(_core.slots)

Group = dict[str, Any]
Work = tuple[list[Any], tuple[Any, ...]]
"""Parameters of a group and the row of their numbers."""
Scaling = tuple[torch.Tensor | None, ...]
"""A loss's scale and overflow flag on a device."""

# What torch's optimizers do without having a word for it. Groups do not say it either: the distributed checkpoints of
# torch can be loaded only into groups that have no keys beside theirs.
UNSAID: Group = {"convention": "torch", "eps_root": 0.0, "nesterov": False, "mu_dtype": None}


class FusedOptimizer(torch.optim.Optimizer):
    """Steps parameters in place by one rule of the catalogue. Not made directly: see the classes in flatstep.torch."""

    grad_scale: torch.Tensor | None  # torch.amp.GradScaler sets both for a step, multiplied with a scale that is there
    found_inf: torch.Tensor | None

    _makers: list[object]
    _made: tuple[_core.TorchStepper, _core.Exclusive] | None = None  # made when first needed: it cannot be copied

    def __init__(self, params: Any, defaults: Group) -> None:
        if defaults["fused"] and defaults["foreach"]:
            raise RuntimeError("`fused` and `foreach` cannot be `True` together; every step here is fused")
        super().__init__(params, defaults)

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """Tells GradScaler to hand over its scale and overflow flag, as attributes, instead of unscaling itself.

        Not where the user says fused=False, because Lightning refuses to clip gradients for an optimizer that unscales
        them itself. Not for parameters of FSDP1: its ShardedGradScaler asks the other ranks for overflows only when it
        unscales.
        """
        if self.defaults["fused"] is False:
            return False
        params = (param for group in self.param_groups for param in group["params"])
        return not any(getattr(param, "_fsdp_flattened", False) for param in params)

    @property
    def rule(self) -> str:
        """The rule's name in the catalogue. It follows from how the optimizer was made, never from a group."""
        raise NotImplementedError

    @property
    def state_keys(self) -> list[str]:
        """The keys of a parameter's state, but for ``step``."""
        return [KEYS[slot] for slot in _slots(self.rule)]

    def add_param_group(self, param_group: Group) -> None:
        """As torch.optim.Optimizer.add_param_group.

        Raises:
            TypeError, ValueError: a number is out of bounds, or an option is one that all groups must share.
        """
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            # Groups of a loaded state, perhaps saved beside a GPU, are let be.
            elsewhere = [param.device for param in group["params"] if not devices.is_apart(param.device)]
            if group["capturable"] and elsewhere:
                why = devices.refusal(elsewhere[0]) or "is on the CPU"
                raise ValueError(f"capturable=True is for CUDA parameters, but one of the group {why}")
            checked_dtype("mu_dtype", group["mu_dtype"])
            self._check_numbers(group)
            self._row(group, 1.0)
        except BaseException:
            self.param_groups.pop()
            raise
        for name, value in UNSAID.items():
            if name in param_group and type(param_group[name]) is type(value) and param_group[name] == value:
                del param_group[name]

    def _check_modes(self, group: Group) -> None:
        """ValueError where a group asks for what a step would not do."""
        if group["differentiable"]:
            raise ValueError("differentiable=True needs a step that autograd can follow; use torch.optim for it")
        for name, mine, theirs in self.unlike(group):
            raise ValueError(
                f"a parameter group has {name}={theirs!r}, but the optimizer has {name}={mine!r}; "
                "all groups must agree, or need two optimizers"
            )

    def unlike(self, group: Group) -> Iterator[tuple[str, Any, Any]]:
        """The options in which a group differs from the optimizer, though all must share them: name, ours, theirs."""
        for name, otherwise in (("amsgrad", False), ("convention", UNSAID["convention"])):
            mine, theirs = self.defaults.get(name, otherwise), group.get(name, otherwise)
            if mine != theirs:
                yield name, mine, theirs

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Updates every parameter that has a gradient, in place.

        Args:
            closure: computes the loss and the gradients anew; called first. Default None.

        Returns:
            What the closure returned.

        Raises:
            TypeError, ValueError: a parameter, gradient or state does not fit, or a number is out of bounds. Then
                parameters and state are as before.
            RuntimeError: a gradient is sparse, or the optimizer is in use by another thread.
            torch.OutOfMemoryError: a device has no memory for the step, though torch has given back what it kept for
                later. Then, too, parameters and state are as before.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        scale, overflow = getattr(self, "grad_scale", None), getattr(self, "found_inf", None)
        if scale is None and overflow is None:
            self._update(1.0, [])
        elif places := self._places_apart(scale, overflow):
            self._update(1.0, [_moved(place, scale, overflow) for place in places])
        elif overflow is None or float(overflow) == 0:  # anything but 0 is an overflow
            self._update(1.0 if scale is None else 1.0 / _SCALE.check("grad_scale", scale), [])
        return loss

    def _places_apart(self, *numbers: Any) -> set[torch.device]:
        """The devices of the parameters, if neither they nor the numbers are the host's to know; else none."""
        if not all(number is None or devices.holds(number) for number in numbers):
            return set()
        places = {param.device for group in self.param_groups for param in group["params"]}
        return places if all(map(devices.is_apart, places)) else set()

    def _update(self, grad_scale: float, scalings: list[Scaling]) -> None:
        # Lists of our own: scripts put any iterable into a group, and may change it while the core walks over it.
        groups = [(list(group["params"]), self._row(group, grad_scale)) for group in self.param_groups]
        stepper, exclusive = self._stepper()
        exclusive.run(self._sweep_all, stepper, groups, scalings)

    def _sweep_all(self, stepper: _core.TorchStepper, groups: list[Work], scalings: list[Scaling]) -> None:
        try:
            self._sweep(stepper, groups, scalings)
        except _core.Repeated:
            for each_once in _rounds(groups):
                self._sweep(stepper, each_once, scalings)

    def _sweep(self, stepper: _core.TorchStepper, groups: list[Work], scalings: list[Scaling]) -> None:
        """One step over groups of parameters, none of which stands there twice."""
        for is_last in (False, True):
            try:
                self._attempt(stepper, groups, scalings)
                return
            except _core.OutOfDeviceMemory as error:
                why = str(error)
            # From here on nothing holds what the attempt has made.
            if is_last or not devices.make_room():
                raise torch.OutOfMemoryError(why)

    def _attempt(self, stepper: _core.TorchStepper, groups: list[Work], scalings: list[Scaling]) -> None:
        """All of it or nothing."""
        name = self._namer(groups)
        capturable = all(group["capturable"] for group in self.param_groups)
        modes = scalings, capturable, name, torch.get_num_threads()
        wanting, stepped = stepper.step(groups, self.state, {}, *modes)
        if wanting:
            with torch.inference_mode(False), torch.no_grad():
                stand_ins = StandIns(self.state, self.state_keys, name)
                everything = [(param, g) for g, (params, _) in enumerate(groups) for param in params]
                for position in wanting:
                    param, group = everything[position]
                    stand_ins.add(position, param, self.param_groups[group].get("mu_dtype"))
                stand_ins.check_overlap([param for param, _ in everything])
                _, stepped = stepper.step(groups, self.state, stand_ins.tensors, *modes)
                stand_ins.take_effect()
        torch.autograd.graph.increment_version(stepped)

    def _row(self, group: Group, grad_scale: float) -> tuple[Any, ...]:
        """The numbers of a group's step, in the core's order; the count comes from each parameter's state."""
        if group["differentiable"] or group["amsgrad"] != self.defaults["amsgrad"] or "convention" in group:
            self._check_modes(group)
        try:
            given = dict(zip(("lr", "b1", "b2"), (group["lr"], *group["betas"]), strict=True))
            apart = {name: value for name, value in given.items() if devices.holds(value)}  # not looked at from here
            lr, b1, b2 = (0.0 if name in apart else float(value) for name, value in given.items())
            eps, eps_root = float(group["eps"]), float(group.get("eps_root", 0.0))
            weight_decay = float(group["weight_decay"])
        except (TypeError, ValueError, RuntimeError):
            self._check_numbers(group)
            raise
        if not (0 <= lr <= _LARGEST and 0 <= b1 < 1 and 0 <= b2 < 1 and 0 <= eps <= _LARGEST):
            self._check_numbers(group)
        if not (0 <= eps_root <= _LARGEST and 0 <= weight_decay <= _LARGEST):
            self._check_numbers(group)
        numbers = {"lr": lr, "b1": b1, "b2": b2, "eps": eps, "eps_root": eps_root, **self._own_numbers(group), **apart}
        common = grad_scale, weight_decay, float(group["decoupled_weight_decay"]), float(group["maximize"])
        return 0, numbers["lr"], *common, *[numbers[name] for name in _hyperparameters(self.rule)]

    def _check_numbers(self, group: Group) -> None:
        """TypeError or ValueError where a number is none or out of bounds. Thorough, but slow: for groups that are new.

        Those of a step are known to be numbers, or tensors of one, unless somebody has changed them since.
        """
        group = UNSAID | group
        if len(group["betas"]) != 2:
            raise ValueError(f"betas is {group['betas']!r}, expected two numbers")
        for index, value in enumerate(group["betas"]):
            _DECAY_RATE.check(f"betas[{index}]", value)
        for name in ("lr", "eps", "eps_root", "weight_decay"):
            _AT_LEAST_0.check(name, group[name], _LARGEST)

    def _own_numbers(self, group: Group) -> dict[str, float]:
        """The rule's own numbers."""
        raise NotImplementedError

    def _namer(self, groups: list[Work]) -> Callable[[int], str]:
        """Names a parameter by its position, counted over all groups."""

        names: list[str] = []

        def name(position: int) -> str:
            if not names:
                for index, (params, _) in enumerate(groups):
                    group = self.param_groups[index]
                    known = dict(zip(map(id, group["params"]), group.get("param_names") or (), strict=False))
                    names.extend(str(known.get(id(param), f"{at} of group {index}")) for at, param in enumerate(params))
            return names[position]

        return name

    def _stepper(self) -> tuple[_core.TorchStepper, _core.Exclusive]:
        makers = devices.in_use()
        if self._made is None or self._makers != makers:
            self._makers = makers
            plain_types = (torch.Tensor, torch.nn.Parameter, FlatParameter)
            exchange_api = getattr(torch.Tensor, "__dlpack_c_exchange_api__", None)
            keys = ["step", *self.state_keys]
            self._made = (
                _core.TorchStepper(self.rule, keys, plain_types, exchange_api, makers),
                _core.Exclusive(),
            )
        return self._made

    @staticmethod
    def profile_hook_step(func: Callable[..., Any]) -> Callable[..., Any]:
        """As torch's, but torch.compile leaves the step alone: it could not look into the core."""
        hooked = torch.optim.Optimizer.profile_hook_step(func)
        uncompiled = _disable_dynamo(hooked)

        @wraps(func)
        def step(*args: Any, **kwargs: Any) -> Any:
            return (uncompiled if torch.compiler.is_dynamo_compiling() else hooked)(*args, **kwargs)

        return step

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch.optim.Optimizer.load_state_dict, but every state keeps its dtype and is a copy.

        States of torch.optim's optimizer of the same name can be loaded, and the other way round.

        Raises:
            ValueError: the state is of another rule or convention, or lacks a key. Then nothing has changed.
        """
        with loading.keeping_dtypes(self):
            super().load_state_dict(state_dict)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            for key in self.defaults.keys() - UNSAID.keys():
                group.setdefault(key, self.defaults[key])
        loading.take_over(self)


def _moved(place: torch.device, *numbers: torch.Tensor | None) -> Scaling:
    """The numbers on a device; the host does not wait for them."""
    return tuple(n if n is None else n.to(place, torch.float32, non_blocking=True) for n in numbers)


def _rounds(groups: list[Work]) -> list[list[Work]]:
    """Groups in which parameters stand several times, as several steps in each of which none stands twice."""
    rounds: list[list[Work]] = []
    for index, (params, _) in enumerate(groups):
        seen: dict[int, int] = {}
        for param in params:
            turn = seen[id(param)] = seen.get(id(param), -1) + 1
            if turn == len(rounds):
                rounds.append([([], own) for _, own in groups])
            rounds[turn][index][0].append(param)
    return rounds


def checked_dtype(name: str, dtype: Any) -> torch.dtype | None:
    """TypeError where it is neither None nor a dtype of torch."""
    if dtype is not None and not isinstance(dtype, torch.dtype):
        raise TypeError(f"{name} is {dtype!r}, expected a torch.dtype or None")
    return dtype


def number(group: Group, name: str) -> float:
    """A number of a group that may have any finite value."""
    return finite(name, group[name], _LARGEST)
