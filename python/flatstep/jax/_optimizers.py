"""The optimizers for JAX: one function each.

Written by ``python -m flatstep._rules``: change the declarations in flatstep/_rules, not this file.
"""

from __future__ import annotations

from typing import Literal

from numpy.typing import DTypeLike

from .._rules import (
    ADAM,
    ADAMW,
    AMSGRAD,
    LION,
    OPTIMISTIC_ADAM,
    OPTIMISTIC_AMSGRAD,
    OPTIMISTIC_GRADIENT_DESCENT,
    RMSPROP,
)
from ._settings import Mask, Number, ScalarOrSchedule
from ._transformation import FusedTransformation, make

__all__ = [
    "amsgrad",
    "optimistic_adam_v2",
    "optimistic_amsgrad",
    "adam",
    "adamw",
    "lion",
    "rmsprop",
    "optimistic_gradient_descent",
]


def amsgrad(
    learning_rate: ScalarOrSchedule,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: DTypeLike | None = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
    *,
    convention: Literal["optax", "torch"] = "optax",
    weight_decay: Number | None = None,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
    skip_nonfinite: bool = False,
    max_consecutive_errors: Number | None = None,
    ema_decay: float | None = None,
    ema_start: Literal["copy", "zero"] = "copy",
    ema_dtype: DTypeLike | None = None,
) -> FusedTransformation:
    r"""AMSGrad, as ``optax.amsgrad`` defines it, in one pass over memory.

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

    Args:
        learning_rate: step size: a number, a schedule (count -> number), or a traced scalar.
        b1: decay rate of the first moment, in [0, 1). A number or a traced scalar, like all numbers here. Default 0.9.
        b2: decay rate of the second moment, in [0, 1). Default 0.999.
        eps: added to the denominator, at least 0. Default 1e-8.
        eps_root: added under the square root, at least 0. Default 0.0.
        mu_dtype: dtype in which mu is stored; bfloat16 halves it for float32 parameters. Default None: the parameter's.
        bias_correction_mu: whether to divide mu by 1 - b1^t. Default True.
        bias_correction_nu: whether to correct nu's bias. With both False this is the paper's AMSGrad. Default True.
        convention: ``"optax"`` corrects nu before the maximum, ``"torch"`` after it; the paper's is
            bias_correction_mu=False, bias_correction_nu=False. Default "optax".
        weight_decay: strength of weight decay, at least 0; p times it is added to the gradient. Default None: none.
        decoupled_weight_decay: whether weight decay is added to what the learning rate multiplies, as in AdamW, and not
            to the gradient. Default False.
        maximize: whether to ascend. Default False.
        skip_nonfinite: whether a step with a gradient that is not finite changes nothing; the state is that of
            ``optax.apply_if_finite``. Default False.
        max_consecutive_errors: how many steps in a row ``skip_nonfinite`` skips, as in ``optax.apply_if_finite``, at
            least 0. Default None: any number.
        ema_decay: decay rate of an exponential moving average of each parameter, in [0, 1), kept at the end of the
            state; see ``flatstep.jax.ema``. A number, not a traced scalar. Default None: no averages.
        ema_start: what averages start from: ``"copy"``, the parameter after its first step, or ``"zero"``. Default
            "copy".
        ema_dtype: dtype of the averages: the parameter's, or that in which its steps compute. Default None: the latter,
            float32 for float16.

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
    return make(
        AMSGRAD,
        dict(
            learning_rate=learning_rate,
            b1=b1,
            b2=b2,
            eps=eps,
            eps_root=eps_root,
            mu_dtype=mu_dtype,
            bias_correction_mu=bias_correction_mu,
            bias_correction_nu=bias_correction_nu,
            convention=convention,
            weight_decay=weight_decay,
            decoupled_weight_decay=decoupled_weight_decay,
            maximize=maximize,
            skip_nonfinite=skip_nonfinite,
            max_consecutive_errors=max_consecutive_errors,
            ema_decay=ema_decay,
            ema_start=ema_start,
            ema_dtype=ema_dtype,
        ),
    )


def optimistic_adam_v2(
    learning_rate: ScalarOrSchedule,
    *,
    alpha: Number = 1.0,
    beta: Number = 1.0,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: DTypeLike | None = None,
    nesterov: bool = True,
    weight_decay: Number | None = None,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
    skip_nonfinite: bool = False,
    max_consecutive_errors: Number | None = None,
    ema_decay: float | None = None,
    ema_start: Literal["copy", "zero"] = "copy",
    ema_dtype: DTypeLike | None = None,
) -> FusedTransformation:
    r"""Optimistic Adam, as ``optax.optimistic_adam_v2`` defines it, in one pass over memory: for GANs and other games.

    .. math::
        \mu &\leftarrow b_1 \mu + (1 - b_1) g, \qquad \nu \leftarrow b_2 \nu + (1 - b_2) g^2 \\
        r &\leftarrow \hat\mu \Big/ \left(\sqrt{\nu / (1 - b_2^t) + \epsilon_{root}} + \epsilon\right) \\
        p &\leftarrow p - \mathit{lr} \cdot \left((\alpha + \beta) r - \beta\, r_{previous}\right)

    where t counts the parameter's updates from 1; at the first one, which has no previous direction,
    :math:`p \leftarrow p - \mathit{lr} \cdot \alpha r`. With Nesterov's momentum, the default,
    :math:`\hat\mu = b_1 \mu / (1 - b_1^{t+1}) + (1 - b_1) g / (1 - b_1^t)`, else
    :math:`\mu / (1 - b_1^t)`.

    Args:
        learning_rate: step size: a number, a schedule (count -> number), or a traced scalar.
        alpha: weight of the direction. A number or a traced scalar, like all numbers here. Default 1.0.
        beta: weight of the direction's change, the optimism. Default 1.0.
        b1: decay rate of the first moment, in [0, 1). Default 0.9.
        b2: decay rate of the second moment, in [0, 1). Default 0.999.
        eps: added to the denominator, at least 0. Default 1e-8.
        eps_root: added under the square root, at least 0. Default 0.0.
        mu_dtype: dtype in which mu is stored; bfloat16 halves it for float32 parameters. Default None: the parameter's.
        nesterov: whether to use Nesterov's momentum. Default True.
        weight_decay: strength of weight decay, at least 0; p times it is added to the gradient. Default None: none.
        decoupled_weight_decay: whether weight decay is added to what the learning rate multiplies, as in AdamW, and not
            to the gradient. Default False.
        maximize: whether to ascend. Default False.
        skip_nonfinite: whether a step with a gradient that is not finite changes nothing; the state is that of
            ``optax.apply_if_finite``. Default False.
        max_consecutive_errors: how many steps in a row ``skip_nonfinite`` skips, as in ``optax.apply_if_finite``, at
            least 0. Default None: any number.
        ema_decay: decay rate of an exponential moving average of each parameter, in [0, 1), kept at the end of the
            state; see ``flatstep.jax.ema``. A number, not a traced scalar. Default None: no averages.
        ema_start: what averages start from: ``"copy"``, the parameter after its first step, or ``"zero"``. Default
            "copy".
        ema_dtype: dtype of the averages: the parameter's, or that in which its steps compute. Default None: the latter,
            float32 for float16.

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
        Daskalakis, Ilyas, Syrgkanis and Zeng, "Training GANs with Optimism", ICLR 2018; ``optax.optimistic_adam_v2``.
    """
    return make(
        OPTIMISTIC_ADAM,
        dict(
            learning_rate=learning_rate,
            alpha=alpha,
            beta=beta,
            b1=b1,
            b2=b2,
            eps=eps,
            eps_root=eps_root,
            mu_dtype=mu_dtype,
            nesterov=nesterov,
            weight_decay=weight_decay,
            decoupled_weight_decay=decoupled_weight_decay,
            maximize=maximize,
            skip_nonfinite=skip_nonfinite,
            max_consecutive_errors=max_consecutive_errors,
            ema_decay=ema_decay,
            ema_start=ema_start,
            ema_dtype=ema_dtype,
        ),
    )


def optimistic_amsgrad(
    learning_rate: ScalarOrSchedule,
    *,
    alpha: Number = 1.0,
    beta: Number = 1.0,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: DTypeLike | None = None,
    nesterov: bool = True,
    convention: Literal["optax", "torch"] = "optax",
    weight_decay: Number | None = None,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
    skip_nonfinite: bool = False,
    max_consecutive_errors: Number | None = None,
    ema_decay: float | None = None,
    ema_start: Literal["copy", "zero"] = "copy",
    ema_dtype: DTypeLike | None = None,
) -> FusedTransformation:
    r"""Optimistic AMSGrad: AMSGrad that also steps along the change of its direction, for min-max games.

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

    Args:
        learning_rate: step size: a number, a schedule (count -> number), or a traced scalar.
        alpha: weight of the direction. A number or a traced scalar, like all numbers here. Default 1.0.
        beta: weight of the direction's change, the optimism. Default 1.0.
        b1: decay rate of the first moment, in [0, 1). Default 0.9.
        b2: decay rate of the second moment, in [0, 1). Default 0.999.
        eps: added to the denominator, at least 0. Default 1e-8.
        eps_root: added under the square root, at least 0. Default 0.0.
        mu_dtype: dtype in which mu is stored; bfloat16 halves it for float32 parameters. Default None: the parameter's.
        nesterov: whether to use Nesterov's momentum. Default True.
        convention: whose correction of nu's bias, as above. Default "optax".
        weight_decay: strength of weight decay, at least 0; p times it is added to the gradient. Default None: none.
        decoupled_weight_decay: whether weight decay is added to what the learning rate multiplies, as in AdamW, and not
            to the gradient. Default False.
        maximize: whether to ascend. Default False.
        skip_nonfinite: whether a step with a gradient that is not finite changes nothing; the state is that of
            ``optax.apply_if_finite``. Default False.
        max_consecutive_errors: how many steps in a row ``skip_nonfinite`` skips, as in ``optax.apply_if_finite``, at
            least 0. Default None: any number.
        ema_decay: decay rate of an exponential moving average of each parameter, in [0, 1), kept at the end of the
            state; see ``flatstep.jax.ema``. A number, not a traced scalar. Default None: no averages.
        ema_start: what averages start from: ``"copy"``, the parameter after its first step, or ``"zero"``. Default
            "copy".
        ema_dtype: dtype of the averages: the parameter's, or that in which its steps compute. Default None: the latter,
            float32 for float16.

    Returns:
        An ``optax.GradientTransformationExtraArgs`` that also has ``step(params, state, grads) -> (params, state)``.

    Raises:
        TypeError, ValueError: a number is out of bounds, or an option is unknown.

    Example:
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

    References:
        Daskalakis, Ilyas, Syrgkanis and Zeng, "Training GANs with Optimism", ICLR 2018; Reddi, Kale and Kumar, "On the
        Convergence of Adam and Beyond", ICLR 2018; ``flatstep.jax.optimistic_adam_v2``, ``flatstep.jax.amsgrad``.
    """
    return make(
        OPTIMISTIC_AMSGRAD,
        dict(
            learning_rate=learning_rate,
            alpha=alpha,
            beta=beta,
            b1=b1,
            b2=b2,
            eps=eps,
            eps_root=eps_root,
            mu_dtype=mu_dtype,
            nesterov=nesterov,
            convention=convention,
            weight_decay=weight_decay,
            decoupled_weight_decay=decoupled_weight_decay,
            maximize=maximize,
            skip_nonfinite=skip_nonfinite,
            max_consecutive_errors=max_consecutive_errors,
            ema_decay=ema_decay,
            ema_start=ema_start,
            ema_dtype=ema_dtype,
        ),
    )


def adam(
    learning_rate: ScalarOrSchedule,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = False,
    weight_decay: Number | None = None,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
    skip_nonfinite: bool = False,
    max_consecutive_errors: Number | None = None,
    ema_decay: float | None = None,
    ema_start: Literal["copy", "zero"] = "copy",
    ema_dtype: DTypeLike | None = None,
) -> FusedTransformation:
    r"""Adam, as ``optax.adam`` defines it, in one pass over memory.

    .. math::
        \mu &\leftarrow b_1 \mu + (1 - b_1) g, \qquad \nu \leftarrow b_2 \nu + (1 - b_2) g^2 \\
        p &\leftarrow p - \mathit{lr} \cdot \hat\mu \Big/
            \left(\sqrt{\nu / (1 - b_2^t) + \epsilon_{root}} + \epsilon\right)

    where t counts the parameter's updates from 1, and :math:`\hat\mu = \mu / (1 - b_1^t)`, or with Nesterov's momentum
    :math:`b_1 \mu / (1 - b_1^{t+1}) + (1 - b_1) g / (1 - b_1^t)`.

    Args:
        learning_rate: step size: a number, a schedule (count -> number), or a traced scalar.
        b1: decay rate of the first moment, in [0, 1). A number or a traced scalar, like all numbers here. Default 0.9.
        b2: decay rate of the second moment, in [0, 1). Default 0.999.
        eps: added to the denominator, at least 0. Default 1e-8.
        eps_root: added under the square root, at least 0. Default 0.0.
        mu_dtype: dtype in which mu is stored; bfloat16 halves it for float32 parameters. Default None: the parameter's.
        nesterov: whether to use Nesterov's momentum. Default False.
        weight_decay: strength of weight decay, at least 0; p times it is added to the gradient. Default None: none.
        decoupled_weight_decay: whether weight decay is added to what the learning rate multiplies, as in AdamW, and not
            to the gradient. Default False.
        maximize: whether to ascend. Default False.
        skip_nonfinite: whether a step with a gradient that is not finite changes nothing; the state is that of
            ``optax.apply_if_finite``. Default False.
        max_consecutive_errors: how many steps in a row ``skip_nonfinite`` skips, as in ``optax.apply_if_finite``, at
            least 0. Default None: any number.
        ema_decay: decay rate of an exponential moving average of each parameter, in [0, 1), kept at the end of the
            state; see ``flatstep.jax.ema``. A number, not a traced scalar. Default None: no averages.
        ema_start: what averages start from: ``"copy"``, the parameter after its first step, or ``"zero"``. Default
            "copy".
        ema_dtype: dtype of the averages: the parameter's, or that in which its steps compute. Default None: the latter,
            float32 for float16.

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
    return make(
        ADAM,
        dict(
            learning_rate=learning_rate,
            b1=b1,
            b2=b2,
            eps=eps,
            eps_root=eps_root,
            mu_dtype=mu_dtype,
            nesterov=nesterov,
            weight_decay=weight_decay,
            decoupled_weight_decay=decoupled_weight_decay,
            maximize=maximize,
            skip_nonfinite=skip_nonfinite,
            max_consecutive_errors=max_consecutive_errors,
            ema_decay=ema_decay,
            ema_start=ema_start,
            ema_dtype=ema_dtype,
        ),
    )


def adamw(
    learning_rate: ScalarOrSchedule,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: DTypeLike | None = None,
    weight_decay: ScalarOrSchedule = 1e-4,
    mask: Mask | None = None,
    *,
    nesterov: bool = False,
    maximize: bool = False,
    skip_nonfinite: bool = False,
    max_consecutive_errors: Number | None = None,
    ema_decay: float | None = None,
    ema_start: Literal["copy", "zero"] = "copy",
    ema_dtype: DTypeLike | None = None,
) -> FusedTransformation:
    r"""AdamW, as ``optax.adamw`` defines it, in one pass over memory.

    .. math:: p \leftarrow p - \mathit{lr} \cdot (r + \mathit{weight\_decay} \cdot p)

    where :math:`\mathit{lr} \cdot r` is the step of Adam.

    Args:
        learning_rate: step size: a number, a schedule (count -> number), or a traced scalar.
        b1: decay rate of the first moment, in [0, 1). A number or a traced scalar, like all numbers here. Default 0.9.
        b2: decay rate of the second moment, in [0, 1). Default 0.999.
        eps: added to the denominator, at least 0. Default 1e-8.
        eps_root: added under the square root, at least 0. Default 0.0.
        mu_dtype: dtype in which mu is stored; bfloat16 halves it for float32 parameters. Default None: the parameter's.
        weight_decay: strength of weight decay, at least 0: a number, a schedule, or a traced scalar. Default 1e-4.
        mask: which weights decay: a tree of bools like params or a prefix of it, or a function that makes one from
            params. Default None: all.
        nesterov: whether to use Nesterov's momentum. Default False.
        maximize: whether to ascend. Default False.
        skip_nonfinite: whether a step with a gradient that is not finite changes nothing; the state is that of
            ``optax.apply_if_finite``. Default False.
        max_consecutive_errors: how many steps in a row ``skip_nonfinite`` skips, as in ``optax.apply_if_finite``, at
            least 0. Default None: any number.
        ema_decay: decay rate of an exponential moving average of each parameter, in [0, 1), kept at the end of the
            state; see ``flatstep.jax.ema``. A number, not a traced scalar. Default None: no averages.
        ema_start: what averages start from: ``"copy"``, the parameter after its first step, or ``"zero"``. Default
            "copy".
        ema_dtype: dtype of the averages: the parameter's, or that in which its steps compute. Default None: the latter,
            float32 for float16.

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
    return make(
        ADAMW,
        dict(
            learning_rate=learning_rate,
            b1=b1,
            b2=b2,
            eps=eps,
            eps_root=eps_root,
            mu_dtype=mu_dtype,
            weight_decay=weight_decay,
            mask=mask,
            nesterov=nesterov,
            maximize=maximize,
            skip_nonfinite=skip_nonfinite,
            max_consecutive_errors=max_consecutive_errors,
            ema_decay=ema_decay,
            ema_start=ema_start,
            ema_dtype=ema_dtype,
        ),
    )


def lion(
    learning_rate: ScalarOrSchedule,
    b1: Number = 0.9,
    b2: Number = 0.99,
    mu_dtype: DTypeLike | None = None,
    weight_decay: ScalarOrSchedule = 1e-3,
    mask: Mask | None = None,
    *,
    maximize: bool = False,
    skip_nonfinite: bool = False,
    max_consecutive_errors: Number | None = None,
    ema_decay: float | None = None,
    ema_start: Literal["copy", "zero"] = "copy",
    ema_dtype: DTypeLike | None = None,
) -> FusedTransformation:
    r"""Lion, as ``optax.lion`` defines it, in one pass over memory.

    .. math::
        c &\leftarrow b_1 \mu + (1 - b_1) g \\
        p &\leftarrow p - \mathit{lr} \cdot (\mathrm{sign}(c) + \mathit{weight\_decay} \cdot p) \\
        \mu &\leftarrow b_2 \mu + (1 - b_2) g

    where sign(0) = 0 and sign(NaN) = NaN. The learning rate is usually 3 to 10 times smaller than that of AdamW, and
    weight decay as many times larger.

    Args:
        learning_rate: step size: a number, a schedule (count -> number), or a traced scalar.
        b1: weight of the first moment in the direction, in [0, 1). A number or a traced scalar, like all numbers here.
            Default 0.9.
        b2: decay rate of the first moment, in [0, 1). Default 0.99.
        mu_dtype: dtype in which mu is stored; bfloat16 halves it for float32 parameters. Default None: the parameter's.
        weight_decay: strength of weight decay, at least 0: a number, a schedule, or a traced scalar. Default 1e-3.
        mask: which weights decay: a tree of bools like params or a prefix of it, or a function that makes one from
            params. Default None: all.
        maximize: whether to ascend. Default False.
        skip_nonfinite: whether a step with a gradient that is not finite changes nothing; the state is that of
            ``optax.apply_if_finite``. Default False.
        max_consecutive_errors: how many steps in a row ``skip_nonfinite`` skips, as in ``optax.apply_if_finite``, at
            least 0. Default None: any number.
        ema_decay: decay rate of an exponential moving average of each parameter, in [0, 1), kept at the end of the
            state; see ``flatstep.jax.ema``. A number, not a traced scalar. Default None: no averages.
        ema_start: what averages start from: ``"copy"``, the parameter after its first step, or ``"zero"``. Default
            "copy".
        ema_dtype: dtype of the averages: the parameter's, or that in which its steps compute. Default None: the latter,
            float32 for float16.

    Returns:
        An ``optax.GradientTransformationExtraArgs`` that also has ``step(params, state, grads) -> (params, state)``.

    Raises:
        TypeError, ValueError: a number is out of bounds, or an option is unknown.

    Example:
        >>> import jax.numpy as jnp, flatstep.jax
        >>> opt = flatstep.jax.lion(0.5, weight_decay=0.0)
        >>> params = jnp.array([1.0, -1.0])
        >>> params, state = opt.step(params, opt.init(params), 2 * params)
        >>> params
        Array([ 0.5, -0.5], dtype=float32)

    References:
        Chen et al., "Symbolic Discovery of Optimization Algorithms", NeurIPS 2023; ``optax.lion``.
    """
    return make(
        LION,
        dict(
            learning_rate=learning_rate,
            b1=b1,
            b2=b2,
            mu_dtype=mu_dtype,
            weight_decay=weight_decay,
            mask=mask,
            maximize=maximize,
            skip_nonfinite=skip_nonfinite,
            max_consecutive_errors=max_consecutive_errors,
            ema_decay=ema_decay,
            ema_start=ema_start,
            ema_dtype=ema_dtype,
        ),
    )


def rmsprop(
    learning_rate: ScalarOrSchedule,
    decay: Number = 0.9,
    eps: Number = 1e-8,
    initial_scale: Number = 0.0,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    momentum: Number | None = None,
    nesterov: bool = False,
    bias_correction: bool = False,
    *,
    weight_decay: Number | None = None,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
    skip_nonfinite: bool = False,
    max_consecutive_errors: Number | None = None,
    ema_decay: float | None = None,
    ema_start: Literal["copy", "zero"] = "copy",
    ema_dtype: DTypeLike | None = None,
) -> FusedTransformation:
    r"""RMSProp, as ``optax.rmsprop`` defines it, in one pass over memory.

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

    Args:
        learning_rate: step size: a number, a schedule (count -> number), or a traced scalar.
        decay: decay rate of the averages, in [0, 1). A number or a traced scalar, like all numbers here. Default 0.9.
        eps: added to the denominator, at least 0. Default 1e-8.
        initial_scale: what nu starts from. Default 0.0.
        eps_in_sqrt: whether eps is added under the square root, and not to the root. Default True.
        centered: whether to subtract mu^2, so that the root is a standard deviation. Default False.
        momentum: decay rate of the trace, at least 0. Default None: no trace is kept.
        nesterov: whether to use Nesterov's momentum. Default False.
        bias_correction: whether to divide the averages by 1 - decay^t. Default False.
        weight_decay: strength of weight decay, at least 0; p times it is added to the gradient. Default None: none.
        decoupled_weight_decay: whether weight decay is added to what the learning rate multiplies, as in AdamW, and not
            to the gradient. Default False.
        maximize: whether to ascend. Default False.
        skip_nonfinite: whether a step with a gradient that is not finite changes nothing; the state is that of
            ``optax.apply_if_finite``. Default False.
        max_consecutive_errors: how many steps in a row ``skip_nonfinite`` skips, as in ``optax.apply_if_finite``, at
            least 0. Default None: any number.
        ema_decay: decay rate of an exponential moving average of each parameter, in [0, 1), kept at the end of the
            state; see ``flatstep.jax.ema``. A number, not a traced scalar. Default None: no averages.
        ema_start: what averages start from: ``"copy"``, the parameter after its first step, or ``"zero"``. Default
            "copy".
        ema_dtype: dtype of the averages: the parameter's, or that in which its steps compute. Default None: the latter,
            float32 for float16.

    Returns:
        An ``optax.GradientTransformationExtraArgs`` that also has ``step(params, state, grads) -> (params, state)``.

    Raises:
        TypeError, ValueError: a number is out of bounds, or an option is unknown.

    Example:
        >>> import jax, jax.numpy as jnp, flatstep.jax
        >>> opt = flatstep.jax.rmsprop(0.01, momentum=0.9)
        >>> def train(carry, _):
        ...     params, state = carry
        ...     return opt.step(params, state, 2 * params), None
        >>> params = jnp.array([3.0, -2.0])
        >>> (params, state), _ = jax.lax.scan(train, (params, opt.init(params)), length=300)
        >>> bool(abs(params).max() < 0.1)
        True

    References:
        Hinton, "Neural Networks for Machine Learning", lecture 6e, 2012; Graves, "Generating Sequences With Recurrent
        Neural Networks", 2013, for ``centered``; ``optax.rmsprop``.
    """
    return make(
        RMSPROP,
        dict(
            learning_rate=learning_rate,
            decay=decay,
            eps=eps,
            initial_scale=initial_scale,
            eps_in_sqrt=eps_in_sqrt,
            centered=centered,
            momentum=momentum,
            nesterov=nesterov,
            bias_correction=bias_correction,
            weight_decay=weight_decay,
            decoupled_weight_decay=decoupled_weight_decay,
            maximize=maximize,
            skip_nonfinite=skip_nonfinite,
            max_consecutive_errors=max_consecutive_errors,
            ema_decay=ema_decay,
            ema_start=ema_start,
            ema_dtype=ema_dtype,
        ),
    )


def optimistic_gradient_descent(
    learning_rate: ScalarOrSchedule,
    alpha: Number = 1.0,
    beta: Number = 1.0,
    *,
    weight_decay: Number | None = None,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
    skip_nonfinite: bool = False,
    max_consecutive_errors: Number | None = None,
    ema_decay: float | None = None,
    ema_start: Literal["copy", "zero"] = "copy",
    ema_dtype: DTypeLike | None = None,
) -> FusedTransformation:
    r"""Optimistic gradient descent: a step along the gradient and along its change, for min-max games.

    .. math:: p \leftarrow p - \mathit{lr} \cdot \left((\alpha + \beta) g - \beta\, g_{previous}\right)

    The parameter's first update has no previous gradient: :math:`p \leftarrow p - \mathit{lr} \cdot \alpha g`.

    Args:
        learning_rate: step size: a number, a schedule (count -> number), or a traced scalar.
        alpha: weight of the gradient. A number or a traced scalar, like all numbers here. Default 1.0.
        beta: weight of the gradient's change, the optimism. Default 1.0.
        weight_decay: strength of weight decay, at least 0; p times it is added to the gradient. Default None: none.
        decoupled_weight_decay: whether weight decay is added to what the learning rate multiplies, as in AdamW, and not
            to the gradient. Default False.
        maximize: whether to ascend. Default False.
        skip_nonfinite: whether a step with a gradient that is not finite changes nothing; the state is that of
            ``optax.apply_if_finite``. Default False.
        max_consecutive_errors: how many steps in a row ``skip_nonfinite`` skips, as in ``optax.apply_if_finite``, at
            least 0. Default None: any number.
        ema_decay: decay rate of an exponential moving average of each parameter, in [0, 1), kept at the end of the
            state; see ``flatstep.jax.ema``. A number, not a traced scalar. Default None: no averages.
        ema_start: what averages start from: ``"copy"``, the parameter after its first step, or ``"zero"``. Default
            "copy".
        ema_dtype: dtype of the averages: the parameter's, or that in which its steps compute. Default None: the latter,
            float32 for float16.

    Returns:
        An ``optax.GradientTransformationExtraArgs`` that also has ``step(params, state, grads) -> (params, state)``.

    Raises:
        TypeError, ValueError: a number is out of bounds, or an option is unknown.

    Example:
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

    References:
        Rakhlin and Sridharan, "Optimization, Learning, and Games with Predictable Sequences", NIPS 2013;
        ``optax.optimistic_gradient_descent``.
    """
    return make(
        OPTIMISTIC_GRADIENT_DESCENT,
        dict(
            learning_rate=learning_rate,
            alpha=alpha,
            beta=beta,
            weight_decay=weight_decay,
            decoupled_weight_decay=decoupled_weight_decay,
            maximize=maximize,
            skip_nonfinite=skip_nonfinite,
            max_consecutive_errors=max_consecutive_errors,
            ema_decay=ema_decay,
            ema_start=ema_start,
            ema_dtype=ema_dtype,
        ),
    )


for _function in (
    amsgrad,
    optimistic_adam_v2,
    optimistic_amsgrad,
    adam,
    adamw,
    lion,
    rmsprop,
    optimistic_gradient_descent,
):
    _function.__module__ = "flatstep.jax"
