"""Optimistic AMSGrad, declared."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from . import amsgrad
from .common import JAX_MORE, TORCH_MODES
from .declaration import RATE_STATE, Declaration, Jax, Numpy, Part
from .optimistic_adam import OPTIMISTIC_ADAM


def _reference(arguments: Any) -> Any:
    """optax has no such optimizer: its state is that of the parts of which it could be chained."""
    import optax

    return optax.chain(
        optax.scale_by_amsgrad(mu_dtype=arguments["mu_dtype"]),
        optax.scale_by_optimistic_gradient(),
        optax.scale_by_learning_rate(arguments["learning_rate"]),
    )


_CONVENTION = replace(amsgrad.CONVENTION, choices=("optax", "torch"))
_OF_ADAM = OPTIMISTIC_ADAM.arguments
_DECAY = [argument.name for argument in _OF_ADAM].index("weight_decay")
assert OPTIMISTIC_ADAM.torch is not None

OPTIMISTIC_AMSGRAD = Declaration(
    name="OptimisticAMSGrad",
    rules=("optimistic_amsgrad",),
    arguments=(*_OF_ADAM[:_DECAY], _CONVENTION, *_OF_ADAM[_DECAY:]),
    squares=("nu", "nu_max"),
    flags=lambda arguments: amsgrad.correction_flags(arguments["convention"], True, True),
    summary="Optimistic AMSGrad: AMSGrad that also steps along the change of its direction, for min-max games.",
    maths=r"""
    .. math::
        \mu &\leftarrow b_1 \mu + (1 - b_1) g, \qquad \nu \leftarrow b_2 \nu + (1 - b_2) g^2 \\
        \nu_{max} &\leftarrow \max(\nu_{max}, \mathit{before} \cdot \nu) \\
        r &\leftarrow \hat\mu \Big/ \left(\sqrt{\mathit{after} \cdot \nu_{max} + \epsilon_{root}} + \epsilon\right) \\
        p &\leftarrow p - \mathit{lr} \cdot \left((\alpha + \beta) r - \beta\, r_{previous}\right)

    where t counts the parameter's updates from 1; at the first one, which has no previous direction,
    :math:`p \leftarrow p - \mathit{lr} \cdot \alpha r`. With Nesterov's momentum, the default,
    :math:`\hat\mu = b_1 \mu / (1 - b_1^{t+1}) + (1 - b_1) g / (1 - b_1^t)`, else
    :math:`\mu / (1 - b_1^t)`. Two conventions correct the bias of nu:

    - ``"optax"``: before = 1 / (1 - b2^t), after = 1.
    - ``"torch"``: before = 1, after = 1 / (1 - b2^t).
    """,
    references=f"{OPTIMISTIC_ADAM.references}; {amsgrad.AMSGRAD.references}",
    raises="a number is out of bounds, or the convention is unknown",
    numpy=Numpy(
        example="""
        >>> import numpy as np, flatstep
        >>> point = np.array([1.0, 2.0])  # of the game f(x, y) = x y, in which x descends and y ascends
        >>> opt = flatstep.OptimisticAMSGrad(point, learning_rate=1.0, alpha=0.03)
        >>> for _ in range(2000):
        ...     x, y = point
        ...     opt.step(np.array([y, -x]))
        >>> bool(np.hypot(*point) < 0.001)
        True
        """,
        see="``flatstep.OptimisticAdam``, ``flatstep.AMSGrad``",
        table=(("", "optimistic_amsgrad", "OptimisticAdam with AMSGrad's denominator, of `optax` or `torch`"),),
    ),
    torch=replace(
        OPTIMISTIC_ADAM.torch,
        signature="lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0, *, alpha=1.0, beta=1.0, nesterov=True, "
        f'convention="torch", {TORCH_MODES}, decoupled_weight_decay=False, eps_root=0.0, mu_dtype=None',
        fixed={"amsgrad": True},
        unsaid={**OPTIMISTIC_ADAM.torch.unsaid, "convention": "torch"},
        shared=("convention",),
        rules=("optimistic_amsgrad",),
        choose=None,
        flags=lambda arguments: amsgrad.correction_flags(arguments["convention"], True, True),
        meanings={
            "convention": 'whose correction of v\'s bias, as above; all groups share it. ``"torch"`` is '
            "``OptimisticAdam(amsgrad=True)``"
        },
        example="""
        >>> import torch, flatstep.torch
        >>> x, y = (torch.nn.Parameter(torch.tensor(value)) for value in (1.0, 2.0))
        >>> groups = [{"params": x}, {"params": y, "maximize": True}]
        >>> opt = flatstep.torch.OptimisticAMSGrad(groups, lr=1.0, alpha=0.03)
        >>> for _ in range(2000):
        ...     opt.zero_grad()
        ...     (x * y).backward()  # the game f(x, y) = x y, in which x descends and y ascends
        ...     opt.step()
        >>> bool(x.abs() + y.abs() < 0.001)
        True
        """,
        see="``OptimisticAdam``, ``AMSGrad``",
    ),
    jax=Jax(
        name="optimistic_amsgrad",
        signature="learning_rate, *, alpha=1.0, beta=1.0, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0, mu_dtype=None, "
        f'nesterov=True, convention="optax", {JAX_MORE}',
        state=(
            Part(type="ScaleByAmsgradState", slots={"mu": "mu", "nu": "nu", "nu_max": "nu_max"}),
            Part(type="ScaleByOptimisticGradientState", slots={"previous": "previous_gradient"}),
            RATE_STATE,
        ),
        reference=_reference,
        example="""
        >>> import jax, jax.numpy as jnp, flatstep.jax
        >>> opt = flatstep.jax.optimistic_amsgrad(1.0, alpha=0.03)
        >>> def play(carry, _):
        ...     params, state = carry
        ...     x, y = jax.grad(lambda p: p[0] * p[1])(params)
        ...     return opt.step(params, state, (x, -y)), jnp.hypot(*params)
        >>> params = jnp.float32(1.0), jnp.float32(2.0)
        >>> _, distance = jax.lax.scan(play, (params, opt.init(params)), length=2001)
        >>> bool(distance[2000] < 0.001)
        True
        """,
        see="``flatstep.jax.optimistic_adam_v2``, ``flatstep.jax.amsgrad``",
    ),
)
