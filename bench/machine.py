"""What results were measured on and with: processor, caches, memory, versions, flags. Used by runner.py."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

import flatstep
from flatstep import _core

SYSTEM = Path("/sys/devices/system/cpu")
MOST_OF_THE_HEAP = 2**25 - 2**16  # bytes: of arrays above 32 MB, each keeps its own pages
PACKAGES = ("torch", "jax", "jaxlib", "optax", "deepspeed", "torchao", "bitsandbytes")


def machine() -> dict[str, str | int]:
    """What can be read of it; Linux says the most."""
    found: dict[str, str | int] = {
        "processor": _line(Path("/proc/cpuinfo"), "model name") or platform.processor() or platform.machine(),
        "architecture": platform.machine(),
        "processors": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "caches": _caches(),
        "memory": _line(Path("/proc/meminfo"), "MemTotal"),
        "governor": _text(SYSTEM / "cpu0/cpufreq/scaling_governor"),
        "huge pages": _text(Path("/sys/kernel/mm/transparent_hugepage/enabled")),
        "system": platform.platform(),
    }
    return {name: value for name, value in found.items() if value}


def versions() -> dict[str, str | int]:
    found: dict[str, str | int] = {
        "flatstep": flatstep.__version__,
        "commit": _commit(),
        "target": _core.chosen_target(),
        "threads": flatstep.get_num_threads(),
        "compiler": _core.compiler,
        "flags": _core.kernel_flags,
        "target flags": next(flags for name, flags, *_ in _core.built_targets() if name == _core.chosen_target()),
        "python": platform.python_version(),
        "numpy": np.__version__,
        **{package: _version(package) for package in PACKAGES},
    }
    return {name: value for name, value in found.items() if value}


def free_memory() -> float:
    """Bytes that can be had without swapping; infinite where the system does not say."""
    kilobytes = _line(Path("/proc/meminfo"), "MemAvailable").removesuffix("kB").strip()
    return int(kilobytes) * 1024.0 if kilobytes else float("inf")


def give_back_memory() -> None:
    """What was freed but is kept by the C library, as GNU's keeps arrays below 32 MB: to the system."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def share_the_heap() -> None:
    """GNU's C library gives an array of megabytes pages of its own, until such an array was freed; then the heap.

    Arrays with pages of their own all begin at the same place in a page, where some processors need twice the time for
    a step. A program that has run for a while has its arrays in the heap, so each case shall have them there.
    """
    np.empty(MOST_OF_THE_HEAP, np.uint8)


def _caches() -> str:
    caches = []
    for index in sorted(SYSTEM.glob("cpu0/cache/index*")):
        kind = _text(index / "type")
        letter = {"Data": "d", "Instruction": "i"}.get(kind, "")
        caches.append(f"L{_text(index / 'level')}{letter} {_text(index / 'size')}")
    return ", ".join(caches)


def _line(path: Path, label: str) -> str:
    lines = (line.partition(":") for line in _text(path).splitlines())
    return next((text.strip() for name, _, text in lines if name.strip() == label), "")


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _commit() -> str:
    """Of the checkout whose Python files these are; "" for a copy of them, which says nothing of where it is from."""
    package = Path(flatstep.__file__).parent
    try:
        if package != Path(_git(package, "rev-parse", "--show-toplevel"), "python", "flatstep"):
            return ""
        return _git(package, "describe", "--always", "--dirty", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return ""


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()
