"""The Optimizer: parameters, state and hyperparameters of a rule, and its step. Base of those in _optimizers.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import numpy as np

from . import _core, _devices, _files
from ._around import OFF, Around
from ._arrays import Array
from ._device_arrays import DeviceArray, shared
from ._exclusive import exclusive
from ._leaves import Leaf, as_they_are, check_same_memory, largest_number, stores_exactly, take_params
from ._loading import STATE_DICT_VERSION, Loaded, change_at_once
from ._numbers import Number, Numbers, Option, declared, finite
from ._read_only import read_only
from ._rows import Settled
from ._rules import Declaration
from ._state import History, Progress, State
from ._trees import Tree

_COMMON = ("decoupled_weight_decay", "maximize")  # what else a row of scalars has for every rule and leaf
_WRITE_INTO = (
    'opt.state is not changed by what is put into it; write into its arrays: opt.state["mu"]["w"][...] = value'
)
_PREVIOUS = "previous_"  # a rule's last hyperparameters may have this prefix: the value of the leaf's last update
_UNSCALED = 1.0


class Optimizer(Around):
    """Steps parameters in place by one rule of the catalogue. Not made directly: see the classes in ``flatstep``."""

    _declaration: ClassVar[Declaration]
    _saved_as = "_Optimizer"  # the class's name in files and state_dicts
    _on_openmp = False  # whose threads carry out large steps: our own, or OpenMP's, which torch uses too

    learning_rate = Number(at_least=0, per_leaf=True)
    weight_decay = Number(at_least=0, per_leaf=True)
    decoupled_weight_decay = Option()
    maximize = Option()

    def __init_subclass__(cls, **more: Any) -> None:
        """A class made elsewhere from one of ours adds no rule, and goes by the name of that one."""
        super().__init_subclass__(**more)
        if cls.__module__.partition(".")[0] == __package__ or cls._saved_as.startswith("_"):
            cls._saved_as = cls.__name__

    def __init__(self, params: Any, arguments: Mapping[str, Any]) -> None:
        """``arguments`` are numbers, which may be set later, and options, which are fixed from here on."""
        settled = self._declaration.settled(arguments)
        settled = {**settled, **{name: off for name, off in OFF.items() if name not in settled}}
        numbers = {name: value for name, value in settled.items() if self._is_number(name)}
        options = {name: value for name, value in settled.items() if name not in numbers}
        self._take_around(options)
        self._params = params
        self._tree = Tree(params)
        leaves = take_params(self._tree)
        self._has_foreign_leaves = any(not isinstance(leaf, np.ndarray) for leaf in self._tree.leaves)
        self._numbers = Numbers(type(self), self._tree, largest_number(leaves), numbers)
        self._options = {name: declared(type(self), name).check(value) for name, value in options.items()}
        first_moment = self._options.get("mu_dtype") or ""
        self._flags = self._flags_of({**settled, **self._options})
        self._rule = self._declaration.rule({**arguments, "stores_exactly": stores_exactly(leaves, first_moment)})
        self._make_stepper(leaves, first_moment)
        self._settled: Settled | None = None
        self._make_averages(leaves)
        self._exclusive = _core.Exclusive()

    def _is_number(self, name: str) -> bool:
        return isinstance(declared(type(self), name), Number)

    def _flags_of(self, arguments: Mapping[str, Any]) -> dict[str, float]:
        """What the rule takes of the options."""
        own = {name: float(flag) for name, flag in self._options.items() if isinstance(flag, bool)}
        return {**own, **self._declaration.flags(arguments)}

    def _make_stepper(self, leaves: list[Leaf], first_moment: str) -> None:
        names = _core.hyperparameters(self._rule)
        self._remembered = [name.removeprefix(_PREVIOUS) for name in names if name.startswith(_PREVIOUS)]
        self._names = names[: len(names) - len(self._remembered)]
        there = [leaf for leaf in leaves if isinstance(leaf, DeviceArray)]
        arrays = [leaf.memory if isinstance(leaf, DeviceArray) else leaf for leaf in leaves]
        backends = _devices.backends() if there else []
        self._stepper = _core.Stepper(self._rule, arrays, first_moment, self._tree.path, self._on_openmp, backends)
        self._state = State(self._rule, leaves, first_moment, self._stepper)
        for slot, name in self._declaration.initial.items():
            self._fill(slot, name)
        self._stepper.progress = Progress(0, History([(0, ())] * len(leaves)))

    def _fill(self, slot: str, name: str) -> None:
        """Puts the number of this name into a slot, which is zero at first."""
        value, views = self._numbers.get(name), self._state.views(slot)
        if value != 0:
            for view in views:
                finite(name, value, float(np.finfo(view.dtype).max))
            change_at_once([(view, np.full(view.shape, value, view.dtype)) for view in views], [])

    @exclusive
    def step(self, grads: Any, *, grad_scale: float = _UNSCALED) -> None:
        """Updates the parameters in place from their gradients.

        What is on a CUDA device is launched there, on the stream that is current for the library of the first parameter
        on it: behind all that its arrays, and those of other libraries, still wait for, and before what these libraries
        are given next. The step does not wait for it, unless one of them does not say on which stream it works.

        What a signal's handler raises (Ctrl-C's, say) comes before all of the step or after all of it, as ``opt.count``
        tells: parameters, state and counts belong together, and the optimizer can be used again.

        Args:
            grads: gradients in the structure of ``params``, dicts matched by key; each has the shape and dtype of its
                parameter and any strides. A leaf whose gradient is None is left as it is and does not count.
            grad_scale: gradients are multiplied by it on the way in, so that clipping and unscaling need no pass of
                their own. Default 1.0.

        Raises:
            TypeError, ValueError: a gradient does not fit its parameter, or a number or schedule is out of bounds. Then
                parameters, state and counts are as before.
            RuntimeError: the optimizer is in use by another thread, or by the step that calls this schedule; or a
                stream is being captured into a CUDA graph, whose replays would not be counted (flatstep.torch's are).
            MemoryError: a device has none left for the step's tables. Then, too, all is as before.

        Example:
            >>> import numpy as np, flatstep
            >>> w = np.array([1.0, -1.0])
            >>> opt = flatstep.Adam(w, learning_rate=0.1)
            >>> opt.step(2 * w)
            >>> w.round(6)
            array([ 0.9, -0.9])
        """
        leaves = self._tree.match(grads, "grads")
        progress: Progress = self._stepper.progress
        count, history = progress.count, progress.history
        # The default is valid, and steps of small arrays are quicker without the check.
        is_default = grad_scale is _UNSCALED
        scale = grad_scale if is_default else finite("grad_scale", grad_scale, self._numbers.largest)
        numbers = self._numbers.at(count)
        if self._averages.needs_steps:
            self._averages.prepare(numbers["ema_decay"], leaves, self._tree.path)
        self._check_same_leaves()  # after schedules, which may do anything
        settled = self._settle(numbers)
        rows, row_of_each = settled.rows(history, scale)
        updated = [grad is not None for grad in leaves] if _core.has_none(leaves) else None
        after = Progress(count + 1, history.advanced(updated, settled.remembered), progress.skipped)
        if_skipped = Progress(count, history, progress.skipped + 1) if self._skips else None
        self._stepper.step(leaves, rows, row_of_each, after, settled.max_norm, if_skipped)

    def _check_same_leaves(self) -> None:
        """The structure of parameters is the user's own: one that was put into it later would never be updated."""
        changed = self._tree.changed(self._params, "params")
        if changed is not None:
            raise ValueError(
                f"params{self._tree.path(changed)} is another array than when the optimizer was made; write into that "
                "one (p[...] = x), or make another optimizer"
            )
        if self._has_foreign_leaves:
            check_same_memory(self._tree, self._state.params)

    def _checked_params(self) -> list[Leaf]:
        """The parameters, if they are what a file is to hold: those of which the state is."""
        self._check_same_leaves()
        changed = self._state.first_changed()
        if changed is not None:
            raise ValueError(
                f"params{self._tree.path(changed)} has another shape, strides or dtype than when the optimizer was made"
            )
        return as_they_are(self._tree, self._state.params)

    def _settle(self, numbers: Mapping[str, Any]) -> Settled:
        """What a step takes from its numbers; kept for as long as they do not change."""
        if self._settled is None or self._settled.numbers is not numbers:
            values = {**numbers, **self._flags}
            common = tuple([values[name] for name in (*_COMMON, *self._names)])
            remembered = tuple([numbers[name] for name in self._remembered])
            rate, decay = numbers["learning_rate"], numbers["weight_decay"]
            self._settled = Settled(numbers, rate, decay, common, remembered, numbers["max_norm"])
        return self._settled

    def _set(self, name: str, value: Any) -> None:
        """Rejects slips, like ``opt.lr = 0.1``. A class derived by a user may add any name."""
        is_data = hasattr(type(getattr(type(self), name, None)), "__set__")  # and decides for itself
        if not name.startswith("_") and not is_data:
            ours = next(cls for cls in type(self).__mro__ if cls.__module__.partition(".")[0] == __package__)
            if hasattr(ours, name):
                raise AttributeError(f"{ours.__name__}.{name} is a method; make a subclass to change it")
            if ours is type(self):
                raise AttributeError(f"{ours.__name__} has no {name!r}; its numbers are {list(self._numbers)}")
        super().__setattr__(name, value)

    if not TYPE_CHECKING:  # with a __setattr__, type checkers take any name
        __setattr__ = _set

    @property
    def params(self) -> Any:
        """The parameters, in the structure in which they were given."""
        return self._params

    @property
    def count(self) -> int:
        """Steps executed; what schedules are called with."""
        return self._progress.count

    @property
    def state(self) -> dict[str, Any]:
        """The state by slot, each in the structure of ``params``: views, so that writing to them changes the state.

        Write into the arrays: ``opt.state["mu"]["w"][...] = 0``, or ``opt.state["mu"]["w"] *= 2``. The dicts and lists
        around them cannot be changed, and are no dicts to jax.tree.map; those of ``state_dict()`` are plain. What is
        on a device comes as arrays of the parameter's own library.
        """
        state = {slot: self._tree.build(map(shared, self._state.views(slot))) for slot in self._state.slots}
        found: dict[str, Any] = read_only(state, _WRITE_INTO)
        return found

    @property
    def target(self) -> str:
        """The name of the target that carries out this optimizer's steps."""
        return self._stepper.target

    def __repr__(self) -> str:
        numbers = {name: self._numbers.get(name) for name in self._numbers.in_use()}
        around = {name: value for name, value in self._around.items() if value != OFF[name]}
        parts = [f"{name}={value!r}" for name, value in {**numbers, **self._options, **around}.items()]
        return f"{type(self).__name__}({', '.join(parts)})"

    @exclusive
    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on bit for bit: state, counts, options and numbers, as copies in the host's memory.

        Parameters are not in it, nor are schedules.
        """
        self._averages.check_not_swapped()
        found = {**self._described(), "state": self._in_host_memory(lambda view: view.copy(order="K"))}
        if self._averages.are_kept:
            found["ema"] = self._tree.build(self._averages.in_host_memory(lambda view: view.copy(order="K")))
        return found

    def _in_host_memory(self, take: Callable[[Array], Array]) -> dict[str, Any]:
        """The state by slot, in which ``take`` says what becomes of views of the host's memory; the rest is copied."""
        return {
            slot: self._tree.build(
                [view.to_host() if isinstance(view, DeviceArray) else take(view) for view in self._state.views(slot)]
            )
            for slot in self._state.slots
        }

    def _described(self) -> dict[str, Any]:
        """The state_dict but for its arrays."""
        progress = self._progress
        each = progress.history.each()
        numbers = [name for name in self._numbers.in_use() if not self._numbers.has_schedule(name)]
        more: dict[str, Any] = {"skipped": progress.skipped} if progress.skipped else {}
        options = self._saved_options()
        is_plain = not more and options == self._options and not OFF.keys() & numbers  # older versions can load it
        return {
            "version": 1 if is_plain else STATE_DICT_VERSION,
            "optimizer": self._saved_as,
            "options": options,
            "numbers": {name: self._numbers.get(name) for name in numbers},
            "count": progress.count,
            "leaf_counts": self._tree.build([own for own, _ in each]),
            "leaf_numbers": {
                name: self._tree.build([numbers[at] if numbers else None for _, numbers in each])
                for at, name in enumerate(self._remembered)
            },
            **more,
        }

    @exclusive
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Takes over a state made by ``state_dict`` for the same optimizer, options and parameter shapes.

        A class derived from one of flatstep's is the same optimizer as that one. Numbers are taken over too, but an
        attribute that holds a schedule keeps it.

        Raises:
            TypeError, ValueError: the state is of another optimizer, version, option, structure, shape or dtype, or is
                incomplete. Then nothing has changed. (Nor is half of it taken over when a signal raises.)
        """
        self._take_over(Loaded(self._tree, state_dict))

    @exclusive
    def save(self, path: _files.FilePath) -> None:
        """Writes parameters and state to a safetensors file: all that ``state_dict`` holds, and the parameters.

        An old file is replaced at once by the whole new one, or stays as it was, even if the process is killed in
        between. (Killed in between, it leaves a file ``.flatstep-*.tmp`` behind, which may be deleted.) Schedules are
        not saved.

        Args:
            path: where to. A link is followed; the permissions of an old file are kept.

        Raises:
            ImportError: safetensors is not installed: ``pip install "flatstep[files]"``.
            OSError: the file cannot be written. Then the old one is as before.
            ValueError: ``path`` is not that of a file; a parameter was reshaped after the optimizer was made; or dicts
                in ``params`` have keys that no file can hold: other than str, int, float, bool, None, bytes, members
                of an Enum and tuples of these.
            RuntimeError: the optimizer is in use by another thread, or by the step that calls this schedule.

        Example:
            >>> import numpy as np, flatstep, os, tempfile
            >>> w = np.array([1.0, -1.0])
            >>> opt = flatstep.Adam(w, learning_rate=0.1)
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     path = os.path.join(folder, "model.safetensors")
            ...     opt.save(path)
            ...     opt.step(2 * w)
            ...     opt.load(path)
            >>> w, opt.count
            (array([ 1., -1.]), 0)
        """
        self._averages.check_not_swapped()
        params = [p.to_host() if isinstance(p, DeviceArray) else p for p in self._checked_params()]
        state = self._in_host_memory(lambda view: view)
        saved = {**self._described(), "params": self._tree.build(params), "state": state}
        if self._averages.are_kept:
            saved["ema"] = self._tree.build(self._averages.in_host_memory(lambda view: view))
        _files.write(path, self._tree, saved)

    @exclusive
    def load(self, path: _files.FilePath) -> None:
        """Takes over parameters and state that ``save`` wrote for the same optimizer, options and parameter shapes.

        A class derived from one of flatstep's is the same optimizer as that one. Parameters change in place. Numbers
        are taken over too, but an attribute that holds a schedule keeps it. What follows has the bits that it would
        have had without the interruption.

        Args:
            path: the file.

        Raises:
            ImportError: safetensors is not installed: ``pip install "flatstep[files]"``.
            OSError: the file cannot be read.
            ValueError: it is not a whole file written by ``save``, or of another optimizer, version, option, structure,
                shape or dtype; or a parameter has become read-only. Then nothing has changed. (Nor is half of it taken
                over when a signal raises.)
            RuntimeError: the optimizer is in use by another thread, or by the step that calls this schedule.

        Example:
            >>> import numpy as np, flatstep, os, tempfile
            >>> w = np.array([1.0, -1.0])
            >>> opt = flatstep.AMSGrad(w, learning_rate=0.1)
            >>> opt.step(2 * w)
            >>> again = flatstep.AMSGrad(np.zeros(2), learning_rate=0.5)
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     opt.save(os.path.join(folder, "model.safetensors"))
            ...     again.load(os.path.join(folder, "model.safetensors"))
            >>> again.params.round(6), again.count, again.learning_rate
            (array([ 0.9, -0.9]), 1, 0.1)
        """
        with _files.naming_errors(path):
            params = self._checked_params()
            self._take_over(Loaded(self._tree, _files.read(path, self._tree)), params)

    def _take_over(self, loaded: Loaded, params: Sequence[Any] | None = None) -> None:
        """Checks everything, then changes the state and the rest, and the parameters if they are given."""
        self._averages.check_not_swapped()
        loaded.check_has_averages(self._averages.are_kept)
        more_keys = [*(["ema"] if self._averages.are_kept else []), *([] if params is None else ["params"])]
        loaded.check_made_by(self._saved_as, self._saved_options(), *more_keys)
        arrays = [] if params is None else loaded.params(params)
        numbers = {
            name: self._numbers.check(name, f"state_dict['numbers']['{name}']", value)
            for name, value in loaded.part("numbers", dict.fromkeys(self._numbers), complete=False).items()
        }
        count = loaded.count()
        history = History(loaded.pasts(count, self._remembered, self._numbers.check_one))
        progress = Progress(count, history, loaded.skipped())
        arrays += loaded.arrays({slot: self._state.views(slot) for slot in self._state.slots})
        arrays += loaded.averages(self._averages.views) if self._averages.are_kept else []

        buffers = [*self._state.host_buffers(), *(v for v in self._averages.views if isinstance(v, np.ndarray))]
        if any(np.may_share_memory(array, buffer) for _, array in arrays for buffer in buffers):
            arrays = [(view, array.copy()) for view, array in arrays]  # parts of our own state, perhaps in other places
        changes = [(self._numbers, "held", self._numbers.loaded(numbers)), (self._stepper, "progress", progress)]
        change_at_once(arrays, changes + self._averages.loaded(numbers.get("ema_decay")))

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} cannot be copied or pickled; make another one over the other parameters, and let "
            "it load_state_dict(opt.state_dict())"
        )
