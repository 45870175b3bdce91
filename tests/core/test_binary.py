"""Reads the compiled module: no instruction leaves its target's namespace, and every update is one of full vectors."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import defaultdict

import pytest

from cases import layouts_of
from flatstep import _core

pytestmark = pytest.mark.skipif(shutil.which("objdump") is None, reason="needs objdump, from binutils")

# Arithmetic of a rule, and the operands that make it one of full vectors, float32's and float64's.
ARITHMETIC = re.compile(r"v?(add|sub|mul|div|sqrt)[ps][sd]\b|f(add|sub|mul|div|sqrt)\b")
FULL = {
    "avx512": (r"v\w+ps .*%zmm", r"v\w+pd .*%zmm"),
    "avx2": (r"v\w+ps .*%ymm", r"v\w+pd .*%ymm"),
    "baseline": (r"\w+ps .*%xmm", r"\w+pd .*%xmm"),
    "neon": (r"f\w+\s+v\d+\.4s", r"f\w+\s+v\d+\.2d"),
}
JUMP = re.compile(r"(?:j\w+|b|b\.\w+|cbn?z|tbn?z)\s(?:.*[ ,])?([0-9a-f]+) <")
# To float32 and back, where a target converts float16 by itself, in the widest registers that it does that in.
CONVERTED = {
    "avx512": (r"vcvtph2ps .*%zmm", r"vcvtps2ph .*%zmm"),
    "avx2": (r"vcvtph2ps .*%ymm", r"vcvtps2ph .*%ymm"),
    "neon": (r"fcvtl\s+v.*\.4s", r"fcvtn\s+v.*\.4h"),
}
LATER_SSE = re.compile(  # SSE3 to SSE4.2, which a plain x86-64 has not
    r"(blend|pblend|round[sp]|pmul(ld|dq)|ptest|insertps|extractps|dpp[sd]|h(add|sub)p|addsubp|pshufb|palignr|pabs|psign"
    r"|pm(in|ax)(sb|sd|uw|ud)|pmov[sz]x|pinsr[bdq]|pextr[bdq]|packusdw|pcmpeqq|pcmpgtq|pcmp[ei]str|mov(dd|sh|sl)up"
    r"|lddqu|crc32|popcnt)"
)
BUILT = [name for name, *_ in _core.built_targets()]
X86 = "avx2" in BUILT
SWEEP = re.compile(r"flatstep::(\w+)::sweep<flatstep::\w+::(\w+), flatstep::\w+::Layout<([^>]*)>")


@pytest.fixture(scope="module")
def functions() -> dict[str, dict[int, str]]:
    """The instructions of each function of the module by address, by demangled name."""
    output = subprocess.run(
        ["objdump", "-d", "-C", "--no-show-raw-insn", "-w", _core.__file__], capture_output=True, text=True, check=True
    ).stdout
    found: dict[str, dict[int, str]] = defaultdict(dict)
    name = ""
    for line in output.splitlines():
        if match := re.fullmatch(r"[0-9a-f]+ <(.*)>:", line):
            name = match[1]
        elif "\t" in line:
            address, instruction = line.split("\t", 1)
            found[name][int(address.strip(" :"), 16)] = instruction
    return found


def innermost_loops(instructions: dict[int, str]) -> list[list[str]]:
    """What lies between a jump back and where it leads, of loops without another one inside."""
    jumps = ((address, JUMP.match(instruction)) for address, instruction in instructions.items())
    spans = {(int(jump[1], 16), address) for address, jump in jumps if jump and int(jump[1], 16) <= address}
    spans = {(first, last) for first, last in spans if first in instructions}
    inner = [s for s in spans if not any(o != s and s[0] <= o[0] and o[1] <= s[1] for o in spans)]
    return [[i for address, i in instructions.items() if first <= address <= last] for first, last in inner]


@pytest.mark.skipif(not X86, reason="names x86 instruction sets")
def test_no_instruction_leaves_its_target(functions):
    """Outside of avx2's and avx512's namespaces nothing needs more than a plain x86-64; avx2's has no AVX-512."""
    seen = defaultdict(int)
    for name, instructions in functions.items():
        home = next((target for target in ("avx2", "avx512") if f"flatstep::{target}::" in name), "baseline")
        seen[home] += 1
        for instruction in instructions.values():
            needs_avx512 = re.search(r"%zmm|%k[0-7]|%[xy]mm(1[6-9]|2\d|3[01])", instruction)
            needs_avx = needs_avx512 or re.search(r"%ymm", instruction) or re.match(r"v[a-z]", instruction)
            if instruction.startswith(("verr", "verw")):
                continue
            assert not (needs_avx and home == "baseline"), f"{name}: {instruction}"
            assert not (LATER_SSE.match(instruction) and home == "baseline"), f"{name}: {instruction}"
            assert not (needs_avx512 and home == "avx2"), f"{name}: {instruction}"
            assert not re.match(r"vf(n?m(add|sub)|maddsub|msubadd)", instruction), f"fused: {name}: {instruction}"
    assert min(seen["avx2"], seen["avx512"], seen["baseline"]) >= len(_core.rules()) * 2


def test_no_symbol_is_shared_between_targets():
    """What a target file leaves for the linker to merge with another's is named in its own namespace."""
    output = subprocess.run(["nm", "-C", _core.__file__], capture_output=True, text=True, check=True).stdout
    kernels = [line for line in output.splitlines() if re.search(r"\b(sweep|gather|move_streams)<", line)]
    assert kernels, "the module is stripped: nothing to read"
    for line in kernels:
        homes = set(re.findall(r"flatstep::(\w+)::", line))
        assert len(homes) == 1 and homes <= set(BUILT), line


def test_updates_are_of_full_vectors(functions):
    """Each rule on each layout at each target has loops whose arithmetic is that of full vectors, and no other.

    At least one for each way of weight decay: coupled, decoupled, none.
    """
    layouts = defaultdict(set)
    for name, instructions in functions.items():
        if not (match := SWEEP.search(name)):
            continue
        target, rule, layout = match.groups()
        layouts[target, rule].add(layout := re.sub(r"flatstep::\w+::", "", layout))
        arithmetic = [[i for i in loop if ARITHMETIC.match(i)] for loop in innermost_loops(instructions)]
        updates = [loop for loop in arithmetic if any(re.match(FULL[target]["F64" in layout], i) for i in loop)]
        assert len(updates) >= 3, f"{name} has {len(updates)} of them"
        for instruction in (i for loop in updates for i in loop):
            assert re.match(FULL[target]["F64" in layout], instruction), f"{name}: {instruction}"
    assert len(layouts) == len(BUILT) * len(_core.rules())
    kernels = {rule.replace("_", ""): {", ".join(layout) for layout in layouts_of(rule)} for rule in _core.rules()}
    for (_, rule), found in layouts.items():
        assert found == kernels[rule.lower()], rule


def test_float16_is_converted_by_instructions(functions):
    """By the target's own where it has some, and whole registers of it: in integers it takes three times as long."""
    seen = set()
    for name, instructions in functions.items():
        if not (match := SWEEP.search(name)) or not re.search(r"\bF16\b", match[3]) or match[1] not in CONVERTED:
            continue
        seen.add(match[1])
        for conversion in CONVERTED[match[1]]:
            assert any(re.match(conversion, i) for i in instructions.values()), f"{name}: no {conversion}"
    assert seen == CONVERTED.keys() & set(BUILT)
