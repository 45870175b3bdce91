"""An emulated device, for tests where there is none. It is compiled from tests/native when it is first needed."""

from __future__ import annotations

import ctypes
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from repository import ROOT

BUILD = ROOT / "build" / "stand-in"


def built(target: str, *options: str) -> ctypes.CDLL:
    """A library of tests/native, compiled again where a source has changed. One process compiles at a time."""
    options = ("-G", "Ninja", "-DFLATSTEP_PYTHON=OFF", "-DFLATSTEP_TESTS=ON", "-DCMAKE_BUILD_TYPE=Release", *options)
    environment = {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for command in (
            ["cmake", "-S", str(ROOT), "-B", str(BUILD), *options],
            ["cmake", "--build", str(BUILD), "--target", target],
        ):
            done = subprocess.run(command, capture_output=True, text=True, env=environment)
            assert done.returncode == 0, done.stdout + done.stderr
    return ctypes.CDLL(str(next(BUILD.glob(f"**/lib{target}.*"))))


@cache
def functions() -> ctypes.CDLL:
    """The emulated device for flatstep.torch."""
    loaded = built("flatstep_stand_in_library")
    loaded.stand_in_make_stream.restype = loaded.stand_in_last_stream.restype = ctypes.c_void_p
    loaded.stand_in_backend.restype = loaded.stand_in_cuda_backend.restype = ctypes.c_void_p
    return loaded


@cache
def backend() -> object:
    """The capsule that the core takes a device by."""
    return _capsule(functions().stand_in_backend(), b"flatstep.device_backend")


@cache
def cuda_backend() -> object:
    """The same for arrays that say that they are on a CUDA device."""
    return _capsule(functions().stand_in_cuda_backend(), b"flatstep.device_backend")


def use_for_arrays(monkeypatch) -> None:
    """From here on flatstep's own optimizers step foreign.py's arrays."""
    import foreign
    from flatstep import _devices

    monkeypatch.setattr(_devices, "backends", lambda: [cuda_backend()])
    is_current = staticmethod(lambda index: index == functions().stand_in_current_device())
    monkeypatch.setattr(foreign.Array, "is_current", is_current)


def _capsule(pointer: int, name: bytes | None) -> object:
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    return new(pointer, name, None)


def use_for_torch(monkeypatch) -> None:
    """From here on flatstep.torch treats tensors on the CPU as tensors on the emulated device."""
    import torch

    from flatstep.torch import _devices

    monkeypatch.setattr(_devices, "backends", lambda: [backend()])
    monkeypatch.setattr(_devices, "in_use", lambda: [backend()])
    monkeypatch.setattr(_devices, "is_apart", lambda device: device.type == "cpu")
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: bool(functions().stand_in_is_capturing()))


@contextmanager
def capturing(device: int = 0, stream: int = 0) -> Iterator[None]:
    """What is launched meanwhile on a device goes into the graph that ``functions().stand_in_replay()`` runs."""
    functions().stand_in_use(device, ctypes.c_void_p(stream))
    functions().stand_in_begin_capture()
    try:
        yield
    finally:
        functions().stand_in_use(device, ctypes.c_void_p(stream))
        functions().stand_in_end_capture()
        functions().stand_in_use(0, None)


def make_stream(device: int = 0) -> int:
    """The handle of a new one."""
    return functions().stand_in_make_stream(device)


def last_stream() -> int:
    """That of the last launch, as DLPack numbers them."""
    return functions().stand_in_last_stream() or 1


@contextmanager
def late() -> Iterator[None]:
    """What is launched meanwhile is done at the end, streams in any order but for what makes them wait."""
    functions().stand_in_be_lazy(1)
    try:
        yield
    finally:
        functions().stand_in_synchronize()
        functions().stand_in_be_lazy(0)


def run(stream: int, kernel: Callable[[], None]) -> None:
    """Work of the program's own on a stream of device 0."""
    made = ctypes.CFUNCTYPE(None)(kernel)
    _kept.append(made)  # until the stream has come so far
    functions().stand_in_run(ctypes.c_void_p(stream), made)


_kept: list[object] = []


def asked(what: str) -> int:
    """How many launches, copies, allocations or waits there were so far; how many bytes of memory are in use."""
    return getattr(functions(), f"stand_in_{what}")()


@contextmanager
def failing(after: int, times: int = 1) -> Iterator[None]:
    """Of the calls that may fail, ``after`` succeed, and the next ``times`` fail."""
    functions().stand_in_fail_times(times)
    functions().stand_in_fail_after(after)
    try:
        yield
    finally:
        functions().stand_in_fail_after(-1)


class XlaDevice:
    """What flatstep._cuda has for XLA, of the emulated device. XLA calls it as a handler for the CPU."""

    def __init__(self) -> None:
        import jax

        self.functions = built("flatstep_stand_in_xla", f"-DFLATSTEP_XLA_INCLUDE={jax.ffi.include_dir()}")
        self.functions.stand_in_xla_handler.restype = ctypes.c_void_p
        self.functions.stand_in_xla_workspace_bytes.restype = ctypes.c_int64
        self.xla_handler = _capsule(self.functions.stand_in_xla_handler(), None)
        jax.ffi.register_ffi_target(self.name, self.xla_handler, platform="cpu")

    name = "flatstep_step_stand_in"

    @property
    def launches(self) -> int:
        """So far."""
        return self.functions.stand_in_xla_launches()

    def fail_launches(self, yes: bool) -> None:
        self.functions.stand_in_xla_fail_launches(yes)

    def xla_workspace_bytes(self, rule, written, grad, state, counts, entries) -> int:
        formats = [name.encode() for name in (written, grad, *state)]
        return self.functions.stand_in_xla_workspace_bytes(
            rule.encode(),
            (ctypes.c_char_p * len(formats))(*formats),
            len(formats),
            (ctypes.c_int64 * len(counts))(*counts),
            len(counts),
            ctypes.c_int64(entries),
        )


xla_device = cache(XlaDevice)


@cache
def cpu_name() -> str:
    """The name of the CPU's own handler."""
    from flatstep.jax import _versions

    return _versions.registered_name()


def use_for_jax(monkeypatch) -> None:
    """From here on programs that are compiled for the CPU call the emulated device."""
    from flatstep.jax import _call, _versions

    cpu_name()
    device = xla_device()
    monkeypatch.setattr(_versions, "device_module", lambda: device)
    monkeypatch.setattr(_versions, "registered_name", lambda on_device=False: device.name)
    monkeypatch.setattr(_call, "kernel", _call.kernel_on_device)
