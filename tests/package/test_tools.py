"""The tools of the repository agree with each other."""

from __future__ import annotations

import re

import pytest

from repository import ROOT

PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "file, pattern",
    [
        (".pre-commit-config.yaml", r"additional_dependencies: \[(.*)\]"),
        ("noxfile.py", r'"([\w-]+==[\w.]+)"'),
    ],
)
def test_checks_use_the_lint_extra(file, pattern):
    """What a commit is checked with is what continuous integration checks with."""
    lint = re.search(r"^lint = \[(.*?)\]", PYPROJECT, re.MULTILINE | re.DOTALL)
    assert lint
    pins = re.findall(pattern, (ROOT / file).read_text(encoding="utf-8"))
    assert pins
    assert set(pins) <= set(re.findall(r'"(.*?)"', lint[1]))


def test_the_citation_names_the_version():
    cited = re.findall(r"^version: (.*)", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    assert cited == re.findall(r'^version = "(.*)"', PYPROJECT, re.MULTILINE)
