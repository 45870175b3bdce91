"""The scripts for a machine with a CUDA device (cuda/visit) fit the repository, and run through on the CPU."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
from types import ModuleType

import pytest

from repository import ROOT, TESTS

VISIT = ROOT / "cuda" / "visit"
SCRIPT = (VISIT / "visit.sh").read_text(encoding="utf-8")


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"visit_{name}", VISIT / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def torch():
    """On one thread, so that other processes do not hold up tiny steps."""
    module = pytest.importorskip("torch")
    before = module.get_num_threads()
    module.set_num_threads(1)
    yield module
    module.set_num_threads(before)


def test_all_test_files_for_a_device_are_run():
    """Each that the script names is there, and no other holds tests that need a CUDA device."""
    marked = [path for path in TESTS.glob("cuda/test_*.py") if "pytest.mark.cuda" in path.read_text(encoding="utf-8")]
    named = re.findall(r"tests/\S+\.py", SCRIPT)
    assert sorted(named) == sorted(path.relative_to(ROOT).as_posix() for path in marked)


def test_all_scripts_are_run():
    named = re.findall(r"\$here/(\w+\.py)", SCRIPT)
    assert set(named) == {path.name for path in VISIT.glob("*.py")}


def test_the_script_is_valid():
    done = subprocess.run(["bash", "-n", VISIT / "visit.sh"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "settings, folder, message",
    [
        ({"VISIT_ONLY": "tests speed"}, ROOT, "NO STAGE: speed; there are: same_bits"),
        ({}, VISIT, "NO REPOSITORY: run this in its root"),
    ],
)
def test_a_visit_that_would_show_nothing_is_an_error(settings, folder, message):
    command = ["bash", VISIT / "visit.sh"]
    done = subprocess.run(command, env={**os.environ, **settings}, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 2
    assert message in done.stderr


def test_same_bits(torch, capsys):
    same_bits = load("same_bits")
    assert same_bits.main(["--dry"]) == 0
    checks = capsys.readouterr().out.splitlines()[2:]
    assert all(check.endswith(" same bits") for check in checks)
    assert {"AMSGrad", "RMSprop", "Lion", "OptimisticAMSGrad"} <= {check.split()[0] for check in checks}


def test_other_bits_are_seen(torch, capsys):
    same_bits = load("same_bits")
    one = torch.tensor([0.0, 1.0, float("nan")])
    assert same_bits.differing(one, one.clone()) == 0
    assert same_bits.differing(one, -one) == 3
    assert not same_bits.check("this", lambda: 1)
    assert not same_bits.check("that", lambda: 1 // 0)
    assert (
        capsys.readouterr().out == "this 1 DIFFER\nthat FAILED ZeroDivisionError integer division or modulo by zero\n"
    )


def rows_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.slow  # most of it to import what torch.optim needs for foreach=True
def test_timings(torch, tmp_path):
    timings = load("timings")
    assert timings.main([str(tmp_path / "rows"), "1e9", "--dry"]) == 0
    rows = rows_of(tmp_path / "rows")
    assert rows[-1]["done"]
    measured = {row["case"] for row in rows if "case" in row}
    assert measured >= {case.name for case in timings.FIRST + timings.OTHERS}
    assert not [row for row in rows if "skipped" in row]


def test_timings_without_time(torch, tmp_path):
    timings = load("timings")
    assert timings.main([str(tmp_path / "rows"), "0", "--dry"]) == 0
    rows = rows_of(tmp_path / "rows")
    assert rows[-1]["done"]
    assert not [row for row in rows if "case" in row]
    assert {row["skipped"] for row in rows if "skipped" in row} >= {case.name for case in timings.FIRST}


def test_a_case_that_fails(torch, tmp_path):
    timings = load("timings")
    report = timings.Report(tmp_path / "rows", 1e9, timings.Place(is_dry=True))
    report.case("none", lambda: {}["none"])
    report.case("next", dict)
    assert report.failures == 1
    assert [row.get("failed") for row in rows_of(tmp_path / "rows")] == ["KeyError: 'none'", None]


@pytest.mark.parametrize("off", [(), ("grad",), ("param", "grad"), ("param", "grad", "state")])
def test_where_the_operands_of_a_case_are(torch, off):
    """One element after a multiple of 16 bytes, where the case says so."""
    timings = load("timings")
    case = timings.Case("this", timings.ours.AMSGrad, off=off)
    param, optimizer = timings.prepared(case, timings.Place(is_dry=True))
    optimizer.step()
    slots = timings.slots(optimizer, param)
    assert len(slots) == 3
    operands = {"param": [param], "grad": [param.grad], "state": list(slots.values())}
    for name, tensors in operands.items():
        assert {tensor.data_ptr() % 16 for tensor in tensors} == {4 * (name in off)}, name


def test_few_steps(torch):
    load("few_steps").main(["AMSGrad", "bfloat16", "1", "1025", "--dry"])
