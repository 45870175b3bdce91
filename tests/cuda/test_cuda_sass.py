"""The machine code in the built module: instructions an element, conversions, loads of tables, registers, no stack."""

from __future__ import annotations

import re
import shutil
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from flatstep import _core
from sass import Kernel, cuobjdump, demangled, kernels, of_sweep, operands, tools

MODULE = find_spec("flatstep._cuda")
ARCHITECTURES = ["sm_80", "sm_90"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(MODULE is None, reason="the cuda target was not built"),
    pytest.mark.skipif(
        tools() is None, reason="needs cuobjdump and nvdisasm, from nvidia-cuda-cuobjdump and -nvdisasm"
    ),
    pytest.mark.skipif(shutil.which("c++filt") is None, reason="needs c++filt, from binutils"),
]

# The most instructions that a pass of a sweep's loop may take for each element, by rule: of float32 alone, of layouts
# with 16-bit numbers, of float64. Measured with nvcc 13.0, and up to a tenth more. A pass is counted on its fast path,
# in which no division and no square root takes its slow one; loads that the path switches off are counted too.
LIMITS = {
    "adam": (60, 64, 92),
    "amsgrad": (60, 70, 98),
    "lion": (32, 36, 52),
    "optimistic_adam": (66, 72, 106),
    "optimistic_adam_two_slots": (86, 0, 136),
    "optimistic_amsgrad": (74, 82, 116),
    "optimistic_gradient_descent": (20, 24, 35),
    "rmsprop": (49, 52, 79),
    "rmsprop_centered": (59, 64, 93),
    "rmsprop_momentum": (60, 64, 93),
    "rmsprop_centered_momentum": (69, 76, 109),
}
OF_OTHERS = (80, 90, 130)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def architecture(request):
    """One that the module has machine code for."""
    if f".{request.param}." not in cuobjdump("-lelf", MODULE.origin):
        pytest.skip(f"the module has no machine code for {request.param}")
    return request.param


@cache
def sweeps(architecture: str, module: Path | None = None) -> dict[tuple[str, tuple[str, ...]], Kernel]:
    """The sweeps of a module or cubin, the built one where none is named, by rule and layout."""
    found = kernels(module or Path(MODULE.origin), "-arch", architecture)
    named = {of_sweep(kernel.name): kernel for kernel in found if "::sweep<" in kernel.name}
    return {key: kernel for key, kernel in named.items() if key}


def limit(rule: str, formats: tuple[str, ...]) -> int:
    return LIMITS.get(rule, OF_OTHERS)[2 if "F64" in formats else int(set(formats) != {"F32"})]


def elements(rule: str, formats: tuple[str, ...], loop: list[str]) -> float:
    """How many a pass has, by the bytes that it stores."""
    _, stored = operands(rule, formats)
    return 16 * len([text for text in loop if re.search(r"\bSTG?\.E\.128", text)]) / sum(stored)


def over_limit(architecture: str, module: Path | None = None) -> list[str]:
    """The sweeps that take more instructions an element than they may."""
    found = []
    for (rule, formats), kernel in sweeps(architecture, module).items():
        loop = kernel.loop()
        each = len(loop) / elements(rule, formats, loop)
        if each >= limit(rule, formats):
            found.append(f"{rule} {formats}: {each:.1f}, at most {limit(rule, formats)}")
    return found


def test_instructions_an_element(architecture):
    assert len(sweeps(architecture)) > 100
    assert over_limit(architecture) == []


def test_a_pass_loads_each_operand_once(architecture):
    """In accesses of 16 bytes; a gradient that lies otherwise in as many as it has numbers, instead."""
    for (rule, formats), kernel in sweeps(architecture).items():
        loop = kernel.loop()
        count = elements(rule, formats, loop)
        grad, stored = operands(rule, formats)
        loads = [text for text in loop if re.search(r"\bLDG?\.", text)]
        narrow = [text for text in loads if ".128" not in text]
        assert len(loads) - len(narrow) == count * (grad + sum(stored)) / 16, (rule, formats)
        assert len(narrow) == count, (rule, formats)
        assert all(text.startswith("@") for text in narrow), (rule, formats)


def test_16_bit_numbers_are_converted_by_instructions(architecture):
    """Two at a time on their way to memory. The formats' own way is in integers, and converts one to read float16."""
    for (rule, formats), kernel in sweeps(architecture).items():
        loop = kernel.loop()
        _, stored = operands(rule, formats)
        count = elements(rule, formats, loop)
        halves = count * len([size for size in stored if size == 2])
        assert len([text for text in loop if "F2FP." in text]) == halves / 2, (rule, formats)
        assert not [text for text in loop if re.search(r"\bI2FP?\b", text)], (rule, formats)


def test_tables_are_read_16_bytes_at_a_time(architecture):
    """Few loads before the loops are narrower: a tile, whether to skip, and the ends of rows."""
    for key, kernel in sweeps(architecture).items():
        loads = [text for text in kernel.before_loops() if "LDG" in text]
        assert len([text for text in loads if ".128" not in text]) <= 5, key
        assert len([text for text in loads if ".128" in text]) >= 3, key


def test_registers_and_stack(architecture):
    """Room for 16 warps of every kernel, and for 24 of a sweep whose lanes hold five packs of 16 bytes, or fewer."""
    report = cuobjdump("--dump-resource-usage", "-arch", architecture, MODULE.origin)
    usage = re.findall(r"Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", report)
    assert len(usage) > len(sweeps(architecture))
    for name, (_, registers, stack, local) in zip(demangled([each[0] for each in usage]), usage, strict=True):
        assert (stack, local) == ("0", "0"), name
        rule, formats = of_sweep(name) or ("", ())
        is_small = len(set(formats)) == 1 and "F64" not in formats and len(_core.slots(rule)) <= 3
        assert int(registers) <= (80 if is_small else 128), name
