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


@pytest.mark.parametrize("page", [_marked(page) for page in PAGES])
def test_the_code_of_a_page_runs(page, tmp_path):
    missing = [name for name in sorted(needed(page)) if find_spec(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    script = tmp_path / "page.py"
    script.write_text(code(page), encoding="utf-8")
    result = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path, timeout=240)
    assert result.returncode == 0, result.stderr


@pytest.fixture
def messages(monkeypatch):
    """The script that finds the error messages."""
    monkeypatch.syspath_prepend(DOCS / "_extensions")
    return pytest.importorskip("messages")


def test_troubleshooting_has_every_error_message_and_no_other(messages):
    page, sources = messages.in_page(), messages.in_sources()
    assert len(page) == len(set(page)) > 200
    assert sorted(sources - set(page)) == [], "add these to docs/troubleshooting.md"
    assert sorted(set(page) - sources) == [], "remove these from docs/troubleshooting.md"


def test_messages_are_read_as_they_are_raised(messages):
    """The script joins what a message is made of, in Python and in C++."""
    python = 'raise ValueError(f"{name} is {value!r}, " "expected " + kind)'
    assert [messages._tidy(text) for text in messages._of_python(python)] == ["is …, expected"]
    core = (
        'if (is_bad) throw ArgumentError{Operand::param, "has shape " + shape + ", expected "\n  "{other}; copy it"};'
    )
    assert [messages._tidy(text) for text in messages._of_core(core)] == ["has shape …, expected …; copy it"]


def test_the_switches_of_the_build_are_there():
    """Those in the page on installing, in the build itself."""
    named = set(re.findall(r"FLATSTEP_\w+", (DOCS / "install.md").read_text(encoding="utf-8")))
    there = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    assert len(named) >= 3
    assert [name for name in sorted(named) if not re.search(rf"(?:option|set)\({name} ", there)] == []


def test_the_picture_of_the_house_names_what_there_is():
    picture = (DOCS / "_static" / "house.svg").read_text(encoding="utf-8")
    names = re.findall(r'class="path"[^>]*>([^<]+)<', picture)
    assert len(names) > 10
    missing = [name for name in names if not (ROOT / name).exists()]
    assert not missing
