"""What is public is documented; what is documented is true."""

from __future__ import annotations

import doctest
import inspect
import re
from ast import literal_eval
from importlib.util import find_spec

import numpy as np
import pytest

import flatstep
from repository import README, TESTS
from table import TABLE

PUBLIC = [(flatstep, name) for name in flatstep.__all__ if not name.startswith("_")]
BASES = {"Optimizer"}  # not made directly
if find_spec("torch"):
    import flatstep.torch

    PUBLIC += [(flatstep.torch, name) for name in flatstep.torch.__all__]
if find_spec("jax") and find_spec("optax"):
    import flatstep.jax

    PUBLIC += [(flatstep.jax, name) for name in flatstep.jax.__all__]
if find_spec("flax"):
    import flatstep.jax.flax

    PUBLIC += [(flatstep.jax.flax, name) for name in ("TrainState", "Optimizer")]
public = pytest.mark.parametrize("module, name", PUBLIC, ids=[f"{module.__name__}.{name}" for module, name in PUBLIC])


def members(module, name: str) -> list[tuple[str, object]]:
    """A public object and, of a class, its public methods and properties that are not torch's."""
    found = [(name, public := getattr(module, name))]
    if inspect.isclass(public):
        own = inspect.getmembers(public, lambda member: inspect.isfunction(member) or isinstance(member, property))
        found += [(f"{name}.{key}", member) for key, member in own if not key.startswith("_") and _is_ours(member)]
    return found


def _is_ours(member: object) -> bool:
    return not getattr(member, "__module__", "flatstep").startswith(("torch.", "flax."))


@public
def test_public_names_are_documented(module, name):
    for path, member in members(module, name):
        assert inspect.getdoc(member), f"{path} has no docstring"
    if name in BASES:
        return
    doc = inspect.getdoc(getattr(module, name)) or ""
    assert ">>>" in doc, f"{name} has no example"
    for argument in inspect.signature(getattr(module, name)).parameters:
        assert re.search(rf"^    {argument}: ", doc, re.MULTILINE), f"{name} does not document {argument}"


@public
def test_examples_run(module, name):
    before = flatstep.get_num_threads()
    try:
        for test in doctest.DocTestFinder(recurse=True).find(getattr(module, name), name):
            failed, _ = doctest.DocTestRunner(verbose=False).run(test)
            assert failed == 0, f"the example of {test.name} fails"
    finally:
        flatstep.set_num_threads(before)


def test_the_readme_examples_run():
    core, *front_ends = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    names: dict[str, object] = {}
    exec(core, names)
    assert names["opt"].count == 100
    assert np.abs(names["params"]["w"]).max() < 0.5
    for code in front_ends:
        if all(find_spec(name) for name in _frameworks(code)):
            names = {}
            exec(code, names)
            assert _has_stepped(names), f"the example takes no step:\n{code}"


def _frameworks(code: str) -> set[str]:
    return {name for name in ("torch", "jax", "flax") if re.search(rf"\b{name}\b", code)}


def _has_stepped(names: dict[str, object]) -> bool:
    if "torch" in names:
        return bool(names["opt"].state)
    import jax

    counts = [leaf for leaf in jax.tree.leaves(names["state"]) if np.issubdtype(leaf.dtype, np.integer)]
    return len(counts) > 0 and min(counts) > 0


def test_the_readme_has_two_commands():
    """Which is what continuous integration runs."""
    commands = re.findall(r"^python3 -m venv .*", README.read_text(), re.MULTILINE)
    assert [command.split()[-1] for command in commands] == ["demo", "pytest"]


def test_the_readme_counts_bytes_right():
    """A parameter is read and written, a gradient read, each slot read and written."""
    rows = re.findall(r"^\| `(\w+)(\(.*\))?` \| (.*?) \| (\d+) \|", README.read_text(), re.MULTILINE)
    assert {row[0] for row in rows} == {entry.optimizer.__name__ for entry in TABLE}
    for name, settings, slots, count in rows:
        options = settings.strip("()").split(", ") if settings else []
        chosen = {option: literal_eval(value) for option, value in (text.split("=") for text in options)}
        opt = getattr(flatstep, name)(np.ones(1, np.float32), 0.1, **chosen)
        assert ", ".join(f"`{slot}`" for slot in opt.state) == slots
        assert int(count) == 4 * (3 + 2 * len(opt.state))


DIFFERENCES = README.parent / "docs" / "differences.md"


def test_every_difference_has_a_test():
    """Each row of the tables names, in its last column, a test that there is."""
    lines = [line for line in DIFFERENCES.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    rows = [line.strip("| ").split(" | ") for line in lines if not line.startswith("|---")]
    headers = [row for row in rows if row[-1] == "test"]
    assert len(headers) == 4
    for row in rows:
        assert len(row) == 4, row
        if row in headers:
            continue
        file, name = row[-1].split("::")
        text = next(TESTS.rglob(file)).read_text(encoding="utf-8")
        assert re.search(rf"^def {name}\(", text, re.MULTILINE), row
