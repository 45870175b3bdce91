"""A library with arrays on a device, for tests: its memory is the processor's, and DLPack says otherwise."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

CPU, CUDA, CUDA_MANAGED = 1, 2, 13
LEGACY_STREAM, NO_STREAM, ANOTHER_DEVICES = 1, -1, 0xBAD


class Array:
    """Over the memory of a NumPy array."""

    stream: int | None = LEGACY_STREAM  # on which the library works now, if it says so
    lends_on: tuple[int, int] | None = None  # another device than it says
    lends_copies = False
    is_current = staticmethod(lambda index: True)  # whether it is this device

    def __init__(self, data, device: tuple[int, int] = (CUDA, 0), read_only: bool = False, versioned: bool = True):
        self.data, self.device, self.read_only, self.versioned = np.asarray(data), device, read_only, versioned
        self.waited_for: list[int] = []  # by these streams

    @property
    def dtype(self):
        return self.data.dtype

    def __dlpack_device__(self):
        return self.device

    def __dlpack__(self, **asked):
        if not self.versioned and "max_version" in asked:
            raise TypeError("__dlpack__() got an unexpected keyword argument 'max_version'")
        if not self.is_current(self.device[1]):
            raise BufferError("Can't export arrays on a different CUDA device index")  # as torch does
        self.waited_for.append(asked["stream"])
        capsule = self.data.__dlpack__(**({"max_version": (1, 0)} if self.versioned else {}))
        relabel(capsule, self.lends_on or self.device, flags=self.read_only | self.lends_copies << 1)
        return capsule

    def __array_namespace__(self):
        return SimpleNamespace(from_dlpack=from_dlpack)

    @property
    def __cuda_array_interface__(self):
        return {"stream": self.stream if self.is_current(self.device[1]) else ANOTHER_DEVICES}


def from_dlpack(lender: Any) -> Array:
    """As a consumer that works on the default stream takes it."""
    device, is_brain = lender.__dlpack_device__(), False

    class OnTheProcessor:
        def __dlpack_device__(self):
            return CPU, 0

        def __dlpack__(self, **_):
            nonlocal is_brain
            capsule = lender.__dlpack__(stream=LEGACY_STREAM, max_version=(1, 0))
            is_brain = relabel(capsule, (CPU, 0), hides_bfloat16=True)
            return capsule

    taken = np.from_dlpack(OnTheProcessor())
    return Array(taken.view("bfloat16") if is_brain else taken, device)


class ExchangeAPI(ctypes.Structure):
    """DLPack's table of functions, version 1."""

    _fields_ = [
        ("version", ctypes.c_uint32 * 2),
        ("previous", ctypes.c_void_p),
        ("unused", ctypes.c_void_p * 3),
        ("describe", ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_void_p)),
        ("current_stream", ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_int32, ctypes.c_int32, ctypes.c_void_p)),
    ]


def capsule_of(**functions: Callable[..., int]) -> object:
    """What a type of arrays offers as __dlpack_c_exchange_api__."""
    kinds = dict(ExchangeAPI._fields_)
    table = ExchangeAPI(**{name: kinds[name](function) for name, function in functions.items()})
    table.version[:] = 1, 3
    _kept.append(table)
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    return new(ctypes.addressof(table), b"dlpack_exchange_api", None)


_kept: list[ExchangeAPI] = []


def relabel(
    capsule: object, device: tuple[int, int], *, flags: int = 0, hides_bfloat16: bool = False, ndim: int | None = None
) -> bool:
    """Says that the memory in a DLPack capsule is of another device. Whether it was of bfloat16, unknown to NumPy."""
    is_versioned = bool(_is_valid(capsule, b"dltensor_versioned"))
    begin = _pointer(capsule, b"dltensor_versioned" if is_versioned else b"dltensor")
    view = begin + 32 if is_versioned else begin
    ctypes.c_int32.from_address(view + 8).value, ctypes.c_int32.from_address(view + 12).value = device
    if is_versioned:
        ctypes.c_uint64.from_address(begin + 24).value |= flags
    if ndim is not None:
        ctypes.c_int32.from_address(view + 16).value = ndim
    code = ctypes.c_uint8.from_address(view + 20)
    is_brain = code.value == 4
    if is_brain and hides_bfloat16:
        code.value = 1
    return is_brain


_is_valid, _pointer = ctypes.pythonapi.PyCapsule_IsValid, ctypes.pythonapi.PyCapsule_GetPointer
_is_valid.restype, _is_valid.argtypes = ctypes.c_int, [ctypes.py_object, ctypes.c_char_p]
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
