"""What nvcc makes of the cuda target: no spills, nothing in local memory, 16 bytes at a time, nothing fused."""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from flatstep import _core

ROOT = Path(__file__).parents[1]
nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
built = pytest.mark.skipif(find_spec("flatstep._cuda") is None, reason="the cuda target was not built")
LAYOUTS = 15


def compiled(tmp_path_factory, *flags: str) -> tuple[str, str]:
    """What comes out of nvcc for the target with the flags that CMakeLists.txt gives it, and what it prints."""
    out = tmp_path_factory.mktemp("cuda") / "target"
    own = re.search(r"target_compile_options\(flatstep_cuda PRIVATE (.*?) --threads=\d+\)", cmake())[1].split()
    includes = [f"-I{ROOT / folder}" for folder in ("csrc", "cuda")]
    command = ["nvcc", "-std=c++20", *own, "-DFLATSTEP_NAMESPACE=cuda", *includes, *flags]
    done = subprocess.run([*command, "-o", out, ROOT / "cuda/target.cu"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out.read_text(errors="replace"), done.stdout + done.stderr


def cmake() -> str:
    return (ROOT / "CMakeLists.txt").read_text()


def kernels() -> int:
    """One preparation a rule and compute type; one sweep a rule and layout that fit; the tables of batches."""
    narrow = LAYOUTS - 2  # OptimisticAdamTwoSlots wants its state as computed
    return len(_core.rules()) * (2 + LAYOUTS) - narrow + 1


@nvcc
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
def test_nothing_spills(architecture, tmp_path_factory):
    """ptxas' own report of every kernel."""
    _, report = compiled(tmp_path_factory, "-cubin", f"-arch={architecture}", "-Xptxas", "-v")
    frames = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", report)
    assert len(frames) == kernels()
    assert set(frames) == {("0", "0", "0")}
    registers = [int(used) for used in re.findall(r"Used (\d+) registers", report)]
    assert len(registers) == kernels()
    assert max(registers) <= 128  # two blocks of 256 threads on a multiprocessor


@nvcc
def test_sixteen_bytes_at_a_time(tmp_path_factory):
    """Of every stream: as many loads and stores of 16 bytes as a pack of the layout's narrowest stream has."""
    ptx, _ = compiled(tmp_path_factory, "-ptx", "-arch=sm_80")
    sweeps = [text for text in re.split(r"\.visible \.entry ", ptx)[1:] if "sweep" in text.split("(")[0]]
    assert len(sweeps) == kernels() - 2 * len(_core.rules()) - 1
    for text in sweeps:
        name = text.split("(")[0]
        assert "local" not in text, name
        assert "fma" not in text, name
        loads = len(re.findall(r"ld\.global\.v4\.[fu]32|ld\.global\.v2\.[fu]64", text))
        stores = len(re.findall(r"st\.global\.v4\.u32", text))
        # Parameter, gradient and at least one slot are loaded; all but the gradient are stored.
        assert loads >= 3, name
        assert 2 <= stores < loads, name


@built
def test_imports_where_there_is_no_driver():
    """And says so, or names the devices."""
    from flatstep import _cuda

    assert "80" in _cuda.architectures
    assert "90" in _cuda.architectures
    try:
        assert all(major >= 7 for _, (major, _) in _cuda.devices())
    except RuntimeError as error:
        assert re.search("no CUDA driver|no CUDA-capable device", str(error))  # noqa: PT017


@built
@pytest.mark.skipif(shutil.which("ldd") is None, reason="needs ldd")
def test_the_runtime_is_linked_in():
    """Nothing of CUDA is asked for when the module is loaded."""
    linked = subprocess.run(["ldd", find_spec("flatstep._cuda").origin], capture_output=True, text=True).stdout
    assert "libc.so" in linked
    assert "cuda" not in linked.replace("_cuda", "")
