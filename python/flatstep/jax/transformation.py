"""The object that all optimizers here are: optax's protocol, and a fused step. Base of the functions in rules.py."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from .. import _core
from ..numbers import Number
from .call import Step, carry_out, scalar_names
from .leaves import Leaves
from .states import REAL_SLOTS, State

Array = Any
PyTree = Any
ScalarOrSchedule = Any  # a number, an array of no axes, or a function of the count

LEAVES_A_CALL = 16  # the time to compile a call grows with the square of them or worse; a step's time does not fall

_ANY = Number()
_BOUNDS = {
    "b1": Number(at_least=0, below=1),
    "b2": Number(at_least=0, below=1),
    "eps": Number(at_least=0),
    "eps_root": Number(at_least=0),
    "weight_decay": Number(at_least=0),
}


@dataclass(frozen=True)
class Decay:
    """Weight decay: its strength, whether it bypasses the moments, and of which leaves."""

    strength: ScalarOrSchedule
    decoupled: bool = False
    mask: PyTree | Callable[[PyTree], PyTree] | None = None
    has_state: bool = False  # of its own in optax's chain, where a schedule counts

    @property
    def is_off(self) -> bool:
        return isinstance(self.strength, (int, float, np.number)) and self.strength == 0


@dataclass(frozen=True)
class Settings:
    """What an optimizer was made with. Numbers are floats where they are known, arrays where they are traced."""

    rule: str
    learning_rate: ScalarOrSchedule
    hyperparameters: Mapping[str, Any]
    decay: Decay
    maximize: bool


class FusedTransformation(optax.GradientTransformationExtraArgs):
    """An optax.GradientTransformationExtraArgs (``init``, ``update``) that also has a fused ``step``.

    ``init`` and the state are optax's own: a state made by one library goes on in the other.
    """

    @property
    def step(self) -> Callable[..., tuple[PyTree, PyTree]]:
        """The fused step. It belongs to ``update``, so that each rebuild from the two fields has it too."""
        calls = getattr(self.update, "__self__", None)
        if not isinstance(calls, _Calls):
            raise AttributeError(
                f"there is no fused step for update = {self.update!r}, which has replaced flatstep.jax's own; call "
                "update, or make the optimizer with a function of flatstep.jax"
            )
        return calls.step


def make(settings: Settings, reference: optax.GradientTransformation) -> FusedTransformation:
    """``reference`` is optax's own form, whose state is taken over."""
    return FusedTransformation(reference.init, _Calls(_Fused(settings)).update)


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
            params: needed where there is weight decay. Default None.
            extra: taken, as optax has it, and without meaning here.

        Raises:
            TypeError, ValueError: structures, shapes or dtypes do not fit, while tracing.
        """
        return self._fused.update(updates, state, params)


def checked_flag(name: str, value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} is {value!r}, expected True or False")
    return bool(value)


def checked_dtype(name: str, value: Any) -> Any:
    try:
        if value is None or jnp.issubdtype(jnp.dtype(value), jnp.inexact):
            return value
    except TypeError:
        pass
    raise TypeError(f"{name} is {value!r}, expected None or a floating-point dtype")


class _Fused:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._hyperparameters = {name: _number(name, value) for name, value in settings.hyperparameters.items()}
        if not callable(settings.learning_rate):
            _number("learning_rate", settings.learning_rate)
        if not (settings.decay.has_state and callable(settings.decay.strength)):
            _number("weight_decay", settings.decay.strength)

    def step(self, params: PyTree, state: PyTree, grads: PyTree, *, grad_scale: Any = 1.0) -> tuple[PyTree, PyTree]:
        """The parameters and the state after one step.

        Under ``jax.jit`` with the first two donated both are changed in place, in one pass over memory. A leaf whose
        gradient is None stays as it is.

        Args:
            params: arrays of any shapes, nested in any structure; None is a place without an array.
            state: what ``init`` or a step returned.
            grads: gradients, in the structure of ``params``.
            grad_scale: number that gradients are multiplied with on the way in: clipping costs no pass of its own.
                Default 1.

        Raises:
            TypeError, ValueError: structures, shapes or dtypes do not fit, while tracing.
        """
        leaves = Leaves("params", params)
        arrays = leaves.match("grads", grads)
        leaves.require_complex("params", leaves.arrays, "grads", arrays, "give the gradient's real part")
        before, slots = self._read(state, leaves, arrays)
        numbers = {**self._numbers(before), "grad_scale": _scale(grad_scale)}
        made = [list(leaves.arrays), *(list(slot) for slot in slots)]
        for decays, indices in self._groups(leaves, arrays).items():
            own = numbers if decays else {**numbers, "weight_decay": 0.0}
            self._carry_out(indices, own, [leaves.arrays, *slots, arrays], made)
        return leaves.build(made[0]), before.after([leaves.build(slot) for slot in made[1:]])

    def update(self, updates: PyTree, state: PyTree, params: PyTree | None) -> tuple[PyTree, PyTree]:
        """The updates, and the state after them."""
        leaves = Leaves("updates", updates)
        before, slots = self._read(state, leaves, leaves.arrays, may_have_more=True)
        numbers = self._numbers(before)
        rule = self._settings.rule
        arrays = [g if g is None else _as_update(rule, g, own) for g, *own in zip(leaves.arrays, *slots, strict=True)]
        decay = self._settings.decay
        decayed = self._decayed(leaves, params, numbers["weight_decay"])
        if not decay.decoupled:
            sign = -1 if self._settings.maximize else 1
            arrays = [_plus(g, sign, d) for g, d in zip(arrays, decayed, strict=True)]
        made = [list(arrays), *(list(slot) for slot in slots)]
        present = [i for i, grad in enumerate(arrays) if grad is not None]
        self._carry_out(present, {**numbers, "weight_decay": 0.0}, [*slots, arrays], made)
        if decay.decoupled:
            made[0] = [_plus(u, -numbers["learning_rate"], d) for u, d in zip(made[0], decayed, strict=True)]
        return leaves.build(made[0]), before.after([leaves.build(slot) for slot in made[1:]])

    def _read(
        self, state: PyTree, leaves: Leaves, grads: Sequence[Array | None], may_have_more: bool = False
    ) -> tuple[State, list[list[Array | None]]]:
        """The state, and each slot's leaves, which are there where gradients are."""
        before = State.read(self._settings.rule, state, others=1 + self._settings.decay.has_state)
        slots = [leaves.match(*slot, may_have_more) for slot in before.slots]
        for (name, _), slot in zip(before.slots, slots, strict=True):
            leaves.require(name, slot, grads)
        for (name, _), slot in zip(before.slots, slots, strict=True):
            if name.rsplit(".", 1)[-1] not in REAL_SLOTS:
                leaves.require_complex(name, slot, leaves.name, leaves.arrays, "make the state without a real mu_dtype")
        return before, slots

    def _numbers(self, before: State) -> dict[str, Any]:
        """All numbers of a step by name: floats, and arrays where they are traced."""
        s = self._settings

        def at(name: str, value: ScalarOrSchedule, part: int) -> Any:
            if not callable(value):
                return _number(name, value)
            return _as_operand(name, _number(name, value(before.schedule_count(part))))

        numbers = {
            "learning_rate": _as_operand("learning_rate", at("learning_rate", s.learning_rate, -1)),
            "grad_scale": 1.0,
            "weight_decay": at("weight_decay", s.decay.strength, 1),
            "decoupled_weight_decay": float(s.decay.decoupled),
            "maximize": float(s.maximize),
            "is_initial_step": 0.0,
            "count": jnp.int32(1) if before.count is None else _next_count(before.count),
            **self._hyperparameters,
        }
        if before.is_initial_step is not None:
            numbers["is_initial_step"] = _as_operand("is_initial_step", jnp.asarray(before.is_initial_step, float))
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
                results = iter(_call(self._settings.rule, makes_update, numbers, len(chosen), operands))
                for stream in made:
                    for index in chosen:
                        stream[index] = next(results)


def _call(
    rule: str, makes_update: bool, numbers: Mapping[str, Any], leaves: int, arrays: Sequence[Array]
) -> Sequence[Array]:
    names = scalar_names(rule)
    traced = tuple(i for i, name in enumerate(names) if not isinstance(numbers[name], float))
    fixed = tuple(0.0 if i in traced else numbers[name] for i, name in enumerate(names))
    step = Step(rule, makes_update, fixed, traced, leaves)
    return carry_out(step, [numbers["count"], *(numbers[names[i]] for i in traced), *arrays])


@functools.cache
def _slots_like_param(rule: str) -> list[bool]:
    """For each slot whether it is stored as the parameter is: all but those that ``mu_dtype`` is for."""
    return [dtype == "float32" for dtype in _core.slot_dtypes(rule, "float32", "bfloat16")]


def _as_update(rule: str, grad: Array, state: Sequence[Array]) -> Array:
    """The gradient in the dtype that its updates have to have, which is the parameter's if that is wider."""
    like_param = [x.dtype for x, is_like in zip(state, _slots_like_param(rule), strict=True) if is_like]
    dtype = max((grad.dtype, *like_param), key=lambda dtype: jnp.finfo(dtype).bits)
    if any(map(jnp.iscomplexobj, (grad, *state))):
        dtype = jnp.promote_types(dtype, jnp.complex64)
    return grad if grad.dtype == dtype else grad.astype(dtype)


def _plus(x: Array, factor: Any, y: Array | None) -> Array:
    """x + factor * y, stored as x is; x where there is no y."""
    return x if y is None else (x + factor * y).astype(x.dtype)


def _number(name: str, value: Any) -> Any:
    """A float where the number is known, an array where it is traced or may be."""
    if isinstance(value, (jax.Array, np.ndarray)):
        return _as_operand(name, value)
    return _BOUNDS.get(name, _ANY).check(name, value)


def _scale(value: Any) -> Any:
    """grad_scale as an operand, since it changes from step to step; 1, the usual value, needs none."""
    number = _number("grad_scale", value)
    return number if isinstance(number, float) and number == 1 else _as_operand("grad_scale", number)


def _as_operand(name: str, value: Any) -> Array:
    array = jnp.asarray(value)
    is_real = any(jnp.issubdtype(array.dtype, kind) for kind in (jnp.floating, jnp.integer))
    if array.shape != () or not is_real:
        raise ValueError(f"{name} has shape {array.shape} and dtype {array.dtype}, expected one real number")
    return array.astype(jnp.result_type(float))


def _next_count(count: Any) -> Array:
    """The count of this step, as the kernels take it: a checkpoint may bring another dtype."""
    if jnp.shape(count) != () or not jnp.issubdtype(jnp.result_type(count), jnp.integer):
        raise ValueError(
            f"state[0].count is {jnp.result_type(count)}{list(jnp.shape(count))}, expected one whole number"
        )
    return optax.safe_increment(count).astype(jnp.int32)
