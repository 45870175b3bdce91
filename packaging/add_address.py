"""Writes the address of the public repository into a checkout that is to be released. Used when a release is made.

    python packaging/add_address.py https://github.com/OWNER/flatstep

PyPI shows README.md alone: its links need an address. They lead to the tag of the version."""

from __future__ import annotations

import re
import sys
from pathlib import Path


def add_address(root: Path, address: str) -> None:
    """Makes the README's links absolute and adds [project.urls] to pyproject.toml, in the checkout at ``root``."""
    readme, pyproject = root / "README.md", root / "pyproject.toml"
    project = pyproject.read_text(encoding="utf-8")
    if "[project.urls]" in project:
        raise SystemExit("pyproject.toml has [project.urls] already; begin with a clean checkout")
    tag = "v" + re.findall(r'^version = "(.*)"', project, re.MULTILINE)[0]
    text = re.sub(r"(!\[[^]]*\]\()(?!http|#)", rf"\1{address}/raw/{tag}/", readme.read_text(encoding="utf-8"))
    readme.write_text(re.sub(r"(\]\()(?!http|#)", rf"\1{address}/blob/{tag}/", text), encoding="utf-8")
    paths = {"Source": "", "Issues": "/issues", "Changelog": f"/blob/{tag}/CHANGELOG.md"}
    urls = "".join(f'{name} = "{address}{path}"\n' for name, path in paths.items())
    extras = "[project.optional-dependencies]"
    pyproject.write_text(project.replace(extras, f"[project.urls]\n{urls}\n{extras}"), encoding="utf-8")


if __name__ == "__main__":
    add_address(Path(__file__).parents[1], sys.argv[1].rstrip("/"))
