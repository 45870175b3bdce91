"""The tools of the repository agree with each other."""

from __future__ import annotations

import re

from repository import ROOT


def test_hooks_use_the_lint_extra():
    """What a commit is checked with is what continuous integration checks with."""
    lint = re.search(r"^lint = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(), re.MULTILINE | re.DOTALL)
    assert lint
    pins = re.findall(r"additional_dependencies: \[(.*)\]", (ROOT / ".pre-commit-config.yaml").read_text())
    assert pins
    assert set(pins) <= set(re.findall(r'"(.*?)"', lint[1]))
