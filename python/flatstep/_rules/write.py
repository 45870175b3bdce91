"""All files that are written from the declarations. Used by ``python -m flatstep._rules`` and its test."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from . import OPTIMIZERS, write_docs, write_jax, write_numpy, write_torch

PACKAGE = "python/flatstep"
MARKS = "<!-- optimizers: written by python -m flatstep._rules -->", "<!-- end of optimizers -->"


def files(root: Path) -> Mapping[Path, str]:
    """The text of each written file, in the repository at ``root``."""
    readme = root / "README.md"
    return {
        root / PACKAGE / "_optimizers.py": write_numpy.module(OPTIMIZERS),
        root / PACKAGE / "torch" / "_optimizers.py": write_torch.module(OPTIMIZERS),
        root / PACKAGE / "jax" / "_optimizers.py": write_jax.module(OPTIMIZERS),
        readme: between_marks(readme.read_text(encoding="utf-8"), write_docs.table(OPTIMIZERS)),
    }


def between_marks(text: str, table: str) -> str:
    """The text, with the table between its two marks. ValueError where they are missing."""
    first, last = map(re.escape, MARKS)
    made, count = re.subn(
        f"{first}\n.*?{last}", lambda _: f"{MARKS[0]}\n\n{table}\n\n{MARKS[1]}", text, flags=re.DOTALL
    )
    if count != 1:
        raise ValueError(f"expected one pair of marks: {MARKS[0]} and {MARKS[1]}")
    return made
