"""Every error message of the package, found in its sources; "…" stands for what a message fills in.

``python docs/_extensions/messages.py`` prints the messages that the page on troubleshooting lacks, and those that it
has and the sources do not. A test asks for both.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "troubleshooting.md"
GAP = "…"
SHORTEST = 4  # words of a message that are always the same; what is shorter is a part of another one
NO_MESSAGE = r"to \w+|.*\bUse (the )?flatstep"  # what CUDA was asked to do, which another message names; docstrings


def in_page() -> list[str]:
    """The messages in the page: the lines of its blocks of that class."""
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"^```\{code-block\} text\n:class: messages\n\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [line.removeprefix("- ") for block in blocks for line in block.splitlines()]


def in_sources() -> set[str]:
    """The messages of Python's ``raise`` statements and of C++'s ``throw`` statements and texts."""
    python = [path for path in (ROOT / "python/flatstep").rglob("*.py") if "bench" not in path.parts]
    core = [path for folder in ("csrc", "cuda") for path in (ROOT / folder).rglob("*") if path.suffix in (".h", ".cpp")]
    found = [text for path in python for text in _of_python(path.read_text(encoding="utf-8"))]
    found += [text for path in core for text in _of_core(path.read_text(encoding="utf-8"))]
    texts = {text for text in map(_tidy, found) if not re.match(NO_MESSAGE, text)}
    return {text for text in texts if len(re.findall(r"[A-Za-z_]{2,}", text)) >= SHORTEST}


def _tidy(text: str) -> str:
    return re.sub(f"{GAP}+", GAP, text.replace("{other}", GAP)).strip(f" {GAP},:;").strip()


def _of_python(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
            yield _text(node.exc.args[0])


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(value) for value in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    return GAP


def _of_core(source: str) -> Iterator[str]:
    """The texts of a statement that throws, joined; and each sentence that stands in another statement."""
    source = re.sub(r"^#.*$|(?<!:)//.*$", "", source, flags=re.MULTILINE)
    source = re.sub(r'"\s*\n\s*"', "", source)
    for statement in re.split(r'(?:;|(?<!Error)\{|\})(?=(?:[^"\n]*"[^"\n]*")*[^"\n]*$)', source, flags=re.MULTILINE):
        statement = statement[max(statement.find("throw "), 0) :]  # before it stands a condition
        literals = re.findall(r'"((?:[^"\\\n]|\\.)*)"', statement)
        literals = [re.sub(r"\\(.)", r"\1", text) for text in literals if "\\n" not in text and "def " not in text]
        sentences = [text for text in literals if text.count(" ") >= 2]
        if "throw" in statement or "reject(" in statement or "error(" in statement.lower():
            yield GAP.join(literals)
        else:
            yield from sentences


def main() -> int:
    """Prints what differs. Exit status 1 where anything does."""
    page, sources = set(in_page()), in_sources()
    for text in sorted(sources - page):
        print(f"not in the page: {text}")
    for text in sorted(page - sources):
        print(f"not in the sources: {text}")
    return int(page != sources)


if __name__ == "__main__":
    raise SystemExit(main())
