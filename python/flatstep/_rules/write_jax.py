"""The functions of flatstep.jax, from the declarations. For write.py."""

from __future__ import annotations

from collections.abc import Sequence

from . import text
from .common import JAX_AROUND, JAX_MEANINGS
from .declaration import Declaration, Jax, Number, Option
from .signature import parameters
from .text import Parameter

LEARNING_RATE = "step size: a number, a schedule (count -> number), or a traced scalar."
MASK = (
    "which weights decay: a tree of bools like params or a prefix of it, or a function that makes one from params. "
    "Default None: all."
)
RETURNS = (
    "An ``optax.GradientTransformationExtraArgs`` that also has ``step(params, state, grads) -> (params, state)``."
)


def module(declarations: Sequence[Declaration]) -> str:
    """python/flatstep/jax/_optimizers.py."""
    faces = [(declaration, declaration.jax) for declaration in declarations if declaration.jax]
    body = "\n".join("\n".join(["", "", *_function(declaration, face)]) for declaration, face in faces)
    names = [face.name for _, face in faces]
    lines = [
        *text.preface("The optimizers for JAX: one function each.", ["Literal"]),
        *text.import_line("numpy.typing", ["DTypeLike"]),
        "",
        *text.own_imports(
            {
                ".._rules": [text.constant(declaration.name) for declaration, _ in faces],
                "._settings": text.used(body, ["Mask", "Number", "ScalarOrSchedule"]),
                "._transformation": ["FusedTransformation", "make"],
            }
        ),
        "",
        *text.all_list(names),
    ]
    public = [
        *["", "", ""],
        *["for _function in (", *(f"    {name}," for name in names), "):"],
        '    _function.__module__ = "flatstep.jax"',
    ]
    return "\n".join(lines) + "\n" + body + "\n".join(public) + "\n"


def _function(declaration: Declaration, face: Jax) -> list[str]:
    rows = parameters(face.signature) + [(a.name, _default(a), True) for a in JAX_AROUND]
    params = [Parameter(name, _annotation(declaration, face, name, d), d, last) for name, d, last in rows]
    return [
        *text.header([face.name], params, "FusedTransformation", ""),
        *text.docstring(face.summary or declaration.summary, _sections(declaration, face, rows)),
        "    return make(",
        f"        {text.constant(declaration.name)},",
        *text.handed_on([name for name, _, _ in rows], {}, " " * 8),
        "    )",
    ]


def _sections(declaration: Declaration, face: Jax, rows: list[tuple[str, str | None, bool]]) -> list[str]:
    numbers = [name for name, _, _ in rows if isinstance(_argument(declaration, name), Number)]
    return [
        declaration.maths,
        text.entries("Args", [(name, _described(declaration, face, name, d, numbers[0])) for name, d, _ in rows]),
        text.section("Returns", RETURNS),
        text.entries("Raises", [("TypeError, ValueError", "a number is out of bounds, or an option is unknown.")]),
        text.section("Example", face.example),
        text.references(f"{declaration.references}; {face.see}."),
    ]


def _argument(declaration: Declaration, name: str) -> Number | Option | None:
    return next((a for a in (*declaration.arguments, *JAX_AROUND) if a.name == name), None)


def _default(argument: Number | Option) -> str:
    return text.quoted(argument.default) if isinstance(argument.default, str) else repr(argument.default)


def _described(declaration: Declaration, face: Jax, name: str, default: str | None, first_number: str) -> str:
    if name in ("learning_rate", "mask"):
        return LEARNING_RATE if name == "learning_rate" else MASK
    argument = _argument(declaration, name)
    assert argument is not None
    also = "A number or a traced scalar, like all numbers here." if name == first_number else ""
    return text.described(argument, default, also=also, meaning={**JAX_MEANINGS, **face.meanings}.get(name, ""))


def _annotation(declaration: Declaration, face: Jax, name: str, default: str | None) -> str:
    argument = _argument(declaration, name)
    if name == "learning_rate" or (name == "weight_decay" and name in face.to_optax):
        return "ScalarOrSchedule"
    if argument is None:
        return "Mask | None"
    if isinstance(argument, Number):
        kind = "float" if name == "ema_decay" else "Number"
    elif argument.is_dtype:
        kind = "DTypeLike"
    elif argument.choices:
        kind = text.choices(face.choices.get(name, argument.choices))
    else:
        kind = "bool"
    return f"{kind} | None" if default == "None" else kind
