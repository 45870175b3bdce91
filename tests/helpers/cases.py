"""A case for each optimizer and its settings, from table.py: what every law runs over. And the numbers they run on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import numpy as np

import flatstep
import reference
from flatstep import _core
from table import MEANINGS, TABLE


@dataclass(frozen=True)
class Case:
    name: str
    optimizer: type[flatstep.Optimizer]
    oracle: Callable[..., Any]
    settings: dict[str, Any] = field(default_factory=dict)

    def make(self, params: Any, **more: Any) -> flatstep.Optimizer:
        return self.optimizer(params, **{"learning_rate": 0.05, **self.settings, **more})

    def expect(self, param, grads, *, grad_scales=None, state=None):
        """The oracle's parameter and state after these gradients, one a step."""
        state = dict(state or {})
        oracle = reference.in_float16(self.oracle) if param.dtype == np.float16 else self.oracle
        with np.errstate(all="ignore"):
            for count, grad in enumerate(grads):
                settings = {"learning_rate": 0.05, **self.settings}
                settings = {name: value(count) if callable(value) else value for name, value in settings.items()}
                if grad_scales is not None:
                    settings["grad_scale"] = grad_scales[count]
                param, state = oracle(param, grad, state, count + 1, **settings)
        return param, state


CASES: list[Case] = [
    Case(f"{entry.optimizer.__name__}-{name}", entry.optimizer, entry.oracle, settings)
    for entry in TABLE
    for name, settings in entry.rows().items()
]
# float32 only, and where there is ml_dtypes.
BFLOAT16: list[Case] = [
    Case(f"{case.name}-bfloat16", case.optimizer, case.oracle, {**case.settings, "mu_dtype": "bfloat16"})
    for case in CASES
    if hasattr(case.optimizer, "mu_dtype") and find_spec("ml_dtypes")
]
DEFAULTS: list[Case] = [case for case in CASES if case.name.endswith("default")]
# One of each rule and of each option that gives its state another meaning.
RULES: list[Case] = list(
    {(case.optimizer, *map(case.settings.get, MEANINGS)): case for case in reversed(CASES)}.values()
)
WITH_MOMENTS: list[Case] = [case for case in DEFAULTS if hasattr(case.optimizer, "b1")]
DTYPES = [np.float32, np.float64]
# Of param, grad, first moment and second moment: the layouts that every rule could have.
AS_COMPUTED = {("F32",) * 4, ("F64",) * 4}
ROUNDED = {("F32", "F32", "BF16", "F32")} | {
    (own, grad, *moments)
    for own in ("BF16", "F16")
    for grad in (own, "F32")
    for moments in ((own, own), ("F32", own), ("F32", "F32"))
}
TILE = 64  # elements in a tile of the kernels: sizes around it are where sweeps go wrong

SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0]


def special_values(dtype) -> np.ndarray:
    """Zeros of both signs, infinities, NaN, denormals, and numbers at the edges of the range."""
    info = np.finfo(dtype)
    edges = [info.smallest_subnormal, info.smallest_normal, info.smallest_normal * dtype(0.75), info.max]
    return np.array([*SPECIAL, *edges, *[-edge for edge in edges]], dtype)


def numbers(rng: np.random.Generator, shape, dtype) -> np.ndarray:
    """Non-zero numbers of widely different sizes."""
    return np.asarray(rng.standard_normal(shape) * 10.0 ** rng.integers(-6, 3, shape), dtype)


def assert_same_bits(actual, expected, what: str = "") -> None:
    """Equal to the last bit, signs of zero included; any NaN equals any other. bfloat16 is read as float32."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    actual = actual.astype(np.float32) if actual.dtype.name == "bfloat16" else actual
    assert actual.dtype == expected.dtype, f"{what}: {actual.dtype} is not {expected.dtype}"
    assert actual.shape == expected.shape, f"{what}: {actual.shape} is not {expected.shape}"
    bits = f"u{actual.dtype.itemsize}"
    same = np.ascontiguousarray(actual).view(bits) == np.ascontiguousarray(expected).view(bits)
    same |= np.isnan(actual) & np.isnan(expected)
    if not same.all():
        at = np.argwhere(~same)[0]
        raise AssertionError(
            f"{what}: {np.count_nonzero(~same)} of {same.size} differ, first at {at}: "
            f"{actual[tuple(at)]!r} is not {expected[tuple(at)]!r}"
        )


def has_first_moment(rule: str) -> bool:
    """Whether a slot of the rule may be stored in a format of its own."""
    return "bfloat16" in _core.slot_dtypes(rule, "float32", "bfloat16")


def layouts_of(rule: str) -> set[tuple[str, ...]]:
    """The layouts that a rule has kernels for: of those that differ in moments that it does not have, one."""
    slots, is_first_moment = _core.slots(rule), has_first_moment(rule)
    return {
        (param, grad, mu, nu)
        for param, grad, mu, nu in (AS_COMPUTED if rule == "optimistic_adam_two_slots" else AS_COMPUTED | ROUNDED)
        if (is_first_moment or mu == nu) and ("nu" in slots or nu == param)
    }
