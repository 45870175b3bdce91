"""What this build is and what it can do on this machine: ``python -m flatstep info``.

Plain text, to be pasted into a bug report; needs no extra and imports no framework.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import numpy as np

from . import __version__, _core

Row = tuple[str, str]
"""A label and what is said of it; without a label it goes on from the row above."""


def run() -> int:
    """Prints all of it. Exit status 1 if FLATSTEP_TARGET forces a target that cannot run here."""
    chosen, works = chosen_target()
    rows = [("flatstep", __version__), *targets(), ("chosen", chosen), *build(), *surroundings()]
    print(aligned(rows))
    return 0 if works else 1


def targets() -> list[Row]:
    """Every target of this build, best first, and whether it runs here."""
    texts = [
        f"{name:<9} {f'needs {missing}, which this processor lacks' if missing else 'runs here'}"
        for name, _, _, missing in _core.built_targets()
    ]
    return _headed("targets", texts)


def chosen_target() -> tuple[str, bool]:
    """The target that steps run on and why, or why none does; and whether one does."""
    try:
        name = _core.chosen_target()
    except RuntimeError as error:
        return f"none: {error}", False
    if _core.target_is_forced():
        return f"{name}, forced by FLATSTEP_TARGET={os.environ.get('FLATSTEP_TARGET')}", True
    return f"{name}, the best that runs here", True


def build() -> list[Row]:
    """How the compiled core was made, and the threads it uses."""
    own = [f"{name:<9} {flags}" for name, flags, _, _ in _core.built_targets()]
    return [
        ("threads", f"{_core.get_num_threads()}; of our own, and beside PyTorch those of its OpenMP"),
        ("compiler", _core.compiler),
        *_headed("flags", [f"{'all':<9} {_core.kernel_flags}", *own]),
    ]


def surroundings() -> list[Row]:
    """The interpreter, the platform, and which frameworks are installed."""
    return [
        ("Python", f"{platform.python_version()} ({platform.python_implementation()})"),
        ("NumPy", np.__version__),
        ("platform", platform.platform()),
        ("torch", _installed("torch")),
        ("jax", _installed("jax")),
        ("XLA", _xla()),
        *_headed("CUDA", _cuda()),
    ]


def _cuda() -> list[str]:
    if find_spec("flatstep._cuda") is None:
        return [f"not built: {_core.why_no_cuda}"]
    from . import _cuda

    built = f"built for {_cuda.architectures}"
    try:
        devices = [f"{name}, compute capability {major}.{minor}" for name, (major, minor) in _cuda.devices()]
    except RuntimeError as error:
        return [f"{built}; {error}"]
    return [built, *(devices or ["there is no CUDA device on this machine"])]


def _xla() -> str:
    if find_spec("flatstep._xla") is None:
        return "not built: no headers of jaxlib's were found"
    from . import _xla

    return f"built for version {'.'.join(map(str, _xla.api_version))} of its foreign function interface"


def aligned(rows: Iterable[Row]) -> str:
    """The rows as two columns."""
    return "\n".join(f"{label:<9} {text}" for label, text in rows)


def _headed(label: str, texts: list[str]) -> list[Row]:
    return [(label if index == 0 else "", text) for index, text in enumerate(texts)]


def _installed(distribution: str) -> str:
    # Its metadata tells; importing it would take seconds and could fail for reasons that are not ours.
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"
