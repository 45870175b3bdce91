"""One row per rule and settings: what every law and table of the tests runs over. And the numbers they run on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import numpy as np

import flatstep
import reference


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


def _rows(optimizer, oracle, rows: dict[str, dict[str, Any]]) -> list[Case]:
    return [Case(f"{optimizer.__name__}-{name}", optimizer, oracle, settings) for name, settings in rows.items()]


COMMON: dict[str, dict[str, Any]] = {
    "default": {},
    "weight_decay": dict(weight_decay=0.1),
    "decoupled": dict(weight_decay=0.1, decoupled_weight_decay=True),
    "maximize": dict(maximize=True, weight_decay=0.1),
    "no_memory": dict(b1=0.0, b2=0.0),
    "eps_root": dict(eps_root=1e-6, eps=0.0),
    "eps_0": dict(eps=0.0),
    "eps_tiny": dict(eps=1e-300, eps_root=1e-310),
    "schedules": dict(
        learning_rate=lambda count: 0.1 / (1 + count),
        b1=lambda count: 0.9 - 0.05 * count,
        b2=lambda count: 0.99 - 0.05 * count,
        eps=lambda count: 1e-8 * (1 + count),
        weight_decay=lambda count: 0.01 * count,
    ),
}
OPTIMISM: dict[str, dict[str, Any]] = {
    "alpha_beta": dict(alpha=0.25, beta=0.7),
    "no_optimism": dict(beta=0.0),
    "pessimism": dict(alpha=1.0, beta=-0.5),
}

CASES: list[Case] = [
    *_rows(flatstep.Adam, reference.adam, {**COMMON, "nesterov": dict(nesterov=True)}),
    *_rows(flatstep.AdamW, reference.adamw, {"default": {}, "coupled": dict(decoupled_weight_decay=False)}),
    *_rows(
        flatstep.AMSGrad,
        reference.amsgrad,
        {
            **COMMON,
            "torch": dict(convention="torch"),
            "paper": dict(convention="paper"),
            "raw_mu": dict(bias_correction_mu=False),
            "raw_nu": dict(bias_correction_nu=False),
            "raw_mu_torch": dict(bias_correction_mu=False, convention="torch"),
            "raw": dict(bias_correction_mu=False, bias_correction_nu=False),
        },
    ),
    *_rows(flatstep.OptimisticAdam, reference.optimistic_adam, {**COMMON, **OPTIMISM}),
    *_rows(
        flatstep.OptimisticGradientDescent,
        reference.optimistic_gradient_descent,
        {**{name: COMMON[name] for name in ("default", "weight_decay", "decoupled", "maximize")}, **OPTIMISM},
    ),
    *_rows(
        flatstep.OptimisticAdam,
        reference.optimistic_adam,
        {f"plain-{name}": {**row, "nesterov": False} for name, row in {**COMMON, **OPTIMISM}.items()},
    ),
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
    {(c.optimizer, c.settings.get("convention"), c.settings.get("nesterov")): c for c in reversed(CASES)}.values()
)
WITH_MOMENTS: list[Case] = [case for case in DEFAULTS if hasattr(case.optimizer, "b1")]
DTYPES = [np.float32, np.float64]
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
