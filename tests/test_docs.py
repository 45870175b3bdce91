"""What is public is documented; what is documented is true."""

from __future__ import annotations

import doctest
import inspect
import re
from pathlib import Path

import numpy as np
import pytest

import flatstep

README = Path(__file__).parents[1] / "README.md"
PUBLIC = [name for name in flatstep.__all__ if not name.startswith("_")]


def members(name: str) -> list[tuple[str, object]]:
    """A public object and, of a class, its public methods and properties."""
    public = getattr(flatstep, name)
    found = [(name, public)]
    if inspect.isclass(public):
        own = inspect.getmembers(public, lambda member: inspect.isfunction(member) or isinstance(member, property))
        found += [(f"{name}.{key}", member) for key, member in own if not key.startswith("_")]
    return found


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_documented(name):
    for path, member in members(name):
        assert inspect.getdoc(member), f"{path} has no docstring"
    doc = inspect.getdoc(getattr(flatstep, name)) or ""
    if name != "Optimizer":
        assert ">>>" in doc, f"{name} has no example"
    for argument in inspect.signature(getattr(flatstep, name)).parameters if name != "Optimizer" else ():
        assert re.search(rf"^    {argument}: ", doc, re.MULTILINE), f"{name} does not document {argument}"


@pytest.mark.parametrize("name", PUBLIC)
def test_examples_run(name):
    before = flatstep.get_num_threads()
    try:
        for test in doctest.DocTestFinder(recurse=True).find(getattr(flatstep, name), name):
            failed, _ = doctest.DocTestRunner(verbose=False).run(test)
            assert failed == 0, f"the example of {test.name} fails"
    finally:
        flatstep.set_num_threads(before)


def test_the_readme_example_runs():
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)
    assert names["opt"].count == 100
    assert np.abs(names["params"]["w"]).max() < 0.5


def test_the_readme_has_two_commands():
    """Which is what continuous integration runs."""
    commands = re.findall(r"^python3 -m venv .*", README.read_text(), re.MULTILINE)
    assert [command.split()[-1] for command in commands] == ["demo", "pytest"]


def test_the_readme_counts_bytes_right():
    """A parameter is read and written, a gradient read, each slot read and written."""
    rows = re.findall(r"^\| `(\w+)(\(.*\))?` \| (.*?) \| (\d+) \|", README.read_text(), re.MULTILINE)
    assert [row[0] for row in rows] == [
        "AMSGrad",
        "OptimisticAdam",
        "OptimisticAdam",
        "Adam",
        "AdamW",
        "OptimisticGradientDescent",
    ]
    for name, settings, slots, count in rows:
        options = dict(nesterov=False) if settings else {}
        opt = getattr(flatstep, name)(np.ones(1, np.float32), 0.1, **options)
        assert ", ".join(f"`{slot}`" for slot in opt.state) == slots
        assert int(count) == 4 * (3 + 2 * len(opt.state))
