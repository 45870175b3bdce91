"""Adam and AdamW, declared."""

from __future__ import annotations

from dataclasses import replace

from . import amsgrad
from .common import (
    ALL_HAVE,
    B1,
    B2,
    DECOUPLED,
    EPS,
    EPS_ROOT,
    JAX_MORE,
    MAXIMIZE,
    MU_DTYPE,
    TORCH_ADAM_KEYS,
    TORCH_ADAM_NAMES,
    TORCH_ADAM_UNSAID,
    TORCH_MODES,
    WEIGHT_DECAY,
    nesterov,
)
from .declaration import DECAY_STATE, RATE_STATE, Arguments, Declaration, Flags, Jax, Numpy, Part, Torch

_AMSGRAD_OF_TORCH = amsgrad.correction_flags("torch", True, True)


def _flags_of_torch(arguments: Arguments) -> Flags:
    if not arguments["amsgrad"]:
        return {}
    if arguments["nesterov"]:
        raise ValueError("amsgrad=True has no form with nesterov=True")
    return _AMSGRAD_OF_TORCH


ADAM = Declaration(
    name="Adam",
    rules=("adam",),
    arguments=(B1, B2, EPS, EPS_ROOT, MU_DTYPE, nesterov(False), *ALL_HAVE),
    squares=("nu",),
    summary="Adam: a step against the average gradient, over the root of the average square.",
    maths=r"""
    .. math::
        \mu &\leftarrow b_1 \mu + (1 - b_1) g, \qquad \nu \leftarrow b_2 \nu + (1 - b_2) g^2 \\
        p &\leftarrow p - \mathit{lr} \cdot \hat\mu \Big/
            \left(\sqrt{\nu / (1 - b_2^t) + \epsilon_{root}} + \epsilon\right)

    where t counts the parameter's updates from 1, and :math:`\hat\mu = \mu / (1 - b_1^t)`, or with Nesterov's momentum
    :math:`b_1 \mu / (1 - b_1^{t+1}) + (1 - b_1) g / (1 - b_1^t)`.
    """,
    references='Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015',
    numpy=Numpy(
        example="""
        >>> import numpy as np, flatstep
        >>> w = np.array([3.0, -2.0])
        >>> opt = flatstep.Adam(w, learning_rate=lambda count: 0.5 / (1 + count / 50))
        >>> for _ in range(300):
        ...     opt.step(2 * w)
        >>> bool(abs(w).max() < 1e-3)
        True
        """,
        see="``optax.adam``",
        table=(("", "adam", "`optax.adam`"),),
    ),
    torch=Torch(
        signature="lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0, amsgrad=False, *, "
        f"{TORCH_MODES}, decoupled_weight_decay=False, eps_root=0.0, nesterov=False, mu_dtype=None",
        keys={**TORCH_ADAM_KEYS, "nu_max": "max_exp_avg_sq"},
        names=TORCH_ADAM_NAMES,
        older={"amsgrad": False},
        unsaid=TORCH_ADAM_UNSAID,
        rules=("adam", "amsgrad"),
        choose=lambda arguments: "amsgrad" if arguments["amsgrad"] else "adam",
        flags=_flags_of_torch,
        meanings={"amsgrad": "whether the root is of the largest v so far, as in AMSGrad"},
        summary="Adam, as ``torch.optim.Adam`` defines it, in one pass over memory.",
        example="""
        >>> import torch, flatstep.torch
        >>> p = torch.nn.Parameter(torch.tensor([1.0, -1.0]))
        >>> opt = flatstep.torch.Adam([p], lr=0.1)
        >>> p.square().sum().backward()
        >>> opt.step()
        >>> p.data
        tensor([ 0.9000, -0.9000])
        """,
        see="``torch.optim.Adam``",
    ),
    jax=Jax(
        name="adam",
        signature="learning_rate, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0, mu_dtype=None, *, "
        f"nesterov=False, {JAX_MORE}",
        state=(Part(type="ScaleByAdamState", slots={"mu": "mu", "nu": "nu"}), RATE_STATE),
        to_optax=("mu_dtype",),
        summary="Adam, as ``optax.adam`` defines it, in one pass over memory.",
        example="""
        >>> import jax.numpy as jnp, flatstep.jax
        >>> opt = flatstep.jax.adam(0.5)
        >>> params = jnp.array([1.0, -1.0])
        >>> params, state = opt.step(params, opt.init(params), 2 * params)
        >>> params
        Array([ 0.5, -0.5], dtype=float32)
        """,
        see="``optax.adam``",
    ),
)
assert ADAM.torch is not None
assert ADAM.jax is not None

ADAMW = replace(
    ADAM,
    name="AdamW",
    base="Adam",
    arguments=(
        *ADAM.arguments[: -len(ALL_HAVE)],
        replace(WEIGHT_DECAY, default=1e-2, more=""),
        replace(DECOUPLED, default=True, more="False makes this Adam"),
        MAXIMIZE,
    ),
    summary="AdamW: Adam with weight decay that is decoupled from the gradient, by default 1e-2.",
    maths=r"""
    .. math:: p \leftarrow p - \mathit{lr} \cdot (r + \mathit{weight\_decay} \cdot p)

    where :math:`\mathit{lr} \cdot r` is the step of Adam.
    """,
    references='Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019',
    numpy=Numpy(
        example="""
        >>> import numpy as np, flatstep
        >>> w = np.array([1.0, -1.0])
        >>> opt = flatstep.AdamW(w, learning_rate=0.1, weight_decay=0.5)
        >>> opt.step(np.zeros(2))
        >>> w
        array([ 0.95, -0.95])
        """,
        see="``torch.optim.AdamW`` for the default, ``optax.adamw`` for the order of operations",
        table=(("", "adam", "`optax.adamw`, `torch.optim.AdamW`'s default of 0.01"),),
    ),
    torch=replace(
        ADAM.torch,
        signature="lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2, amsgrad=False, *, "
        "maximize=False, foreach=None, capturable=False, differentiable=False, fused=None, "
        "eps_root=0.0, nesterov=False, mu_dtype=None",
        fixed={"decoupled_weight_decay": True},
        forced={"decoupled_weight_decay": True},  # also where the state is Adam's, as in torch
        summary="AdamW, as ``torch.optim.AdamW`` defines it, in one pass over memory.",
        example="""
        >>> import torch, flatstep.torch
        >>> p = torch.nn.Parameter(torch.tensor([1.0, -1.0]))
        >>> opt = flatstep.torch.AdamW([p], lr=0.1, weight_decay=0.5)
        >>> p.grad = torch.zeros(2)
        >>> opt.step()
        >>> p.data
        tensor([ 0.9500, -0.9500])
        """,
        see="``torch.optim.AdamW``",
    ),
    jax=replace(
        ADAM.jax,
        name="adamw",
        signature="learning_rate, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0, mu_dtype=None, weight_decay=1e-4, "
        "mask=None, *, nesterov=False, maximize=False",
        state=(Part(type="ScaleByAdamState", slots={"mu": "mu", "nu": "nu"}), DECAY_STATE, RATE_STATE),
        to_optax=("mu_dtype", "weight_decay", "mask"),
        meanings={"weight_decay": "strength of weight decay, at least 0: a number, a schedule, or a traced scalar"},
        summary="AdamW, as ``optax.adamw`` defines it, in one pass over memory.",
        example="""
        >>> import jax.numpy as jnp, flatstep.jax
        >>> opt = flatstep.jax.adamw(0.1, weight_decay=0.5)
        >>> params = jnp.array([1.0, -1.0])
        >>> params, state = opt.step(params, opt.init(params), jnp.zeros(2))
        >>> params
        Array([ 0.95, -0.95], dtype=float32)
        """,
        see="``optax.adamw``",
    ),
)
