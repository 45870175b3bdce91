"""Optimistic gradient descent, declared."""

from __future__ import annotations

from dataclasses import replace

from .common import ALL_HAVE, ALPHA, BETA, JAX_MORE
from .declaration import RATE_STATE, Declaration, Jax, Numpy, Part, Torch

OPTIMISTIC_GRADIENT_DESCENT = Declaration(
    name="OptimisticGradientDescent",
    rules=("optimistic_gradient_descent",),
    arguments=(
        replace(ALPHA, meaning="weight of the gradient"),
        replace(BETA, meaning="weight of the gradient's change, the optimism"),
        *ALL_HAVE,
    ),
    summary="Optimistic gradient descent: a step along the gradient and along its change, for min-max games.",
    maths=r"""
    .. math:: p \leftarrow p - \mathit{lr} \cdot \left((\alpha + \beta) g - \beta\, g_{previous}\right)

    The parameter's first update has no previous gradient: :math:`p \leftarrow p - \mathit{lr} \cdot \alpha g`.
    """,
    references='Rakhlin and Sridharan, "Optimization, Learning, and Games with Predictable Sequences", NIPS 2013',
    numpy=Numpy(
        example="""
        >>> import numpy as np, flatstep
        >>> point = np.array([1.0, 2.0])  # of the game f(x, y) = x y, in which x descends and y ascends
        >>> opt = flatstep.OptimisticGradientDescent(point, learning_rate=0.1)
        >>> for _ in range(1000):
        ...     x, y = point
        ...     opt.step(np.array([y, -x]))
        >>> bool(np.hypot(*point) < 0.05)
        True
        """,
        see="``optax.optimistic_gradient_descent``",
        table=(("", "optimistic_gradient_descent", "`optax.optimistic_gradient_descent`"),),
    ),
    torch=Torch(
        name="OptimisticSGD",
        signature="lr=1e-3, alpha=1.0, beta=1.0, weight_decay=0, *, "
        "maximize=False, foreach=None, capturable=False, differentiable=False, fused=None, "
        "decoupled_weight_decay=False",
        keys={"previous": "previous"},
        names={"learning_rate": "lr"},
        example="""
        >>> import torch, flatstep.torch
        >>> x, y = (torch.nn.Parameter(torch.tensor(value)) for value in (1.0, 2.0))
        >>> opt = flatstep.torch.OptimisticSGD([{"params": x}, {"params": y, "maximize": True}], lr=0.1)
        >>> for _ in range(1000):
        ...     opt.zero_grad()
        ...     (x * y).backward()  # the game f(x, y) = x y, in which x descends and y ascends
        ...     opt.step()
        >>> bool(x.abs() + y.abs() < 0.05)
        True
        """,
        see="``optax.optimistic_gradient_descent``",
    ),
    jax=Jax(
        name="optimistic_gradient_descent",
        signature=f"learning_rate, alpha=1.0, beta=1.0, *, {JAX_MORE}",
        state=(
            Part(type="ScaleByOptimisticGradientState", slots={"previous": "previous_gradient"}),
            RATE_STATE,
        ),
        example="""
        >>> import jax, jax.numpy as jnp, flatstep.jax
        >>> opt = flatstep.jax.optimistic_gradient_descent(0.1)
        >>> def play(carry, _):
        ...     params, state = carry
        ...     x, y = jax.grad(lambda p: p[0] * p[1])(params)
        ...     return opt.step(params, state, (x, -y)), jnp.hypot(*params)
        >>> params = jnp.float32(1.0), jnp.float32(2.0)
        >>> _, distance = jax.lax.scan(play, (params, opt.init(params)), length=1001)
        >>> bool(distance[1000] < 0.05)
        True
        """,
        see="``optax.optimistic_gradient_descent``",
    ),
)
