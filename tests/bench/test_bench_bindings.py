"""The comparison of bindings builds and runs, and its ways of calling do the same. No test looks at the clock."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("rich")
pytest.importorskip("pybind11")
pytest.importorskip("nanobind")
pytest.importorskip("cmake")
pytest.importorskip("ninja")

from flatstep.bench import bindings

from repository import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def modules():
    return bindings.build_modules(ROOT / "bench" / "bindings", rounds=1)


@pytest.mark.parametrize("way", bindings.WAYS, ids=lambda way: way.name)
def test_each_way_takes_the_same(modules, way):
    functions = modules[way.module].functions
    step = getattr(functions, way.function)
    assert functions.nothing() is None
    assert step([np.ones(3, np.float32), np.ones(4, np.float32)], (2, 0.5)) is None
    assert functions.seen() == (7, 2.5)
    for wrong in (np.ones(3), np.ones((2, 2), np.float32), np.ones(6, np.float32)[::2]):
        with pytest.raises(TypeError, match="expected contiguous float32 arrays of one dimension"):
            step([wrong], ())


def test_figures(modules, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bindings, "build_modules", lambda source, rounds: modules)
    monkeypatch.chdir(ROOT)
    output = tmp_path / "bindings.json"
    assert bindings.run(2, output) == 0
    rows = json.loads(output.read_text())["bindings"]
    assert [row["name"] for row in rows] == [way.name for way in bindings.WAYS]
    for row in rows:
        assert row["nanoseconds"].keys() == set(bindings.CASES)
        assert all(len(timed) == 2 and min(timed) > 0 for timed in row["nanoseconds"].values())
        assert 10_000 < row["module_bytes"] < 10_000_000
        assert len(row["build_seconds"]) == len(row["file_seconds"]) == 1
        assert min(*row["build_seconds"], *row["file_seconds"]) > 0
    assert "100 arrays" in capsys.readouterr().out


def test_what_is_missing_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(bindings, "__file__", str(tmp_path / "bindings.py"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="in the root of a clone"):
        bindings.source()
    monkeypatch.chdir(ROOT)
    assert bindings.source() == ROOT / "bench" / "bindings"
    monkeypatch.setattr(bindings, "find_spec", lambda name: None if name == "pybind11" else name)
    with pytest.raises(SystemExit, match=r'needs pybind11 and a C\+\+ compiler: pip install "flatstep\[bench-bindings'):
        bindings.require()


def test_a_build_that_fails_says_why(tmp_path):
    (tmp_path / "CMakeLists.txt").write_text('message(FATAL_ERROR "no compiler today")\n')
    with pytest.raises(RuntimeError, match="no compiler today"):
        bindings.build_modules(tmp_path, rounds=1)
