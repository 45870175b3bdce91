"""Lion, declared."""

from __future__ import annotations

from dataclasses import replace

from .common import B1, B2, DECOUPLED, MAXIMIZE, MU_DTYPE, TORCH_ADAM_NAMES, TORCH_MODES, WEIGHT_DECAY
from .declaration import DECAY_STATE, RATE_STATE, Declaration, Jax, Numpy, Part, Torch

LION = Declaration(
    name="Lion",
    rules=("lion",),
    arguments=(
        replace(B1, meaning="weight of the first moment in the direction"),
        replace(B2, default=0.99, meaning="decay rate of the first moment"),
        MU_DTYPE,
        replace(WEIGHT_DECAY, default=1e-3, more=""),
        replace(DECOUPLED, default=True),
        MAXIMIZE,
    ),
    summary="Lion: a step of the same size for each weight, against the sign of an average gradient.",
    maths=r"""
    .. math::
        c &\leftarrow b_1 \mu + (1 - b_1) g \\
        p &\leftarrow p - \mathit{lr} \cdot (\mathrm{sign}(c) + \mathit{weight\_decay} \cdot p) \\
        \mu &\leftarrow b_2 \mu + (1 - b_2) g

    where sign(0) = 0 and sign(NaN) = NaN. The learning rate is usually 3 to 10 times smaller than that of AdamW, and
    weight decay as many times larger.
    """,
    references='Chen et al., "Symbolic Discovery of Optimization Algorithms", NeurIPS 2023',
    numpy=Numpy(
        example="""
        >>> import numpy as np, flatstep
        >>> w = np.array([3.0, -0.5])
        >>> opt = flatstep.Lion(w, learning_rate=0.1, weight_decay=0.0)
        >>> opt.step(2 * w)
        >>> w
        array([ 2.9, -0.4])
        """,
        see="``optax.lion``",
        table=(("", "lion", "`optax.lion`"),),
    ),
    torch=Torch(
        signature=f"lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0, *, {TORCH_MODES}, mu_dtype=None",
        keys={"mu": "exp_avg"},
        names=TORCH_ADAM_NAMES,
        fixed={"decoupled_weight_decay": True},
        forced={"decoupled_weight_decay": True},
        unsaid={"mu_dtype": None},
        needs_count=False,
        meanings={"betas": "weight of m in the direction, and decay rate of m, each in [0, 1)"},
        example="""
        >>> import torch, flatstep.torch
        >>> p = torch.nn.Parameter(torch.tensor([1.0, -1.0]))
        >>> opt = flatstep.torch.Lion([p], lr=0.1)
        >>> p.square().sum().backward()
        >>> opt.step()
        >>> p.data
        tensor([ 0.9000, -0.9000])
        """,
        see="``optax.lion``",
    ),
    jax=Jax(
        name="lion",
        signature="learning_rate, b1=0.9, b2=0.99, mu_dtype=None, weight_decay=1e-3, mask=None, *, maximize=False",
        state=(Part(type="ScaleByLionState", slots={"mu": "mu"}), DECAY_STATE, RATE_STATE),
        to_optax=("mu_dtype", "weight_decay", "mask"),
        meanings={"weight_decay": "strength of weight decay, at least 0: a number, a schedule, or a traced scalar"},
        summary="Lion, as ``optax.lion`` defines it, in one pass over memory.",
        example="""
        >>> import jax.numpy as jnp, flatstep.jax
        >>> opt = flatstep.jax.lion(0.5, weight_decay=0.0)
        >>> params = jnp.array([1.0, -1.0])
        >>> params, state = opt.step(params, opt.init(params), 2 * params)
        >>> params
        Array([ 0.5, -0.5], dtype=float32)
        """,
        see="``optax.lion``",
    ),
)
