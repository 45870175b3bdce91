"""What stands in the text of a compiled program: copies of arrays, and flatstep's calls."""

from __future__ import annotations

import re
from math import prod
from typing import NamedTuple

_HEAD = re.compile(r"^(?:ENTRY )?%(\S+) \(.* \{$")
_OPERATION = re.compile(r"^ +(?:ROOT )?%\S+ = (?P<type>.+?) (?P<name>[a-z][a-z-]*)\(.*$")
_MOVES = {"parameter", "copy", "bitcast", "tuple"}


class Operation(NamedTuple):
    name: str
    type: str
    line: str

    @property
    def results(self) -> int:
        return len(re.findall(r"\w+\[", self.type))

    @property
    def bytes(self) -> int:
        """The size of its largest array."""
        arrays = re.findall(r"([a-z]+)(\d*)\w*\[([\d,]*)\]", self.type)
        return max(int(bits or 8) // 8 * prod(int(n) for n in shape.split(",") if n) for _, bits, shape in arrays)


def computations(program: str) -> dict[str, list[Operation]]:
    found: dict[str, list[Operation]] = {}
    for line in program.splitlines():
        if head := _HEAD.match(line):
            operations = found.setdefault(head[1], [])
        elif operation := _OPERATION.match(line):
            operations.append(Operation(operation["name"], operation["type"], line.strip()))
    return found


def copies(program: str, at_least: int) -> list[str]:
    """The operations that do nothing but copy arrays of so many bytes: not what a fusion does on its way."""
    parts = computations(program)
    fused = {name for name in parts for part in parts.values() for op in part if _calls(op) == name}

    def only_copies(op: Operation) -> bool:
        if op.name == "fusion":
            names = {inner.name for inner in parts[_calls(op)]}
            return "copy" in names and names <= _MOVES
        return op.name in ("copy", "copy-start")

    outside = [op for name, part in parts.items() if name not in fused for op in part]
    return [op.line for op in outside if only_copies(op) and op.bytes >= at_least]


def calls(program: str) -> list[Operation]:
    """flatstep's."""
    return [
        op for part in computations(program).values() for op in part if 'custom_call_target="flatstep_step' in op.line
    ]


def _calls(op: Operation) -> str:
    found = re.search(r"\bcalls=%([\w.-]+)", op.line)
    return found[1] if op.name == "fusion" and found else ""
