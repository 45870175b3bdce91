"""The optimizers for NumPy arrays: one class each.

Written by ``python -m flatstep._rules``: change the declarations in flatstep/_rules, not this file.
"""

from __future__ import annotations

from typing import Any, Literal

from numpy.typing import DTypeLike

from ._numbers import Number, Option, PerLeaf, Scalar
from ._optimizer import Optimizer
from ._rules import (
    ADAM,
    ADAMW,
    AMSGRAD,
    LION,
    OPTIMISTIC_ADAM,
    OPTIMISTIC_AMSGRAD,
    OPTIMISTIC_GRADIENT_DESCENT,
    RMSPROP,
)

__all__ = [
    "AMSGrad",
    "OptimisticAdam",
    "OptimisticAMSGrad",
    "Adam",
    "AdamW",
    "Lion",
    "RMSProp",
    "OptimisticGradientDescent",
]


class AMSGrad(Optimizer):
    r"""AMSGrad: Adam that divides by the largest second moment so far, so that its step sizes never grow again.

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
        params: float16, float32 or float64 arrays of any shape, alone or nested in lists, tuples and dicts; updated in
            place. NumPy's, or by DLPack another library's, on the CPU or a CUDA device; gradients are where they are.
        learning_rate: step size, at least 0: a number or a schedule (count -> number), or a structure of them like
            params. Every number here is an attribute that may be set between steps, to a number or a schedule.
        b1: decay rate of the first moment, in [0, 1). Default 0.9.
        b2: decay rate of the second moment, in [0, 1). Default 0.999.
        eps: added to the denominator, at least 0. Default 1e-8.
        eps_root: added under the square root, at least 0. Default 0.0.
        bias_correction_mu: whether to divide mu by 1 - b1^t. Default None: True, but False in the paper's convention.
        bias_correction_nu: whether to correct nu's bias, where the convention says. Default None: True, but False in
            the paper's convention.
        mu_dtype: dtype in which mu is stored; bfloat16 halves it for float32 parameters. Default None: the parameter's.
        convention: whose correction of nu's bias, as above. Default "optax".
        weight_decay: strength of weight decay, at least 0; p times it is added to the gradient. May be a structure like
            params. Default 0.0.
        decoupled_weight_decay: whether weight decay is added to what the learning rate multiplies, as in AdamW, and not
            to the gradient. Default False.
        maximize: whether to ascend. Default False.
        max_norm: largest norm of all gradients together, at least 0; where they have a larger one, they are scaled down
            to it. Default None: no limit.
        skip_nonfinite: whether a step with a gradient that is not finite changes nothing; see ``skipped``. Default
            False.
        ema_decay: decay rate of an exponential moving average of each parameter, which steps update; see ``ema``, in
            [0, 1). Default None: no averages.
        ema_start: what averages start from: ``"copy"``, the parameter after its first step, or ``"zero"``. Default
            "copy".
        ema_debias: whether ``ema`` corrects the start at zero, as ``optax.ema`` does. Default False.
        ema_dtype: dtype of the averages: the parameter's, or that in which its steps compute. Default None: the latter,
            float32 for float16.
        zero_grads: whether a step sets the gradients to zero where it has read them. Default False.

    Raises:
        TypeError, ValueError: a parameter cannot be updated in place, a number is out of bounds, or the convention is
            unknown or contradicted.

    Example:
        >>> import numpy as np, flatstep
        >>> params = {"w": np.array([3.0, -2.0]), "b": np.array(1.0)}
        >>> opt = flatstep.AMSGrad(params, learning_rate=0.1)
        >>> for _ in range(200):
        ...     opt.step({"w": 2 * params["w"], "b": 2 * params["b"]})
        >>> bool(abs(params["w"]).max() < 0.05)
        True
        >>> opt.state["nu_max"]["w"].round(3)
        array([36., 16.])

    References:
        Reddi, Kale and Kumar, "On the Convergence of Adam and Beyond", ICLR 2018; ``optax.amsgrad``.
    """

    __module__ = "flatstep"
    _declaration = AMSGRAD
    b1 = Number(at_least=0, below=1)
    b2 = Number(at_least=0, below=1)
    eps = Number(at_least=0)
    eps_root = Number(at_least=0)
    bias_correction_mu = Option()
    bias_correction_nu = Option()
    mu_dtype = Option(is_dtype=True)
    convention = Option("optax", "torch", "paper")

    def __init__(
        self,
        params: Any,
        learning_rate: PerLeaf,
        *,
        b1: Scalar = 0.9,
        b2: Scalar = 0.999,
        eps: Scalar = 1e-8,
        eps_root: Scalar = 0.0,
        bias_correction_mu: bool | None = None,
        bias_correction_nu: bool | None = None,
        mu_dtype: DTypeLike | None = None,
        convention: Literal["optax", "torch", "paper"] = "optax",
        weight_decay: PerLeaf = 0.0,
        decoupled_weight_decay: bool = False,
        maximize: bool = False,
        max_norm: Scalar | None = None,
        skip_nonfinite: bool = False,
        ema_decay: Scalar | None = None,
        ema_start: Literal["copy", "zero"] = "copy",
        ema_debias: bool = False,
        ema_dtype: DTypeLike | None = None,
        zero_grads: bool = False,
    ) -> None:
        Optimizer.__init__(
            self,
            params,
            dict(
                learning_rate=learning_rate,
                b1=b1,
                b2=b2,
                eps=eps,
                eps_root=eps_root,
                bias_correction_mu=bias_correction_mu,
                bias_correction_nu=bias_correction_nu,
                mu_dtype=mu_dtype,
                convention=convention,
                weight_decay=weight_decay,
                decoupled_weight_decay=decoupled_weight_decay,
                maximize=maximize,
                max_norm=max_norm,
                skip_nonfinite=skip_nonfinite,
                ema_decay=ema_decay,
                ema_start=ema_start,
                ema_debias=ema_debias,
                ema_dtype=ema_dtype,
                zero_grads=zero_grads,
            ),
        )


class OptimisticAdam(Optimizer):
    r"""Optimistic Adam: Adam that also steps along the change of its direction, for GANs and other min-max games.

    .. math::
        \mu &\leftarrow b_1 \mu + (1 - b_1) g, \qquad \nu \leftarrow b_2 \nu + (1 - b_2) g^2 \\
        r &\leftarrow \hat\mu \Big/ \left(\sqrt{\nu / (1 - b_2^t) + \epsilon_{root}} + \epsilon\right) \\
        p &\leftarrow p - \mathit{lr} \cdot \left((\alpha + \beta) r - \beta\, r_{previous}\right)

    where t counts the parameter's updates from 1; at the first one, which has no previous direction,
    :math:`p \leftarrow p - \mathit{lr} \cdot \alpha r`. With Nesterov's momentum, the default,
    :math:`\hat\mu = b_1 \mu / (1 - b_1^{t+1}) + (1 - b_1) g / (1 - b_1^t)`, else
    :math:`\mu / (1 - b_1^t)`.

    Without Nesterov's momentum the previous direction is computed again from the old moments instead of being
    stored: 28 bytes move a float32 parameter instead of 36, with the same bits. (With a mu_dtype it is stored.)

    Args:
        params: float16, float32 or float64 arrays of any shape, alone or nested in lists, tuples and dicts; updated in
            place. NumPy's, or by DLPack another library's, on the CPU or a CUDA device; gradients are where they are.
        learning_rate: step size, at least 0: a number or a schedule (count -> number), or a structure of them like
            params. Every number here is an attribute that may be set between steps, to a number or a schedule.
        alpha: weight of the direction. Default 1.0.
        beta: weight of the direction's change, the optimism. Default 1.0.
        b1: decay rate of the first moment, in [0, 1). Default 0.9.
        b2: decay rate of the second moment, in [0, 1). Default 0.999.
        eps: added to the denominator, at least 0. Default 1e-8.
        eps_root: added under the square root, at least 0. Default 0.0.
        mu_dtype: dtype in which mu is stored; bfloat16 halves it for float32 parameters. Default None: the parameter's.
        nesterov: whether to use Nesterov's momentum. Default True.
        weight_decay: strength of weight decay, at least 0; p times it is added to the gradient. May be a structure like
            params. Default 0.0.
        decoupled_weight_decay: whether weight decay is added to what the learning rate multiplies, as in AdamW, and not
            to the gradient. Default False.
        maximize: whether to ascend. Default False.
        max_norm: largest norm of all gradients together, at least 0; where they have a larger one, they are scaled down
            to it. Default None: no limit.
        skip_nonfinite: whether a step with a gradient that is not finite changes nothing; see ``skipped``. Default
            False.
        ema_decay: decay rate of an exponential moving average of each parameter, which steps update; see ``ema``, in
            [0, 1). Default None: no averages.
        ema_start: what averages start from: ``"copy"``, the parameter after its first step, or ``"zero"``. Default
            "copy".
        ema_debias: whether ``ema`` corrects the start at zero, as ``optax.ema`` does. Default False.
        ema_dtype: dtype of the averages: the parameter's, or that in which its steps compute. Default None: the latter,
            float32 for float16.
        zero_grads: whether a step sets the gradients to zero where it has read them. Default False.

    Raises:
        TypeError, ValueError: a parameter cannot be updated in place, a number is out of bounds.

    Example:
        The game f(x, y) = x y, in which x descends and y ascends; descent alone circles the solution.

        >>> import numpy as np, flatstep
        >>> point = np.array([1.0, 2.0])
        >>> opt = flatstep.OptimisticAdam(point, learning_rate=1.0, alpha=1e-2, beta=1.0)
        >>> for _ in range(1024):
        ...     x, y = point
        ...     opt.step(np.array([y, -x]))
        >>> bool(np.hypot(*point) < 0.001)
        True

    References:
        Daskalakis, Ilyas, Syrgkanis and Zeng, "Training GANs with Optimism", ICLR 2018; ``optax.optimistic_adam_v2``.
    """

    __module__ = "flatstep"
    _declaration = OPTIMISTIC_ADAM
    alpha = Number()
    beta = Number()
    b1 = Number(at_least=0, below=1)
    b2 = Number(at_least=0, below=1)
    eps = Number(at_least=0)
    eps_root = Number(at_least=0)
    mu_dtype = Option(is_dtype=True)
    nesterov = Option()

    def __init__(
        self,
        params: Any,
        learning_rate: PerLeaf,
        *,
        alpha: Scalar = 1.0,
        beta: Scalar = 1.0,
        b1: Scalar = 0.9,
        b2: Scalar = 0.999,
        eps: Scalar = 1e-8,
        eps_root: Scalar = 0.0,
        mu_dtype: DTypeLike | None = None,
        nesterov: bool = True,
        weight_decay: PerLeaf = 0.0,
        decoupled_weight_decay: bool = False,
        maximize: bool = False,
        max_norm: Scalar | None = None,
        skip_nonfinite: bool = False,
        ema_decay: Scalar | None = None,
        ema_start: Literal["copy", "zero"] = "copy",
        ema_debias: bool = False,
        ema_dtype: DTypeLike | None = None,
        zero_grads: bool = False,
    ) -> None:
        Optimizer.__init__(
            self,
            params,
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
                max_norm=max_norm,
                skip_nonfinite=skip_nonfinite,
                ema_decay=ema_decay,
                ema_start=ema_start,
                ema_debias=ema_debias,
                ema_dtype=ema_dtype,
                zero_grads=zero_grads,
            ),
        )


class OptimisticAMSGrad(Optimizer):
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
        params: float16, float32 or float64 arrays of any shape, alone or nested in lists, tuples and dicts; updated in
            place. NumPy's, or by DLPack another library's, on the CPU or a CUDA device; gradients are where they are.
        learning_rate: step size, at least 0: a number or a schedule (count -> number), or a structure of them like
            params. Every number here is an attribute that may be set between steps, to a number or a schedule.
        alpha: weight of the direction. Default 1.0.
        beta: weight of the direction's change, the optimism. Default 1.0.
        b1: decay rate of the first moment, in [0, 1). Default 0.9.
        b2: decay rate of the second moment, in [0, 1). Default 0.999.
        eps: added to the denominator, at least 0. Default 1e-8.
        eps_root: added under the square root, at least 0. Default 0.0.
        mu_dtype: dtype in which mu is stored; bfloat16 halves it for float32 parameters. Default None: the parameter's.
        nesterov: whether to use Nesterov's momentum. Default True.
        convention: whose correction of nu's bias, as above. Default "optax".
        weight_decay: strength of weight decay, at least 0; p times it is added to the gradient. May be a structure like
            params. Default 0.0.
        decoupled_weight_decay: whether weight decay is added to what the learning rate multiplies, as in AdamW, and not
            to the gradient. Default False.
        maximize: whether to ascend. Default False.
        max_norm: largest norm of all gradients together, at least 0; where they have a larger one, they are scaled down
            to it. Default None: no limit.
        skip_nonfinite: whether a step with a gradient that is not finite changes nothing; see ``skipped``. Default
            False.
        ema_decay: decay rate of an exponential moving average of each parameter, which steps update; see ``ema``, in
            [0, 1). Default None: no averages.
        ema_start: what averages start from: ``"copy"``, the parameter after its first step, or ``"zero"``. Default
            "copy".
        ema_debias: whether ``ema`` corrects the start at zero, as ``optax.ema`` does. Default False.
        ema_dtype: dtype of the averages: the parameter's, or that in which its steps compute. Default None: the latter,
            float32 for float16.
        zero_grads: whether a step sets the gradients to zero where it has read them. Default False.

    Raises:
        TypeError, ValueError: a parameter cannot be updated in place, a number is out of bounds, or the convention is
            unknown.

    Example:
        >>> import numpy as np, flatstep
        >>> point = np.array([1.0, 2.0])  # of the game f(x, y) = x y, in which x descends and y ascends
        >>> opt = flatstep.OptimisticAMSGrad(point, learning_rate=1.0, alpha=0.03)
        >>> for _ in range(2000):
        ...     x, y = point
        ...     opt.step(np.array([y, -x]))
        >>> bool(np.hypot(*point) < 0.001)
        True

    References:
        Daskalakis, Ilyas, Syrgkanis and Zeng, "Training GANs with Optimism", ICLR 2018; Reddi, Kale and Kumar, "On the
        Convergence of Adam and Beyond", ICLR 2018; ``flatstep.OptimisticAdam``, ``flatstep.AMSGrad``.
    """

    __module__ = "flatstep"
    _declaration = OPTIMISTIC_AMSGRAD
    alpha = Number()
    beta = Number()
    b1 = Number(at_least=0, below=1)
    b2 = Number(at_least=0, below=1)
    eps = Number(at_least=0)
    eps_root = Number(at_least=0)
    mu_dtype = Option(is_dtype=True)
    nesterov = Option()
    convention = Option("optax", "torch")

    def __init__(
        self,
        params: Any,
        learning_rate: PerLeaf,
        *,
        alpha: Scalar = 1.0,
        beta: Scalar = 1.0,
        b1: Scalar = 0.9,
        b2: Scalar = 0.999,
        eps: Scalar = 1e-8,
        eps_root: Scalar = 0.0,
        mu_dtype: DTypeLike | None = None,
        nesterov: bool = True,
        convention: Literal["optax", "torch"] = "optax",
        weight_decay: PerLeaf = 0.0,
        decoupled_weight_decay: bool = False,
        maximize: bool = False,
        max_norm: Scalar | None = None,
        skip_nonfinite: bool = False,
        ema_decay: Scalar | None = None,
        ema_start: Literal["copy", "zero"] = "copy",
        ema_debias: bool = False,
        ema_dtype: DTypeLike | None = None,
        zero_grads: bool = False,
    ) -> None:
        Optimizer.__init__(
            self,
            params,
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
                max_norm=max_norm,
                skip_nonfinite=skip_nonfinite,
                ema_decay=ema_decay,
                ema_start=ema_start,
                ema_debias=ema_debias,
                ema_dtype=ema_dtype,
                zero_grads=zero_grads,
            ),
        )


class Adam(Optimizer):
    r"""Adam: a step against the average gradient, over the root of the average square.

    .. math::
        \mu &\leftarrow b_1 \mu + (1 - b_1) g, \qquad \nu \leftarrow b_2 \nu + (1 - b_2) g^2 \\
        p &\leftarrow p - \mathit{lr} \cdot \hat\mu \Big/
            \left(\sqrt{\nu / (1 - b_2^t) + \epsilon_{root}} + \epsilon\right)

    where t counts the parameter's updates from 1, and :math:`\hat\mu = \mu / (1 - b_1^t)`, or with Nesterov's momentum
    :math:`b_1 \mu / (1 - b_1^{t+1}) + (1 - b_1) g / (1 - b_1^t)`.

    Args:
        params: float16, float32 or float64 arrays of any shape, alone or nested in lists, tuples and dicts; updated in
            place. NumPy's, or by DLPack another library's, on the CPU or a CUDA device; gradients are where they are.
        learning_rate: step size, at least 0: a number or a schedule (count -> number), or a structure of them like
            params. Every number here is an attribute that may be set between steps, to a number or a schedule.
        b1: decay rate of the first moment, in [0, 1). Default 0.9.
        b2: decay rate of the second moment, in [0, 1). Default 0.999.
        eps: added to the denominator, at least 0. Default 1e-8.
        eps_root: added under the square root, at least 0. Default 0.0.
        mu_dtype: dtype in which mu is stored; bfloat16 halves it for float32 parameters. Default None: the parameter's.
        nesterov: whether to use Nesterov's momentum. Default False.
        weight_decay: strength of weight decay, at least 0; p times it is added to the gradient. May be a structure like
            params. Default 0.0.
        decoupled_weight_decay: whether weight decay is added to what the learning rate multiplies, as in AdamW, and not
            to the gradient. Default False.
        maximize: whether to ascend. Default False.
        max_norm: largest norm of all gradients together, at least 0; where they have a larger one, they are scaled down
            to it. Default None: no limit.
        skip_nonfinite: whether a step with a gradient that is not finite changes nothing; see ``skipped``. Default
            False.
        ema_decay: decay rate of an exponential moving average of each parameter, which steps update; see ``ema``, in
            [0, 1). Default None: no averages.
        ema_start: what averages start from: ``"copy"``, the parameter after its first step, or ``"zero"``. Default
            "copy".
        ema_debias: whether ``ema`` corrects the start at zero, as ``optax.ema`` does. Default False.
        ema_dtype: dtype of the averages: the parameter's, or that in which its steps compute. Default None: the latter,
            float32 for float16.
        zero_grads: whether a step sets the gradients to zero where it has read them. Default False.

    Raises:
        TypeError, ValueError: a parameter cannot be updated in place, a number is out of bounds.

    Example:
        >>> import numpy as np, flatstep
        >>> w = np.array([3.0, -2.0])
        >>> opt = flatstep.Adam(w, learning_rate=lambda count: 0.5 / (1 + count / 50))
        >>> for _ in range(300):
        ...     opt.step(2 * w)
        >>> bool(abs(w).max() < 1e-3)
        True

    References:
        Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015; ``optax.adam``.
    """

    __module__ = "flatstep"
    _declaration = ADAM
    b1 = Number(at_least=0, below=1)
    b2 = Number(at_least=0, below=1)
    eps = Number(at_least=0)
    eps_root = Number(at_least=0)
    mu_dtype = Option(is_dtype=True)
    nesterov = Option()

    def __init__(
        self,
        params: Any,
        learning_rate: PerLeaf,
        *,
        b1: Scalar = 0.9,
        b2: Scalar = 0.999,
        eps: Scalar = 1e-8,
        eps_root: Scalar = 0.0,
        mu_dtype: DTypeLike | None = None,
        nesterov: bool = False,
        weight_decay: PerLeaf = 0.0,
        decoupled_weight_decay: bool = False,
        maximize: bool = False,
        max_norm: Scalar | None = None,
        skip_nonfinite: bool = False,
        ema_decay: Scalar | None = None,
        ema_start: Literal["copy", "zero"] = "copy",
        ema_debias: bool = False,
        ema_dtype: DTypeLike | None = None,
        zero_grads: bool = False,
    ) -> None:
        Optimizer.__init__(
            self,
            params,
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
                max_norm=max_norm,
                skip_nonfinite=skip_nonfinite,
                ema_decay=ema_decay,
                ema_start=ema_start,
                ema_debias=ema_debias,
                ema_dtype=ema_dtype,
                zero_grads=zero_grads,
            ),
        )


class AdamW(Adam):
    r"""AdamW: Adam with weight decay that is decoupled from the gradient, by default 1e-2.

    .. math:: p \leftarrow p - \mathit{lr} \cdot (r + \mathit{weight\_decay} \cdot p)

    where :math:`\mathit{lr} \cdot r` is the step of Adam.

    Args:
        params: float16, float32 or float64 arrays of any shape, alone or nested in lists, tuples and dicts; updated in
            place. NumPy's, or by DLPack another library's, on the CPU or a CUDA device; gradients are where they are.
        learning_rate: step size, at least 0: a number or a schedule (count -> number), or a structure of them like
            params. Every number here is an attribute that may be set between steps, to a number or a schedule.
        b1: decay rate of the first moment, in [0, 1). Default 0.9.
        b2: decay rate of the second moment, in [0, 1). Default 0.999.
        eps: added to the denominator, at least 0. Default 1e-8.
        eps_root: added under the square root, at least 0. Default 0.0.
        mu_dtype: dtype in which mu is stored; bfloat16 halves it for float32 parameters. Default None: the parameter's.
        nesterov: whether to use Nesterov's momentum. Default False.
        weight_decay: strength of weight decay, at least 0. May be a structure like params. Default 1e-2.
        decoupled_weight_decay: whether weight decay is added to what the learning rate multiplies, as in AdamW, and not
            to the gradient; False makes this Adam. Default True.
        maximize: whether to ascend. Default False.
        max_norm: largest norm of all gradients together, at least 0; where they have a larger one, they are scaled down
            to it. Default None: no limit.
        skip_nonfinite: whether a step with a gradient that is not finite changes nothing; see ``skipped``. Default
            False.
        ema_decay: decay rate of an exponential moving average of each parameter, which steps update; see ``ema``, in
            [0, 1). Default None: no averages.
        ema_start: what averages start from: ``"copy"``, the parameter after its first step, or ``"zero"``. Default
            "copy".
        ema_debias: whether ``ema`` corrects the start at zero, as ``optax.ema`` does. Default False.
        ema_dtype: dtype of the averages: the parameter's, or that in which its steps compute. Default None: the latter,
            float32 for float16.
        zero_grads: whether a step sets the gradients to zero where it has read them. Default False.

    Raises:
        TypeError, ValueError: a parameter cannot be updated in place, a number is out of bounds.

    Example:
        >>> import numpy as np, flatstep
        >>> w = np.array([1.0, -1.0])
        >>> opt = flatstep.AdamW(w, learning_rate=0.1, weight_decay=0.5)
        >>> opt.step(np.zeros(2))
        >>> w
        array([ 0.95, -0.95])

    References:
        Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019; ``torch.optim.AdamW`` for the
        default, ``optax.adamw`` for the order of operations.
    """

    __module__ = "flatstep"
    _declaration = ADAMW

    def __init__(
        self,
        params: Any,
        learning_rate: PerLeaf,
        *,
        b1: Scalar = 0.9,
        b2: Scalar = 0.999,
        eps: Scalar = 1e-8,
        eps_root: Scalar = 0.0,
        mu_dtype: DTypeLike | None = None,
        nesterov: bool = False,
        weight_decay: PerLeaf = 1e-2,
        decoupled_weight_decay: bool = True,
        maximize: bool = False,
        max_norm: Scalar | None = None,
        skip_nonfinite: bool = False,
        ema_decay: Scalar | None = None,
        ema_start: Literal["copy", "zero"] = "copy",
        ema_debias: bool = False,
        ema_dtype: DTypeLike | None = None,
        zero_grads: bool = False,
    ) -> None:
        Optimizer.__init__(
            self,
            params,
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
                max_norm=max_norm,
                skip_nonfinite=skip_nonfinite,
                ema_decay=ema_decay,
                ema_start=ema_start,
                ema_debias=ema_debias,
                ema_dtype=ema_dtype,
                zero_grads=zero_grads,
            ),
        )


class Lion(Optimizer):
    r"""Lion: a step of the same size for each weight, against the sign of an average gradient.

    .. math::
        c &\leftarrow b_1 \mu + (1 - b_1) g \\
        p &\leftarrow p - \mathit{lr} \cdot (\mathrm{sign}(c) + \mathit{weight\_decay} \cdot p) \\
        \mu &\leftarrow b_2 \mu + (1 - b_2) g

    where sign(0) = 0 and sign(NaN) = NaN. The learning rate is usually 3 to 10 times smaller than that of AdamW, and
    weight decay as many times larger.

    Args:
        params: float16, float32 or float64 arrays of any shape, alone or nested in lists, tuples and dicts; updated in
            place. NumPy's, or by DLPack another library's, on the CPU or a CUDA device; gradients are where they are.
        learning_rate: step size, at least 0: a number or a schedule (count -> number), or a structure of them like
            params. Every number here is an attribute that may be set between steps, to a number or a schedule.
        b1: weight of the first moment in the direction, in [0, 1). Default 0.9.
        b2: decay rate of the first moment, in [0, 1). Default 0.99.
        mu_dtype: dtype in which mu is stored; bfloat16 halves it for float32 parameters. Default None: the parameter's.
        weight_decay: strength of weight decay, at least 0. May be a structure like params. Default 0.001.
        decoupled_weight_decay: whether weight decay is added to what the learning rate multiplies, as in AdamW, and not
            to the gradient. Default True.
        maximize: whether to ascend. Default False.
        max_norm: largest norm of all gradients together, at least 0; where they have a larger one, they are scaled down
            to it. Default None: no limit.
        skip_nonfinite: whether a step with a gradient that is not finite changes nothing; see ``skipped``. Default
            False.
        ema_decay: decay rate of an exponential moving average of each parameter, which steps update; see ``ema``, in
            [0, 1). Default None: no averages.
        ema_start: what averages start from: ``"copy"``, the parameter after its first step, or ``"zero"``. Default
            "copy".
        ema_debias: whether ``ema`` corrects the start at zero, as ``optax.ema`` does. Default False.
        ema_dtype: dtype of the averages: the parameter's, or that in which its steps compute. Default None: the latter,
            float32 for float16.
        zero_grads: whether a step sets the gradients to zero where it has read them. Default False.

    Raises:
        TypeError, ValueError: a parameter cannot be updated in place, a number is out of bounds.

    Example:
        >>> import numpy as np, flatstep
        >>> w = np.array([3.0, -0.5])
        >>> opt = flatstep.Lion(w, learning_rate=0.1, weight_decay=0.0)
        >>> opt.step(2 * w)
        >>> w
        array([ 2.9, -0.4])

    References:
        Chen et al., "Symbolic Discovery of Optimization Algorithms", NeurIPS 2023; ``optax.lion``.
    """

    __module__ = "flatstep"
    _declaration = LION
    b1 = Number(at_least=0, below=1)
    b2 = Number(at_least=0, below=1)
    mu_dtype = Option(is_dtype=True)

    def __init__(
        self,
        params: Any,
        learning_rate: PerLeaf,
        *,
        b1: Scalar = 0.9,
        b2: Scalar = 0.99,
        mu_dtype: DTypeLike | None = None,
        weight_decay: PerLeaf = 0.001,
        decoupled_weight_decay: bool = True,
        maximize: bool = False,
        max_norm: Scalar | None = None,
        skip_nonfinite: bool = False,
        ema_decay: Scalar | None = None,
        ema_start: Literal["copy", "zero"] = "copy",
        ema_debias: bool = False,
        ema_dtype: DTypeLike | None = None,
        zero_grads: bool = False,
    ) -> None:
        Optimizer.__init__(
            self,
            params,
            dict(
                learning_rate=learning_rate,
                b1=b1,
                b2=b2,
                mu_dtype=mu_dtype,
                weight_decay=weight_decay,
                decoupled_weight_decay=decoupled_weight_decay,
                maximize=maximize,
                max_norm=max_norm,
                skip_nonfinite=skip_nonfinite,
                ema_decay=ema_decay,
                ema_start=ema_start,
                ema_debias=ema_debias,
                ema_dtype=ema_dtype,
                zero_grads=zero_grads,
            ),
        )


class RMSProp(Optimizer):
    r"""RMSProp: steps along the gradient, divided by the root of its average square.

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

    ``convention="torch"`` is ``torch.optim.RMSprop``: the trace is
    :math:`\mathit{momentum} \cdot \mathit{trace} + r`, without the learning rate,
    :math:`p \leftarrow p - \mathit{lr} \cdot \mathit{trace}`, and eps is added to the root. It has no
    ``nesterov``, ``bias_correction`` and ``initial_scale``.

    A slot that the options do not need is not kept: a float32 parameter moves 20 bytes, and 8 more for mu and for
    the trace.

    Args:
        params: float16, float32 or float64 arrays of any shape, alone or nested in lists, tuples and dicts; updated in
            place. NumPy's, or by DLPack another library's, on the CPU or a CUDA device; gradients are where they are.
        learning_rate: step size, at least 0: a number or a schedule (count -> number), or a structure of them like
            params. Every number here is an attribute that may be set between steps, to a number or a schedule.
        decay: decay rate of the averages, in [0, 1). Default 0.9.
        eps: added to the denominator, at least 0. Default 1e-8.
        initial_scale: what nu starts from, at least 0; fixed when the optimizer is made. Default 0.0.
        eps_in_sqrt: whether eps is added under the square root, and not to the root. Default None: True, but False in
            torch's convention.
        centered: whether to subtract mu^2, so that the root is a standard deviation. Default False.
        momentum: decay rate of the trace, at least 0. Default None: no trace is kept.
        nesterov: whether to use Nesterov's momentum. Default False.
        bias_correction: whether to divide the averages by 1 - decay^t. Default False.
        convention: whose trace and eps, as above. Default "optax".
        weight_decay: strength of weight decay, at least 0; p times it is added to the gradient. May be a structure like
            params. Default 0.0.
        decoupled_weight_decay: whether weight decay is added to what the learning rate multiplies, as in AdamW, and not
            to the gradient. Default False.
        maximize: whether to ascend. Default False.
        max_norm: largest norm of all gradients together, at least 0; where they have a larger one, they are scaled down
            to it. Default None: no limit.
        skip_nonfinite: whether a step with a gradient that is not finite changes nothing; see ``skipped``. Default
            False.
        ema_decay: decay rate of an exponential moving average of each parameter, which steps update; see ``ema``, in
            [0, 1). Default None: no averages.
        ema_start: what averages start from: ``"copy"``, the parameter after its first step, or ``"zero"``. Default
            "copy".
        ema_debias: whether ``ema`` corrects the start at zero, as ``optax.ema`` does. Default False.
        ema_dtype: dtype of the averages: the parameter's, or that in which its steps compute. Default None: the latter,
            float32 for float16.
        zero_grads: whether a step sets the gradients to zero where it has read them. Default False.

    Raises:
        TypeError, ValueError: a parameter cannot be updated in place, a number is out of bounds, or options contradict
            each other.

    Example:
        >>> import numpy as np, flatstep
        >>> w = np.array([3.0, -2.0])
        >>> opt = flatstep.RMSProp(w, learning_rate=0.01, momentum=0.9)
        >>> for _ in range(300):
        ...     opt.step(2 * w)
        >>> bool(abs(w).max() < 0.1)
        True

    References:
        Hinton, "Neural Networks for Machine Learning", lecture 6e, 2012; Graves, "Generating Sequences With Recurrent
        Neural Networks", 2013, for ``centered``; ``optax.rmsprop``.
    """

    __module__ = "flatstep"
    _declaration = RMSPROP
    decay = Number(at_least=0, below=1)
    eps = Number(at_least=0)
    initial_scale = Number(at_least=0, is_fixed=True)
    eps_in_sqrt = Option()
    centered = Option()
    momentum = Number(at_least=0, may_be_none=True)
    nesterov = Option()
    bias_correction = Option()
    convention = Option("optax", "torch")

    def __init__(
        self,
        params: Any,
        learning_rate: PerLeaf,
        *,
        decay: Scalar = 0.9,
        eps: Scalar = 1e-8,
        initial_scale: float = 0.0,
        eps_in_sqrt: bool | None = None,
        centered: bool = False,
        momentum: Scalar | None = None,
        nesterov: bool = False,
        bias_correction: bool = False,
        convention: Literal["optax", "torch"] = "optax",
        weight_decay: PerLeaf = 0.0,
        decoupled_weight_decay: bool = False,
        maximize: bool = False,
        max_norm: Scalar | None = None,
        skip_nonfinite: bool = False,
        ema_decay: Scalar | None = None,
        ema_start: Literal["copy", "zero"] = "copy",
        ema_debias: bool = False,
        ema_dtype: DTypeLike | None = None,
        zero_grads: bool = False,
    ) -> None:
        Optimizer.__init__(
            self,
            params,
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
                convention=convention,
                weight_decay=weight_decay,
                decoupled_weight_decay=decoupled_weight_decay,
                maximize=maximize,
                max_norm=max_norm,
                skip_nonfinite=skip_nonfinite,
                ema_decay=ema_decay,
                ema_start=ema_start,
                ema_debias=ema_debias,
                ema_dtype=ema_dtype,
                zero_grads=zero_grads,
            ),
        )


class OptimisticGradientDescent(Optimizer):
    r"""Optimistic gradient descent: a step along the gradient and along its change, for min-max games.

    .. math:: p \leftarrow p - \mathit{lr} \cdot \left((\alpha + \beta) g - \beta\, g_{previous}\right)

    The parameter's first update has no previous gradient: :math:`p \leftarrow p - \mathit{lr} \cdot \alpha g`.

    Args:
        params: float16, float32 or float64 arrays of any shape, alone or nested in lists, tuples and dicts; updated in
            place. NumPy's, or by DLPack another library's, on the CPU or a CUDA device; gradients are where they are.
        learning_rate: step size, at least 0: a number or a schedule (count -> number), or a structure of them like
            params. Every number here is an attribute that may be set between steps, to a number or a schedule.
        alpha: weight of the gradient. Default 1.0.
        beta: weight of the gradient's change, the optimism. Default 1.0.
        weight_decay: strength of weight decay, at least 0; p times it is added to the gradient. May be a structure like
            params. Default 0.0.
        decoupled_weight_decay: whether weight decay is added to what the learning rate multiplies, as in AdamW, and not
            to the gradient. Default False.
        maximize: whether to ascend. Default False.
        max_norm: largest norm of all gradients together, at least 0; where they have a larger one, they are scaled down
            to it. Default None: no limit.
        skip_nonfinite: whether a step with a gradient that is not finite changes nothing; see ``skipped``. Default
            False.
        ema_decay: decay rate of an exponential moving average of each parameter, which steps update; see ``ema``, in
            [0, 1). Default None: no averages.
        ema_start: what averages start from: ``"copy"``, the parameter after its first step, or ``"zero"``. Default
            "copy".
        ema_debias: whether ``ema`` corrects the start at zero, as ``optax.ema`` does. Default False.
        ema_dtype: dtype of the averages: the parameter's, or that in which its steps compute. Default None: the latter,
            float32 for float16.
        zero_grads: whether a step sets the gradients to zero where it has read them. Default False.

    Raises:
        TypeError, ValueError: a parameter cannot be updated in place, a number is out of bounds.

    Example:
        >>> import numpy as np, flatstep
        >>> point = np.array([1.0, 2.0])  # of the game f(x, y) = x y, in which x descends and y ascends
        >>> opt = flatstep.OptimisticGradientDescent(point, learning_rate=0.1)
        >>> for _ in range(1000):
        ...     x, y = point
        ...     opt.step(np.array([y, -x]))
        >>> bool(np.hypot(*point) < 0.05)
        True

    References:
        Rakhlin and Sridharan, "Optimization, Learning, and Games with Predictable Sequences", NIPS 2013;
        ``optax.optimistic_gradient_descent``.
    """

    __module__ = "flatstep"
    _declaration = OPTIMISTIC_GRADIENT_DESCENT
    alpha = Number()
    beta = Number()

    def __init__(
        self,
        params: Any,
        learning_rate: PerLeaf,
        *,
        alpha: Scalar = 1.0,
        beta: Scalar = 1.0,
        weight_decay: PerLeaf = 0.0,
        decoupled_weight_decay: bool = False,
        maximize: bool = False,
        max_norm: Scalar | None = None,
        skip_nonfinite: bool = False,
        ema_decay: Scalar | None = None,
        ema_start: Literal["copy", "zero"] = "copy",
        ema_debias: bool = False,
        ema_dtype: DTypeLike | None = None,
        zero_grads: bool = False,
    ) -> None:
        Optimizer.__init__(
            self,
            params,
            dict(
                learning_rate=learning_rate,
                alpha=alpha,
                beta=beta,
                weight_decay=weight_decay,
                decoupled_weight_decay=decoupled_weight_decay,
                maximize=maximize,
                max_norm=max_norm,
                skip_nonfinite=skip_nonfinite,
                ema_decay=ema_decay,
                ema_start=ema_start,
                ema_debias=ema_debias,
                ema_dtype=ema_dtype,
                zero_grads=zero_grads,
            ),
        )
