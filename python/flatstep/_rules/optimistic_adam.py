"""Optimistic Adam, declared."""

from __future__ import annotations

from .amsgrad import correction_flags
from .common import (
    ALL_HAVE,
    ALPHA,
    B1,
    B2,
    BETA,
    EPS,
    EPS_ROOT,
    JAX_MORE,
    MU_DTYPE,
    TORCH_ADAM_KEYS,
    TORCH_ADAM_NAMES,
    TORCH_ADAM_UNSAID,
    TORCH_MODES,
    nesterov,
)
from .declaration import RATE_STATE, Arguments, Declaration, Jax, Numpy, Part, Torch


def _rule(arguments: Arguments) -> str:
    """Without Nesterov's momentum the previous direction follows from moments that were stored as computed."""
    can_recompute = arguments.get("stores_exactly") and not arguments["nesterov"]
    return "optimistic_adam_two_slots" if can_recompute else "optimistic_adam"


OPTIMISTIC_ADAM = Declaration(
    name="OptimisticAdam",
    rules=("optimistic_adam", "optimistic_adam_two_slots"),
    choose=_rule,
    arguments=(ALPHA, BETA, B1, B2, EPS, EPS_ROOT, MU_DTYPE, nesterov(True), *ALL_HAVE),
    squares=("nu",),
    summary="Optimistic Adam: Adam that also steps along the change of its direction, for GANs and other min-max "
    "games.",
    maths=r"""
    .. math::
        \mu &\leftarrow b_1 \mu + (1 - b_1) g, \qquad \nu \leftarrow b_2 \nu + (1 - b_2) g^2 \\
        r &\leftarrow \hat\mu \Big/ \left(\sqrt{\nu / (1 - b_2^t) + \epsilon_{root}} + \epsilon\right) \\
        p &\leftarrow p - \mathit{lr} \cdot \left((\alpha + \beta) r - \beta\, r_{previous}\right)

    where t counts the parameter's updates from 1; at the first one, which has no previous direction,
    :math:`p \leftarrow p - \mathit{lr} \cdot \alpha r`. With Nesterov's momentum, the default,
    :math:`\hat\mu = b_1 \mu / (1 - b_1^{t+1}) + (1 - b_1) g / (1 - b_1^t)`, else
    :math:`\mu / (1 - b_1^t)`.
    """,
    references='Daskalakis, Ilyas, Syrgkanis and Zeng, "Training GANs with Optimism", ICLR 2018',
    numpy=Numpy(
        notes="""
        Without Nesterov's momentum the previous direction is computed again from the old moments instead of being
        stored: 28 bytes move a float32 parameter instead of 36, with the same bits. (With a mu_dtype it is stored.)
        """,
        example="""
        The game f(x, y) = x y, in which x descends and y ascends; descent alone circles the solution.

        >>> import numpy as np, flatstep
        >>> point = np.array([1.0, 2.0])
        >>> opt = flatstep.OptimisticAdam(point, learning_rate=1.0, alpha=1e-2, beta=1.0)
        >>> for _ in range(1024):
        ...     x, y = point
        ...     opt.step(np.array([y, -x]))
        >>> bool(np.hypot(*point) < 0.001)
        True
        """,
        see="``optax.optimistic_adam_v2``",
        table=(
            ("", "optimistic_adam", "`optax.optimistic_adam_v2`"),
            (
                "nesterov=False",
                "optimistic_adam_two_slots",
                "the same, its previous direction computed again instead of stored",
            ),
        ),
    ),
    torch=Torch(
        signature="lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0, *, alpha=1.0, beta=1.0, nesterov=True, "
        f"amsgrad=False, {TORCH_MODES}, decoupled_weight_decay=False, eps_root=0.0, mu_dtype=None",
        keys={**TORCH_ADAM_KEYS, "nu_max": "max_exp_avg_sq", "previous": "previous"},
        names=TORCH_ADAM_NAMES,
        older={"amsgrad": False},
        unsaid=TORCH_ADAM_UNSAID,
        rules=("optimistic_adam", "optimistic_amsgrad"),
        choose=lambda arguments: "optimistic_amsgrad" if arguments["amsgrad"] else "optimistic_adam",
        flags=lambda arguments: correction_flags("torch", True, True),
        example="""
        The game f(x, y) = x y, in which x descends and y ascends; descent alone circles the solution.

        >>> import torch, flatstep.torch
        >>> x, y = (torch.nn.Parameter(torch.tensor(value)) for value in (1.0, 2.0))
        >>> opt = flatstep.torch.OptimisticAdam([{"params": x}, {"params": y, "maximize": True}], lr=1.0, alpha=0.01)
        >>> for _ in range(1024):
        ...     opt.zero_grad()
        ...     (x * y).backward()
        ...     opt.step()
        >>> bool(x.abs() + y.abs() < 0.01)
        True
        """,
        see="``optax.optimistic_adam_v2``",
    ),
    jax=Jax(
        name="optimistic_adam_v2",
        signature="learning_rate, *, alpha=1.0, beta=1.0, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0, mu_dtype=None, "
        f"nesterov=True, {JAX_MORE}",
        state=(
            Part(type="ScaleByAdamState", slots={"mu": "mu", "nu": "nu"}),
            Part(type="ScaleByOptimisticGradientState", slots={"previous": "previous_gradient"}),
            RATE_STATE,
        ),
        to_optax=("mu_dtype",),
        summary="Optimistic Adam, as ``optax.optimistic_adam_v2`` defines it, in one pass over memory: for GANs and "
        "other games.",
        example="""
        >>> import jax, jax.numpy as jnp, flatstep.jax
        >>> opt = flatstep.jax.optimistic_adam_v2(1.0, alpha=1e-2)
        >>> def play(carry, _):
        ...     params, state = carry
        ...     x, y = jax.grad(lambda p: p[0] * p[1])(params)
        ...     return opt.step(params, state, (x, -y)), jnp.hypot(*params)
        >>> params = jnp.float32(1.0), jnp.float32(2.0)
        >>> _, distance = jax.lax.scan(play, (params, opt.init(params)), length=1025)
        >>> bool(distance[0] > 2.2 and distance[1024] < 0.01)
        True
        """,
        see="``optax.optimistic_adam_v2``",
    ),
)
