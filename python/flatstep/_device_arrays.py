"""Arrays in a device's memory: other libraries' parameters and our own state. For the package's own use."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from . import _core
from ._arrays import Array, dtype_of, view

_LEGACY_STREAM = 1  # in DLPack's numbering


class DeviceArray:
    """What the compiled core knows of an array on a device, with NumPy's names. Other libraries take it by DLPack."""

    def __init__(self, memory: _core.DeviceMemory) -> None:
        self.memory = memory
        self.shape: tuple[int, ...] = memory.shape
        try:
            self.dtype: Any = dtype_of(memory.dtype)
            self.itemsize = int(self.dtype.itemsize)
        except TypeError:  # a dtype that the compiled core rejects
            self.dtype, self.itemsize = memory.dtype, 1
        self.strides = tuple([stride * self.itemsize for stride in memory.strides])

    @property
    def _bytes(self) -> int:
        return int(np.prod(self.shape, dtype=object)) * self.itemsize

    def _over(self, buffer: Array) -> Array:
        """An array over the host's buffer that lies as this one does."""
        return view((self.shape, self.memory.strides), buffer, 0, self.dtype.name)

    def to_host(self) -> Array:
        """A copy in the host's memory."""
        buffer = np.empty(self._bytes, np.uint8)
        self.memory.fetch(buffer)
        return self._over(buffer)

    def bytes_of(self, array: Array) -> Array:
        """The bytes that memory is to ``store``, so that this becomes equal to an array of its shape."""
        buffer = np.empty(self._bytes, np.uint8)
        self._over(buffer)[...] = array
        return buffer

    def shared(self) -> Any:
        """The same memory as an array of the library that the parameter is of; this one, where it takes none."""
        source = self.memory.source
        if hasattr(source, "__array_namespace__"):
            library = source.__array_namespace__()
        else:
            library = sys.modules.get(type(source).__module__.partition(".")[0])
        try:
            return library.from_dlpack(self) if hasattr(library, "from_dlpack") else self
        except (NotImplementedError, TypeError):  # a dtype that it has not: CuPy before 14 has no bfloat16
            return self

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.memory.device

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        if copy or (dl_device is not None and tuple(dl_device) != self.memory.device):
            raise BufferError("state on a device is shared where it is, and not as a copy; copy what you get")
        if stream == 0:
            raise ValueError("stream 0 has two meanings in DLPack; pass 1 for the default stream")
        number = _LEGACY_STREAM if stream is None else stream
        return self.memory.lend(number).__dlpack__(max_version=max_version)


def shared(view: Any) -> Any:
    """An array on a device as its own library's; another one as it is."""
    return view.shared() if isinstance(view, DeviceArray) else view
