"""Whether the installed jax can run our steps, and their registration with it. For flatstep.jax only.

XLA checks a handler's version when it starts, and one that it rejects leaves all of JAX unusable. So versions are
compared here first, and nothing is registered before the first step is compiled.
"""

from __future__ import annotations

import functools
import re
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

OLDEST = {
    "jax": (0, 7, 1),  # before, jax had no reshard, and programs with Auto axes went to another partitioner
    "optax": (0, 2, 7),  # before, adamw did not count the steps of a weight decay's schedule, which it called with 0
    "flax": (0, 12, 8),  # before, nnx.Optimizer had no graph, which ours hands on
}


def check() -> None:
    """ImportError where something is missing, too old or too new."""
    _check_python()
    for name in ("jax", "optax"):
        require(name, by="flatstep.jax", extra="jax")
    _check_interface(handler_module().api_version, _interface_of_jaxlib())


def _check_python() -> None:
    if sys.version_info < (3, 11):
        raise ImportError(
            f"flatstep.jax needs Python 3.11 or later, which jax {'.'.join(map(str, OLDEST['jax']))} needs too"
        )


def require(name: str, by: str, extra: str) -> None:
    """ImportError where the package is missing, or older than the oldest that works."""
    needed = f"{by} needs {name} {'.'.join(map(str, OLDEST[name]))} or later"
    try:
        package = import_module(name)
    except Exception as error:  # not only ImportError: an old package finds a new jax without what it asks for
        raise ImportError(f"{needed}: pip install --upgrade 'flatstep[{extra}]' ({error})") from error
    if _numbers(package.__version__) < OLDEST[name]:
        raise ImportError(f"{needed}, found {package.__version__}: pip install --upgrade 'flatstep[{extra}]'")


def handler_module() -> Any:
    """flatstep._xla, which holds the handler."""
    try:
        return import_module("flatstep._xla")
    except ModuleNotFoundError:
        raise ImportError(
            "this build of flatstep has no part for XLA: the headers of jaxlib were not found when it was built; "
            "reinstall flatstep where pip can fetch jaxlib at build time"
        ) from None


@functools.cache
def device_module() -> Any:
    """flatstep._cuda, which holds the handler for CUDA devices; None where it was not built, or without that."""
    module = import_module("flatstep._cuda") if find_spec("flatstep._cuda") else None
    return module if hasattr(module, "xla_handler") else None


@functools.cache
def registered_name(on_device: bool = False) -> str:
    """The name by which XLA knows the handlers, the same on each platform; it is told here, once for each."""
    import jax

    name = f"flatstep_step_{handler_module().version}"
    handler = device_module().xla_handler if on_device else handler_module().handler
    jax.ffi.register_ffi_target(name, handler, platform="CUDA" if on_device else "cpu")
    return name


@functools.cache
def registered_norm(handler: str) -> str:
    """The name by which XLA knows one of the CPU's handlers of norms, which is told here, once."""
    import jax

    name = f"flatstep_{handler}_{handler_module().version}"
    jax.ffi.register_ffi_target(name, getattr(handler_module(), handler), platform="cpu")
    return name


def _check_interface(built: tuple[int, int], found: tuple[int, int] | None) -> None:
    """XLA takes handlers of its own interface and of earlier minor versions of it."""
    if found is not None and (found[0] != built[0] or found[1] < built[1]):
        raise ImportError(
            f"flatstep.jax was built for version {built[0]}.{built[1]} of XLA's foreign function interface, and this "
            f"jaxlib has {found[0]}.{found[1]}; "
            + ("upgrade jaxlib" if found < built else "upgrade flatstep, or use an older jaxlib")
        )


def _interface_of_jaxlib() -> tuple[int, int] | None:
    """The (major, minor) version in the header that jaxlib brings; None where it brings none."""
    import jax

    header = Path(jax.ffi.include_dir()) / "xla" / "ffi" / "api" / "c_api.h"
    try:
        text = header.read_text(encoding="utf-8")
    except OSError:
        return None
    found = dict(re.findall(r"#define XLA_FFI_API_(MAJOR|MINOR) (\d+)", text))
    return (int(found["MAJOR"]), int(found["MINOR"])) if len(found) == 2 else None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])
