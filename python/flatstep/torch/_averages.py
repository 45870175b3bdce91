"""The averages of an optimizer's parameters, as its users see them. Base of FusedOptimizer in _optimizer.py."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._compile import _disable_dynamo

from .. import _core
from ._names import Names
from ._plain import is_abstract, plain
from ._tail import Tail


class KeepsAverages(torch.optim.Optimizer):
    """The options of what a step does besides its update, and the averages that it keeps."""

    _tail: Tail
    _made: tuple[_core.TorchStepper, _core.Exclusive] | None = None  # made when first needed: it cannot be copied

    def _params(self) -> Iterator[Tensor]:
        return (param for group in self.param_groups for param in group["params"])

    def _stepper(self) -> tuple[_core.TorchStepper, _core.Exclusive]:
        raise NotImplementedError

    @property
    def ema_decay(self) -> float | None:
        """The decay rate of the averages, or None. A number may be set between steps, but not with ema_debias."""
        return self._tail.decay

    @ema_decay.setter
    def ema_decay(self, value: float | None) -> None:
        self._tail.set_decay(value)
        self._note_tail()

    @property
    def ema_start(self) -> str:
        """What averages start from."""
        return self._tail.start

    @property
    def ema_debias(self) -> bool:
        """Whether ``ema`` corrects the start at zero."""
        return self._tail.debias

    @property
    def ema_dtype(self) -> torch.dtype | None:
        """The dtype of the averages; None: that in which steps compute."""
        return self._tail.dtype

    @property
    def zero_grads(self) -> bool:
        """Whether a step sets the gradients to zero where it has read them. May be set between steps."""
        return self._tail.zero_grads

    @zero_grads.setter
    def zero_grads(self, value: bool) -> None:
        self._tail.set_zero_grads(value)
        self._note_tail()

    def _note_tail(self) -> None:
        if self._made is not None:
            self._made[0].set_tail(*self._tail.for_core())

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
            pairs = self._tail.saved
            saved = None
            if pairs is None:
                params = list(dict.fromkeys(p for p in self._params() if not is_abstract(p)))
                pairs = [(param, torch.empty_like(param).copy_(self._average(param))) for param in params]
                saved = [(param, param.detach().clone()) for param in params]
            names = Names(self.param_groups, [(group["params"],) for group in self.param_groups])
            named = {id(param): f"param {names(at)}" for at, param in enumerate(self._params())}
            into = [plain(param, named.get(id(param), "a parameter")) for param, _ in pairs]
            values = [plain(value, "an average") for _, value in pairs]
            copies = [partial(param.copy_, value) for param, value in zip(into, values, strict=True)]
            self._complete([*copies, partial(vars(self._tail).update, saved=saved)])
            torch.autograd.graph.increment_version([param for param, _ in pairs])

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
