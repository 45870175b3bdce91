"""What steps do around their update: skip what is not finite, and average parameters. Used by _transformation.py.

The state is optax's: a chain's tuple that ends with an EmaState where there are averages, inside of an
ApplyIfFiniteState where steps may be skipped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from .._numbers import Number as NumberCheck
from .._rules.common import JAX_AROUND
from ._leaves import Leaves
from ._settings import as_number, checked_dtype, checked_flag
from ._states import next_count
from ._tail import STARTS, average_of, computed_dtype

Array = Any
PyTree = Any
NAMES = tuple(argument.name for argument in JAX_AROUND)
_DECAY = NumberCheck(at_least=0, below=1)


class Around(NamedTuple):
    """The arguments, checked."""

    skips: bool
    most_errors: Any  # in a row; None: any number
    decay: float | None
    start: str
    dtype: Any

    @classmethod
    def made(cls, arguments: Mapping[str, Any]) -> Around:
        """TypeError or ValueError where one has no meaning, or they do not go together."""
        skips = checked_flag("skip_nonfinite", arguments["skip_nonfinite"])
        most, decay, start = (arguments[name] for name in ("max_consecutive_errors", "ema_decay", "ema_start"))
        dtype = checked_dtype("ema_dtype", arguments["ema_dtype"])
        if start not in STARTS:
            raise ValueError(f"ema_start is {start!r}, expected {' or '.join(map(repr, STARTS))}")
        if most is not None:
            most = as_number("max_consecutive_errors", most, NumberCheck(at_least=0))
            if not skips:
                raise ValueError("max_consecutive_errors needs skip_nonfinite=True")
        if decay is None and (dtype is not None or start != "copy"):
            raise ValueError("ema_start and ema_dtype need ema_decay")
        if isinstance(decay, jax.Array):
            raise TypeError(
                "ema_decay is an array, expected a number, which is fixed when a step is compiled; under "
                "optax.inject_hyperparams name it in static_args"
            )
        return cls(skips, most, None if decay is None else _DECAY.check("ema_decay", decay), start, dtype)

    @property
    def average(self) -> tuple[str, float] | None:
        """What a step is told of averages."""
        return None if self.decay is None else (self.start, self.decay)

    def init(self, init: Callable[[PyTree], PyTree]) -> Callable[[PyTree], PyTree]:
        """``init`` of a state that has all this around it; the same function where there is nothing."""
        if not self.skips and self.decay is None:
            return init

        def init_around(params: PyTree) -> PyTree:
            state = init(params)
            if self.decay is not None:
                state = (*state, optax.EmaState(jnp.zeros((), jnp.int32), jax.tree.map(self._first, params)))
            if not self.skips:
                return state
            zero = jnp.zeros((), jnp.int32)
            return optax.ApplyIfFiniteState(zero, jnp.array(True), jnp.zeros((), jnp.int32), state)

        return init_around

    def _first(self, param: Any) -> Array:
        """An average before its first step."""
        array = jnp.asarray(param)
        dtype = self._dtype_for(array)
        return jnp.zeros_like(array, dtype) if self.start == "zero" else jnp.array(array, dtype, copy=True)

    def _dtype_for(self, param: Array) -> Any:
        computed = computed_dtype(param.dtype)
        found = computed if self.dtype is None else jnp.dtype(self.dtype)
        if found not in (computed, param.dtype):
            expected = " or ".join(dict.fromkeys([repr(param.dtype.name), repr(computed.name)]))
            raise TypeError(f"ema_dtype is {found.name!r}, expected {expected} for parameters of {param.dtype.name}")
        return found

    def read(self, state: PyTree) -> Outer:
        """TypeError where the state is not one that ``init`` makes."""
        finite = None
        if self.skips:
            if type(state).__name__ != "ApplyIfFiniteState":
                raise TypeError(
                    f"state is {type(state).__name__}, expected ApplyIfFiniteState for skip_nonfinite=True; give what "
                    "this optimizer's init or step returned, or optax.apply_if_finite of the same optimizer of optax"
                )
            finite, state = state, state.inner_state
        if self.decay is None:
            return Outer(self, finite, None, state)
        last = state[-1] if isinstance(state, (tuple, list)) and state else None
        if type(last).__name__ != "EmaState":
            raise TypeError(
                f"state ends with {type(last).__name__}, expected EmaState for ema_decay; give what this optimizer's "
                "init or step returned"
            )
        return Outer(self, finite, last, tuple(state[:-1]))


class Outer(NamedTuple):
    """A state, read: what is around the optimizer's own."""

    around: Around
    finite: Any  # an ApplyIfFiniteState, or None
    average: Any  # an EmaState, or None
    inner: PyTree

    def skipped(self, is_finite: Array) -> Array:
        """Whether the step changes nothing."""
        most = self.around.most_errors
        return ~is_finite if most is None else ~is_finite & (self._errors(is_finite) <= most)

    def _errors(self, is_finite: Array) -> Array:
        """Steps in a row that were not finite."""
        count = self.finite.notfinite_count
        return jnp.where(is_finite, jnp.zeros_like(count), optax.safe_increment(count))

    def averages(self, leaves: Leaves, wanted: Sequence[Array | None]) -> list[list[Array | None]]:
        """The averages of the leaves, as one more slot; none where there are no averages."""
        if self.average is None:
            return []
        name = f"state[{len(self.inner)}].ema"
        arrays = leaves.match(name, self.average.ema, may_have_more=True)
        leaves.require(name, arrays, wanted)
        return [arrays]

    def averaged(self, average: Array, param: Array, count: Array, skip: Array | None) -> Array:
        """An average after a step that stores this parameter."""
        form = self.around.average
        assert form is not None
        new = average_of(average, param, count, form)
        return new if skip is None else jnp.where(skip, average, new)

    def with_frozen(
        self,
        averages: list[Array | None],
        params: Sequence[Array | None],
        grads: Sequence[Array | None],
        count: Array,
        skip: Array | None,
    ) -> list[Array | None]:
        """The averages. Those that start at zero go on for leaves without a gradient too: one count corrects all."""
        if self.around.start == "copy":
            return averages
        made = list(averages)
        for i, (average, param, grad) in enumerate(zip(averages, params, grads, strict=True)):
            if grad is None and average is not None and param is not None:
                made[i] = self.averaged(average, param, count, skip)
        return made

    def after(self, inner: tuple[Any, ...], average: PyTree, is_finite: Any, skip: Array | None) -> PyTree:
        """The state after a step."""
        state: PyTree = inner
        if self.average is not None:
            count = next_count(self.average.count, skip)
            state = (*inner, optax.EmaState(count, average))
        if self.finite is None:
            return state
        total = self.finite.total_notfinite
        return optax.ApplyIfFiniteState(
            self._errors(is_finite),
            jnp.asarray(is_finite),
            jnp.where(is_finite, total, optax.safe_increment(total)),
            state,
        )


def ema(state: PyTree, *, decay: float | None = None) -> PyTree:
    r"""The averages of parameters that an optimizer with ``ema_decay`` keeps in its state.

    .. math:: a \leftarrow \mathit{decay} \cdot a + (1 - \mathit{decay}) \cdot p

    Args:
        state: a state with one ``optax.EmaState`` in it, at any depth: of an optimizer, or of what wraps it.
        decay: the optimizer's ``ema_decay``, for averages that it starts from zero: they are divided by
            1 - decay^count, as ``optax.ema`` does with debias. Default None: they are as the state has them.

    Returns:
        The averages, in the structure of the parameters. They are float32 for 16-bit parameters unless ``ema_dtype``
        says otherwise.

    Raises:
        ValueError: there is no such part of the state, or more than one.

    Example:
        >>> import jax.numpy as jnp, flatstep.jax
        >>> opt = flatstep.jax.adam(0.5, ema_decay=0.9)
        >>> params = {"w": jnp.ones(2)}
        >>> state = opt.init(params)
        >>> for _ in range(2):
        ...     params, state = opt.step(params, state, params)
        >>> flatstep.jax.ema(state)["w"].round(3)
        Array([0.453, 0.453], dtype=float32)

    References:
        ``optax.ema``, ``torch.optim.swa_utils.AveragedModel``
    """
    found = [part for part in jax.tree.leaves(state, is_leaf=_is_average) if _is_average(part)]
    if len(found) != 1:
        raise ValueError(
            f"the state has {len(found)} parts of type EmaState, expected one; give the state of an optimizer made "
            "with ema_decay"
        )
    [part] = found
    if decay is None:
        return part.ema
    number = _DECAY.check("decay", decay)
    return jax.tree.map(lambda x: _debiased(x, number, part.count), part.ema)


def _is_average(part: Any) -> bool:
    return isinstance(part, optax.EmaState)


def _debiased(average: Array, decay: float, count: Array) -> Array:
    """Without the zero that it started from; before the first step, as it is."""
    computed = average.astype(computed_dtype(average.dtype))
    steps = jnp.asarray(count).astype(jnp.finfo(computed.dtype).dtype)
    # In float32 1 - decay^t cancels.
    share = -jnp.expm1(steps * math.log(decay)) if decay > 0 else jnp.ones_like(steps)
    return jnp.where(count == 0, computed, computed / jnp.where(count == 0, 1, share))
