"""What is written from the declarations is what they say, and the declarations are what the libraries have."""

from __future__ import annotations

from pathlib import Path

import pytest

from flatstep import _core
from flatstep._rules import OPTIMIZERS, write

ROOT = Path(__file__).parents[1]
WRITTEN = write.files(ROOT)


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: str(path.relative_to(ROOT)))
def test_written_files_are_up_to_date(path):
    assert path.read_text(encoding="utf-8") == WRITTEN[path], "run: python -m flatstep._rules"


def test_the_table_needs_its_marks():
    with pytest.raises(ValueError, match="expected one pair of marks"):
        write.between_marks("no table", "a table")


def test_every_rule_is_declared():
    declared = {rule for declaration in OPTIMIZERS for rule in declaration.rules}
    assert declared == set(_core.rules())
