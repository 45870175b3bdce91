"""The averages of an optimizer's parameters, as its users see them. Base of FusedOptimizer in _optimizer.py."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._compile import _disable_dynamo

from .. import _core
from ._around import Around
from ._plain import is_abstract, plain


class KeepsAverages(Around):
    """What an optimizer does with averages of its parameters."""

    def _stepper(self) -> tuple[_core.TorchStepper, _core.Exclusive]:
        raise NotImplementedError

    @property
    def ema(self) -> list[Tensor]:
        """The averages, one for each parameter, in the order of groups; AttributeError without ``ema_decay``.

        They are ``state[param]["ema"]``, which steps update; with ``ema_debias`` they are tensors of their own, and so
        is the average of a parameter that has none yet. While they are swapped with the parameters, they are what the
        parameters were.
        """
        self._check_has_averages()
        saved = {id(param): value for param, value in self._tail.saved or ()}
        with torch.inference_mode(False), torch.no_grad():
            return [saved[id(p)] if id(p) in saved else self._average(p) for p in self._params()]

    def _average(self, param: Tensor) -> Tensor:
        return self._tail.value(param, self.state.get(param, {}))

    def _check_has_averages(self) -> None:
        if not self._tail.keeps_averages:
            raise AttributeError(f"this {type(self).__name__} has no averages; make it with ema_decay")

    @_disable_dynamo
    def swap_ema(self) -> None:
        """Exchanges the parameters with their averages, in place; the next call exchanges them back.

        For evaluation. In between, step, state_dict, load_state_dict and copies of the optimizer raise RuntimeError.

        Raises:
            AttributeError: the optimizer was made without ``ema_decay``.

        Example:
            >>> import torch, flatstep.torch
            >>> p = torch.nn.Parameter(torch.tensor([1.0, -1.0]))
            >>> opt = flatstep.torch.AMSGrad([p], lr=0.1, ema_decay=0.5)
            >>> for _ in range(2):
            ...     p.grad = 2 * p.detach()
            ...     opt.step()
            >>> opt.swap_ema()
            >>> p.detach()
            tensor([ 0.8501, -0.8501])
            >>> opt.swap_ema()
            >>> p.detach()
            tensor([ 0.8003, -0.8003])
        """
        self._check_has_averages()
        self._stepper()[1].run(self._swap)

    def _swap(self) -> None:
        with torch.inference_mode(False), torch.no_grad():
            names = self._names()
            named = {id(param): f"param {names(at)}" for at, param in enumerate(self._params())}
            pairs, saved = self._tail.saved, None
            if pairs is None:
                params = {id(param): param for param in self._params() if not is_abstract(param)}
                pairs = [(param, self._replacement(param, named[at])) for at, param in params.items()]
                saved = [(param, param.detach().clone()) for param, _ in pairs]
            into = [plain(param, named.get(id(param), "a parameter")) for param, _ in pairs]
            values = [plain(value, "an average") for _, value in pairs]
            copies = [partial(param.copy_, value) for param, value in zip(into, values, strict=True)]
            self._complete([*copies, partial(vars(self._tail).update, saved=saved)])
            torch.autograd.graph.increment_version([param for param, _ in pairs])

    def _replacement(self, param: Tensor, what: str) -> Tensor:
        """The average in the parameter's dtype. ValueError where it is that of another parameter."""
        average = self._average(param)
        if average.shape != param.shape:
            raise ValueError(
                f"{what} has shape {tuple(param.shape)}, but its ema has {tuple(average.shape)}; "
                "load the state that belongs to it"
            )
        return torch.empty_like(param).copy_(average)

    def _complete(self, calls: list[Any]) -> None:
        """Makes calls of C functions, between which no signal handler can raise."""
        stepper = self._stepper()[0]
        with torch._C.DisableTorchFunction(), torch._C._DisableTorchDispatch():
            stepper.step([], self.state, {}, [], False, str, 1, calls, [], None)

    @_disable_dynamo
    def state_dict(self) -> dict[str, Any]:
        """As torch.optim.Optimizer.state_dict. The state of each parameter has its average beside torch's keys.

        Raises:
            RuntimeError: the parameters are swapped with their averages.
        """
        self._tail.check_not_swapped()
        return super().state_dict()
