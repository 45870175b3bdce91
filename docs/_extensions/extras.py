"""The table of pip's extras, read from pyproject.toml and its comments. Used by conf.py."""

from __future__ import annotations

import re
from pathlib import Path

MEANINGS = {
    "torch": "`flatstep.torch`",
    "jax": "`flatstep.jax`",
    "flax": "`flatstep.jax.flax`",
    "files": "`save` and `load` of the NumPy optimizers",
    "bfloat16": '`mu_dtype="bfloat16"` of the NumPy optimizers',
    "demo": "`python -m flatstep demo`, and the gallery",
    "bench": "`python -m flatstep bench`",
    "docs": "this site",
}


def extras_table(pyproject: Path) -> str:
    """A Markdown table: extra, what it is for, what it installs."""
    section = pyproject.read_text(encoding="utf-8").partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    lists = dict(re.findall(r"^([\w-]+) = \[(.*?)\]", re.sub(r" +#.*", "", section), re.MULTILINE | re.DOTALL))
    rows = ["| extra | for | installs |", "|---|---|---|"]
    for name, meaning in MEANINGS.items():
        packages = re.findall(r'"([^";]+(?:\[[^"]*)?)"', lists[name])
        rows.append(f"| `{name}` | {meaning} | {', '.join(f'`{package}`' for package in packages)} |")
    return "\n".join(rows)
