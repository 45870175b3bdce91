"""The object that all optimizers here are: optax's protocol, and a fused step. Base of those in _optimizers.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

import jax.numpy as jnp
import numpy as np
import optax

from .. import _core
from .._numbers import Number as NumberCheck
from .._rules import DECAY_STATE, RATE_STATE, Declaration, Part
from ._around import NAMES, Around, Outer
from ._call import Step, carry_out, scalar_names
from ._leaves import Leaves
from ._norm import limited
from ._settings import (
    Array,
    Number,
    PyTree,
    ScalarOrSchedule,
    Settings,
    as_number,
    as_operand,
    checked,
    settings_of,
)
from ._states import State

_AT_LEAST_0 = NumberCheck(at_least=0)
SKIP = "skip"  # among the numbers of a step: whether it changes nothing, None where that is not asked
LEAVES_A_CALL = 16  # the time to compile a call grows with the square of them or worse; a step's time does not fall

_Params = TypeVar("_Params")
_State = TypeVar("_State")


class FusedStep(Protocol):
    """The fused step of an optimizer."""

    def __call__(
        self,
        params: _Params,
        state: _State,
        grads: PyTree,
        *,
        grad_scale: Number = 1.0,
        max_norm: Number | None = None,
    ) -> tuple[_Params, _State]:
        """The parameters and the state after one step."""


class FusedTransformation(optax.GradientTransformationExtraArgs):
    """An optax.GradientTransformationExtraArgs (``init``, ``update``) that also has a fused ``step``.

    ``init`` and the state are optax's own: a state made by one library goes on in the other.
    """

    @property
    def step(self) -> FusedStep:
        """The fused step: ``step(params, state, grads, *, grad_scale=1.0, max_norm=None)`` returns params and state.

        It belongs to ``update``, so that each rebuild from the two fields has it too.
        """
        calls = getattr(self.update, "__self__", None)
        if not isinstance(calls, _Calls):
            raise AttributeError(
                f"there is no fused step for update = {self.update!r}, which has replaced flatstep.jax's own; call "
                "update, or make the optimizer with a function of flatstep.jax"
            )
        return calls.step


def make(declaration: Declaration, arguments: Mapping[str, Any]) -> FusedTransformation:
    """The optimizer with these arguments of its function. ``init`` is that of optax's own form."""
    face = declaration.jax
    assert face is not None
    around = Around.made(arguments)
    arguments = {name: value for name, value in arguments.items() if name not in NAMES}
    arguments = checked(declaration, face, arguments)
    settings = settings_of(declaration, face, arguments)
    if face.reference:
        reference = face.reference(arguments)
    else:
        given = {name: arguments[name] for name in face.to_optax}
        reference = getattr(optax, face.name)(arguments["learning_rate"], **given)
    return FusedTransformation(around.init(reference.init), _Calls(_Fused(settings, around)).update)


class _Calls:
    """The two calls of an optimizer: ``update`` is bound to this, and so leads to ``step``."""

    def __init__(self, fused: _Fused) -> None:
        self._fused = fused
        # Kept, for jax.jit finds the programs that it has compiled by the function's identity. It does not refer to
        # this object: a cycle would keep tracers alive.
        self.step = fused.step

    def update(
        self, updates: PyTree, state: PyTree, params: PyTree | None = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        """optax's protocol: what ``optax.apply_updates`` adds to the parameters, and the state after that.

        Updates take the place of gradients, which takes one pass over memory, and ``apply_updates`` another.

        Args:
            updates: gradients.
            state: what ``init``, a step or an update returned.
            params: needed where there is weight decay, or an average of them. Default None.
            extra: taken, as optax has it, and without meaning here.

        Raises:
            TypeError, ValueError: structures, shapes or dtypes do not fit, while tracing.
        """
        return self._fused.update(updates, state, params)


class _Fused:
    def __init__(self, settings: Settings, around: Around) -> None:
        self._settings = settings
        self._around = around
        number = settings.number
        self._hyperparameters = {name: number(name, value) for name, value in settings.hyperparameters.items()}
        if not callable(settings.learning_rate):
            number("learning_rate", settings.learning_rate)
        if not (settings.decay.has_state and callable(settings.decay.strength)):
            number("weight_decay", settings.decay.strength)

    def step(
        self, params: PyTree, state: PyTree, grads: PyTree, *, grad_scale: Any = 1.0, max_norm: Any = None
    ) -> tuple[PyTree, PyTree]:
        """The parameters and the state after one step.

        Under ``jax.jit`` with the first two donated both are changed in place, in one pass over memory. A leaf whose
        gradient is None stays as it is.

        Args:
            params: arrays of any shapes, nested in any structure; None is a place without an array.
            state: what ``init`` or a step returned.
            grads: gradients, in the structure of ``params``.
            grad_scale: number that gradients are multiplied with on the way in: unscaling costs no pass of its own.
                Default 1.
            max_norm: largest norm of all gradients together, at least 0; where they have a larger one, they are scaled
                down to it inside the step, by the factor of ``optax.clip_by_global_norm``. Default None: no limit.

        Raises:
            TypeError, ValueError: structures, shapes or dtypes do not fit, while tracing.
        """
        leaves = Leaves("params", params)
        arrays = leaves.match("grads", grads)
        leaves.require_complex("params", leaves.arrays, "grads", arrays, "give the gradient's real part")
        outer = self._around.read(state)
        before, slots = self._read(outer.inner, leaves, arrays)
        scale, is_finite = self._limited(arrays, grad_scale, max_norm)
        skip = None if is_finite is None else outer.skipped(is_finite)
        numbers = {**self._numbers(before, outer), "grad_scale": scale, SKIP: skip}
        state_of_each = [*slots, *outer.averages(leaves, arrays)]
        made = [list(leaves.arrays), *map(list, state_of_each)]
        for decays, indices in self._groups(leaves, arrays).items():
            own = numbers if decays else {**numbers, "weight_decay": 0.0}
            self._carry_out(indices, own, [leaves.arrays, *state_of_each, arrays], made)
        averages = None
        if outer.average is not None:
            averages = leaves.build(outer.with_frozen(made.pop(), leaves.arrays, arrays, numbers["count"], skip))
        return leaves.build(made[0]), outer.after(self._after(before, leaves, made, skip), averages, is_finite, skip)

    def update(self, updates: PyTree, state: PyTree, params: PyTree | None) -> tuple[PyTree, PyTree]:
        """The updates, and the state after them."""
        leaves = Leaves("updates", updates)
        outer = self._around.read(state)
        before, slots = self._read(outer.inner, leaves, leaves.arrays, may_have_more=True)
        is_finite = self._limited(leaves.arrays, 1.0, None)[1]
        skip = None if is_finite is None else outer.skipped(is_finite)
        numbers = {**self._numbers(before, outer), SKIP: skip}
        arrays = [g if g is None else self._as_update(g, own) for g, *own in zip(leaves.arrays, *slots, strict=True)]
        decay = self._settings.decay
        decayed = self._decayed(leaves, params, numbers["weight_decay"])
        if not decay.decoupled:
            sign = -1 if self._settings.maximize else 1
            arrays = [_plus(g, sign, d) for g, d in zip(arrays, decayed, strict=True)]
        made = [list(arrays), *(list(slot) for slot in slots)]
        present = [i for i, grad in enumerate(arrays) if grad is not None]
        self._carry_out(present, {**numbers, "weight_decay": 0.0}, [*slots, arrays], made)
        if decay.decoupled:
            rate = -numbers["learning_rate"]
            made[0] = [_plus(u, rate, d, skip) for u, d in zip(made[0], decayed, strict=True)]
        averages = self._averaged(outer, leaves, params, made[0], numbers["count"], skip)
        return leaves.build(made[0]), outer.after(self._after(before, leaves, made, skip), averages, is_finite, skip)

    def _averaged(
        self,
        outer: Outer,
        leaves: Leaves,
        params: PyTree | None,
        updates: Sequence[Array | None],
        count: Array,
        skip: Array | None,
    ) -> PyTree:
        """The averages of the parameters as ``optax.apply_updates`` stores them."""
        if outer.average is None:
            return None
        if params is None:
            raise ValueError("averages need the parameters: call update(grads, state, params)")
        weights = leaves.match("params", params, may_have_more=True)
        leaves.require("params", weights, leaves.arrays)
        [averages] = outer.averages(leaves, leaves.arrays)
        made = list(averages)
        for i, update in enumerate(updates):
            if update is not None:
                stored: Any = optax.apply_updates(weights[i], update)
                made[i] = outer.averaged(averages[i], stored, count, skip)
        return leaves.build(outer.with_frozen(made, weights, updates, count, skip))

    def _limited(self, grads: Sequence[Array | None], grad_scale: Any, max_norm: Any) -> tuple[Any, Array | None]:
        """What gradients are multiplied with, and whether they are finite then; None where it does not matter."""
        scale, skips = _scale(grad_scale), self._around.skips
        if max_norm is None and not skips:
            return scale, None
        most = max_norm if max_norm is None or _is_infinite(max_norm) else as_number("max_norm", max_norm, _AT_LEAST_0)
        found = limited([grad for grad in grads if grad is not None], as_operand("grad_scale", scale), most)
        return found if skips else (found[0], None)

    def _as_update(self, grad: Array, slots: Sequence[Array]) -> Array:
        """The gradient in the dtype that its updates have to have: slots but for mu are stored as the parameter is."""
        named = zip(_core.slots(self._settings.rule), slots, strict=True)
        dtypes = [grad.dtype, *(slot.dtype for name, slot in named if name != "mu")]
        dtype = max(dtypes, key=lambda dtype: jnp.finfo(dtype).bits)
        if any(map(jnp.iscomplexobj, (grad, *slots))):
            dtype = jnp.promote_types(dtype, jnp.complex64)
        return grad if grad.dtype == dtype else grad.astype(dtype)

    def _after(
        self, before: State, leaves: Leaves, made: Sequence[Sequence[Array | None]], skip: Array | None
    ) -> tuple[Any, ...]:
        """The state with the slots that a step has made."""
        names = _core.slots(self._settings.rule)
        return before.after({name: leaves.build(slot) for name, slot in zip(names, made[1:], strict=True)}, skip)

    def _read(
        self, state: PyTree, leaves: Leaves, grads: Sequence[Array | None], may_have_more: bool = False
    ) -> tuple[State, list[list[Array | None]]]:
        """The state, and each slot's leaves, which are there where gradients are."""
        before = State.read(self._settings.parts, state)
        named = before.slots(self._settings.rule)
        slots = {slot: leaves.match(name, tree, may_have_more) for slot, (name, tree) in named.items()}
        for slot, arrays in slots.items():
            leaves.require(named[slot][0], arrays, grads)
        remedy = "make the state without a real mu_dtype"
        for slot, arrays in slots.items():
            if slot not in self._settings.squares:
                leaves.require_complex(named[slot][0], arrays, leaves.name, leaves.arrays, remedy)
        return before, list(slots.values())

    def _numbers(self, before: State, outer: Outer) -> dict[str, Any]:
        """All numbers of a step by name: floats, and arrays where they are traced."""
        s = self._settings

        def at(name: str, value: ScalarOrSchedule, part: Part) -> Any:
            if not callable(value):
                return s.number(name, value)
            return as_operand(name, s.number(name, value(before.schedule_count(part))))

        numbers = {
            "learning_rate": as_operand("learning_rate", at("learning_rate", s.learning_rate, RATE_STATE)),
            "grad_scale": 1.0,
            "weight_decay": at("weight_decay", s.decay.strength, DECAY_STATE),
            "decoupled_weight_decay": float(s.decay.decoupled),
            "maximize": float(s.maximize),
            "is_initial_step": 0.0,
            "count": _next_count(before.field("count"), outer.average),
            **self._hyperparameters,
        }
        is_initial_step = before.field("is_initial_step")
        if is_initial_step is not None:
            numbers["is_initial_step"] = as_operand("is_initial_step", jnp.asarray(is_initial_step, float))
        return numbers

    def _groups(self, leaves: Leaves, grads: Sequence[Array | None]) -> dict[bool, list[int]]:
        """The leaves that have a gradient, by whether their weights decay."""
        decays = self._decays(leaves)
        groups: dict[bool, list[int]] = {}
        for index, grad in enumerate(grads):
            if grad is not None:
                groups.setdefault(decays[index], []).append(index)
        return groups

    def _decays(self, leaves: Leaves) -> list[bool]:
        mask = self._settings.decay.mask
        if mask is None:
            return [True] * len(leaves.arrays)
        return leaves.broadcast("mask", mask(leaves.tree) if callable(mask) else mask)

    def _decayed(self, leaves: Leaves, params: PyTree | None, strength: Any) -> list[Array | None]:
        """For each leaf its weight decay, None where it has none."""
        if self._settings.decay.is_off:
            return [None] * len(leaves.arrays)
        if params is None:
            raise ValueError("weight decay needs the parameters: call update(grads, state, params)")
        weights = leaves.match("params", params, may_have_more=True)
        leaves.require("params", weights, leaves.arrays)
        decays = [d and g is not None for d, g in zip(self._decays(leaves), leaves.arrays, strict=True)]
        return [strength * w if d else None for d, w in zip(decays, weights, strict=True)]

    def _carry_out(
        self,
        indices: Sequence[int],
        numbers: Mapping[str, Any],
        streams: Sequence[Sequence[Array]],
        made: Sequence[list[Array | None]],
    ) -> None:
        """Puts what a step of these leaves makes into ``made``: those of the same dtypes together, some a call."""
        makes_update = len(streams) == len(made)
        alike: dict[tuple[Any, ...], list[int]] = {}
        for index in indices:
            alike.setdefault(tuple(stream[index].dtype for stream in streams), []).append(index)
        for group in alike.values():
            for start in range(0, len(group), LEAVES_A_CALL):
                chosen = group[start : start + LEAVES_A_CALL]
                operands = [stream[i] for stream in streams for i in chosen]
                results = iter(self._call(makes_update, numbers, len(chosen), operands))
                for stream in made:
                    for index in chosen:
                        stream[index] = next(results)

    def _call(
        self, makes_update: bool, numbers: Mapping[str, Any], leaves: int, arrays: Sequence[Array]
    ) -> Sequence[Array]:
        names, skip = scalar_names(self._settings.rule), numbers[SKIP]
        traced = tuple(i for i, name in enumerate(names) if not isinstance(numbers[name], float))
        fixed = tuple(0.0 if i in traced else numbers[name] for i, name in enumerate(names))
        average = None if makes_update else self._around.average
        step = Step(self._settings.rule, makes_update, fixed, traced, leaves, skip is not None, average)
        flags = [] if skip is None else [skip]
        return carry_out(step, [numbers["count"], *(numbers[names[i]] for i in traced), *flags, *arrays])


def _plus(x: Array, factor: Any, y: Array | None, skip: Array | None = None) -> Array:
    """x + factor * y, stored as x is; x where there is no y, or where it is skipped."""
    if y is None:
        return x
    made = (x + factor * y).astype(x.dtype)
    return made if skip is None else jnp.where(skip, x, made)


def _scale(value: Any) -> Any:
    """grad_scale as an operand, since it changes from step to step; 1, the usual value, needs none."""
    number = as_number("grad_scale", value)
    return number if isinstance(number, float) and number == 1 else as_operand("grad_scale", number)


def _is_infinite(value: Any) -> bool:
    return isinstance(value, (float, np.floating)) and value == float("inf")


def _next_count(count: Any, average: Any) -> Array:
    """The count of this step, as the kernels take it: a checkpoint may bring another dtype.

    None: the rule needs none, and the average's is counted.
    """
    if count is None:
        return jnp.ones((), jnp.int32) if average is None else optax.safe_increment(average.count).astype(jnp.int32)
    if jnp.shape(count) != () or not jnp.issubdtype(jnp.result_type(count), jnp.integer):
        raise ValueError(
            f"state[0].count is {jnp.result_type(count)}{list(jnp.shape(count))}, expected one whole number"
        )
    return optax.safe_increment(count).astype(jnp.int32)
