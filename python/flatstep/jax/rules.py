"""The optimizers: optax's names, signatures and defaults, with what the core adds by keyword."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optax

from .transformation import (
    Decay,
    FusedTransformation,
    PyTree,
    ScalarOrSchedule,
    Settings,
    checked_dtype,
    checked_flag,
    make,
)

Number = Any  # a float, or an array of no axes, which may be traced


def amsgrad(
    learning_rate: ScalarOrSchedule,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: Any = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
    *,
    convention: str = "optax",
    weight_decay: Number | None = None,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
) -> FusedTransformation:
    r"""AMSGrad, as ``optax.amsgrad`` defines it, in one pass over memory.

    .. math::
        \mu &\leftarrow b_1 \mu + (1 - b_1) g, \qquad \nu \leftarrow b_2 \nu + (1 - b_2) g^2 \\
        \nu_{max} &\leftarrow \max(\nu_{max}, \nu / (1 - b_2^t)) \\
        p &\leftarrow p - \mathit{lr} \cdot \frac{\mu}{1 - b_1^t} \Big/
            \left(\sqrt{\nu_{max} + \epsilon_{root}} + \epsilon\right)

    Args:
        learning_rate: step size: a number, a schedule (count -> number), or a traced scalar.
        b1: decay rate of the first moment, in [0, 1). A number or a traced scalar, like all numbers here. Default 0.9.
        b2: decay rate of the second moment, in [0, 1). Default 0.999.
        eps: added to the denominator, at least 0. Default 1e-8.
        eps_root: added under the square root, at least 0. Default 0.0.
        mu_dtype: dtype in which mu is stored. Default None: the parameter's.
        bias_correction_mu: whether to divide mu by 1 - b1^t. Default True.
        bias_correction_nu: whether nu's bias is corrected. With both False this is the paper's AMSGrad. Default True.
        convention: ``"optax"`` corrects nu before the maximum, ``"torch"`` after it; nu_max then holds the largest
            uncorrected nu. Default "optax".
        weight_decay: strength of weight decay, at least 0; p times it is added to the gradient. Default None: none.
        decoupled_weight_decay: whether that product is added to what learning_rate multiplies instead. Default False.
        maximize: whether to ascend. Default False.

    Returns:
        An ``optax.GradientTransformationExtraArgs`` that also has ``step(params, state, grads) -> (params, state)``.

    Raises:
        TypeError, ValueError: a number is out of bounds, or an option is unknown.

    Example:
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

    References:
        Reddi, Kale and Kumar, "On the Convergence of Adam and Beyond", ICLR 2018; ``optax.amsgrad``.
    """
    if convention not in ("optax", "torch"):
        also = "; the paper's is bias_correction_mu=False, bias_correction_nu=False" if convention == "paper" else ""
        raise ValueError(f"convention is {convention!r}, expected 'optax' or 'torch'{also}")
    correct_nu = checked_flag("bias_correction_nu", bias_correction_nu)
    hyperparameters = dict(
        b1=b1,
        b2=b2,
        eps=eps,
        eps_root=eps_root,
        correct_mu=float(checked_flag("bias_correction_mu", bias_correction_mu)),
        correct_nu_before=float(correct_nu and convention == "optax"),
        correct_nu_after=float(correct_nu and convention == "torch"),
    )
    decay = _decay(weight_decay, decoupled_weight_decay)
    settings = Settings("amsgrad", learning_rate, hyperparameters, decay, checked_flag("maximize", maximize))
    return make(settings, optax.amsgrad(learning_rate, mu_dtype=checked_dtype("mu_dtype", mu_dtype)))


def optimistic_adam_v2(
    learning_rate: ScalarOrSchedule,
    *,
    alpha: Number = 1.0,
    beta: Number = 1.0,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: Any = None,
    nesterov: bool = True,
    weight_decay: Number | None = None,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
) -> FusedTransformation:
    r"""Optimistic Adam, as ``optax.optimistic_adam_v2`` defines it, in one pass over memory: for GANs and other games.

    .. math::
        r_t &= \hat\mu_t \Big/ \left(\sqrt{\nu_t / (1 - b_2^t) + \epsilon_{root}} + \epsilon\right) \\
        p &\leftarrow p - \mathit{lr} \cdot \left((\alpha + \beta) r_t - \beta r_{t-1}\right)

    with Adam's moments and Nesterov's momentum as in :func:`adam`; the first step takes :math:`\alpha r_1`.

    Args:
        learning_rate: step size: a number, a schedule (count -> number), or a traced scalar.
        alpha: weight of the direction. A number or a traced scalar, like all numbers here. Default 1.0.
        beta: weight of its change. Default 1.0.
        b1: decay rate of the first moment, in [0, 1). Default 0.9.
        b2: decay rate of the second moment, in [0, 1). Default 0.999.
        eps: added to the denominator, at least 0. Default 1e-8.
        eps_root: added under the square root, at least 0. Default 0.0.
        mu_dtype: dtype in which mu is stored. Default None: the parameter's.
        nesterov: whether to use Nesterov's momentum. Default True.
        weight_decay: strength of weight decay, at least 0. Default None: none.
        decoupled_weight_decay: whether weight decay bypasses the moments. Default False.
        maximize: whether to ascend. Default False.

    Returns:
        An ``optax.GradientTransformationExtraArgs`` that also has ``step(params, state, grads) -> (params, state)``.

    Raises:
        TypeError, ValueError: a number is out of bounds, or an option is unknown.

    Example:
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

    References:
        Daskalakis et al., "Training GANs with Optimism", ICLR 2018; ``optax.optimistic_adam_v2``.
    """
    hyperparameters = dict(
        alpha=alpha,
        beta=beta,
        b1=b1,
        b2=b2,
        eps=eps,
        eps_root=eps_root,
        nesterov=float(checked_flag("nesterov", nesterov)),
    )
    decay = _decay(weight_decay, decoupled_weight_decay)
    settings = Settings("optimistic_adam", learning_rate, hyperparameters, decay, checked_flag("maximize", maximize))
    return make(settings, optax.optimistic_adam_v2(learning_rate, mu_dtype=checked_dtype("mu_dtype", mu_dtype)))


def adam(
    learning_rate: ScalarOrSchedule,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: Any = None,
    *,
    nesterov: bool = False,
    weight_decay: Number | None = None,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
) -> FusedTransformation:
    r"""Adam, as ``optax.adam`` defines it, in one pass over memory.

    .. math::
        \mu &\leftarrow b_1 \mu + (1 - b_1) g, \qquad \nu \leftarrow b_2 \nu + (1 - b_2) g^2 \\
        p &\leftarrow p - \mathit{lr} \cdot \hat\mu \Big/
            \left(\sqrt{\nu / (1 - b_2^t) + \epsilon_{root}} + \epsilon\right)

    where :math:`\hat\mu = \mu / (1 - b_1^t)`, or with Nesterov's momentum
    :math:`b_1 \mu / (1 - b_1^{t+1}) + (1 - b_1) g / (1 - b_1^t)`.

    Args:
        learning_rate: step size: a number, a schedule (count -> number), or a traced scalar.
        b1: decay rate of the first moment, in [0, 1). A number or a traced scalar, like all numbers here. Default 0.9.
        b2: decay rate of the second moment, in [0, 1). Default 0.999.
        eps: added to the denominator, at least 0. Default 1e-8.
        eps_root: added under the square root, at least 0. Default 0.0.
        mu_dtype: dtype in which mu is stored. Default None: the parameter's.
        nesterov: whether to use Nesterov's momentum. Default False.
        weight_decay: strength of weight decay, at least 0; p times it is added to the gradient. Default None: none.
        decoupled_weight_decay: whether that product is added to what learning_rate multiplies instead. Default False.
        maximize: whether to ascend. Default False.

    Returns:
        An ``optax.GradientTransformationExtraArgs`` that also has ``step(params, state, grads) -> (params, state)``.

    Raises:
        TypeError, ValueError: a number is out of bounds, or an option is unknown.

    Example:
        >>> import jax.numpy as jnp, flatstep.jax
        >>> opt = flatstep.jax.adam(0.5)
        >>> params = jnp.array([1.0, -1.0])
        >>> params, state = opt.step(params, opt.init(params), 2 * params)
        >>> params
        Array([ 0.5, -0.5], dtype=float32)

    References:
        Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015; ``optax.adam``.
    """
    decay = _decay(weight_decay, decoupled_weight_decay)
    settings = Settings(
        "adam", learning_rate, _adam(b1, b2, eps, eps_root, nesterov), decay, checked_flag("maximize", maximize)
    )
    return make(settings, optax.adam(learning_rate, mu_dtype=checked_dtype("mu_dtype", mu_dtype)))


def adamw(
    learning_rate: ScalarOrSchedule,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: Any = None,
    weight_decay: ScalarOrSchedule = 1e-4,
    mask: PyTree | Callable[[PyTree], PyTree] | None = None,
    *,
    nesterov: bool = False,
    maximize: bool = False,
) -> FusedTransformation:
    r"""AdamW, as ``optax.adamw`` defines it, in one pass over memory.

    .. math:: p \leftarrow p - \mathit{lr} \cdot (r + \mathit{weight\_decay} \cdot p)

    where :math:`\mathit{lr} \cdot r` is the step of :func:`adam`.

    Args:
        learning_rate: as for :func:`adam`, like all arguments here.
        b1: decay rate of the first moment. Default 0.9.
        b2: decay rate of the second moment. Default 0.999.
        eps: added to the denominator. Default 1e-8.
        eps_root: added under the square root. Default 0.0.
        mu_dtype: dtype in which mu is stored. Default None: the parameter's.
        weight_decay: strength of weight decay, at least 0: a number, a schedule, or a traced scalar. Default 1e-4.
        mask: which weights decay: a tree of bools like params or a prefix of it, or a function that makes one from
            params. Default None: all.
        nesterov: whether to use Nesterov's momentum. Default False.
        maximize: whether to ascend. Default False.

    Returns:
        An ``optax.GradientTransformationExtraArgs`` that also has ``step(params, state, grads) -> (params, state)``.

    Raises:
        TypeError, ValueError: a number is out of bounds, or an option is unknown.

    Example:
        >>> import jax.numpy as jnp, flatstep.jax
        >>> opt = flatstep.jax.adamw(0.1, weight_decay=0.5)
        >>> params = jnp.array([1.0, -1.0])
        >>> params, state = opt.step(params, opt.init(params), jnp.zeros(2))
        >>> params
        Array([ 0.95, -0.95], dtype=float32)

    References:
        Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019; ``optax.adamw``.
    """
    decay = Decay(weight_decay, True, mask, has_state=True)
    settings = Settings(
        "adam", learning_rate, _adam(b1, b2, eps, eps_root, nesterov), decay, checked_flag("maximize", maximize)
    )
    return make(
        settings,
        optax.adamw(learning_rate, mu_dtype=checked_dtype("mu_dtype", mu_dtype), weight_decay=weight_decay, mask=mask),
    )


def _decay(strength: Number | None, decoupled: bool) -> Decay:
    # The default is not 0.0: optax.inject_hyperparams would keep it in its state, which then is not that of optax.adam.
    return Decay(0.0 if strength is None else strength, checked_flag("decoupled_weight_decay", decoupled))


def _adam(b1: Number, b2: Number, eps: Number, eps_root: Number, nesterov: bool) -> dict[str, Any]:
    return dict(b1=b1, b2=b2, eps=eps, eps_root=eps_root, nesterov=float(checked_flag("nesterov", nesterov)))
