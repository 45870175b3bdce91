"""What is written from the declarations is what they say, and the declarations are what the libraries have."""

from __future__ import annotations

import importlib
import inspect
import pickle
import typing
from pathlib import Path

import numpy as np
import pytest

from flatstep import _core
from flatstep._rules import DECAY_STATE, OPTIMIZERS, RATE_STATE, Number, write
from flatstep._rules.signature import parameters
from table import JAX

ROOT = Path(__file__).parents[2]
WRITTEN = write.files(ROOT)


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: str(path.relative_to(ROOT)))
def test_written_files_are_up_to_date(path):
    assert path.read_text(encoding="utf-8") == WRITTEN[path], "run: python -m flatstep._rules"


def test_the_table_needs_its_marks():
    with pytest.raises(ValueError, match="expected one pair of marks"):
        write.between_marks("no table", "a table")


def test_every_rule_is_declared():
    declared = {rule for declaration in OPTIMIZERS for rule in declaration.rules}
    assert declared == set(_core.rules())


MODULES = {"flatstep": ["numpy"], "flatstep.torch": ["torch"], "flatstep.jax": ["jax", "optax"]}


def public(module_name):
    """The module and its optimizers' names; skips where a library is missing."""
    for library in MODULES[module_name]:
        pytest.importorskip(library)
    module = importlib.import_module(module_name)
    return module, module._optimizers.__all__


@pytest.mark.parametrize("module_name", MODULES)
def test_annotations_resolve(module_name):
    """As jsonargparse and Lightning's command line need it."""
    module, names = public(module_name)
    for name in names:
        made = getattr(module, name)
        hints = typing.get_type_hints(made.__init__ if inspect.isclass(made) else made)
        assert hints.keys() == {*inspect.signature(made).parameters, "return"}


@pytest.mark.parametrize("module_name", MODULES)
def test_public_names_are_where_users_import_them(module_name):
    module, names = public(module_name)
    for name in names:
        made = getattr(module, name)
        assert (made.__module__, made.__qualname__) == (module_name, name)
        assert pickle.loads(pickle.dumps(made)) is made
        assert name in module.__all__ and name in dir(module)


def test_pickles_name_optimizers_where_they_were():
    front, names = public("flatstep.torch")
    for name in names:
        assert pickle.loads(f"cflatstep.torch.rules\n{name}\n.".encode()) is getattr(front, name)


def by_name(face: str) -> dict[str, typing.Any]:
    return {d.name: d for d in OPTIMIZERS if getattr(d, face)}


def jax_variants():
    """The name of each optimizer for JAX, with each set of options that its function has."""
    for entry in JAX.values():
        declaration = entry.optimizer._declaration
        taken = {name for name, *_ in parameters(declaration.jax.signature)}
        for options in (*entry.variants.values(), dict(bias_correction=True)):
            if taken.issuperset(options):
                yield pytest.param(declaration, options, id=f"{declaration.name}-{options}")


@pytest.mark.parametrize("declaration, options", list(jax_variants()))
def test_jax_states_are_optax_s(declaration, options):
    """The declared parts and fields are those of the state that optax's function makes."""
    front, _ = public("flatstep.jax")
    face = declaration.jax
    state = getattr(front, face.name)(lambda count: 0.1, **options).init(np.ones(2))
    arguments = {**{argument.name: argument.default for argument in declaration.arguments}, **options}
    parts = face.parts(arguments)
    assert len(state) == len(parts)
    for part, kind in zip(state, parts, strict=True):
        assert kind in (DECAY_STATE, RATE_STATE) or kind.type == type(part).__name__
        assert set(kind.slots.values()) <= set(part._fields if kind.slots else ())
    slots = [slot for kind in parts for slot in kind.slots]
    assert sorted(slots) == sorted(_core.slots(declaration.rule(arguments)))


@pytest.mark.parametrize("name", by_name("torch"))
def test_torch_keys_are_those_of_the_rules(name):
    declaration = by_name("torch")[name]
    face = declaration.torch
    slots = {slot for rule in face.rules or declaration.rules for slot in _core.slots(rule)}
    assert set(face.keys) == slots
    numbers = {a.name for a in declaration.arguments if isinstance(a, Number)}
    assert set(face.names) <= {"learning_rate", *numbers}


@pytest.mark.parametrize("declaration", OPTIMIZERS, ids=lambda declaration: declaration.name)
def test_arguments_are_the_rule_s(declaration):
    """Each hyperparameter is an argument, or follows from options."""
    of_rule = {name.removeprefix("previous_") for rule in declaration.rules for name in _core.hyperparameters(rule)}
    arguments = {a.name: a.default for a in declaration.arguments}
    assert of_rule <= {*arguments, *declaration.flags(declaration.settled(arguments))}
