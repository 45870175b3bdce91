"""The build backend: scikit-build-core, with two things more. For pip and build.

flatstep.jax is compiled against the headers of jaxlib alone, which are asked for where there is a wheel of it. What is
compiled against the oldest works with later ones too. Where there is no wheel, as on musl, or no jax that is new
enough, flatstep is built without flatstep.jax.

A wheel without CUDA, or without JAX where it could have it, says so in its build tag, as
``flatstep-0.2.0-0cpu-cp312-abi3-linux_x86_64.whl``. It is then seen which one pip takes from its cache. A local version
(0.2.0+cpu) would do the same, but pip rejects a wheel whose version is not that of the source archive from which it is
built.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from scikit_build_core import build as _backend
from scikit_build_core.build import (  # noqa: F401
    build_editable,
    build_sdist,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

_OLDEST = {(3, 11): "0.6.1", (3, 12): "0.6.1", (3, 13): "0.6.1", (3, 14): "0.7.1"}  # by Python; 3.10's jax is too old
_PARTS = {"cpu": "flatstep/_cuda.", "nojax": "flatstep/_xla."}  # by what the tag of a wheel without the file says
_PLATFORMS = ("linux-x86_64", "linux-aarch64", "macosx-arm64")


def _headers() -> list[str]:
    """The requirement of jaxlib, where there is a wheel of it."""
    system, *_, machine = sysconfig.get_platform().split("-")
    has_musl = "musl" in str(sysconfig.get_config_var("HOST_GNU_TYPE"))
    version = _OLDEST.get(sys.version_info[:2])
    has_wheel = f"{system}-{machine}" in _PLATFORMS and not has_musl and sys.implementation.name == "cpython"
    return [f"jaxlib=={version}"] if version and has_wheel else []


def get_requires_for_build_wheel(settings: Any = None) -> list[str]:
    return [*_backend.get_requires_for_build_wheel(settings), *_headers(), "wheel>=0.40"]


def get_requires_for_build_editable(settings: Any = None) -> list[str]:
    return [*_backend.get_requires_for_build_editable(settings), *_headers()]


def build_wheel(directory: str, settings: Any = None, metadata: str | None = None) -> str:
    return _tagged(Path(directory) / _backend.build_wheel(directory, settings, metadata))


def _tagged(wheel: Path) -> str:
    """The wheel's name, after its build tag says which parts are missing."""
    with ZipFile(wheel) as archive:
        files = archive.namelist()
    parts = _PARTS if sys.version_info >= (3, 11) else {"cpu": _PARTS["cpu"]}  # jax is for 3.11 and later
    missing = [part for part, start in parts.items() if not any(file.startswith(start) for file in files)]
    if not missing:
        return wheel.name
    command = [sys.executable, "-m", "wheel", "tags", "--remove", "--build", f"0{'_'.join(missing)}", str(wheel)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1]
