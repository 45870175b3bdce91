"""A device that the processor plays, for tests where there is none: built from tests/native when first needed."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from flatstep.torch import devices

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build" / "stand-in"
TARGET = "flatstep_stand_in_library"


@cache
def library() -> ctypes.CDLL:
    """The stand-in as a library, compiled anew where a source has changed."""
    options = ["-G", "Ninja", "-DFLATSTEP_PYTHON=OFF", "-DFLATSTEP_TESTS=ON", "-DCMAKE_BUILD_TYPE=Release"]
    environment = {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    for command in (
        ["cmake", "-S", str(ROOT), "-B", str(BUILD), *options],
        ["cmake", "--build", str(BUILD), "--target", TARGET],
    ):
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr
    loaded = ctypes.CDLL(str(next(BUILD.glob(f"**/lib{TARGET}.*"))))
    loaded.stand_in_maker.restype = ctypes.c_void_p
    return loaded


@cache
def maker() -> object:
    """The capsule that the core takes a device by."""
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    return new(library().stand_in_maker(), b"flatstep.device_maker", None)


def use_for_torch(monkeypatch) -> None:
    """From here on flatstep.torch takes the processor's tensors for those of a device with memory of its own."""
    monkeypatch.setattr(devices, "makers", lambda: [maker()])
    monkeypatch.setattr(devices, "is_apart", lambda device: device.type == "cpu")


@contextmanager
def capturing() -> Iterator[None]:
    """What is launched meanwhile goes into the graph that ``library().stand_in_replay()`` runs."""
    library().stand_in_begin_capture()
    try:
        yield
    finally:
        library().stand_in_end_capture()


def asked(what: str) -> int:
    """How many launches, copies, allocations or waits there were so far."""
    return getattr(library(), f"stand_in_{what}")()
