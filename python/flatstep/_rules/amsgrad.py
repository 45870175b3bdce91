"""AMSGrad, declared."""

from __future__ import annotations

from .common import (
    ALL_HAVE,
    B1,
    B2,
    EPS,
    EPS_ROOT,
    JAX_MORE,
    MU_DTYPE,
    TORCH_ADAM_KEYS,
    TORCH_ADAM_NAMES,
    TORCH_ADAM_UNSAID,
    TORCH_MODES,
)
from .declaration import RATE_STATE, Arguments, Declaration, Flags, Jax, Numpy, Option, Part, Torch

CONVENTION = Option(
    name="convention",
    default="optax",
    meaning="whose correction of nu's bias, as above",
    choices=("optax", "torch", "paper"),
)
CORRECT_MU = Option(
    name="bias_correction_mu",
    default=None,
    meaning="whether to divide mu by 1 - b1^t",
    if_none="True, but False in the paper's convention",
)
CORRECT_NU = Option(
    name="bias_correction_nu",
    default=None,
    meaning="whether to correct nu's bias, where the convention says",
    if_none="True, but False in the paper's convention",
)


def settled(arguments: Arguments) -> Arguments:
    """The arguments, and behind them, also in messages, the corrections that the convention implies."""
    names = ("bias_correction_mu", "bias_correction_nu")
    by_paper = arguments["convention"] == "paper"
    if by_paper and any(arguments[name] for name in names):
        raise ValueError("convention='paper' corrects no bias; leave out bias_correction_mu and bias_correction_nu")
    corrections = {name: not by_paper if arguments[name] is None else arguments[name] for name in names}
    return {**{name: value for name, value in arguments.items() if name not in names}, **corrections}


def correction_flags(convention: str, mu: bool, nu: bool) -> Flags:
    """Which biases the rule corrects, and nu's where."""
    return {
        "correct_mu": float(mu),
        "correct_nu_before": float(nu and convention == "optax"),
        "correct_nu_after": float(nu and convention == "torch"),
    }


def _flags(arguments: Arguments) -> Flags:
    return correction_flags(arguments["convention"], arguments["bias_correction_mu"], arguments["bias_correction_nu"])


_FLAGS_OF_TORCH = {name: correction_flags(name, name != "paper", name != "paper") for name in CONVENTION.choices}


AMSGRAD = Declaration(
    name="AMSGrad",
    rules=("amsgrad",),
    arguments=(B1, B2, EPS, EPS_ROOT, CORRECT_MU, CORRECT_NU, MU_DTYPE, CONVENTION, *ALL_HAVE),
    squares=("nu", "nu_max"),
    settled=settled,
    flags=_flags,
    summary="AMSGrad: Adam that divides by the largest second moment so far, so that its step sizes never grow again.",
    maths=r"""
    .. math::
        \mu &\leftarrow b_1 \mu + (1 - b_1) g, \qquad \nu \leftarrow b_2 \nu + (1 - b_2) g^2 \\
        \nu_{max} &\leftarrow \max(\nu_{max}, \mathit{before} \cdot \nu) \\
        p &\leftarrow p - \mathit{lr} \cdot \frac{\mu}{1 - b_1^t} \Big/
            \left(\sqrt{\mathit{after} \cdot \nu_{max} + \epsilon_{root}} + \epsilon\right)

    where t counts the parameter's updates from 1. Three conventions are in use for the bias of nu:

    - ``"optax"``: before = 1 / (1 - b2^t), after = 1.
    - ``"torch"``: before = 1, after = 1 / (1 - b2^t), as ``torch.optim.Adam(amsgrad=True)``.
    - ``"paper"``: before = after = 1, and mu's bias is not corrected either.

    Their weights differ after a few hundred steps, and so does the meaning of the largest nu in the state.
    """,
    references='Reddi, Kale and Kumar, "On the Convergence of Adam and Beyond", ICLR 2018',
    raises="a number is out of bounds, or the convention is unknown or contradicted",
    numpy=Numpy(
        example="""
        >>> import numpy as np, flatstep
        >>> params = {"w": np.array([3.0, -2.0]), "b": np.array(1.0)}
        >>> opt = flatstep.AMSGrad(params, learning_rate=0.1)
        >>> for _ in range(200):
        ...     opt.step({"w": 2 * params["w"], "b": 2 * params["b"]})
        >>> bool(abs(params["w"]).max() < 0.05)
        True
        >>> opt.state["nu_max"]["w"].round(3)
        array([36., 16.])
        """,
        see="``optax.amsgrad``",
        table=(
            (
                "",
                "amsgrad",
                '`optax.amsgrad`; `convention="torch"` as `torch.optim.Adam(amsgrad=True)`; `convention="paper"` as '
                "Reddi et al.",
            ),
        ),
    ),
    torch=Torch(
        signature='lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0, *, convention="torch", '
        f"{TORCH_MODES}, decoupled_weight_decay=False, eps_root=0.0, mu_dtype=None",
        keys={**TORCH_ADAM_KEYS, "nu_max": "max_exp_avg_sq"},
        names=TORCH_ADAM_NAMES,
        fixed={"amsgrad": True},
        older={"amsgrad": False},
        unsaid={**TORCH_ADAM_UNSAID, "convention": "torch"},
        shared=("convention",),
        flags=lambda arguments: _FLAGS_OF_TORCH[arguments["convention"]],
        meanings={
            "convention": 'whose correction of v\'s bias, as above; all groups share it. ``"torch"`` is '
            "``Adam(amsgrad=True)``"
        },
        example="""
        >>> import torch, flatstep.torch
        >>> p = torch.nn.Parameter(torch.tensor([3.0, -2.0]))
        >>> opt = flatstep.torch.AMSGrad([p], lr=0.1)
        >>> for _ in range(200):
        ...     opt.zero_grad()
        ...     p.square().sum().backward()
        ...     opt.step()
        >>> bool(p.abs().max() < 0.05)
        True
        """,
        see="``torch.optim.Adam(amsgrad=True)``, ``optax.amsgrad``",
    ),
    jax=Jax(
        name="amsgrad",
        signature="learning_rate, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0, mu_dtype=None, bias_correction_mu=True, "
        f'bias_correction_nu=True, *, convention="optax", {JAX_MORE}',
        state=(Part(type="ScaleByAmsgradState", slots={"mu": "mu", "nu": "nu", "nu_max": "nu_max"}), RATE_STATE),
        to_optax=("mu_dtype",),
        choices={"convention": ("optax", "torch")},
        instead={"paper": "the paper's is bias_correction_mu=False, bias_correction_nu=False"},
        meanings={
            "bias_correction_mu": "whether to divide mu by 1 - b1^t",
            "bias_correction_nu": "whether to correct nu's bias. With both False this is the paper's AMSGrad",
            "convention": '``"optax"`` corrects nu before the maximum, ``"torch"`` after it; the paper\'s is '
            "bias_correction_mu=False, bias_correction_nu=False",
        },
        summary="AMSGrad, as ``optax.amsgrad`` defines it, in one pass over memory.",
        example="""
        >>> import jax, jax.numpy as jnp, flatstep.jax
        >>> opt = flatstep.jax.amsgrad(0.1)
        >>> def train(carry, _):
        ...     params, state = carry
        ...     grads = jax.grad(lambda p: jnp.sum(p["w"] ** 2))(params)
        ...     return opt.step(params, state, grads), None
        >>> params = {"w": jnp.array([3.0, -2.0])}
        >>> (params, state), _ = jax.lax.scan(train, (params, opt.init(params)), length=200)
        >>> bool(abs(params["w"]).max() < 0.05)
        True
        """,
        see="``optax.amsgrad``",
    ),
)
