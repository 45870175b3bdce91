"""The build backend: scikit-build-core, with the headers of jaxlib where there is a wheel of it. For pip and build.

flatstep.jax is compiled against those headers alone. What is compiled against the oldest works with later ones too.
Where there is no wheel of jaxlib, as on musl, or no jax that is new enough, flatstep is built without flatstep.jax.
"""

from __future__ import annotations

import sys
import sysconfig
from typing import Any

from scikit_build_core import build as _backend
from scikit_build_core.build import (  # noqa: F401
    build_editable,
    build_sdist,
    build_wheel,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

_OLDEST = {(3, 11): "0.6.1", (3, 12): "0.6.1", (3, 13): "0.6.1", (3, 14): "0.7.1"}  # by Python; 3.10's jax is too old
_PLATFORMS = ("linux-x86_64", "linux-aarch64", "macosx-arm64")


def _headers() -> list[str]:
    """The requirement of jaxlib, where there is a wheel of it."""
    system, *_, machine = sysconfig.get_platform().split("-")
    has_musl = "musl" in str(sysconfig.get_config_var("HOST_GNU_TYPE"))
    version = _OLDEST.get(sys.version_info[:2])
    has_wheel = f"{system}-{machine}" in _PLATFORMS and not has_musl and sys.implementation.name == "cpython"
    return [f"jaxlib=={version}"] if version and has_wheel else []


def get_requires_for_build_wheel(settings: Any = None) -> list[str]:
    return [*_backend.get_requires_for_build_wheel(settings), *_headers()]


def get_requires_for_build_editable(settings: Any = None) -> list[str]:
    return [*_backend.get_requires_for_build_editable(settings), *_headers()]
