"""Everything that is public, with its signature, as text. write.py writes it, test_public.py compares it."""

from __future__ import annotations

import importlib
import inspect
import types
from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import Any

from . import write

MODULES = ["flatstep", "flatstep.torch", "flatstep.jax", "flatstep.jax.flax"]


def path_of(module: str) -> Any:
    return write.FOLDER / "public" / f"{module}.txt"


def names_of(module: types.ModuleType) -> list[str]:
    """What the module exports: its __all__, or else the classes and functions that it defines."""
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
    return sorted(getattr(module, "__all__", [name for name in own if not name.startswith("_")]))


def describe(module_name: str) -> str:
    """A line for the module's names, one for each function, and one for each member of each class."""
    module = importlib.import_module(module_name)
    names = names_of(module)
    lines = [f"{module_name}: {', '.join(names)}", ""]
    for name in names:
        lines += described(f"{module_name}.{name}", getattr(module, name))
    if module_name == "flatstep.jax":
        made = module.adam(0.1)
        lines += [f"flatstep.jax.adam(0.1).{call}{inspect.signature(getattr(made, call))}" for call in made_calls(made)]
    return "\n".join(lines) + "\n"


def made_calls(made: Any) -> list[str]:
    """The calls of what an optimizer of JAX is made to. ``init`` is optax's own."""
    return [name for name in ("step", "update") if callable(getattr(made, name))]


def described(path: str, value: Any) -> Iterator[str]:
    if not callable(value):
        yield f"{path}: {type(value).__name__}"
        return
    if not inspect.isclass(value):
        yield f"{path}{inspect.signature(value)}"
        return
    if ours(value.__init__) and not is_dataclass(value):  # a dataclass has the fields of its base, in its words
        yield f"{path}{inspect.signature(value)}"
    for name in sorted(name for name in dir(value) if not name.startswith("_")):
        owner = next(base for base in (*value.__mro__, type(value)) if name in vars(base))
        own = inspect.getattr_static(value, name)
        if ours(owner) and (ours(own) or not inspect.isfunction(own)):
            yield member(f"{path}.{name}", own)


def ours(value: Any) -> bool:
    return str(getattr(value, "__module__", "")).startswith("flatstep")


def member(path: str, value: Any) -> str:
    if isinstance(value, (staticmethod, classmethod)):
        value = value.__func__
    return f"{path}{inspect.signature(value)}" if inspect.isfunction(value) else f"{path}: attribute"


def rewrite() -> None:
    """Unlike the golden states, this text follows the package: its difference is what a change does to the users."""
    for module in MODULES:
        path = path_of(module)
        path.parent.mkdir(exist_ok=True)
        path.write_text(describe(module))
