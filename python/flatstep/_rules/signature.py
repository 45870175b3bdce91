"""Signatures as Python writes them, taken apart. For write.py and the front ends."""

from __future__ import annotations

import ast


def parameters(signature: str) -> list[tuple[str, str | None, bool]]:
    """Name, default and whether it is keyword-only, of each parameter of a signature."""
    arguments = ast.parse(f"def _({signature}): pass").body[0].args  # type: ignore[attr-defined]
    positional = [None] * (len(arguments.args) - len(arguments.defaults)) + arguments.defaults
    rows = [(argument.arg, default, False) for argument, default in zip(arguments.args, positional, strict=True)]
    rows += [(a.arg, default, True) for a, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    return [
        (name, None if default is None else _source(signature, default), keyword) for name, default, keyword in rows
    ]


def _source(signature: str, node: ast.expr) -> str:
    """A default as the signature writes it, which keeps 1e-3."""
    text = ast.get_source_segment(f"def _({signature}): pass", node)
    assert text is not None
    return f"({text})" if isinstance(node, ast.Tuple) and not text.startswith("(") else text
