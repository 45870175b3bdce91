"""The machine code of the cuda target: its kernels as cuobjdump prints them, and one pass of a kernel's loop."""

from __future__ import annotations

import heapq
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from cases import has_first_moment
from flatstep import _core

BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
RULES = {rule.replace("_", ""): rule for rule in _core.rules()}
WIDE_STORE = re.compile(r"(@!?\w+ )?STG?\.E\.128\b")
NARROW_LOAD = re.compile(r"(@!?\w+ )?LDG?\.E(?!\.128)")


def operands(rule: str, formats: tuple[str, ...]) -> tuple[int, list[int]]:
    """The bytes of an element of the gradient, and of the parameter and each slot."""
    param, _, mu, nu = (BYTES[each] for each in formats)
    first = mu if has_first_moment(rule) else nu
    return BYTES[formats[1]], [param, *({"mu": first, "nu": nu, "nu_max": nu}.get(s, param) for s in _core.slots(rule))]


def of_sweep(name: str) -> tuple[str, tuple[str, ...]] | None:
    """The rule and the layout of a sweep by its C++ name; None of any other kernel."""
    found = re.search(r"::sweep<flatstep::cuda::(\w+), flatstep::cuda::Layout<(.*?)>", name)
    return found and (RULES[found[1].lower()], tuple(each.rpartition("::")[2] for each in found[2].split(", ")))


def tools() -> Path | None:
    """Where cuobjdump and nvdisasm are: on the PATH, or in the packages of that name."""
    found = [Path(tool).parent for tool in [shutil.which("cuobjdump")] if tool and shutil.which("nvdisasm")]
    packages = find_spec("nvidia")
    for folder in (packages and packages.submodule_search_locations) or ():
        found += [tool.parent for tool in Path(folder).glob("*/bin/cuobjdump") if (tool.parent / "nvdisasm").exists()]
    return found[0] if found else None


def cuobjdump(*arguments: str | Path) -> str:
    """What it prints."""
    folder = tools()
    assert folder is not None
    environment = {**os.environ, "PATH": os.pathsep.join([str(folder), os.environ["PATH"]])}
    command = [folder / "cuobjdump", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


@dataclass(frozen=True)
class Kernel:
    """One kernel: its C++ name, and for each instruction its address and its text."""

    name: str
    code: list[tuple[int, str]]

    def successors(self) -> list[list[int]]:
        """Where each instruction goes on. A call of a subroutine goes nowhere: slow paths are not what is counted."""
        at = {address: index for index, (address, _) in enumerate(self.code)}
        following = []
        for index, (_, text) in enumerate(self.code):
            guard, operation = re.match(r"(@!?\w+ )?(\w+)", text).groups()
            on = [index + 1] if index + 1 < len(self.code) else []
            if operation == "BRA":
                is_conditional = guard or re.search(r"BRA(\.\w+)* !?U?P\d", text)
                following.append([at[int(re.search(r"0x([0-9a-f]+)", text)[1], 16)], *(on if is_conditional else ())])
            elif operation in ("EXIT", "RET", "CALL"):
                following.append(on if guard else [])
            else:
                following.append(on)
        return following

    def loop(self) -> list[str]:
        """The shortest way from a store of 16 bytes back to it: one pass of the loop over packs, on the fast path.

        There are loops over averages and zeros too; that of the update alone may load number by number as well.
        """
        following = self.successors()
        starts = [index for index, (_, text) in enumerate(self.code) if WIDE_STORE.match(text)]
        ways = [way for start in starts for way in [_shortest_cycle(following, start)] if way]
        assert ways, f"{self.name} has no loop over packs"
        passes = [[self.code[index][1] for index in way] for way in ways]
        return min([each for each in passes if any(map(NARROW_LOAD.match, each))] or passes, key=len)

    def before_loops(self) -> list[str]:
        """What comes before the first instruction that a loop comes back to."""
        targets = [(address, re.search(r"BRA\S* .*?0x([0-9a-f]+)", text)) for address, text in self.code]
        first = min(int(to[1], 16) for address, to in targets if to and int(to[1], 16) < address)
        return [text for address, text in self.code if address < first]


def _shortest_cycle(following: list[list[int]], start: int) -> list[int] | None:
    lengths, before, heap = {start: 0}, {}, [(0, start)]
    while heap:
        length, index = heapq.heappop(heap)
        if length > lengths[index]:
            continue
        for on in following[index]:
            if on == start:
                way = [index]
                while way[-1] != start:
                    way.append(before[way[-1]])
                return way[::-1]
            if length + 1 < lengths.get(on, length + 2):
                lengths[on], before[on] = length + 1, index
                heapq.heappush(heap, (length + 1, on))
    return None


def demangled(names: list[str]) -> list[str]:
    return subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )


def kernels(module: Path, *options: str) -> list[Kernel]:
    """Those of a module or cubin."""
    text = cuobjdump("-sass", *options, module)
    starts = [*re.finditer(r"^\s*Function : (\S+)$", text, re.MULTILINE)]
    ends = [start.start() for start in starts[1:]] + [len(text)]
    codes = [
        [
            (int(address, 16), each)
            for address, each in re.findall(r"/\*([0-9a-f]{4,})\*/\s+(.*?)\s*;", text[start.end() : end])
        ]
        for start, end in zip(starts, ends, strict=True)
    ]
    return [Kernel(name, code) for name, code in zip(demangled([start[1] for start in starts]), codes, strict=True)]
