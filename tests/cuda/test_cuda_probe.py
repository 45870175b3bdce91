"""Whether an install goes on without the cuda target where nvcc cannot build it, and says why (cuda/probe)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from flatstep import _core, info
from repository import ROOT

NVCC = shutil.which("nvcc")
PROJECT = f"""
cmake_minimum_required(VERSION 3.24)
project(probed LANGUAGES CXX)
set(FLATSTEP_CUDA_FLAGS -O3)
include({ROOT}/cuda/probe/probe.cmake)
flatstep_find_why_no_cuda(why)
message(STATUS "why: [${{why}}]")
"""
OLD = """case "$*" in *--version*) echo "Cuda compilation tools, release 11.8, V11.8.89"; exit 0;; esac"""
NO_SM80 = """case "$*" in *arch=compute_80*) echo "nvcc fatal   : Unsupported gpu architecture" >&2; exit 1;; esac"""
NOT_OURS = """case "$*" in *target.cu*) echo 'target.cu(1): error: expected a ";"' >&2; exit 2;; esac"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("cmake") is None or shutil.which("ninja") is None, reason="needs cmake and ninja"),
]
needs_nvcc = pytest.mark.skipif(NVCC is None, reason="needs nvcc")

# What comes before the real nvcc in a script of that name, and what is said of it.
SCRIPTS = {
    "broken": pytest.param("exit 127", "nvcc compiles nothing"),
    "old": pytest.param(OLD, r"nvcc 11 knows no C\+\+20", marks=needs_nvcc),
    "lacks an architecture": pytest.param(
        NO_SM80, r"nvcc \d+ cannot build it for 80-real 90: nvcc fatal : Unsupported", marks=needs_nvcc
    ),
    "fails on the target": pytest.param(NOT_OURS, r"for 80-real 90: .*error: expected a '''", marks=needs_nvcc),
}


def configure(folder: Path, switch: str, path: str) -> subprocess.CompletedProcess[str]:
    (folder / "CMakeLists.txt").write_text(PROJECT)
    options = [f"-DFLATSTEP_CUDA={switch}", "-DFLATSTEP_CUDA_ARCHITECTURES=80-real;90"]
    command = ["cmake", "-G", "Ninja", "-S", str(folder), "-B", str(folder / "build"), *options]
    environment = {name: value for name, value in os.environ.items() if name != "CUDACXX"} | {"PATH": path}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def why(folder: Path, switch: str, path: str) -> str:
    done = configure(folder, switch, path)
    assert done.returncode == 0, done.stdout + done.stderr
    return re.search(r"why: \[(.*)\]", done.stdout)[1]


@pytest.mark.parametrize("script, reason", SCRIPTS.values(), ids=SCRIPTS)
def test_an_nvcc_that_cannot_build_it(script, reason, tmp_path):
    """Is no reason to fail for an install that did not ask for it; one that did fails, and says the same."""
    fake = tmp_path / "nvcc"
    fake.write_text(f'#!/bin/sh\n{script}\nexec {NVCC} "$@"\n')
    fake.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    assert re.search(reason, why(tmp_path, "AUTO", path))
    shutil.rmtree(tmp_path / "build")
    done = configure(tmp_path, "ON", path)
    assert done.returncode != 0
    assert re.search(reason, " ".join(done.stderr.split()).replace('";"', "'''"))


def test_no_nvcc(tmp_path):
    parts = os.environ["PATH"].split(os.pathsep)
    path = os.pathsep.join(part for part in parts if not (Path(part) / "nvcc").exists())
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("cmake", "ninja", "c++"):
        (tools / name).symlink_to(shutil.which(name))
    path = f"{tools}{os.pathsep}{path}"
    assert why(tmp_path, "AUTO", path).startswith("no nvcc was found")
    assert why(tmp_path, "OFF", path) == "FLATSTEP_CUDA=OFF"


@needs_nvcc
def test_an_nvcc_that_can(tmp_path):
    assert why(tmp_path, "AUTO", os.environ["PATH"]) == ""


def test_info_says_why():
    if find_spec("flatstep._cuda") is None:
        assert f"not built: {_core.why_no_cuda}" in dict(info.surroundings())["CUDA"]
        assert _core.why_no_cuda
    else:
        assert _core.why_no_cuda == ""
