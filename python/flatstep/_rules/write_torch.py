"""The classes of flatstep.torch, from the declarations. For write.py."""

from __future__ import annotations

from collections.abc import Sequence

from . import text
from .common import AROUND
from .declaration import Declaration, Number, Option, Torch
from .signature import parameters
from .text import Parameter

# Torch's own arguments: annotation and meaning.
OWN = {
    "lr": ("float | Tensor", "learning rate, at least 0; may be a tensor of one element"),
    "betas": ("tuple[float | Tensor, float | Tensor]", "decay rates of the two moments, each in [0, 1)"),
    "amsgrad": ("bool", "whether the root is of the largest second moment so far"),
    "foreach": ("bool | None", "accepted, and without effect: every step here goes over all tensors together"),
    "capturable": (
        "bool",
        "whether a step may become part of a CUDA graph, which follows {followed} on the device. Must be False for "
        "parameters on the CPU",
    ),
    "differentiable": ("bool", "must be False: a fused step cannot be differentiated"),
    "fused": (
        "bool | None",
        "every step here is fused; True lets torch.amp.GradScaler leave unscaling to the step, as in torch",
    ),
}
PARAMS = "parameters, named parameters or groups of them, as for any optimizer of torch."
# How torch's documentation writes what the declarations write as optax does.
SYMBOLS = (
    (r"\hat\mu", r"\hat m"),
    (r"\mu", "m"),
    (r"\nu", "v"),
    ("b_1", r"\beta_1"),
    ("b_2", r"\beta_2"),
    ("b2^t", "beta2^t"),
    (" nu", " v"),
    (" mu'", " m'"),
)


def module(declarations: Sequence[Declaration]) -> str:
    """python/flatstep/torch/_optimizers.py."""
    faces = [(declaration, declaration.torch) for declaration in declarations if declaration.torch]
    body = "\n".join("\n".join(["", "", *_class(declaration, face)]) for declaration, face in faces)
    lines = [
        *text.preface("The optimizers for PyTorch: one class each.", ["Literal"]),
        "import torch",
        "from torch import Tensor",
        "from torch.optim.optimizer import ParamsT",
        "",
        *text.own_imports(
            {
                ".._rules": [text.constant(declaration.name) for declaration, _ in faces],
                "._optimizer": ["FusedOptimizer"],
            }
        ),
        "",
        *text.all_list(face.name or declaration.name for declaration, face in faces),
    ]
    return "\n".join(lines) + "\n" + body + "\n"


def _class(declaration: Declaration, face: Torch) -> list[str]:
    rows = parameters(face.signature)
    params = [
        Parameter("params", "ParamsT", None, False),
        *(Parameter(name, _annotation(declaration, face, name), default, last) for name, default, last in rows),
        *(Parameter(a.name, _own_annotation(a), _own_default(a), True) for a in AROUND),
    ]
    return [
        f"class {face.name or declaration.name}({declaration.base or 'FusedOptimizer'}):",
        *text.docstring(face.summary or declaration.summary, _sections(declaration, face, rows)),
        "",
        '    __module__ = "flatstep.torch"',
        f"    _declaration = {text.constant(declaration.name)}",
        "",
        *text.header(["__init__", "self"], params, "None", "    "),
        "        FusedOptimizer.__init__(",
        "            self,",
        "            params,",
        *text.handed_on([*(name for name, _, _ in rows), *(a.name for a in AROUND)], face.fixed, " " * 12),
        "        )",
    ]


def _sections(declaration: Declaration, face: Torch, rows: list[tuple[str, str | None, bool]]) -> list[str]:
    maths = face.maths or declaration.maths
    for ours, theirs in SYMBOLS:
        maths = maths.replace(ours, theirs)
    described = [(name, _described(declaration, face, name, default)) for name, default, _ in rows]
    described += [(a.name, text.described(a, _own_default(a))) for a in AROUND]
    return [
        maths,
        text.entries("Args", [("params", PARAMS), *described]),
        text.entries(
            "Raises", [("TypeError, ValueError", "a number is out of bounds, or an option is not supported.")]
        ),
        text.section("Example", face.example),
        text.references(f"{declaration.references}; {face.see}."),
    ]


def _argument(declaration: Declaration, face: Torch, name: str) -> Number | Option | None:
    """The declared argument that torch's is, by another name perhaps; None where it is torch's own."""
    ours = next((own for own, theirs in face.names.items() if theirs == name), name)
    return next((argument for argument in declaration.arguments if argument.name == ours), None)


def _described(declaration: Declaration, face: Torch, name: str, default: str | None) -> str:
    argument = _argument(declaration, face, name)
    meaning = face.meanings.get(name, "")
    if name in OWN or argument is None:
        return f"{meaning or _own_meaning(face, name)}. Default {default}."
    described = text.described(argument, default, meaning=meaning)
    return described.replace(" mu is ", f" {face.keys.get('mu')} is ")


def _own_meaning(face: Torch, name: str) -> str:
    """What one of torch's own arguments means. A CUDA graph follows betas only where there are some."""
    pair = "``lr`` and ``betas`` if they are tensors" if "betas" in face.signature else "``lr`` if it is a tensor"
    return OWN[name][1].replace("{followed}", pair)


def _annotation(declaration: Declaration, face: Torch, name: str) -> str:
    argument = _argument(declaration, face, name)
    return OWN[name][0] if name in OWN or argument is None else _own_annotation(argument)


def _own_default(argument: Number | Option) -> str:
    return text.quoted(argument.default) if isinstance(argument.default, str) else repr(argument.default)


def _own_annotation(argument: Number | Option) -> str:
    if isinstance(argument, Number):
        return "float | None" if argument in AROUND else "float"
    if argument.is_dtype:
        return "torch.dtype | None"
    return text.choices(argument.choices) if argument.choices else "bool"
