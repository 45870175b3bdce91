"""The README's links lead to what there is, in a clone and, after packaging/add_address.py, on PyPI."""

from __future__ import annotations

import importlib.util
import re
import shutil

import pytest

import flatstep
from repository import README, ROOT

ADDRESS = "https://example.org/flatstep"


def links(text: str) -> list[str]:
    """The targets of all links and pictures."""
    return re.findall(r"\]\(([^)]*)\)", text)


def _module():
    spec = importlib.util.spec_from_file_location("add_address", ROOT / "packaging" / "add_address.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def released(tmp_path):
    """A checkout with the address in it."""
    for name in ("README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    _module().add_address(tmp_path, ADDRESS)
    return tmp_path


def test_links_lead_to_files():
    targets = [target for target in links(README.read_text(encoding="utf-8")) if not target.startswith("http")]
    assert len(targets) > 10
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_a_release_has_absolute_links(released):
    before = links(README.read_text(encoding="utf-8"))
    after = links((released / "README.md").read_text(encoding="utf-8"))
    expected = {}
    for target in before:
        kind = "raw" if target.endswith(".png") else "blob"
        expected[target] = target if target.startswith("http") else f"{ADDRESS}/{kind}/v{flatstep.__version__}/{target}"
    assert after == [expected[target] for target in before]


def test_a_release_has_urls(released):
    tomllib = pytest.importorskip("tomllib")
    before, after = (tomllib.loads((path / "pyproject.toml").read_text(encoding="utf-8")) for path in (ROOT, released))
    urls = after["project"].pop("urls")
    assert after == before
    assert urls["Source"] == ADDRESS and urls["Issues"] == f"{ADDRESS}/issues"
    assert urls["Changelog"].startswith(ADDRESS) and urls["Changelog"].endswith("/CHANGELOG.md")


def test_an_address_is_added_once(released):
    with pytest.raises(SystemExit, match="already"):
        _module().add_address(released, ADDRESS)
