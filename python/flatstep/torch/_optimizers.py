"""The optimizers for PyTorch: one class each.

Written by ``python -m flatstep._rules``: change the declarations in flatstep/_rules, not this file.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

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
from ._optimizer import FusedOptimizer

__all__ = [
    "AMSGrad",
    "OptimisticAdam",
    "OptimisticAMSGrad",
    "Adam",
    "AdamW",
    "Lion",
    "RMSprop",
    "OptimisticSGD",
]


class AMSGrad(FusedOptimizer):
    r"""AMSGrad: Adam that divides by the largest second moment so far, so that its step sizes never grow again.

    .. math::
        m &\leftarrow \beta_1 m + (1 - \beta_1) g, \qquad v \leftarrow \beta_2 v + (1 - \beta_2) g^2 \\
        v_{max} &\leftarrow \max(v_{max}, \mathit{before} \cdot v) \\
        p &\leftarrow p - \mathit{lr} \cdot \frac{m}{1 - \beta_1^t} \Big/
            \left(\sqrt{\mathit{after} \cdot v_{max} + \epsilon_{root}} + \epsilon\right)

    where t counts the parameter's updates from 1. Three conventions are in use for the bias of v:

    - ``"optax"``: before = 1 / (1 - beta2^t), after = 1.
    - ``"torch"``: before = 1, after = 1 / (1 - beta2^t), as ``torch.optim.Adam(amsgrad=True)``.
    - ``"paper"``: before = after = 1, and m's bias is not corrected either.

    Their weights differ after a few hundred steps, and so does the meaning of the largest v in the state.

    Args:
        params: parameters, named parameters or groups of them, as for any optimizer of torch.
        lr: learning rate, at least 0; may be a tensor of one element. Default 1e-3.
        betas: decay rates of the two moments, each in [0, 1). Default (0.9, 0.999).
        eps: added to the denominator, at least 0. Default 1e-8.
        weight_decay: strength of weight decay, at least 0; p times it is added to the gradient. Default 0.
        convention: whose correction of v's bias, as above; all groups share it. ``"torch"`` is ``Adam(amsgrad=True)``.
            Default "torch".
        foreach: accepted, and without effect: every step here goes over all tensors together. Default None.
        maximize: whether to ascend. Default False.
        capturable: whether a step may become part of a CUDA graph, which follows ``lr`` and ``betas`` if they are
            tensors on the device. Must be False for parameters on the CPU. Default False.
        differentiable: must be False: a fused step cannot be differentiated. Default False.
        fused: every step here is fused; True lets torch.amp.GradScaler leave unscaling to the step, as in torch.
            Default None.
        decoupled_weight_decay: whether weight decay is added to what the learning rate multiplies, as in AdamW, and not
            to the gradient. Default False.
        eps_root: added under the square root, at least 0. Default 0.0.
        mu_dtype: dtype in which exp_avg is stored; bfloat16 halves it for float32 parameters. Default None: the
            parameter's.
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
        TypeError, ValueError: a number is out of bounds, or an option is not supported.

    Example:
        >>> import torch, flatstep.torch
        >>> p = torch.nn.Parameter(torch.tensor([3.0, -2.0]))
        >>> opt = flatstep.torch.AMSGrad([p], lr=0.1)
        >>> for _ in range(200):
        ...     opt.zero_grad()
        ...     p.square().sum().backward()
        ...     opt.step()
        >>> bool(p.abs().max() < 0.05)
        True

    References:
        Reddi, Kale and Kumar, "On the Convergence of Adam and Beyond", ICLR 2018; ``torch.optim.Adam(amsgrad=True)``,
        ``optax.amsgrad``.
    """

    __module__ = "flatstep.torch"
    _declaration = AMSGRAD

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        *,
        convention: Literal["optax", "torch", "paper"] = "torch",
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
        eps_root: float = 0.0,
        mu_dtype: torch.dtype | None = None,
        max_norm: float | None = None,
        skip_nonfinite: bool = False,
        ema_decay: float | None = None,
        ema_start: Literal["copy", "zero"] = "copy",
        ema_debias: bool = False,
        ema_dtype: torch.dtype | None = None,
        zero_grads: bool = False,
    ) -> None:
        FusedOptimizer.__init__(
            self,
            params,
            dict(
                lr=lr,
                betas=betas,
                eps=eps,
                weight_decay=weight_decay,
                convention=convention,
                foreach=foreach,
                maximize=maximize,
                capturable=capturable,
                differentiable=differentiable,
                fused=fused,
                decoupled_weight_decay=decoupled_weight_decay,
                eps_root=eps_root,
                mu_dtype=mu_dtype,
                max_norm=max_norm,
                skip_nonfinite=skip_nonfinite,
                ema_decay=ema_decay,
                ema_start=ema_start,
                ema_debias=ema_debias,
                ema_dtype=ema_dtype,
                zero_grads=zero_grads,
                amsgrad=True,
            ),
        )


class OptimisticAdam(FusedOptimizer):
    r"""Optimistic Adam: Adam that also steps along the change of its direction, for GANs and other min-max games.

    .. math::
        m &\leftarrow \beta_1 m + (1 - \beta_1) g, \qquad v \leftarrow \beta_2 v + (1 - \beta_2) g^2 \\
        r &\leftarrow \hat m \Big/ \left(\sqrt{v / (1 - \beta_2^t) + \epsilon_{root}} + \epsilon\right) \\
        p &\leftarrow p - \mathit{lr} \cdot \left((\alpha + \beta) r - \beta\, r_{previous}\right)

    where t counts the parameter's updates from 1; at the first one, which has no previous direction,
    :math:`p \leftarrow p - \mathit{lr} \cdot \alpha r`. With Nesterov's momentum, the default,
    :math:`\hat m = \beta_1 m / (1 - \beta_1^{t+1}) + (1 - \beta_1) g / (1 - \beta_1^t)`, else
    :math:`m / (1 - \beta_1^t)`.

    Args:
        params: parameters, named parameters or groups of them, as for any optimizer of torch.
        lr: learning rate, at least 0; may be a tensor of one element. Default 1e-3.
        betas: decay rates of the two moments, each in [0, 1). Default (0.9, 0.999).
        eps: added to the denominator, at least 0. Default 1e-8.
        weight_decay: strength of weight decay, at least 0; p times it is added to the gradient. Default 0.
        alpha: weight of the direction. Default 1.0.
        beta: weight of the direction's change, the optimism. Default 1.0.
        nesterov: whether to use Nesterov's momentum. Default True.
        amsgrad: whether the root is of the largest second moment so far. Default False.
        foreach: accepted, and without effect: every step here goes over all tensors together. Default None.
        maximize: whether to ascend. Default False.
        capturable: whether a step may become part of a CUDA graph, which follows ``lr`` and ``betas`` if they are
            tensors on the device. Must be False for parameters on the CPU. Default False.
        differentiable: must be False: a fused step cannot be differentiated. Default False.
        fused: every step here is fused; True lets torch.amp.GradScaler leave unscaling to the step, as in torch.
            Default None.
        decoupled_weight_decay: whether weight decay is added to what the learning rate multiplies, as in AdamW, and not
            to the gradient. Default False.
        eps_root: added under the square root, at least 0. Default 0.0.
        mu_dtype: dtype in which exp_avg is stored; bfloat16 halves it for float32 parameters. Default None: the
            parameter's.
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
        TypeError, ValueError: a number is out of bounds, or an option is not supported.

    Example:
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

    References:
        Daskalakis, Ilyas, Syrgkanis and Zeng, "Training GANs with Optimism", ICLR 2018; ``optax.optimistic_adam_v2``.
    """

    __module__ = "flatstep.torch"
    _declaration = OPTIMISTIC_ADAM

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        *,
        alpha: float = 1.0,
        beta: float = 1.0,
        nesterov: bool = True,
        amsgrad: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
        eps_root: float = 0.0,
        mu_dtype: torch.dtype | None = None,
        max_norm: float | None = None,
        skip_nonfinite: bool = False,
        ema_decay: float | None = None,
        ema_start: Literal["copy", "zero"] = "copy",
        ema_debias: bool = False,
        ema_dtype: torch.dtype | None = None,
        zero_grads: bool = False,
    ) -> None:
        FusedOptimizer.__init__(
            self,
            params,
            dict(
                lr=lr,
                betas=betas,
                eps=eps,
                weight_decay=weight_decay,
                alpha=alpha,
                beta=beta,
                nesterov=nesterov,
                amsgrad=amsgrad,
                foreach=foreach,
                maximize=maximize,
                capturable=capturable,
                differentiable=differentiable,
                fused=fused,
                decoupled_weight_decay=decoupled_weight_decay,
                eps_root=eps_root,
                mu_dtype=mu_dtype,
                max_norm=max_norm,
                skip_nonfinite=skip_nonfinite,
                ema_decay=ema_decay,
                ema_start=ema_start,
                ema_debias=ema_debias,
                ema_dtype=ema_dtype,
                zero_grads=zero_grads,
            ),
        )


class OptimisticAMSGrad(FusedOptimizer):
    r"""Optimistic AMSGrad: AMSGrad that also steps along the change of its direction, for min-max games.

    .. math::
        m &\leftarrow \beta_1 m + (1 - \beta_1) g, \qquad v \leftarrow \beta_2 v + (1 - \beta_2) g^2 \\
        v_{max} &\leftarrow \max(v_{max}, \mathit{before} \cdot v) \\
        r &\leftarrow \hat m \Big/ \left(\sqrt{\mathit{after} \cdot v_{max} + \epsilon_{root}} + \epsilon\right) \\
        p &\leftarrow p - \mathit{lr} \cdot \left((\alpha + \beta) r - \beta\, r_{previous}\right)

    where t counts the parameter's updates from 1; at the first one, which has no previous direction,
    :math:`p \leftarrow p - \mathit{lr} \cdot \alpha r`. With Nesterov's momentum, the default,
    :math:`\hat m = \beta_1 m / (1 - \beta_1^{t+1}) + (1 - \beta_1) g / (1 - \beta_1^t)`, else
    :math:`m / (1 - \beta_1^t)`. Two conventions correct the bias of v:

    - ``"optax"``: before = 1 / (1 - beta2^t), after = 1.
    - ``"torch"``: before = 1, after = 1 / (1 - beta2^t).

    Args:
        params: parameters, named parameters or groups of them, as for any optimizer of torch.
        lr: learning rate, at least 0; may be a tensor of one element. Default 1e-3.
        betas: decay rates of the two moments, each in [0, 1). Default (0.9, 0.999).
        eps: added to the denominator, at least 0. Default 1e-8.
        weight_decay: strength of weight decay, at least 0; p times it is added to the gradient. Default 0.
        alpha: weight of the direction. Default 1.0.
        beta: weight of the direction's change, the optimism. Default 1.0.
        nesterov: whether to use Nesterov's momentum. Default True.
        convention: whose correction of v's bias, as above; all groups share it. ``"torch"`` is
            ``OptimisticAdam(amsgrad=True)``. Default "torch".
        foreach: accepted, and without effect: every step here goes over all tensors together. Default None.
        maximize: whether to ascend. Default False.
        capturable: whether a step may become part of a CUDA graph, which follows ``lr`` and ``betas`` if they are
            tensors on the device. Must be False for parameters on the CPU. Default False.
        differentiable: must be False: a fused step cannot be differentiated. Default False.
        fused: every step here is fused; True lets torch.amp.GradScaler leave unscaling to the step, as in torch.
            Default None.
        decoupled_weight_decay: whether weight decay is added to what the learning rate multiplies, as in AdamW, and not
            to the gradient. Default False.
        eps_root: added under the square root, at least 0. Default 0.0.
        mu_dtype: dtype in which exp_avg is stored; bfloat16 halves it for float32 parameters. Default None: the
            parameter's.
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
        TypeError, ValueError: a number is out of bounds, or an option is not supported.

    Example:
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

    References:
        Daskalakis, Ilyas, Syrgkanis and Zeng, "Training GANs with Optimism", ICLR 2018; Reddi, Kale and Kumar, "On the
        Convergence of Adam and Beyond", ICLR 2018; ``OptimisticAdam``, ``AMSGrad``.
    """

    __module__ = "flatstep.torch"
    _declaration = OPTIMISTIC_AMSGRAD

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        *,
        alpha: float = 1.0,
        beta: float = 1.0,
        nesterov: bool = True,
        convention: Literal["optax", "torch"] = "torch",
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
        eps_root: float = 0.0,
        mu_dtype: torch.dtype | None = None,
        max_norm: float | None = None,
        skip_nonfinite: bool = False,
        ema_decay: float | None = None,
        ema_start: Literal["copy", "zero"] = "copy",
        ema_debias: bool = False,
        ema_dtype: torch.dtype | None = None,
        zero_grads: bool = False,
    ) -> None:
        FusedOptimizer.__init__(
            self,
            params,
            dict(
                lr=lr,
                betas=betas,
                eps=eps,
                weight_decay=weight_decay,
                alpha=alpha,
                beta=beta,
                nesterov=nesterov,
                convention=convention,
                foreach=foreach,
                maximize=maximize,
                capturable=capturable,
                differentiable=differentiable,
                fused=fused,
                decoupled_weight_decay=decoupled_weight_decay,
                eps_root=eps_root,
                mu_dtype=mu_dtype,
                max_norm=max_norm,
                skip_nonfinite=skip_nonfinite,
                ema_decay=ema_decay,
                ema_start=ema_start,
                ema_debias=ema_debias,
                ema_dtype=ema_dtype,
                zero_grads=zero_grads,
                amsgrad=True,
            ),
        )


class Adam(FusedOptimizer):
    r"""Adam, as ``torch.optim.Adam`` defines it, in one pass over memory.

    .. math::
        m &\leftarrow \beta_1 m + (1 - \beta_1) g, \qquad v \leftarrow \beta_2 v + (1 - \beta_2) g^2 \\
        p &\leftarrow p - \mathit{lr} \cdot \hat m \Big/
            \left(\sqrt{v / (1 - \beta_2^t) + \epsilon_{root}} + \epsilon\right)

    where t counts the parameter's updates from 1, and :math:`\hat m = m / (1 - \beta_1^t)`, or with Nesterov's momentum
    :math:`\beta_1 m / (1 - \beta_1^{t+1}) + (1 - \beta_1) g / (1 - \beta_1^t)`.

    Args:
        params: parameters, named parameters or groups of them, as for any optimizer of torch.
        lr: learning rate, at least 0; may be a tensor of one element. Default 1e-3.
        betas: decay rates of the two moments, each in [0, 1). Default (0.9, 0.999).
        eps: added to the denominator, at least 0. Default 1e-8.
        weight_decay: strength of weight decay, at least 0; p times it is added to the gradient. Default 0.
        amsgrad: whether the root is of the largest v so far, as in AMSGrad. Default False.
        foreach: accepted, and without effect: every step here goes over all tensors together. Default None.
        maximize: whether to ascend. Default False.
        capturable: whether a step may become part of a CUDA graph, which follows ``lr`` and ``betas`` if they are
            tensors on the device. Must be False for parameters on the CPU. Default False.
        differentiable: must be False: a fused step cannot be differentiated. Default False.
        fused: every step here is fused; True lets torch.amp.GradScaler leave unscaling to the step, as in torch.
            Default None.
        decoupled_weight_decay: whether weight decay is added to what the learning rate multiplies, as in AdamW, and not
            to the gradient. Default False.
        eps_root: added under the square root, at least 0. Default 0.0.
        nesterov: whether to use Nesterov's momentum. Default False.
        mu_dtype: dtype in which exp_avg is stored; bfloat16 halves it for float32 parameters. Default None: the
            parameter's.
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
        TypeError, ValueError: a number is out of bounds, or an option is not supported.

    Example:
        >>> import torch, flatstep.torch
        >>> p = torch.nn.Parameter(torch.tensor([1.0, -1.0]))
        >>> opt = flatstep.torch.Adam([p], lr=0.1)
        >>> p.square().sum().backward()
        >>> opt.step()
        >>> p.data
        tensor([ 0.9000, -0.9000])

    References:
        Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015; ``torch.optim.Adam``.
    """

    __module__ = "flatstep.torch"
    _declaration = ADAM

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
        eps_root: float = 0.0,
        nesterov: bool = False,
        mu_dtype: torch.dtype | None = None,
        max_norm: float | None = None,
        skip_nonfinite: bool = False,
        ema_decay: float | None = None,
        ema_start: Literal["copy", "zero"] = "copy",
        ema_debias: bool = False,
        ema_dtype: torch.dtype | None = None,
        zero_grads: bool = False,
    ) -> None:
        FusedOptimizer.__init__(
            self,
            params,
            dict(
                lr=lr,
                betas=betas,
                eps=eps,
                weight_decay=weight_decay,
                amsgrad=amsgrad,
                foreach=foreach,
                maximize=maximize,
                capturable=capturable,
                differentiable=differentiable,
                fused=fused,
                decoupled_weight_decay=decoupled_weight_decay,
                eps_root=eps_root,
                nesterov=nesterov,
                mu_dtype=mu_dtype,
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
    r"""AdamW, as ``torch.optim.AdamW`` defines it, in one pass over memory.

    .. math:: p \leftarrow p - \mathit{lr} \cdot (r + \mathit{weight\_decay} \cdot p)

    where :math:`\mathit{lr} \cdot r` is the step of Adam.

    Args:
        params: parameters, named parameters or groups of them, as for any optimizer of torch.
        lr: learning rate, at least 0; may be a tensor of one element. Default 1e-3.
        betas: decay rates of the two moments, each in [0, 1). Default (0.9, 0.999).
        eps: added to the denominator, at least 0. Default 1e-8.
        weight_decay: strength of weight decay, at least 0. Default 1e-2.
        amsgrad: whether the root is of the largest v so far, as in AMSGrad. Default False.
        maximize: whether to ascend. Default False.
        foreach: accepted, and without effect: every step here goes over all tensors together. Default None.
        capturable: whether a step may become part of a CUDA graph, which follows ``lr`` and ``betas`` if they are
            tensors on the device. Must be False for parameters on the CPU. Default False.
        differentiable: must be False: a fused step cannot be differentiated. Default False.
        fused: every step here is fused; True lets torch.amp.GradScaler leave unscaling to the step, as in torch.
            Default None.
        eps_root: added under the square root, at least 0. Default 0.0.
        nesterov: whether to use Nesterov's momentum. Default False.
        mu_dtype: dtype in which exp_avg is stored; bfloat16 halves it for float32 parameters. Default None: the
            parameter's.
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
        TypeError, ValueError: a number is out of bounds, or an option is not supported.

    Example:
        >>> import torch, flatstep.torch
        >>> p = torch.nn.Parameter(torch.tensor([1.0, -1.0]))
        >>> opt = flatstep.torch.AdamW([p], lr=0.1, weight_decay=0.5)
        >>> p.grad = torch.zeros(2)
        >>> opt.step()
        >>> p.data
        tensor([ 0.9500, -0.9500])

    References:
        Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019; ``torch.optim.AdamW``.
    """

    __module__ = "flatstep.torch"
    _declaration = ADAMW

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        eps_root: float = 0.0,
        nesterov: bool = False,
        mu_dtype: torch.dtype | None = None,
        max_norm: float | None = None,
        skip_nonfinite: bool = False,
        ema_decay: float | None = None,
        ema_start: Literal["copy", "zero"] = "copy",
        ema_debias: bool = False,
        ema_dtype: torch.dtype | None = None,
        zero_grads: bool = False,
    ) -> None:
        FusedOptimizer.__init__(
            self,
            params,
            dict(
                lr=lr,
                betas=betas,
                eps=eps,
                weight_decay=weight_decay,
                amsgrad=amsgrad,
                maximize=maximize,
                foreach=foreach,
                capturable=capturable,
                differentiable=differentiable,
                fused=fused,
                eps_root=eps_root,
                nesterov=nesterov,
                mu_dtype=mu_dtype,
                max_norm=max_norm,
                skip_nonfinite=skip_nonfinite,
                ema_decay=ema_decay,
                ema_start=ema_start,
                ema_debias=ema_debias,
                ema_dtype=ema_dtype,
                zero_grads=zero_grads,
                decoupled_weight_decay=True,
            ),
        )


class Lion(FusedOptimizer):
    r"""Lion: a step of the same size for each weight, against the sign of an average gradient.

    .. math::
        c &\leftarrow \beta_1 m + (1 - \beta_1) g \\
        p &\leftarrow p - \mathit{lr} \cdot (\mathrm{sign}(c) + \mathit{weight\_decay} \cdot p) \\
        m &\leftarrow \beta_2 m + (1 - \beta_2) g

    where sign(0) = 0 and sign(NaN) = NaN. The learning rate is usually 3 to 10 times smaller than that of AdamW, and
    weight decay as many times larger.

    Args:
        params: parameters, named parameters or groups of them, as for any optimizer of torch.
        lr: learning rate, at least 0; may be a tensor of one element. Default 1e-4.
        betas: weight of m in the direction, and decay rate of m, each in [0, 1). Default (0.9, 0.99).
        weight_decay: strength of weight decay, at least 0. Default 0.0.
        foreach: accepted, and without effect: every step here goes over all tensors together. Default None.
        maximize: whether to ascend. Default False.
        capturable: whether a step may become part of a CUDA graph, which follows ``lr`` and ``betas`` if they are
            tensors on the device. Must be False for parameters on the CPU. Default False.
        differentiable: must be False: a fused step cannot be differentiated. Default False.
        fused: every step here is fused; True lets torch.amp.GradScaler leave unscaling to the step, as in torch.
            Default None.
        mu_dtype: dtype in which exp_avg is stored; bfloat16 halves it for float32 parameters. Default None: the
            parameter's.
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
        TypeError, ValueError: a number is out of bounds, or an option is not supported.

    Example:
        >>> import torch, flatstep.torch
        >>> p = torch.nn.Parameter(torch.tensor([1.0, -1.0]))
        >>> opt = flatstep.torch.Lion([p], lr=0.1)
        >>> p.square().sum().backward()
        >>> opt.step()
        >>> p.data
        tensor([ 0.9000, -0.9000])

    References:
        Chen et al., "Symbolic Discovery of Optimization Algorithms", NeurIPS 2023; ``optax.lion``.
    """

    __module__ = "flatstep.torch"
    _declaration = LION

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-4,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        mu_dtype: torch.dtype | None = None,
        max_norm: float | None = None,
        skip_nonfinite: bool = False,
        ema_decay: float | None = None,
        ema_start: Literal["copy", "zero"] = "copy",
        ema_debias: bool = False,
        ema_dtype: torch.dtype | None = None,
        zero_grads: bool = False,
    ) -> None:
        FusedOptimizer.__init__(
            self,
            params,
            dict(
                lr=lr,
                betas=betas,
                weight_decay=weight_decay,
                foreach=foreach,
                maximize=maximize,
                capturable=capturable,
                differentiable=differentiable,
                fused=fused,
                mu_dtype=mu_dtype,
                max_norm=max_norm,
                skip_nonfinite=skip_nonfinite,
                ema_decay=ema_decay,
                ema_start=ema_start,
                ema_debias=ema_debias,
                ema_dtype=ema_dtype,
                zero_grads=zero_grads,
                decoupled_weight_decay=True,
            ),
        )


class RMSprop(FusedOptimizer):
    r"""RMSProp: steps along the gradient, divided by the root of its average square.

    .. math::
        v &\leftarrow \alpha v + (1 - \alpha) g^2 \\
        r &\leftarrow g \Big/ \left(\sqrt{v} + \epsilon\right) \\
        p &\leftarrow p - \mathit{lr} \cdot r

    and with options:

    - ``centered``: :math:`m \leftarrow \alpha m + (1 - \alpha) g`, and :math:`v - m^2` takes the place of v in r.
    - ``momentum``: :math:`b \leftarrow \mathit{momentum} \cdot b + r`, and b takes the place of r in the step.

    Args:
        params: parameters, named parameters or groups of them, as for any optimizer of torch.
        lr: learning rate, at least 0; may be a tensor of one element. Default 1e-2.
        alpha: decay rate of the averages, at least 0. Default 0.99.
        eps: added to the denominator, at least 0. Default 1e-8.
        weight_decay: strength of weight decay, at least 0; p times it is added to the gradient. Default 0.
        momentum: decay rate of the momentum, at least 0. With 0 no momentum is kept. Default 0.
        centered: whether to subtract mu^2, so that the root is a standard deviation. Default False.
        capturable: whether a step may become part of a CUDA graph, which follows ``lr`` if it is a tensor on the
            device. Must be False for parameters on the CPU. Default False.
        foreach: accepted, and without effect: every step here goes over all tensors together. Default None.
        maximize: whether to ascend. Default False.
        differentiable: must be False: a fused step cannot be differentiated. Default False.
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
        TypeError, ValueError: a number is out of bounds, or an option is not supported.

    Example:
        >>> import torch, flatstep.torch
        >>> p = torch.nn.Parameter(torch.tensor([3.0, -2.0]))
        >>> opt = flatstep.torch.RMSprop([p], lr=0.01, momentum=0.9)
        >>> for _ in range(300):
        ...     opt.zero_grad()
        ...     p.square().sum().backward()
        ...     opt.step()
        >>> bool(p.abs().max() < 0.1)
        True

    References:
        Hinton, "Neural Networks for Machine Learning", lecture 6e, 2012; Graves, "Generating Sequences With Recurrent
        Neural Networks", 2013, for ``centered``; ``torch.optim.RMSprop``.
    """

    __module__ = "flatstep.torch"
    _declaration = RMSPROP

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        *,
        max_norm: float | None = None,
        skip_nonfinite: bool = False,
        ema_decay: float | None = None,
        ema_start: Literal["copy", "zero"] = "copy",
        ema_debias: bool = False,
        ema_dtype: torch.dtype | None = None,
        zero_grads: bool = False,
    ) -> None:
        FusedOptimizer.__init__(
            self,
            params,
            dict(
                lr=lr,
                alpha=alpha,
                eps=eps,
                weight_decay=weight_decay,
                momentum=momentum,
                centered=centered,
                capturable=capturable,
                foreach=foreach,
                maximize=maximize,
                differentiable=differentiable,
                max_norm=max_norm,
                skip_nonfinite=skip_nonfinite,
                ema_decay=ema_decay,
                ema_start=ema_start,
                ema_debias=ema_debias,
                ema_dtype=ema_dtype,
                zero_grads=zero_grads,
            ),
        )


class OptimisticSGD(FusedOptimizer):
    r"""Optimistic gradient descent: a step along the gradient and along its change, for min-max games.

    .. math:: p \leftarrow p - \mathit{lr} \cdot \left((\alpha + \beta) g - \beta\, g_{previous}\right)

    The parameter's first update has no previous gradient: :math:`p \leftarrow p - \mathit{lr} \cdot \alpha g`.

    Args:
        params: parameters, named parameters or groups of them, as for any optimizer of torch.
        lr: learning rate, at least 0; may be a tensor of one element. Default 1e-3.
        alpha: weight of the gradient. Default 1.0.
        beta: weight of the gradient's change, the optimism. Default 1.0.
        weight_decay: strength of weight decay, at least 0; p times it is added to the gradient. Default 0.
        maximize: whether to ascend. Default False.
        foreach: accepted, and without effect: every step here goes over all tensors together. Default None.
        capturable: whether a step may become part of a CUDA graph, which follows ``lr`` if it is a tensor on the
            device. Must be False for parameters on the CPU. Default False.
        differentiable: must be False: a fused step cannot be differentiated. Default False.
        fused: every step here is fused; True lets torch.amp.GradScaler leave unscaling to the step, as in torch.
            Default None.
        decoupled_weight_decay: whether weight decay is added to what the learning rate multiplies, as in AdamW, and not
            to the gradient. Default False.
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
        TypeError, ValueError: a number is out of bounds, or an option is not supported.

    Example:
        >>> import torch, flatstep.torch
        >>> x, y = (torch.nn.Parameter(torch.tensor(value)) for value in (1.0, 2.0))
        >>> opt = flatstep.torch.OptimisticSGD([{"params": x}, {"params": y, "maximize": True}], lr=0.1)
        >>> for _ in range(1000):
        ...     opt.zero_grad()
        ...     (x * y).backward()  # the game f(x, y) = x y, in which x descends and y ascends
        ...     opt.step()
        >>> bool(x.abs() + y.abs() < 0.05)
        True

    References:
        Rakhlin and Sridharan, "Optimization, Learning, and Games with Predictable Sequences", NIPS 2013;
        ``optax.optimistic_gradient_descent``.
    """

    __module__ = "flatstep.torch"
    _declaration = OPTIMISTIC_GRADIENT_DESCENT

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        alpha: float = 1.0,
        beta: float = 1.0,
        weight_decay: float = 0,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
        max_norm: float | None = None,
        skip_nonfinite: bool = False,
        ema_decay: float | None = None,
        ema_start: Literal["copy", "zero"] = "copy",
        ema_debias: bool = False,
        ema_dtype: torch.dtype | None = None,
        zero_grads: bool = False,
    ) -> None:
        FusedOptimizer.__init__(
            self,
            params,
            dict(
                lr=lr,
                alpha=alpha,
                beta=beta,
                weight_decay=weight_decay,
                maximize=maximize,
                foreach=foreach,
                capturable=capturable,
                differentiable=differentiable,
                fused=fused,
                decoupled_weight_decay=decoupled_weight_decay,
                max_norm=max_norm,
                skip_nonfinite=skip_nonfinite,
                ema_decay=ema_decay,
                ema_start=ema_start,
                ema_debias=ema_debias,
                ema_dtype=ema_dtype,
                zero_grads=zero_grads,
            ),
        )
