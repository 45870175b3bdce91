"""What nvcc makes of the cuda target: no spills, nothing in local memory, 16 bytes at a time, nothing fused."""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib.util import find_spec

import pytest

from cases import has_first_moment, layouts_of
from flatstep import _core
from repository import ROOT

pytestmark = pytest.mark.slow

nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
built = pytest.mark.skipif(find_spec("flatstep._cuda") is None, reason="the cuda target was not built")


def compiled(tmp_path_factory, *flags: str) -> tuple[str, str]:
    """What comes out of nvcc for the target with the flags that CMakeLists.txt gives it, and what it prints."""
    out = tmp_path_factory.mktemp("cuda") / "target"
    own = re.search(r"set\(FLATSTEP_CUDA_FLAGS (.*?) --threads=\d+\)", cmake())[1].split()
    includes = [f"-I{ROOT / folder}" for folder in ("csrc", "cuda")]
    command = ["nvcc", "-std=c++20", *own, "-DFLATSTEP_NAMESPACE=cuda", *includes, *flags]
    done = subprocess.run([*command, "-o", out, ROOT / "cuda/target.cu"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out.read_text(errors="replace"), done.stdout + done.stderr


def cmake() -> str:
    return (ROOT / "CMakeLists.txt").read_text()


def kernels() -> int:
    """One preparation a rule and compute type; one sweep a rule and layout that fit; the tables of batches.

    And what all rules share: three for a norm, one for the zeros of a skipped step.
    """
    return sum(2 + len(layouts_of(rule)) for rule in _core.rules()) + 5


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
    assert max(registers) <= 128  # four blocks of 128 threads on a multiprocessor


BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
RULES = {rule.replace("_", ""): rule for rule in _core.rules()}


def role(rule: str, slot: str) -> int:
    """Which of a layout's formats a slot has."""
    if slot in ("mu", "nu", "nu_max"):
        return 2 if slot == "mu" and has_first_moment(rule) else 3
    return 0


def accesses(name: str) -> tuple[int, int, int]:
    """How many accesses of 16 bytes a pack of such a sweep should load and store, and how many elements it has."""
    rule, layout = re.search(r"sweep<flatstep::cuda::(\w+), flatstep::cuda::Layout<(.*?)>", name).groups()
    formats = [BYTES[each.rpartition("::")[2]] for each in layout.split(", ")]
    name = RULES[rule.lower()]
    slots = [formats[role(name, slot)] for slot in _core.slots(name)]
    pack = 16 // min(formats[0], formats[1], *slots)
    stored = (formats[0] + sum(slots)) * pack // 16
    return stored + formats[1] * pack // 16, stored, pack


def loops(ptx: str) -> list[str]:
    """What lies between a label and each branch back to it."""
    lines = ptx.splitlines()
    labels = {line.partition(":")[0]: at for at, line in enumerate(lines) if re.match(r"\$\w+:", line)}
    branches = ((at, re.search(r"\bbra\S*\s+(\$\w+)", line)) for at, line in enumerate(lines))
    return ["\n".join(lines[labels[to[1]] : at]) for at, to in branches if to and labels[to[1]] < at]


def narrow_loads(ptx: str) -> int:
    return len([load for load in re.findall(r"ld\.global\S*", ptx) if ".v" not in load])


@nvcc
@pytest.mark.skipif(shutil.which("c++filt") is None, reason="needs c++filt, from binutils")
def test_sixteen_bytes_at_a_time(tmp_path_factory):
    """Every stream moves in as few accesses as a pack has; nothing is fused, approximate or flushed."""
    ptx, _ = compiled(tmp_path_factory, "-ptx", "-arch=sm_80")
    entries = {text.split("(")[0]: text for text in re.split(r"\.visible \.entry ", ptx)[1:]}
    names = subprocess.run(["c++filt", *entries], capture_output=True, text=True, check=True).stdout.splitlines()
    sweeps = 0
    for name, text in zip(names, entries.values(), strict=True):
        assert not re.search(r"\bfma\.|\.ftz|\.approx|\.full", text), name
        assert ".local" not in text, name
        if "::sweep<" not in name:
            continue
        sweeps += 1
        loads, stores, elements = accesses(name)
        # Besides those of streams there are loads of tables.
        assert len(re.findall(r"ld\.global\.v4\.[fub]32|ld\.global\.v2\.[fub]64", text)) >= loads, name
        # Only a gradient that lies otherwise is read element by element, which tells the update's loop from those over
        # averages and zeros. No table is read again between packs: a store could have changed it, so that packs would
        # wait for it.
        updates = [body for body in loops(text) if "st.global.v4" in body and narrow_loads(body)]
        assert updates, name
        for body in updates:
            assert len(re.findall(r"st\.global\.v4\.u32", body)) == stores, name
            assert narrow_loads(body) == elements, name
    assert sweeps == kernels() - 2 * len(_core.rules()) - 5


@built
def test_imports_where_there_is_no_driver():
    """And says so, or names the devices."""
    from flatstep import _cuda

    assert _cuda.architectures
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
