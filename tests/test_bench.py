"""The benchmark runs, and its figures are sane. No test looks at the clock."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytest.importorskip("rich")

from flatstep.bench import contenders, measure


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
