"""The code in the pages of the documentation runs, and the pages name what there is."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec

import pytest

from repository import ROOT

DOCS = ROOT / "docs"
LIBRARIES = {"torch", "jax", "optax", "flax", "equinox", "lightning", "accelerate", "safetensors", "ml_dtypes"}


def code(page: str) -> str:
    """All Python blocks of a page, one after the other: a later one uses the names of those before it."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE))


PAGES = sorted(path.name for path in DOCS.glob("*.md") if code(path.name))


def needed(page: str) -> set[str]:
    """The libraries that a page imports, and those that its calls need."""
    text = code(page)
    imported = set(re.findall(r"^\s*(?:import|from) (\w+)", text, re.MULTILINE))
    imported |= set(re.findall(r"flatstep\.(torch|jax)", text))
    return imported & LIBRARIES | ({"safetensors"} if ".save(" in text else set())


def test_there_are_pages_with_code():
    assert {"start.md", "numpy.md", "pytorch.md", "jax.md", "checkpoints.md", "bits.md", "choose.md"} <= set(PAGES)


def _marked(page: str):
    """An interpreter that imports torch or jax takes seconds."""
    return pytest.param(page, marks=[pytest.mark.slow] if needed(page) & {"torch", "jax"} else [])


@pytest.mark.parametrize("page", map(_marked, PAGES))
def test_the_code_of_a_page_runs(page, tmp_path):
    missing = [name for name in sorted(needed(page)) if find_spec(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    script = tmp_path / "page.py"
    script.write_text(code(page), encoding="utf-8")
    result = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path, timeout=240)
    assert result.returncode == 0, result.stderr


def test_the_picture_of_the_house_names_what_there_is():
    picture = (DOCS / "_static" / "house.svg").read_text(encoding="utf-8")
    names = re.findall(r'class="path"[^>]*>([^<]+)<', picture)
    assert len(names) > 10
    missing = [name for name in names if not (ROOT / name).exists()]
    assert not missing
