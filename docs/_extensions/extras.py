"""The table of pip's extras, read from pyproject.toml. Used by conf.py. Needs Python 3.11."""

from __future__ import annotations

from pathlib import Path

import tomllib

MEANINGS = {
    "torch": "`flatstep.torch`",
    "jax": "`flatstep.jax`",
    "flax": "`flatstep.jax.flax`",
    "files": "`save` and `load` of the NumPy optimizers",
    "bfloat16": '`mu_dtype="bfloat16"` of the NumPy optimizers',
    "demo": "`python -m flatstep demo`, and the gallery",
    "bench": "`python -m flatstep bench`",
}


def extras_table(pyproject: Path) -> str:
    """A Markdown table: extra, what it is for, what it installs."""
    extras = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    rows = ["| extra | for | installs |", "|---|---|---|"]
    for name, meaning in MEANINGS.items():
        packages = [package.partition(";")[0].strip() for package in extras[name]]
        rows.append(f"| `{name}` | {meaning} | {', '.join(f'`{package}`' for package in packages)} |")
    return "\n".join(rows)
