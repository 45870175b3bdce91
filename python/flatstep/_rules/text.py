"""Python source as text: signatures, docstrings, imports, formatted as ruff does. For write.py."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .declaration import Number, Option

WIDTH = 120
WRITTEN = "Written by ``python -m flatstep._rules``: change the declarations in flatstep/_rules, not this file."


@dataclass(frozen=True)
class Parameter:
    """A parameter of a function that is written."""

    name: str
    annotation: str
    default: str | None  # as Python writes it
    is_keyword: bool


def number(value: float | None) -> str:
    """A number as people write it: 1e-8, not 1e-08."""
    return re.sub(r"e-0(\d)", r"e-\1", "1e-2" if value == 0.01 else repr(value))


def header(first: Sequence[str], params: Iterable[Parameter], result: str, indent: str) -> list[str]:
    """``def first[0](first[1:], ...) -> result:``, a parameter a line."""
    lines = [f"{indent}def {first[0]}(", *(f"{indent}    {name}," for name in first[1:])]
    has_star = False
    for parameter in params:
        if parameter.is_keyword and not has_star:
            lines.append(f"{indent}    *,")
            has_star = True
        default = "" if parameter.default is None else f" = {parameter.default}"
        lines.append(f"{indent}    {parameter.name}: {parameter.annotation}{default},")
    return [*lines, f"{indent}) -> {result}:"]


def handed_on(names: Iterable[str], more: Mapping[str, object], indent: str) -> list[str]:
    """``dict(name=name, ...)`` as an argument of a call, an item a line."""
    items = [f"{name}={name}" for name in names] + [f"{name}={value!r}" for name, value in more.items()]
    return [f"{indent}dict(", *(f"{indent}    {item}," for item in items), f"{indent}),"]


def choices(values: Iterable[str]) -> str:
    """The Literal of some strings."""
    return f"Literal[{', '.join(map(quoted, values))}]"


def quoted(value: str) -> str:
    return f'"{value}"'


def described(argument: Number | Option, default: str | None, *, also: str = "", meaning: str = "") -> str:
    """What a docstring says of an argument: meaning, bounds, choices, default."""
    text = meaning or argument.meaning
    if not meaning:
        text += _bounds(argument) if isinstance(argument, Number) else ""
        text += f"; {argument.more}" if argument.more else ""
    text += f". {also}" if also else "."
    if default is None:
        return text
    if default != "None":
        return f"{text} Default {default}."
    what = argument.if_none or ("none" if isinstance(argument, Number) else "")
    return f"{text} Default None{': ' + what if what else ''}."


def _bounds(number: Number) -> str:
    if number.at_least == 0 and number.below == 1:
        return ", in [0, 1)"
    return f", at least {number.at_least:g}" if number.at_least > float("-inf") else ""


def docstring(summary: str, sections: Sequence[str], indent: str = "    ") -> list[str]:
    """The lines of a raw docstring."""
    body = "\n\n".join(block(section) for section in sections if section.strip())
    lines = [f'r"""{summary}', "", *body.splitlines(), '"""']
    return [(indent + line).rstrip() for line in lines]


def block(text: str) -> str:
    """A paragraph of a declaration without its indentation."""
    return textwrap.dedent(text).strip("\n").rstrip()


def section(title: str, text: str) -> str:
    """``title:`` with the text indented below."""
    return f"{title}:\n{textwrap.indent(block(text), '    ')}"


def entries(title: str, rows: Iterable[tuple[str, str]]) -> str:
    """A section of named entries, wrapped."""
    return section(title, "\n".join(wrapped(f"{name}: {text}", WIDTH - 8) for name, text in rows))


def references(text: str) -> str:
    """The last section."""
    return section("References", wrapped(text, WIDTH - 8, ""))


def wrapped(text: str, width: int, indent: str = "    ") -> str:
    """The lines of a paragraph, all but the first indented."""
    return textwrap.fill(text, width, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False)


def preface(title: str, typing_names: Iterable[str]) -> list[str]:
    """The docstring of a written module, and its first imports."""
    return [
        f'"""{title}',
        "",
        WRITTEN,
        '"""',
        "",
        "from __future__ import annotations",
        "",
        *import_line("typing", typing_names),
        "",
    ]


def import_line(module: str, names: Iterable[str]) -> list[str]:
    """``from module import names``."""
    names = sorted(names)
    line = f"from {module} import {', '.join(names)}"
    if len(line) <= WIDTH:
        return [line]
    return [f"from {module} import (", *(f"    {name}," for name in names), ")"]


def own_imports(names: Mapping[str, Iterable[str]]) -> list[str]:
    """The imports from modules of the package, sorted as ruff does."""
    modules = sorted(names, key=lambda module: (-len(module) + len(module.lstrip(".")), module))
    return [line for module in modules for line in import_line(module, names[module])]


def used(body: str, names: Iterable[str]) -> list[str]:
    """Those names that stand in the text."""
    return [name for name in names if re.search(rf"\b{name}\b", body)]


def all_list(names: Iterable[str]) -> list[str]:
    """``__all__``, a name a line."""
    return ["__all__ = [", *(f'    "{name}",' for name in names), "]"]


def constant(name: str) -> str:
    """The name of a class's declaration: AMSGrad -> AMSGRAD, OptimisticAdam -> OPTIMISTIC_ADAM."""
    return re.sub(r"(?<=[a-z])(?=[A-Z]\w)", "_", name).upper()
