"""FusedOptimizer: a torch.optim.Optimizer that steps by one call of the core. Base of those in _optimizers.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial, wraps
from operator import itemgetter
from typing import Any, ClassVar

import torch
from torch._compile import _disable_dynamo

from .. import _core
from .._rules import Declaration
from . import _devices, _loading, _scaling, _zeroing
from ._averages import KeepsAverages
from ._flat import FlatParameter
from ._limits import Limits
from ._names import Names
from ._numbers import Group
from ._observers import is_observed
from ._plain import dtype_name
from ._rows import Row, Rows
from ._schema import UNSAID, Schema
from ._stand_ins import Call, StandIns
from ._tail import Tail

_is_capturable = itemgetter("capturable")
_slots = cache(_core.slots)
_has_kernel = cache(lambda rule, param, state: _core.has_kernel(rule, param, param, list(state)))

Work = tuple[list[Any], tuple[Any, ...], int]
"""Parameters of a group, the row of their numbers, and which of the optimizer's rules steps them."""


class FusedOptimizer(KeepsAverages):
    """Steps parameters in place by one rule of the catalogue. Not made directly: see the classes in flatstep.torch."""

    _declaration: ClassVar[Declaration]
    _schema: ClassVar[Schema]

    grad_scale: torch.Tensor | None  # torch.amp.GradScaler sets both for a step, multiplied with a scale that is there
    found_inf: torch.Tensor | None

    _unscales: bool | None = None  # where a wrapper has set _step_supports_amp_scaling
    _backends: list[object]
    _rows: Rows | None = None

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        if "_declaration" in vars(cls):
            cls._schema = Schema(cls._declaration)

    def __init__(self, params: Any, defaults: Group) -> None:
        self._schema.check_defaults(defaults)
        if defaults.get("fused") and (defaults["foreach"] or defaults["differentiable"]):
            other = "foreach" if defaults["foreach"] else "differentiable"
            raise RuntimeError(f"`fused` and `{other}` cannot be `True` together; every step here is fused")
        limits = Limits()
        limits.set_max_norm(defaults.pop("max_norm", None))
        limits.set_skip_nonfinite(defaults.pop("skip_nonfinite", False))
        self._limits = limits
        self._tail = Tail.taken_from(defaults)
        super().__init__(params, defaults)

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """Tells GradScaler to hand over its scale and overflow flag, as attributes, instead of unscaling itself.

        As in torch only where the user says fused=True: wrappers of other optimizers see a skipped step by its not
        being called, and clip gradients before it. Not for parameters of FSDP1: its ShardedGradScaler asks the other
        ranks for overflows only when it unscales.
        """
        if self._unscales is not None:
            return self._unscales
        return bool(self.defaults.get("fused")) and not any(
            getattr(p, "_fsdp_flattened", False) for p in self._params()
        )

    @_step_supports_amp_scaling.setter
    def _step_supports_amp_scaling(self, value: bool) -> None:
        self._unscales = value

    @property
    def rule(self) -> str:
        """The rule of groups that choose none."""
        return self._schema.rule_of(self.defaults)

    @property
    def state_keys(self) -> list[str]:
        """The keys of a parameter's state, but for ``step``, in groups that choose no rule."""
        return self._schema.slot_keys(self.rule)

    def add_param_group(self, param_group: Group) -> None:
        """As torch.optim.Optimizer.add_param_group.

        Raises:
            TypeError, ValueError: something is not a number, or an option that does not fit the parameters or the other
                groups.
        """
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            self._check_capturable(group)
            self._check_group(group)
        except BaseException:
            self.param_groups.pop()
            raise
        for name, value in UNSAID.items():
            if name in param_group and type(param_group[name]) is type(value) and param_group[name] == value:
                del param_group[name]

    def _check_capturable(self, group: Group) -> None:
        # Groups of a loaded state, perhaps saved beside a GPU, are not checked.
        elsewhere = [param.device for param in group["params"] if not _devices.is_apart(param.device)]
        if group["capturable"] and elsewhere:
            why = _devices.why_rejected(elsewhere[0]) or "is on the CPU"
            raise ValueError(f"capturable=True is for CUDA parameters, but one of the group {why}")

    def _check_group(self, group: Group) -> None:
        """TypeError or ValueError where a group could not be stepped."""
        self._tail.check_group(group)
        self._schema.check_types(group)
        self._check_modes(group)
        self._new_row(group, 1.0)
        for dtype in {param.dtype for param in group["params"]}:
            self._check_mu_dtype(group.get("mu_dtype"), dtype, self._schema.rule_of(group))

    @staticmethod
    def _check_mu_dtype(mu_dtype: torch.dtype | None, dtype: torch.dtype, rule: str) -> None:
        """TypeError where no kernel stores the first moment of such parameters in that dtype."""
        if mu_dtype is None or mu_dtype == dtype:
            return
        own = dtype_name(dtype)
        state = tuple([dtype_name(mu_dtype) if slot == "mu" else own for slot in _slots(rule)])
        if mu_dtype.is_floating_point and dtype.is_floating_point and _has_kernel(rule, own, state):
            return
        raise TypeError(
            f"mu_dtype is {mu_dtype}, in which exp_avg cannot be stored for a parameter of dtype {dtype}; leave it out"
        )

    def _check_modes(self, group: Group) -> None:
        """ValueError where a group asks for what a step would not do."""
        if group["differentiable"]:
            raise ValueError("differentiable=True needs a step that autograd can follow; use torch.optim for it")
        for name, mine, theirs in self._schema.unlike(group, self.defaults):
            raise ValueError(
                f"a parameter group has {name}={theirs!r}, but the optimizer has {name}={mine!r}; "
                "all groups must agree, or need two optimizers"
            )

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Updates every parameter that has a gradient, in place.

        The step happens wholly or not at all: what a signal's handler raises (KeyboardInterrupt, say) comes before or
        after it. A parameter that stands twice in the optimizer is stepped twice, by two such steps.

        Args:
            closure: computes the loss and the gradients again; called first. Default None.

        Returns:
            What the closure returned.

        Raises:
            TypeError, ValueError: a parameter, gradient or state does not fit, or something in a group is not a number.
                Then parameters and state are as before.
            RuntimeError: a gradient is sparse, the optimizer is in use by another thread, or the parameters are swapped
                with their averages. Or it has ``max_norm`` or ``skip_nonfinite``, and another process that shares its
                DTensors has failed.
            torch.OutOfMemoryError: a device has no memory for the step, though torch has given back what it kept for
                later. Then, too, parameters and state are as before.
        """
        loss = None
        if closure is not None:
            self._tail.check_not_swapped()
            with torch.enable_grad():
                loss = closure()
        scale, overflow = getattr(self, "grad_scale", None), getattr(self, "found_inf", None)
        if scale is None and overflow is None:
            self._update(1.0, [], [])
        elif on_devices := _scaling.on_devices(self._params(), scale, overflow):
            self._update(1.0, on_devices, self._write_back(scale, _scaling.factors_on(on_devices)))
        elif overflow is None or float(overflow) == 0:  # anything but 0 is an overflow
            factor = _scaling.factor_of(scale)
            self._update(factor, [], self._write_back(scale, lambda _: factor))
        elif self._tail.zero_grads:
            self._tail.check_not_swapped()
            self._stepper()[1].run(_zeroing.zero_gradients, list(self._params()), self._names())
        return loss

    def _write_back(self, scale: Any, factors: _scaling.Factors) -> list[Call]:
        """What leaves unscaled gradients where scaled ones were; nothing where they become zero."""
        if scale is None or self._tail.zero_grads:
            return []
        grads = {at: param.grad for at, param in enumerate(self._params()) if param.grad is not None}
        return _scaling.write_back(grads, factors, self._names())

    def _update(self, grad_scale: float, scalings: list[_scaling.OnDevice], completion: list[Call]) -> None:
        # Lists of our own: scripts put any iterable into a group, and may change it while the core walks over it.
        rows = self._rows
        if rows is None:
            rows = self._rows = Rows(self._new_row)
        groups = []
        for place, group in enumerate(self.param_groups):
            self._check_modes(group)
            groups.append((list(group["params"]), *rows.of(place, group, grad_scale)))
        stepper, exclusive = self._stepper()
        exclusive.run(self._step_in_rounds, stepper, scalings, groups, completion)

    def _step_in_rounds(
        self,
        stepper: _core.TorchStepper,
        scalings: list[_scaling.OnDevice],
        groups: list[Work],
        completion: list[Call],
    ) -> None:
        """One step, or as many as a parameter stands in the groups, if no option needs it there once."""
        try:
            self._step_once(stepper, scalings, groups, completion)
        except _core.Repeated:
            once = [*(["max_norm and skip_nonfinite"] if self._limits.are_set else []), *self._tail.in_use()]
            if once:
                raise ValueError(
                    f"a parameter stands in the optimizer twice, and is stepped twice; {' and '.join(once)} need each "
                    "parameter once"
                ) from None
            rounds = _rounds(groups)
            for each_once in rounds:
                self._step_once(stepper, scalings, each_once, completion if each_once is rounds[-1] else [])

    def _step_once(
        self,
        stepper: _core.TorchStepper,
        scalings: list[_scaling.OnDevice],
        groups: list[Work],
        completion: list[Call],
    ) -> None:
        """One step over groups of parameters, none of which stands there twice."""
        if self._tail.saved is not None:
            self._tail.check_not_swapped()
        capturable = all(map(_is_capturable, self.param_groups))
        attempt, limits = self._attempt, None
        if self._limits.are_set:
            every = [param for params, *_ in groups for param in params]
            meshes = self._limits.meshes_of(every)
            attempt, limits = meshes.guarded(attempt), self._limits.for_core(every, meshes)
        modes = scalings, capturable, Names(self.param_groups, groups), torch.get_num_threads()
        step = partial(stepper.step, groups, self.state)
        for is_last in (False, True):
            try:
                stepped = attempt(step, groups, modes, completion, limits)
                torch.autograd.graph.increment_version(stepped)
                return
            except _core.OutOfDeviceMemory as error:
                why = str(error)
            # From here on nothing holds what the attempt has made.
            if is_last or not _devices.make_room():
                raise torch.OutOfMemoryError(why)

    def _attempt(
        self, step: Callable[..., Any], groups: list[Work], modes: tuple[Any, ...], always: list[Call], limits: Any
    ) -> list[torch.Tensor]:
        """All of a step or nothing; returns what was written. ``always`` are calls that a skipped step makes too.

        The sweep and all that completes it is one call of the core's, in which no signal handler can raise.
        """
        found = _step_with(step, {}, modes, [], always, limits)
        if found[0]:
            with torch.inference_mode(False), torch.no_grad():
                stand_ins = self._stand_ins(found[0], groups, modes[2])
                try:
                    stand_ins.place_states()
                    always = [*always, *stand_ins.zeroing([param for params, *_ in groups for param in params])]
                    found = _step_with(step, stand_ins.tensors, modes, stand_ins.completion(), always, limits)
                finally:
                    stand_ins.withdraw_states()
                if not self._limits.note(found):
                    stand_ins.count_abstract()
        elif limits:
            self._limits.note(found)
        return found[1]  # type: ignore[no-any-return]

    def _stand_ins(self, unready: list[int], groups: list[Work], name: Callable[[int], str]) -> StandIns:
        stand_ins = StandIns(self.state, name, self._schema.needs_count, self._tail)
        everything = [(param, g) for g, (params, *_) in enumerate(groups) for param in params]
        for position in unready:
            param, index = everything[position]
            group = self.param_groups[index]
            stand_ins.add(position, param, self._schema.slots_of(group))
        stand_ins.check_overlap([param for param, _ in everything])
        return stand_ins

    @classmethod
    def _new_row(cls, group: Group, grad_scale: float) -> Row:
        schema = cls._schema
        return schema.row(group, grad_scale), schema.rules.index(schema.rule_of(group))

    def _stepper(self) -> tuple[_core.TorchStepper, _core.Exclusive]:
        backends = _devices.in_use()
        if self._made is None or self._backends != backends:
            self._backends = backends
            plain_types = (torch.Tensor, torch.nn.Parameter, FlatParameter)
            exchange_api = torch.Tensor.__dlpack_c_exchange_api__
            rules = [(rule, ["step", *self._schema.slot_keys(rule)]) for rule in self._schema.rules]
            exclusive = self.__dict__.setdefault("_exclusive", _core.Exclusive())  # one, also for two threads at once
            self._made = _core.TorchStepper(rules, plain_types, exchange_api, backends), exclusive
            if self._tail.is_on:
                self._note_tail()
        return self._made

    @staticmethod
    def profile_hook_step(func: Callable[..., Any]) -> Callable[..., Any]:
        """As torch's, but torch.compile leaves the step alone: it could not look into the core.

        Nor does a step that nothing observes go through torch's wrapper.
        """
        hooked = torch.optim.Optimizer.profile_hook_step(func)
        uncompiled = _disable_dynamo(hooked)

        @wraps(func)
        def step(self: FusedOptimizer, *args: Any, **kwargs: Any) -> Any:
            if torch.compiler.is_dynamo_compiling():
                return uncompiled(self, *args, **kwargs)
            if is_observed(self):
                return hooked(self, *args, **kwargs)
            result = func(self, *args, **kwargs)
            self._optimizer_step_code()
            return result

        return step

    @_disable_dynamo
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch.optim.Optimizer.load_state_dict, but every state is a copy, and keeps its dtype where it is wider.

        States of torch.optim's optimizer of the same name can be loaded, and the other way round.

        Raises:
            TypeError, ValueError: the state is of another rule or convention, lacks a key, or holds something else than
                tensors. Then nothing has changed.
            RuntimeError: the parameters are swapped with their averages.
        """
        self._tail.check_not_swapped()
        # torch's own would cast all states to the dtypes of their parameters.
        state_dict = state_dict.copy()
        for pre_hook in list(self._optimizer_load_state_dict_pre_hooks.values()):
            changed = pre_hook(self, state_dict)
            state_dict = state_dict if changed is None else changed
        name, groups = type(self).__name__, self.param_groups
        into = _loading.Destination(name, self._schema, self.defaults, groups, self._check_group, self._tail)
        self.__setstate__(_loading.prepare(into, state_dict))
        for post_hook in list(self._optimizer_load_state_dict_post_hooks.values()):
            post_hook(self)

    def __getstate__(self) -> dict[str, Any]:
        self._tail.check_not_swapped()
        return {**super().__getstate__(), "_limits": self._limits.on_host(), "_tail": self._tail}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # All of it is made ready first: torch puts it into the optimizer by one call.
        defaults = state.get("defaults") or self.defaults
        for group in state["param_groups"]:
            group.update(self._schema.filled(group, defaults))
        super().__setstate__(state)
        self._limits = replace(self.__dict__.get("_limits", Limits()))  # a copy's own; older pickles have none
        self._tail = replace(self.__dict__.get("_tail", Tail()))
        self._note_tail()


def _step_with(
    step: Callable[..., Any],
    stand_ins: Any,
    modes: tuple[Any, ...],
    completion: list[Call],
    always: list[Call],
    limits: tuple[Any, ...] | None,
) -> Any:
    """A step of the core. What completes it runs under no torch function or dispatch mode, which may be Python code."""
    if not completion and not always:
        return step(stand_ins, *modes, completion, always, limits)
    with torch._C.DisableTorchFunction(), torch._C._DisableTorchDispatch():
        return step(stand_ins, *modes, completion, always, limits)


def _rounds(groups: list[Work]) -> list[list[Work]]:
    """Groups in which parameters stand several times, as several steps in each of which none stands twice."""
    rounds: list[list[Work]] = []
    seen: dict[int, int] = {}
    for index, (params, *_) in enumerate(groups):
        for param in params:
            turn = seen[id(param)] = seen.get(id(param), -1) + 1
            if turn == len(rounds):
                rounds.append([([], row, rule) for _, row, rule in groups])
            rounds[turn][index][0].append(param)
    return rounds
