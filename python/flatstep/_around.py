"""What steps do around their update, as users read and set it. Base of Optimizer in _optimizer.py."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import _core
from ._average import Averages
from ._device_arrays import shared
from ._exclusive import exclusive
from ._leaves import Leaf
from ._numbers import Number, Numbers, Option, declared
from ._read_only import read_only
from ._rules import declaration
from ._rules.common import AROUND
from ._state import Progress
from ._trees import Tree

OFF = {argument.name: argument.default for argument in AROUND}  # all of it
_OPTIONS = [argument.name for argument in AROUND if isinstance(argument, declaration.Option)]
_OF_AVERAGES = ("ema_start", "ema_debias")  # options that say what the averages are


class Around:
    """Limits on gradients, averages of parameters, gradients that become zero."""

    _tree: Tree
    _numbers: Numbers
    _options: dict[str, Any]  # the rule's
    _around: dict[str, Any]  # the options of these
    _stepper: _core.Stepper
    _averages: Averages
    _exclusive: _core.Exclusive
    _skips: bool

    max_norm = Number(at_least=0, may_be_unset=True, may_be_infinite=True, is_around=True)
    skip_nonfinite = Option()
    ema_decay = Number(at_least=0, below=1, may_be_none=True, is_around=True)
    ema_start = Option("copy", "zero")
    ema_debias = Option()
    ema_dtype = Option(is_dtype=True)
    zero_grads = Option()

    def _take_around(self, options: dict[str, Any]) -> None:
        """Takes its own options out of these."""
        self._around = {name: declared(type(self), name).check(options.pop(name)) for name in _OPTIONS}
        self._skips = self._around["skip_nonfinite"]

    def _make_averages(self, leaves: list[Leaf]) -> None:
        decay = self._numbers.held.values["ema_decay"]
        self._averages = Averages(leaves, self._around, self._stepper)
        self._averages.check(decay)
        self._averages.begin(decay)

    def _checked_params(self) -> list[Leaf]:
        """The parameters, if they are those of which the state is."""
        raise NotImplementedError

    def _saved_options(self) -> dict[str, Any]:
        """Those that give the state its meaning."""
        return {**self._options, **{name: self._around[name] for name in _OF_AVERAGES if self._averages.are_kept}}

    @property
    def skipped(self) -> int:
        """Steps that changed nothing because a gradient was not finite, with ``skip_nonfinite=True``."""
        return self._progress.skipped

    @property
    def grad_norm(self) -> float | None:
        """The norm of the last step's gradients, times ``grad_scale``; None without max_norm and skip_nonfinite.

        A step that was skipped is one too; one that raised is not. What a device has found stays there; reading waits
        for it.
        """
        return self._stepper.norm

    @property
    def ema(self) -> Any:
        """The averages of the parameters, in the structure of ``params``; AttributeError without ``ema_decay``.

        With ``ema_debias`` they are arrays of their own, else those that steps update: a copy keeps what they are now.
        While they are swapped with the parameters, they are what the parameters were. What is on a device comes as
        arrays of the parameter's own library; corrected or swapped, as NumPy's copies.
        """
        self._check_has_averages()
        values = self._averages.values(self._numbers.held.values["ema_decay"], self._progress.history.each())
        tree = self._tree.build(map(shared, values))
        return read_only(tree, "opt.ema is a structure of its own; write into its arrays")

    @exclusive
    def swap_ema(self) -> None:
        """Exchanges the parameters with their averages, in place; the next call exchanges them back.

        For evaluation. In between, step, save, load and the state's dict raise RuntimeError.

        Raises:
            AttributeError: the optimizer was made without ``ema_decay``.

        Example:
            >>> import numpy as np, flatstep
            >>> w = np.array([1.0, -1.0])
            >>> opt = flatstep.AMSGrad(w, learning_rate=0.1, ema_decay=0.5)
            >>> for _ in range(2):
            ...     opt.step(2 * w)
            >>> opt.swap_ema()
            >>> w.round(2)
            array([ 0.85, -0.85])
            >>> opt.swap_ema()
            >>> w.round(2)
            array([ 0.81, -0.81])
        """
        self._check_has_averages()
        for index, param in enumerate(self._checked_params()):
            if isinstance(param, np.ndarray) and not param.flags.writeable:
                raise ValueError(f"params{self._tree.path(index)} has become read-only, but swap_ema writes to it")
        self._averages.swap(self._numbers.held.values["ema_decay"], self._progress.history.each())

    def _check_has_averages(self) -> None:
        if not self._averages.are_kept:
            raise AttributeError(f"this {type(self).__name__} has no averages; make it with ema_decay")

    @property
    def _progress(self) -> Progress:
        progress: Progress = self._stepper.progress
        return progress
