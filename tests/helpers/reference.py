"""The oracle: each rule in NumPy, normative for the order of operations. Shares no code with what it tests.

A function takes a parameter, a gradient, the state by slot (absent at first), the count t of this update and the
settings by their public names; it returns the new parameter and the new state. Arithmetic is in the parameter's dtype,
coefficients are made in double and rounded once.
"""

from __future__ import annotations

import numpy as np


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


def flush(x):
    """Moments below the smallest normal number are zero."""
    return np.where(np.abs(x) < np.finfo(x.dtype).smallest_normal, x.dtype.type(0), x)


def guard(eps: float, T):
    """A positive eps stays positive."""
    return np.finfo(T).smallest_normal if eps > 0 and T(eps) == 0 else T(eps)


def average(old, x, b, T):
    return flush(T(b) * old + T(1.0 - b) * x)


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


def gradient(p, grad, *, grad_scale, maximize, weight_decay, decoupled_weight_decay, T):
    g = T(-grad_scale if maximize else grad_scale) * grad
    if not decoupled_weight_decay and T(weight_decay) != 0:
        g = g + T(weight_decay) * p
    return g


def descend(p, u, *, learning_rate, weight_decay, decoupled_weight_decay, T):
    if decoupled_weight_decay and T(weight_decay) != 0:
        u = u + T(weight_decay) * p
    return p - T(learning_rate) * u


def momentum(mu, g, *, b1, t, nesterov, T):
    if not nesterov:
        return T(correction(b1, t)) * mu
    return T(b1 * correction(b1, t + 1)) * mu + T((1.0 - b1) * correction(b1, t)) * g


def ratio(mu_hat, nu_hat, *, eps, eps_root, T):
    return mu_hat / (np.sqrt(nu_hat + guard(eps_root, T)) + guard(eps, T))


def optimism(r, state, *, alpha, beta, t, T):
    """The direction and its change; the first update has no previous one."""
    if t == 1:
        return T(alpha) * r
    u = T(alpha + beta) * r
    return u - T(beta) * state["previous"] if T(beta) != 0 else u


def larger(a, b):
    """The larger of two, NaN if either is."""
    return np.where((a > b) | np.isnan(a), a, b)


def adam(
    p,
    grad,
    state,
    t,
    *,
    learning_rate,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    eps_root=0.0,
    mu_dtype=None,
    nesterov=False,
    weight_decay=0.0,
    decoupled_weight_decay=False,
    maximize=False,
    grad_scale=1.0,
):
    T = p.dtype.type
    zero = np.zeros_like(p)
    decay = dict(weight_decay=weight_decay, decoupled_weight_decay=decoupled_weight_decay, T=T)
    g = gradient(p, grad, grad_scale=grad_scale, maximize=maximize, **decay)
    mu = average(state.get("mu", zero), g, b1, T)
    nu = average(state.get("nu", zero), g * g, b2, T)
    mu_hat = momentum(mu, g, b1=b1, t=t, nesterov=nesterov, T=T)
    r = ratio(mu_hat, T(correction(b2, t)) * nu, eps=eps, eps_root=eps_root, T=T)
    return descend(p, r, learning_rate=learning_rate, **decay), {"mu": stored(mu, mu_dtype), "nu": nu}


def adamw(p, grad, state, t, *, weight_decay=1e-2, decoupled_weight_decay=True, **settings):
    return adam(p, grad, state, t, weight_decay=weight_decay, decoupled_weight_decay=decoupled_weight_decay, **settings)


def amsgrad(
    p,
    grad,
    state,
    t,
    *,
    learning_rate,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    eps_root=0.0,
    bias_correction_mu=None,
    bias_correction_nu=None,
    mu_dtype=None,
    convention="optax",
    weight_decay=0.0,
    decoupled_weight_decay=False,
    maximize=False,
    grad_scale=1.0,
):
    T = p.dtype.type
    zero = np.zeros_like(p)
    decay = dict(weight_decay=weight_decay, decoupled_weight_decay=decoupled_weight_decay, T=T)
    before = after = of_mu = 1.0
    if convention != "paper":
        if bias_correction_mu is not False:
            of_mu = correction(b1, t)
        if bias_correction_nu is not False and convention == "optax":
            before = correction(b2, t)
        if bias_correction_nu is not False and convention == "torch":
            after = correction(b2, t)
    g = gradient(p, grad, grad_scale=grad_scale, maximize=maximize, **decay)
    mu = average(state.get("mu", zero), g, b1, T)
    nu = average(state.get("nu", zero), g * g, b2, T)
    nu_max = larger(state.get("nu_max", zero), T(before) * nu)
    r = ratio(T(of_mu) * mu, T(after) * nu_max, eps=eps, eps_root=eps_root, T=T)
    return descend(p, r, learning_rate=learning_rate, **decay), {"mu": stored(mu, mu_dtype), "nu": nu, "nu_max": nu_max}


def optimistic_adam(
    p,
    grad,
    state,
    t,
    *,
    learning_rate,
    alpha=1.0,
    beta=1.0,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    eps_root=0.0,
    mu_dtype=None,
    nesterov=True,
    weight_decay=0.0,
    decoupled_weight_decay=False,
    maximize=False,
    grad_scale=1.0,
):
    T = p.dtype.type
    zero = np.zeros_like(p)
    decay = dict(weight_decay=weight_decay, decoupled_weight_decay=decoupled_weight_decay, T=T)
    g = gradient(p, grad, grad_scale=grad_scale, maximize=maximize, **decay)
    mu = average(state.get("mu", zero), g, b1, T)
    nu = average(state.get("nu", zero), g * g, b2, T)
    mu_hat = momentum(mu, g, b1=b1, t=t, nesterov=nesterov, T=T)
    r = ratio(mu_hat, T(correction(b2, t)) * nu, eps=eps, eps_root=eps_root, T=T)
    u = optimism(r, state, alpha=alpha, beta=beta, t=t, T=T)
    return descend(p, u, learning_rate=learning_rate, **decay), {"mu": stored(mu, mu_dtype), "nu": nu, "previous": r}


def optimistic_gradient_descent(
    p,
    grad,
    state,
    t,
    *,
    learning_rate,
    alpha=1.0,
    beta=1.0,
    weight_decay=0.0,
    decoupled_weight_decay=False,
    maximize=False,
    grad_scale=1.0,
):
    T = p.dtype.type
    decay = dict(weight_decay=weight_decay, decoupled_weight_decay=decoupled_weight_decay, T=T)
    g = gradient(p, grad, grad_scale=grad_scale, maximize=maximize, **decay)
    u = optimism(g, state, alpha=alpha, beta=beta, t=t, T=T)
    return descend(p, u, learning_rate=learning_rate, **decay), {"previous": g}
