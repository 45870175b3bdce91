"""What the optimizers of flatstep.jax equal in optax: its function of the same name, or its parts in a chain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

optax = pytest.importorskip("optax")
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402


def peer_of(name: str) -> Callable[..., Any]:
    """The function of optax to which flatstep.jax's of that name is compared."""
    return getattr(optax, name, None) or globals()[name]  # type: ignore[no-any-return]


def optimistic_amsgrad(
    learning_rate, *, alpha=1.0, beta=1.0, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0, mu_dtype=None, nesterov=True
):
    """The parts of optax, with Nesterov's momentum as optax.scale_by_adam has it."""
    amsgrad, correct = optax.scale_by_amsgrad(b1, b2, eps, eps_root, mu_dtype=mu_dtype), optax.tree.bias_correction

    def update(grads, state, params=None):
        updates, state = amsgrad.update(grads, state, params)
        if nesterov:
            ahead = correct(state.mu, b1, optax.safe_increment(state.count)), correct(grads, b1, state.count)
            mu_hat = jax.tree.map(lambda mu, g: b1 * mu + (1 - b1) * g, *ahead)
            updates = jax.tree.map(lambda mu, nu: mu / (jnp.sqrt(nu + eps_root) + eps), mu_hat, state.nu_max)
        return updates, state

    return optax.chain(
        optax.GradientTransformation(amsgrad.init, update),
        optax.scale_by_optimistic_gradient(alpha, beta),
        optax.scale_by_learning_rate(learning_rate),
    )
