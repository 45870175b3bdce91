"""RMSProp, declared."""

from __future__ import annotations

import math
from dataclasses import replace

from .common import ALL_HAVE, B2, EPS, JAX_MORE, nesterov
from .declaration import RATE_STATE, Arguments, Declaration, Jax, Number, Numpy, Option, Part, Torch

DECAY = replace(B2, name="decay", default=0.9, meaning="decay rate of the averages")
MOMENTUM = Number(
    name="momentum", default=None, meaning="decay rate of the trace", at_least=0, if_none="no trace is kept"
)
INITIAL_SCALE = Number(
    name="initial_scale",
    default=0.0,
    meaning="what nu starts from",
    more="fixed when the optimizer is made",
    at_least=0,
    is_fixed=True,
)
OPTIONS = (
    Option(
        name="eps_in_sqrt",
        default=None,
        meaning="whether eps is added under the square root, and not to the root",
        if_none="True, but False in torch's convention",
    ),
    Option(
        name="centered", default=False, meaning="whether to subtract mu^2, so that the root is a standard deviation"
    ),
)
MORE_OPTIONS = (
    nesterov(False),
    Option(name="bias_correction", default=False, meaning="whether to divide the averages by 1 - decay^t"),
    Option(
        name="convention",
        default="optax",
        meaning="whose trace and eps, as above",
        choices=("optax", "torch"),
    ),
)


def _rule(arguments: Arguments) -> str:
    """What the options do not need is no slot of the rule."""
    momentum = arguments["momentum"]
    return f"rmsprop{'_centered' * bool(arguments['centered'])}{'_momentum' * (momentum is not None)}"


def _rule_of_torch(group: Arguments) -> str:
    """torch has no momentum where it is zero."""
    return _rule({**group, "momentum": group["momentum"] if group["momentum"] > 0 else None})


def _settled(arguments: Arguments) -> Arguments:
    """The arguments, with torch's convention checked, and what it implies."""
    is_torch = arguments.get("convention") == "torch"
    lacking = {"eps_in_sqrt": False, "nesterov": False, "bias_correction": False, "initial_scale": 0}
    for name, value in lacking.items():
        if is_torch and arguments[name] not in (None, value):
            raise ValueError(f"{name} is {arguments[name]!r}, which convention='torch' does not have; leave it out")
    if (
        "convention" in arguments and arguments["nesterov"] and arguments["momentum"] is None
    ):  # optax's function has none
        raise ValueError("nesterov=True has no meaning without momentum; pass a momentum, or leave nesterov out")
    inside = arguments["eps_in_sqrt"]
    return {**arguments, "eps_in_sqrt": not is_torch if inside is None else inside}


def _parts(arguments: Arguments) -> tuple[Part, ...]:
    """optax names the state by what is in it."""
    form = "ScaleByRStdDev" if arguments["centered"] else "ScaleByRms"
    slots = {"nu": "nu", **({"mu": "mu"} if arguments["centered"] else {})}
    averages = Part(type=f"{form}{'WithCount' * arguments['bias_correction']}State", slots=slots)
    has_trace = arguments["momentum"] is not None
    trace = Part(type="TraceState", slots={"trace": "trace"}) if has_trace else Part(type="EmptyState")
    return (averages, RATE_STATE, trace)


RMSPROP = Declaration(
    name="RMSProp",
    rules=("rmsprop", "rmsprop_centered", "rmsprop_momentum", "rmsprop_centered_momentum"),
    choose=_rule,
    arguments=(DECAY, EPS, INITIAL_SCALE, *OPTIONS, MOMENTUM, *MORE_OPTIONS, *ALL_HAVE),
    squares=("nu",),
    initial={"nu": "initial_scale"},
    settled=_settled,
    flags=lambda arguments: {"lr_in_trace": float(arguments.get("convention") != "torch")},
    summary="RMSProp: steps along the gradient, divided by the root of its average square.",
    maths=r"""
    .. math::
        \nu &\leftarrow \mathit{decay}\, \nu + (1 - \mathit{decay}) g^2 \\
        r &\leftarrow g \Big/ \sqrt{\nu + \epsilon} \\
        p &\leftarrow p - \mathit{lr} \cdot r

    and with options:

    - ``centered``: :math:`\mu \leftarrow \mathit{decay}\, \mu + (1 - \mathit{decay}) g`, and
      :math:`\nu - \mu^2` takes the place of :math:`\nu` in r. It is not clamped: where rounding makes what is under the
      root negative, r is NaN. For a gradient that hardly changes the difference is rounding alone.
    - ``bias_correction``: both averages are divided by :math:`1 - \mathit{decay}^t` in r, where t counts the
      parameter's updates from 1.
    - ``momentum``: :math:`\mathit{trace} \leftarrow \mathit{momentum} \cdot \mathit{trace} - \mathit{lr} \cdot r` and
      :math:`p \leftarrow p + \mathit{trace}`, or with ``nesterov``
      :math:`p \leftarrow p + \mathit{momentum} \cdot \mathit{trace} - \mathit{lr} \cdot r`.
    - ``eps_in_sqrt=False``: :math:`r \leftarrow g / (\sqrt{\nu} + \epsilon)`.

    Decoupled weight decay is no part of the trace.
    """,
    references='Hinton, "Neural Networks for Machine Learning", lecture 6e, 2012; Graves, "Generating Sequences With '
    'Recurrent Neural Networks", 2013, for ``centered``',
    raises="a number is out of bounds, or options contradict each other",
    numpy=Numpy(
        notes=r"""
        ``convention="torch"`` is ``torch.optim.RMSprop``: the trace is
        :math:`\mathit{momentum} \cdot \mathit{trace} + r`, without the learning rate,
        :math:`p \leftarrow p - \mathit{lr} \cdot \mathit{trace}`, and eps is added to the root. It has no
        ``nesterov``, ``bias_correction`` and ``initial_scale``.

        A slot that the options do not need is not kept: a float32 parameter moves 20 bytes, and 8 more for mu and for
        the trace.
        """,
        example="""
        >>> import numpy as np, flatstep
        >>> w = np.array([3.0, -2.0])
        >>> opt = flatstep.RMSProp(w, learning_rate=0.01, momentum=0.9)
        >>> for _ in range(300):
        ...     opt.step(2 * w)
        >>> bool(abs(w).max() < 0.1)
        True
        """,
        see="``optax.rmsprop``",
        table=(
            ("", "rmsprop", '`optax.rmsprop`; `convention="torch"` as `torch.optim.RMSprop`'),
            ("centered=True", "rmsprop_centered", "the same"),
            ("momentum=0.9", "rmsprop_momentum", "the same"),
            ("centered=True, momentum=0.9", "rmsprop_centered_momentum", "the same"),
        ),
    ),
    torch=Torch(
        name="RMSprop",
        signature="lr=1e-2, alpha=0.99, eps=1e-8, weight_decay=0, momentum=0, centered=False, capturable=False, "
        "foreach=None, maximize=False, differentiable=False",
        keys={"nu": "square_avg", "mu": "grad_avg", "trace": "momentum_buffer"},
        names={"learning_rate": "lr", "decay": "alpha"},
        numbers=(replace(DECAY, below=math.inf),),
        older={"momentum": 0, "centered": False},
        foreach_takes_tensors=True,
        choose=_rule_of_torch,
        flags=lambda _: {"eps_in_sqrt": 0.0, "bias_correction": 0.0, "nesterov": 0.0, "lr_in_trace": 0.0},
        meanings={
            "alpha": "decay rate of the averages, at least 0",
            "momentum": "decay rate of the momentum, at least 0. With 0 no momentum is kept",
        },
        maths=r"""
        .. math::
            v &\leftarrow \alpha v + (1 - \alpha) g^2 \\
            r &\leftarrow g \Big/ \left(\sqrt{v} + \epsilon\right) \\
            p &\leftarrow p - \mathit{lr} \cdot r

        and with options:

        - ``centered``: :math:`m \leftarrow \alpha m + (1 - \alpha) g`, and :math:`v - m^2` takes the place of v in r.
        - ``momentum``: :math:`b \leftarrow \mathit{momentum} \cdot b + r`, and b takes the place of r in the step.
        """,
        example="""
        >>> import torch, flatstep.torch
        >>> p = torch.nn.Parameter(torch.tensor([3.0, -2.0]))
        >>> opt = flatstep.torch.RMSprop([p], lr=0.01, momentum=0.9)
        >>> for _ in range(300):
        ...     opt.zero_grad()
        ...     p.square().sum().backward()
        ...     opt.step()
        >>> bool(p.abs().max() < 0.1)
        True
        """,
        see="``torch.optim.RMSprop``",
    ),
    jax=Jax(
        name="rmsprop",
        signature="learning_rate, decay=0.9, eps=1e-8, initial_scale=0.0, eps_in_sqrt=True, centered=False, "
        f"momentum=None, nesterov=False, bias_correction=False, *, {JAX_MORE}",
        state=_parts,
        to_optax=("initial_scale", "centered", "momentum", "bias_correction"),
        meanings={"initial_scale": "what nu starts from"},
        summary="RMSProp, as ``optax.rmsprop`` defines it, in one pass over memory.",
        example="""
        >>> import jax, jax.numpy as jnp, flatstep.jax
        >>> opt = flatstep.jax.rmsprop(0.01, momentum=0.9)
        >>> def train(carry, _):
        ...     params, state = carry
        ...     return opt.step(params, state, 2 * params), None
        >>> params = jnp.array([3.0, -2.0])
        >>> (params, state), _ = jax.lax.scan(train, (params, opt.init(params)), length=300)
        >>> bool(abs(params).max() < 0.1)
        True
        """,
        see="``optax.rmsprop``",
    ),
)
