"""The classes of flatstep, from the declarations. For write.py."""

from __future__ import annotations

from collections.abc import Sequence

from . import text
from .common import AROUND
from .declaration import Declaration, Number, Option
from .text import Parameter

PARAMS = (
    "float16, float32 or float64 arrays of any shape, alone or nested in lists, tuples and dicts; updated in place. "
    "NumPy's, or by DLPack another library's, on the CPU or a CUDA device; gradients are where they are."
)
LEARNING_RATE = (
    "step size, at least 0: a number or a schedule (count -> number), or a structure of them like params. Every number "
    "here is an attribute that may be set between steps, to a number or a schedule."
)


def module(declarations: Sequence[Declaration]) -> str:
    """python/flatstep/_optimizers.py."""
    names = [declaration.name for declaration in declarations]
    body = "\n".join("\n".join(["", "", *_class(declaration)]) for declaration in declarations)
    lines = [
        *text.preface("The optimizers for NumPy arrays: one class each.", text.used(body, ["Any", "Literal"])),
        *text.import_line("numpy.typing", ["DTypeLike"]),
        "",
        *text.own_imports(
            {
                "._rules": [text.constant(name) for name in names],
                "._numbers": ["Number", "Option", "PerLeaf", "Scalar"],
                "._optimizer": ["Optimizer"],
            }
        ),
        "",
        *text.all_list(names),
    ]
    return "\n".join(lines) + "\n" + body + "\n"


def _class(declaration: Declaration) -> list[str]:
    params = [
        Parameter("params", "Any", None, False),
        Parameter("learning_rate", "PerLeaf", None, False),
        *(_parameter(argument) for argument in (*declaration.arguments, *AROUND)),
    ]
    return [
        f"class {declaration.name}({declaration.base or 'Optimizer'}):",
        *text.docstring(declaration.summary, _sections(declaration)),
        "",
        '    __module__ = "flatstep"',
        f"    _declaration = {text.constant(declaration.name)}",
        *_descriptors(declaration),
        "",
        *text.header(["__init__", "self"], params, "None", "    "),
        "        Optimizer.__init__(",
        "            self,",
        "            params,",
        *text.handed_on([parameter.name for parameter in params[1:]], {}, " " * 12),
        "        )",
    ]


def _sections(declaration: Declaration) -> list[str]:
    face = declaration.numpy
    rows = [("params", PARAMS), ("learning_rate", LEARNING_RATE)]
    rows += [(argument.name, _described(argument)) for argument in (*declaration.arguments, *AROUND)]
    return [
        declaration.maths,
        face.notes,
        text.entries("Args", rows),
        text.entries(
            "Raises", [("TypeError, ValueError", f"a parameter cannot be updated in place, {declaration.raises}.")]
        ),
        text.section("Example", face.example),
        text.references(f"{declaration.references}; {face.see}."),
    ]


def _described(argument: Number | Option) -> str:
    also = "May be a structure like params." if isinstance(argument, Number) and argument.per_leaf else ""
    return text.described(argument, _default(argument), also=also)


def _parameter(argument: Number | Option) -> Parameter:
    return Parameter(argument.name, _annotation(argument), _default(argument), True)


def _default(argument: Number | Option) -> str:
    if isinstance(argument, Number):
        return text.number(argument.default)
    return text.quoted(argument.default) if isinstance(argument.default, str) else repr(argument.default)


def _annotation(argument: Number | Option) -> str:
    if isinstance(argument, Number):
        kind = "float" if argument.is_fixed else "PerLeaf" if argument.per_leaf else "Scalar"
    elif argument.is_dtype:
        kind = "DTypeLike"
    else:
        kind = text.choices(argument.choices) if argument.choices else "bool"
    return f"{kind} | None" if argument.default is None else kind


def _descriptors(declaration: Declaration) -> list[str]:
    """The attributes by which numbers and options are read and set; a base has those of all."""
    if declaration.base:
        return []
    common = ("weight_decay", "decoupled_weight_decay", "maximize")
    return [f"    {a.name} = {_descriptor(a)}" for a in declaration.arguments if a.name not in common]


def _descriptor(argument: Number | Option) -> str:
    if isinstance(argument, Option):
        inside = ["is_dtype=True"] if argument.is_dtype else [text.quoted(choice) for choice in argument.choices]
        return f"Option({', '.join(inside)})"
    bounds = {"at_least": argument.at_least, "below": argument.below}
    inside = [f"{name}={bound:g}" for name, bound in bounds.items() if abs(bound) != float("inf")]
    inside += ["may_be_none=True"] if argument.default is None else []
    inside += ["is_fixed=True"] if argument.is_fixed else []
    return f"Number({', '.join(inside)})"
