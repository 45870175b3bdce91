"""The oracle: each rule's formula in NumPy, normative for the order of operations, and how formats round.

The formulas are those of flatstep._formulas. Their coefficients are made here, in double, and rounded once to the
parameter's dtype, in which all arithmetic is done.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np

from flatstep import _core
from flatstep._formulas import formula, terms
from flatstep._formulas.coefficients import Coefficients
from flatstep._rules import OPTIMIZERS

# The public names of all settings, with their defaults.
DEFAULTS = dict(
    grad_scale=1.0,
    maximize=False,
    weight_decay=0.0,
    decoupled_weight_decay=False,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    eps_root=0.0,
    alpha=1.0,
    beta=1.0,
    nesterov=False,
    convention="optax",
    bias_correction_mu=True,
    bias_correction_nu=True,
    decay=0.9,
    momentum=None,
    eps_in_sqrt=None,
    bias_correction=False,
)


def own_defaults(rule: str) -> dict[str, Any]:
    """Those of the rule's optimizer that are not the defaults above."""
    declaration = next(declaration for declaration in OPTIMIZERS if rule in declaration.rules)
    own = {a.name: a.default for a in declaration.arguments if a.name in _core.hyperparameters(rule)}
    return {name: value for name, value in own.items() if value != DEFAULTS.get(name, value)}


def power(base: float, exponent: int) -> float:
    """base^exponent in double, right-to-left square-and-multiply."""
    result, square = 1.0, float(base)
    while exponent:
        if exponent % 2:
            result = result * square
        square = square * square
        exponent //= 2
    return result


def correction(b: float, t: int) -> float:
    return 1.0 / (1.0 - power(b, t))


class InDouble(Coefficients):
    """Coefficients made in double and rounded to T."""

    def __init__(self, t: int, T, **settings):
        unknown = settings.keys() - DEFAULTS.keys() - {"learning_rate"}
        if unknown:
            raise TypeError(f"the oracle has no setting {', '.join(sorted(unknown))}")
        numbers = {**DEFAULTS, **settings}
        options = {**corrections_of_amsgrad(**numbers), **options_of_rmsprop(**numbers)}
        super().__init__({**numbers, **options, "is_initial_step": t == 1})
        self.t, self.T = t, T

    def rounded(self, number):
        return self.T(number)

    def exact_correction(self, b, ahead=0):
        return correction(b, self.t + ahead)


def corrections_of_amsgrad(*, convention, bias_correction_mu, bias_correction_nu, **_) -> dict[str, bool]:
    return {
        "correct_mu": convention != "paper" and bias_correction_mu is not False,
        "correct_nu_before": convention == "optax" and bias_correction_nu is not False,
        "correct_nu_after": convention == "torch" and bias_correction_nu is not False,
    }


def options_of_rmsprop(*, convention, eps_in_sqrt, **_) -> dict[str, bool]:
    is_torch = convention == "torch"
    return {"lr_in_trace": not is_torch, "eps_in_sqrt": not is_torch if eps_in_sqrt is None else eps_in_sqrt}


def oracle(rule: str, **defaults: Any) -> Callable[..., Any]:
    """The rule's step: (param, grad, state, t, **settings) -> (param, state).

    The state is a mapping by slot, from which slots may be absent at first. t counts the parameter's updates from 1.
    Settings have their public names.
    """
    update, own = formula(rule), {**own_defaults(rule), **defaults}

    def step(p, grad, state, t, *, mu_dtype=None, **settings):
        zeros = np.zeros_like(p)
        before = defaultdict(lambda: zeros, dict.fromkeys(_core.slots(rule), zeros), **state)
        p, made = update(np, p, grad, before, InDouble(t, p.dtype.type, **{**own, **settings}))
        if "mu" in made:
            made["mu"] = stored(made["mu"], mu_dtype)
        return p, made

    return step


# A module's attributes may be made on demand: reference.amsgrad is the oracle of amsgrad.
def __getattr__(rule: str) -> Callable[..., Any]:
    if rule not in _core.rules():
        raise AttributeError(f"there is no rule {rule}")
    return globals().setdefault(rule, oracle(rule))


def rmsprop(p, grad, state, t, *, centered=False, initial_scale=0.0, **settings):
    """Options choose the slots."""
    has_trace = settings.get("momentum") is not None
    rule = "rmsprop" + "_centered" * centered + "_momentum" * has_trace
    return oracle(rule)(p, grad, {"nu": np.full_like(p, initial_scale), **state}, t, **settings)


adamw = oracle("adam", weight_decay=1e-2, decoupled_weight_decay=True)


def direction(mu, nu, t, T, **settings):
    """Adam's direction from its moments after update t, without Nesterov's momentum."""
    c = InDouble(t, T, **settings)
    return terms.direction(np, c, c.correction("b1") * mu, c.correction("b2") * nu)


def flush(x):
    """Moments below the smallest normal number are zero."""
    return terms.flush(np, x)


def to_bfloat16(x):
    """The bits of float32 numbers rounded to bfloat16: to nearest, ties to even, NaN quiet."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32).astype(np.uint64).reshape(np.shape(x))
    low = bits % 2**16
    high = bits // 2**16
    up = (low > 2**15) | ((low == 2**15) & (high % 2 == 1))
    return np.where(np.isnan(x), high | 0x40, high + up).astype(np.uint16)


def from_bfloat16(bits):
    """float32 numbers from the bits of bfloat16 ones."""
    return (bits.astype(np.uint32) * 2**16).view(np.float32).reshape(bits.shape)


def in_float16(rule):
    """The rule where parameter, gradient and state are stored in float16: float32 arithmetic, rounded once a slot."""

    def step(p, grad, state, t, *, mu_dtype=None, **settings):
        wide = {slot: value.astype(np.float32) for slot, value in state.items()}
        p, made = rule(p.astype(np.float32), grad.astype(np.float32), wide, t, **settings)
        kept = {"mu"} if mu_dtype == "float32" else set()
        return p.astype(np.float16), {s: v if s in kept else v.astype(np.float16) for s, v in made.items()}

    return step


def stored(mu, mu_dtype):
    """What is left of mu after the step that makes it."""
    return from_bfloat16(to_bfloat16(mu)) if mu_dtype == "bfloat16" else mu
