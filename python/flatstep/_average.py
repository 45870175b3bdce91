"""The averages of an optimizer's parameters (EMA): one more array for each, which steps update."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from . import _core
from ._arrays import ALIGNMENT, Array, aligned_zeros
from ._device_arrays import DeviceArray
from ._leaves import Leaf
from ._loading import Change, change_at_once
from ._state import Past, view_at


def check_options(decay: Any, start: str, debias: bool, dtype: Any) -> None:
    """ValueError where the options of averages do not go together."""
    if decay is None and (debias or dtype is not None or start != "copy"):
        raise ValueError("ema_start, ema_debias and ema_dtype need ema_decay")
    if debias and start == "copy":
        raise ValueError("ema_debias=True corrects an average that starts at zero; pass ema_start='zero' too")


class Averages:
    """What ``ema_decay`` and its companions ask for; without them it holds nothing."""

    def __init__(self, params: Sequence[Leaf], options: Mapping[str, Any], stepper: _core.Stepper) -> None:
        self._stepper = stepper
        self._zeroes = bool(options["zero_grads"])
        self._is_copy = options["ema_start"] == "copy"
        self._debias = bool(options["ema_debias"])
        self._dtype = options["ema_dtype"]
        self._decay: float | None = -1.0  # as the compiled core has it: not yet
        self._params = params
        self._saved: list[Array] | None = None  # the parameters, while their averages stand in their place
        self.views: list[Leaf] = []
        self.are_kept = False
        self.needs_steps = self._zeroes  # whether steps have more to do than their update
        self._fixed: Any = None  # the decay, if it must not change

    def check(self, decay: Any) -> None:
        """ValueError or TypeError where these options do not go together, or not with the parameters."""
        check_options(decay, "copy" if self._is_copy else "zero", self._debias, self._dtype)
        if self._debias and callable(decay):
            raise ValueError("ema_debias=True needs an ema_decay that is a number; a schedule has no such correction")
        for param in self._params if decay is not None else []:
            if self._dtype not in (None, param.dtype.name, _computed(param)):
                expected = " or ".join(dict.fromkeys([repr(param.dtype.name), repr(_computed(param))]))
                raise TypeError(
                    f"ema_dtype is {self._dtype!r}, expected {expected} for parameters of {param.dtype.name}"
                )

    def begin(self, decay: Any) -> None:
        """Makes the averages, if there is a decay."""
        if decay is None:
            return
        self.are_kept = self.needs_steps = True
        self._fixed = decay if self._debias else None
        dtypes = [self._dtype or _computed(param) for param in self._params]
        places = self._stepper.make_averages(lambda count: aligned_zeros(count, 57 * ALIGNMENT), dtypes)
        for param, (buffer, offset), dtype in zip(self._params, places, dtypes, strict=True):
            strides = tuple([stride // param.itemsize for stride in param.strides])
            self.views.append(view_at(param, (param.shape, strides), buffer, offset, dtype))
            if self._is_copy:
                _copy(param, self.views[-1])

    def prepare(self, decay: float | None, grads: Sequence[Any], name: Callable[[int], str]) -> None:
        """For the next step. TypeError where it could not set a gradient to zero, in terms of its name."""
        self.check_not_swapped()
        self._check_decay(decay)
        for index, grad in enumerate(grads if self._zeroes else []):
            is_here = not isinstance(self._params[index], DeviceArray)
            if grad is not None and is_here and not isinstance(grad, np.ndarray):
                raise TypeError(
                    f"grads{name(index)} is a {type(grad).__name__}, and zero_grads sets NumPy's arrays to zero; pass "
                    "one that shares its memory"
                )
        if decay != self._decay:
            own = self._dtype is not None and all(param.dtype.name == self._dtype for param in self._params)
            self._stepper.set_tail(self._zeroes, own, self._is_copy, 0.0 if decay is None else decay)
            self._decay = decay

    def _check_decay(self, decay: Any) -> None:
        if self._fixed is not None and decay != self._fixed:
            raise ValueError(
                f"ema_decay is {decay!r} and was {self._fixed!r}; with ema_debias=True it is fixed when the optimizer "
                "is made"
            )

    def loaded(self, decay: Any) -> list[Change]:
        """What changes with the decay of averages that are loaded."""
        return [(self, "_fixed", decay)] if self._debias and decay is not None else []

    def check_not_swapped(self) -> None:
        """RuntimeError while averages stand in the place of parameters."""
        if self._saved is not None:
            raise RuntimeError("the parameters are swapped with their averages; call swap_ema() again first")

    def values(self, decay: Any, pasts: Sequence[Past]) -> Sequence[Leaf]:
        """The averages: views, or arrays of their own where they are corrected. While they are swapped: parameters."""
        if self._saved is not None:
            return self._saved
        self._check_decay(decay)
        return self._corrected(decay, pasts) if self._debias else self.views

    def in_host_memory(self, take: Callable[[Array], Array]) -> list[Array]:
        """The averages; ``take`` says what becomes of views of the host's memory, and the rest is copied."""
        return [own.to_host() if isinstance(own, DeviceArray) else take(own) for own in self.views]

    def _corrected(self, decay: Any, pasts: Sequence[Past]) -> list[Array]:
        rows = zip(self.in_host_memory(_same), self._host_params(), pasts, strict=True)
        return [_corrected(view, decay, updates) if updates else param for view, param, (updates, _) in rows]

    def _host_params(self) -> list[Array]:
        """The parameters; those on devices as copies."""
        return [p.to_host() if isinstance(p, DeviceArray) else p.view(np.ndarray) for p in self._params]

    def swap(self, decay: Any, pasts: Sequence[Past]) -> None:
        """Puts the averages, rounded, in the place of the parameters, or the parameters back."""
        into = [param if isinstance(param, DeviceArray) else param.view(np.ndarray) for param in self._params]
        if self._saved is not None:
            change_at_once(list(zip(into, self._saved, strict=True)), [(self, "_saved", None)])
            return
        saved = [param.copy(order="K") for param in self._host_params()]
        self._check_decay(decay)
        averages = self._corrected(decay, pasts) if self._debias else self.in_host_memory(_same)
        with np.errstate(all="ignore"):
            rounded = [average.astype(param.dtype) for average, param in zip(averages, into, strict=True)]
        change_at_once(list(zip(into, rounded, strict=True)), [(self, "_saved", saved)])


def _copy(param: Leaf, into: Leaf) -> None:
    if isinstance(param, DeviceArray):
        change_at_once([(into, param.to_host().astype(into.dtype))], [])
    else:
        into[...] = param  # type: ignore[index]  # not on a device either


def _same(array: Array) -> Array:
    return array


def _computed(param: Leaf) -> str:
    """The dtype in which steps of a parameter compute."""
    return "float64" if param.dtype == np.float64 else "float32"


def _corrected(average: Array, decay: float, updates: int) -> Array:
    """The average without its start at zero: divided by 1 - decay^updates, in the dtype in which steps compute."""
    computed = average.astype(np.float64 if average.dtype == np.float64 else np.float32)
    return np.asarray(computed / computed.dtype.type(1 - power(decay, updates)))


def power(base: float, exponent: int) -> float:
    """The same products in the same order on every machine, as the kernels' own power."""
    result = 1.0
    while exponent:
        if exponent % 2:
            result *= base
        base *= base
        exponent //= 2
    return result
