"""Every rule in plain jax.numpy: what runs where there is no kernel. For flatstep.jax only.

The terms are those of csrc/rules/terms.h; XLA may contract them, so that results agree within a few ulp, not to the
bit. For complex leaves, which no kernel takes, they are optax's: nu is an average of abs(g)^2, and so is real, though
optax stores it as the parameter is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

Array = Any
Number = Any  # a float that is known, or an array that broadcasts with the leaf
Leaf = tuple[Array, ...]


class Terms(NamedTuple):
    """The numbers of a step on one leaf: ``count`` and traced numbers are arrays that broadcast with it."""

    count: Array
    numbers: Mapping[str, Number]
    compute: Any  # the dtype in which the rule works
    makes_update: bool  # the result is what would be added to the parameter, which is not at hand

    def gradient(self, param: Array, grad: Array) -> Array:
        """scale * grad [+ weight_decay * param]"""
        n = self.numbers
        g = (-n["grad_scale"] if n["maximize"] else n["grad_scale"]) * grad
        return g if n["decoupled_weight_decay"] else self._plus_product(g, n["weight_decay"], param)

    def average(self, b: Number, old: Array, x: Array) -> Array:
        """b * old + (1 - b) * x, denormals flushed"""
        made = b * old + (1 - b) * x
        return jnp.where(jnp.abs(made) < np.finfo(self.compute).tiny, 0, made)

    def correction(self, b: Number, ahead: int = 0) -> Array:
        """1 / (1 - b^(t + ahead)), without the cancellation that 1 - b^t has in float32"""
        t = self.count.astype(self.compute) + ahead  # in its own dtype the last count has none after it
        return -1 / jnp.expm1(t * _log(b))

    def momentum(self, mu: Array, g: Array) -> Array:
        """mu_hat, Nesterov's or not"""
        b1 = self.numbers["b1"]
        if not self.numbers["nesterov"]:
            return self.correction(b1) * mu
        return b1 * self.correction(b1, ahead=1) * mu + (1 - b1) * self.correction(b1) * g

    def direction(self, mu_hat: Array, nu_hat: Array) -> Array:
        """mu_hat / (sqrt(nu_hat + eps_root) + eps)"""
        eps, eps_root = self._guard("eps"), self._guard("eps_root")
        return mu_hat / (jnp.sqrt(nu_hat + eps_root) + eps)

    def optimism(self, r: Array, previous: Array) -> Array:
        """(alpha + beta) r - beta previous, and alpha r in the first step"""
        alpha, beta = self.numbers["alpha"], self.numbers["beta"]
        looking_back = self._plus_product((alpha + beta) * r, -beta, previous)
        return jnp.where(self.numbers["is_initial_step"] != 0, alpha * r, looking_back)

    def descent(self, param: Array, u: Array) -> Array:
        """param - learning_rate * (u [+ weight_decay * param])"""
        n = self.numbers
        if n["decoupled_weight_decay"]:
            u = self._plus_product(u, n["weight_decay"], param)
        return -(n["learning_rate"] * u) if self.makes_update else param - n["learning_rate"] * u

    def _guard(self, name: str) -> Number:
        number = self.numbers[name]
        if isinstance(number, float) and number > 0 and self.compute(number) == 0:
            return float(np.finfo(self.compute).tiny)
        return number

    def _plus_product(self, x: Array, factor: Number, y: Array) -> Array:
        """x + factor * y, and x alone where the factor is zero, whatever y is"""
        if isinstance(factor, float):
            return x + factor * y if factor != 0 else x
        return jnp.where(factor != 0, x + factor * y, x)


def _log(b: Number) -> Number:
    if isinstance(b, float):
        return math.log(b) if b > 0 else -math.inf
    return jnp.log1p(b - 1)


def adam(terms: Terms, param: Array, g: Array, state: Leaf) -> tuple[Array, Leaf]:
    mu, nu = _moments(terms, g, state)
    nu_hat = terms.correction(terms.numbers["b2"]) * nu
    return terms.descent(param, terms.direction(terms.momentum(mu, g), nu_hat)), (mu, nu)


def amsgrad(terms: Terms, param: Array, g: Array, state: Leaf) -> tuple[Array, Leaf]:
    n = terms.numbers
    mu, nu = _moments(terms, g, state)
    correct_nu = terms.correction(n["b2"])
    nu_max = jnp.maximum(jnp.real(state[2]), correct_nu * nu if n["correct_nu_before"] else nu)
    mu_hat = terms.correction(n["b1"]) * mu if n["correct_mu"] else mu
    r = terms.direction(mu_hat, correct_nu * nu_max if n["correct_nu_after"] else nu_max)
    return terms.descent(param, r), (mu, nu, nu_max)


def optimistic_adam(terms: Terms, param: Array, g: Array, state: Leaf) -> tuple[Array, Leaf]:
    mu, nu = _moments(terms, g, state)
    r = terms.direction(terms.momentum(mu, g), terms.correction(terms.numbers["b2"]) * nu)
    return terms.descent(param, terms.optimism(r, state[2])), (mu, nu, r)


def _moments(terms: Terms, g: Array, state: Leaf) -> tuple[Array, Array]:
    b1, b2 = terms.numbers["b1"], terms.numbers["b2"]
    return terms.average(b1, state[0], g), terms.average(b2, jnp.real(state[1]), _squared(g))


def _squared(g: Array) -> Array:
    """abs(g)^2"""
    return jnp.real(g) ** 2 + jnp.imag(g) ** 2 if jnp.iscomplexobj(g) else g * g


Formula = Callable[[Terms, Array, Array, Leaf], tuple[Array, Leaf]]
FORMULAS: Mapping[str, Formula] = {"adam": adam, "amsgrad": amsgrad, "optimistic_adam": optimistic_adam}


def step_leaf(rule: str, terms: Terms, param: Array, grad: Array, state: Sequence[Array]) -> list[Array]:
    """The parameter, or the update, and the state after one step, each in the dtype that it had."""
    stored = [grad.dtype if terms.makes_update else param.dtype, *(slot.dtype for slot in state)]
    is_complex = any(x is not None and jnp.iscomplexobj(x) for x in (param, grad))
    wide = [None if x is None else _computed(x, terms.compute, is_complex) for x in (param, grad, *state)]
    made, slots = FORMULAS[rule](terms, wide[0], terms.gradient(wide[0], wide[1]), tuple(wide[2:]))
    return [_stored(x, dtype) for x, dtype in zip((made, *slots), stored, strict=True)]


def _computed(x: Array, compute: Any, is_complex: bool) -> Array:
    """A stream of a leaf as the rule computes with it: real in a real leaf, whose mu may be stored as complex."""
    if not jnp.iscomplexobj(x):
        return x.astype(compute)
    return x.astype(np.result_type(compute, np.complex64)) if is_complex else jnp.real(x).astype(compute)


def _stored(x: Array, dtype: Any) -> Array:
    return x.astype(dtype) if jnp.issubdtype(dtype, jnp.complexfloating) else jnp.real(x).astype(dtype)
