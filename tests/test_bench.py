"""The benchmark runs, and its figures are sane. No test looks at the clock."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest

pytest.importorskip("rich")

from flatstep.bench import HandOver, contenders, handover, measure

from flatstep.trees import Tree


def test_command(tmp_path):
    output = tmp_path / "timings.json"
    command = [
        sys.executable,
        "-m",
        "flatstep",
        "bench",
        "--size",
        "100",
        "1e3",
        "--rounds",
        "2",
        "--json",
        str(output),
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert "100 float32 elements" in result.stdout
    assert "1,000 float32 elements" in result.stdout
    written = json.loads(output.read_text())
    assert {"target", "threads", "compiler", "numpy"} <= set(written["machine"])
    for row in written["results"]:
        assert len(row["seconds"]) == 2
        assert all(second > 0 for second in row["seconds"])
        assert row["bytes_per_element"] in (20, 28, 36)
        assert row["share_of_limit"] > 0
    assert "us a tensor" in result.stdout
    assert all(len(seconds) == 2 and min(seconds) > 0 for seconds in written["handover"]["seconds"].values())
    assert written["handover"]["many_beside_one"] > 0


def test_torch_cases(tmp_path, monkeypatch, capsys):
    pytest.importorskip("torch")
    from flatstep.bench import command, torch_steps

    shapes = torch_steps.gpt2_small()
    assert len(shapes) == 148 and sum(map(math.prod, shapes)) == 124_439_808
    monkeypatch.setitem(torch_steps.CASES, "two", lambda: [(3, 5), (7,)])
    output = tmp_path / "timings.json"
    command.run_torch(2, output, only=["two"])
    written = json.loads(output.read_text())
    assert list(written["torch"]) == ["two"]
    rows = {row["name"]: row for row in written["torch"]["two"]}
    assert rows.keys() >= {"flatstep.torch.AMSGrad", "torch.optim.Adam, fused", "limit"}
    assert all(row["elements"] == 22 and len(row["seconds"]) == 2 and min(row["seconds"]) > 0 for row in rows.values())
    assert "times ours" in capsys.readouterr().out


def test_jax_cases(tmp_path, monkeypatch, capsys):
    pytest.importorskip("optax")
    from flatstep.bench import command, jax_steps

    assert [len(shapes()) for shapes in jax_steps.CASES.values()] == [1, 200, 1000]
    monkeypatch.setitem(jax_steps.CASES, "two", lambda: [(50, 30), (700,)])
    output = tmp_path / "timings.json"
    command.run_jax(2, output, only=["two"])
    rows = json.loads(output.read_text())["jax"]
    programs = [row for row in rows if "compile_seconds" in row]
    assert all(len(row["seconds"]) == 2 and min(row["seconds"]) > 0 and row["elements"] == 2200 for row in rows)
    assert [(row["rule"], row["name"]) for row in programs] == [
        (rule, form) for rule in jax_steps.RULES for form in (jax_steps.STEP, jax_steps.UPDATE, jax_steps.OPTAX)
    ]
    # What is moved is what was promised: a step's streams once; updates and what adds them; optax's by XLA's count.
    assert [round(row["bytes_per_element"]) for row in programs] == [36, 44, 52, 36, 44, 72]
    assert "compile" in capsys.readouterr().out


@pytest.mark.parametrize("size", ["0", "-5", "many", "inf", "nan"])
def test_sizes_that_are_none(size):
    command = [sys.executable, "-m", "flatstep", "bench", "--size", size]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    assert "is not a number of elements" in result.stderr or "expected" in result.stderr


def test_every_contender_is_held_against_its_limit():
    """One that moves as many bytes; a limit's own share is 1 if it is the faster of the two forms."""
    results = measure(list(contenders(1000)), 1000, rounds=3)
    limits = [result for result in results if result.is_limit]
    for count in {result.bytes_per_element for result in results}:
        shares = [result.share for result in limits if result.bytes_per_element == count]
        assert len(shares) == 2
        assert 1.0 in shares
    assert {"AMSGrad", "OptimisticAdam", "AMSGrad, decayed"} <= {result.name for result in results}


def test_handover_is_a_slope():
    """Of what it takes beyond one tensor, the median over the rounds; it is left out of many tensors, not of one."""
    seconds = {
        handover.TINY: [1.0, 2.0, 3.0],
        handover.LIST: [2001.0, 4002.0, 3003.0],
        handover.NESTED: [5001.0, 5002.0, 5003.0],
        handover.MANY: [6000.0, 6000.0, 6000.0],
        handover.ONE: [2000.0, 1000.0, 3000.0],
    }
    result = HandOver(seconds)
    assert result.per_tensor(handover.LIST) == 3
    assert result.per_tensor(handover.NESTED) == 5
    assert result.many_beside_one() == 3
    assert result.many_beside_one(without_handover=True) == 1.5


def test_handover_cases_are_what_they_are_called():
    result = handover.measure_handover(rounds=2)
    sizes = {case: [leaf.size for leaf in Tree(params).leaves] for case, params in handover.cases().items()}
    assert sizes.keys() == result.seconds.keys()
    assert len(sizes[handover.MANY]) == 1000 and set(sizes[handover.MANY]) <= set(range(64, 4097))
    assert sizes[handover.ONE] == [sum(sizes[handover.MANY])]
    assert sizes[handover.TINY] == [1]
    assert sizes[handover.LIST] == sizes[handover.NESTED] == [1] * 1001
