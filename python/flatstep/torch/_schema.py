"""What groups and states of one optimizer hold, as its declaration says. Used by _optimizer.py and _loading.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from operator import itemgetter
from typing import Any, NamedTuple

import torch

from .. import _core
from .._rules import LEARNING_RATE, OPTIMIZERS, Declaration, Number, Option, Torch
from .._rules.signature import parameters
from . import _devices
from ._numbers import Group, as_flag, as_number, check_dtype, check_range, several

_slots = cache(_core.slots)
_COMMON = tuple(name for name in _core.scalars if name != "is_initial_step")  # of every rule's row

_FACES = [declaration.torch for declaration in OPTIMIZERS if declaration.torch]

UNSAID: Group = {name: value for face in _FACES for name, value in face.unsaid.items()}
"""Options that torch's optimizers do not have, at the values that give torch's behaviour. A group leaves them out then:
torch's distributed checkpoints can be loaded only into groups that have no keys beside torch's."""

_SHARED = tuple({name: None for face in _FACES for name in face.shared})
_ALL_SLOT_KEYS = tuple({key: None for face in _FACES for key in face.keys.values()})

# Options that older versions of torch did not have, at the values that torch gives them in older checkpoints.
_LATER: Group = {
    "maximize": False,
    "foreach": None,
    "capturable": False,
    "differentiable": False,
    "fused": None,
    "decoupled_weight_decay": False,
}


class _Place(NamedTuple):
    """Where a group holds a number, as messages have it, and its bounds."""

    label: str
    bounds: Number


class Schema:
    """The keys of an optimizer's groups and states, and what they mean to the core."""

    def __init__(self, declaration: Declaration) -> None:
        assert declaration.torch is not None
        face = self._face = declaration.torch
        self._choose = face.choose or (declaration.choose if not face.rules else None)
        self._flags = face.flags or declaration.flags
        self.rules = face.rules or declaration.rules
        self.needs_count = face.needs_count
        self.keys = (*[name for name, _, _ in parameters(face.signature)], *face.fixed)
        self._take_numbers(declaration, face)
        self._take_options(declaration, face)

    def _take_numbers(self, declaration: Declaration, face: Torch) -> None:
        changed = {number.name: number for number in face.numbers}
        numbers = [a for a in (LEARNING_RATE, *declaration.arguments) if isinstance(a, Number)]
        numbers = [n for n in numbers if face.names.get(n.name, n.name).partition("[")[0] in self.keys]
        labels = {number.name: face.names.get(number.name, number.name) for number in numbers}
        self._places = {n.name: _Place(labels[n.name], changed.get(n.name, n)) for n in numbers}
        self._labels = labels
        pairs = {label.partition("[")[0] for label in labels.values() if "[" in label}
        by_key: dict[str, list[str]] = {}
        for name, label in labels.items():
            by_key.setdefault(label.partition("[")[0], []).append(name)
        # The number of each key; a tuple where the key holds several, in their order.
        self._names = {key: tuple(names) if key in pairs else names[0] for key, names in by_key.items()}
        self._tensor_keys = [key for key in by_key if key in pairs or key == labels["learning_rate"]]
        self._may_be_tensors = {name for key in self._tensor_keys for name in by_key[key]}

    def _take_options(self, declaration: Declaration, face: Torch) -> None:
        self._options = [a for a in declaration.arguments if isinstance(a, Option) and a.name in self.keys]
        self._flag_names = [option.name for option in self._options if option.is_flag]
        self._chosen = [name for name in self.keys if name not in {*self._names, *self._flag_names, *_LATER}]
        self._later = {name: value for name, value in _LATER.items() if name in self.keys}
        fixed = [name for name in face.fixed if name not in face.forced]
        self._agreeing = [(name, {**UNSAID, **face.older}[name]) for name in dict.fromkeys((*fixed, *_SHARED))]

    # Rules and slots

    def rule_of(self, group: Group) -> str:
        """The rule that a group's options choose."""
        return self._choose(group) if self._choose else self.rules[0]

    def slot_keys(self, rule: str) -> list[str]:
        """The keys of a parameter's state under a rule, but for ``step``."""
        return [self._face.keys[slot] for slot in _slots(rule)]

    def slots_of(self, group: Group) -> dict[str, torch.dtype | None]:
        """The keys of a parameter's state in a group, and the dtype of each where it is not the parameter's."""
        slots = _slots(self.rule_of(group))
        return {self._face.keys[slot]: group.get("mu_dtype") if slot == "mu" else None for slot in slots}

    def foreign_slot_keys(self) -> list[str]:
        """Those that the states of other optimizers have, and no state of this one."""
        own = {key for rule in self.rules for key in self.slot_keys(rule)}
        return [key for key in _ALL_SLOT_KEYS if key not in own]

    # Groups

    def filled(self, group: Group, defaults: Group) -> Group:
        """A group, perhaps of an older version, with the options that it lacks; torch's as torch fills them in."""
        own = {name: value for name, value in defaults.items() if name not in UNSAID}
        return {**own, **self._later, **self._face.older, **group, **self._face.forced}

    def unlike(self, group: Group, defaults: Group) -> Iterator[tuple[str, Any, Any]]:
        """The options in which a group differs from the optimizer, though all must share them: name, ours, theirs."""
        for name, otherwise in self._agreeing:
            mine, theirs = defaults.get(name, otherwise), group.get(name, otherwise)
            if mine != theirs:
                yield name, mine, theirs

    def missing(self, group: Group) -> list[str]:
        """The keys that a group of this optimizer has, whichever version of torch or flatstep saved it, and this lacks.

        An option that came to torch after the others may be missing beside ``foreach``, which came after it.
        """
        may_lack = {*UNSAID, *_LATER, *(() if "foreach" in group else self._face.older)}
        return [name for name in self.keys if name not in may_lack and name not in group]

    def unknown(self, group: Group) -> list[str]:
        """The keys of a group that only other optimizers have."""
        others = [name for name in _all_keys() if name not in self.keys]
        return [name for name in others if name in group and group[name] != UNSAID.get(name)]

    # Numbers

    def check_defaults(self, defaults: Group) -> None:
        """ValueError or TypeError where torch would not take the optimizer's own numbers and options."""
        given = {**self._face.unsaid, **defaults}
        self.check_types(given)
        for option in self._options:
            if option.choices and given[option.name] not in option.choices:
                expected = ", ".join(map(repr, option.choices))
                raise ValueError(f"{option.name} is {given[option.name]!r}, expected one of {expected}")
        for name, value in self._given(given).items():
            label, bounds = self._places[name]
            if not bounds.is_within(float(value)):
                raise ValueError(f"{label} is {as_number(label, value):g}, expected {bounds.expected}")
        self._check_tensors(given)

    def _check_tensors(self, group: Group) -> None:
        """ValueError where torch.optim would not take tensors as numbers: most of its foreach forms do not."""
        for key in self._tensor_keys:
            values = [group[key]] if isinstance(self._names[key], str) else group[key]
            are_tensors = [isinstance(value, torch.Tensor) for value in values]
            if any(are_tensors) and not all(are_tensors):
                raise ValueError(f"one of {key} is a tensor and the other is not; pass two numbers or two tensors")
            is_foreach = group["foreach"] and not self._face.foreach_takes_tensors
            if any(are_tensors) and is_foreach and not group["capturable"]:
                raise ValueError(f"{key} as a tensor needs capturable=True or foreach=False")

    def check_types(self, group: Group) -> None:
        """TypeError or ValueError where something in a group is not a number at all. Bounds are not looked at."""
        group = {**self._face.unsaid, **group}
        for name, value in self._given(group).items():
            as_number(self._places[name].label, value)
        for option in self._options:
            if option.is_dtype:
                check_dtype(option.name, group[option.name])
            elif option.is_flag:
                as_flag(option.name, group[option.name])

    def row(self, group: Group, grad_scale: float) -> tuple[Any, ...]:
        """The numbers of a group's step, in the core's order; the count comes from each parameter's state.

        Bounds are not looked at: torch.optim steps with any number, and schedulers move numbers slightly out of bounds.
        """
        values = self._values(group)
        values["grad_scale"] = grad_scale
        return (0, *_row_of(self.rule_of(group))(values))

    def _values(self, group: Group) -> Group:
        """The numbers and options of a group by name. Numbers on a device stay there: the host does not read them."""
        values = self._given(group)
        on_device: Group = {}
        for name, value in values.items():
            if type(value) is not float:
                if name in self._may_be_tensors and _devices.holds(value):
                    on_device[name], values[name] = value, 0.0
                else:
                    values[name] = as_number(self._places[name].label, value)
        check_range(group, values, self._labels)
        values.update(on_device)
        values["decoupled_weight_decay"] = 0.0  # where groups have no such key
        for name in self._flag_names:
            value = group.get(name, False)
            values[name] = float(value) if type(value) is bool else as_flag(name, value)
        for name in self._chosen:
            values[name] = group[name] if name in group else UNSAID[name]
        values.update(self._flags(values))
        return values

    def _given(self, group: Group) -> Group:
        """The numbers by name, as a group holds them."""
        given: Group = {}
        for key, names in self._names.items():
            value = group[key] if key in group else self._face.unsaid[key]
            if isinstance(names, str):
                given[names] = value
            else:
                given.update(zip(names, several(key, value, len(names)), strict=True))
        return given


@cache
def _row_of(rule: str) -> Callable[[Group], tuple[Any, ...]]:
    """Takes the numbers of a rule, but for the count, in the core's order."""
    return itemgetter(*_COMMON, *_core.hyperparameters(rule))


@cache
def _all_keys() -> tuple[str, ...]:
    """The keys of the groups of all optimizers."""
    return tuple({name: None for face in _FACES for name, _, _ in parameters(face.signature)})
