"""Optimistic gradient descent, declared."""

from __future__ import annotations

from dataclasses import replace

from .common import ALL_HAVE, ALPHA, BETA
from .declaration import Declaration, Numpy

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
)
