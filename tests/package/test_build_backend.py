"""The build backend: jaxlib is asked for where there is a wheel of it, and a wheel says what it lacks."""

from __future__ import annotations

import importlib.util
import sys
import sysconfig
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from repository import ROOT

NAMES = ("build_editable", "build_sdist", "build_wheel", "get_requires_for_build_sdist")
NAMES += ("prepare_metadata_for_build_editable", "prepare_metadata_for_build_wheel")


@pytest.fixture
def backend(monkeypatch):
    """The module, on a scikit-build-core that asks for ninja."""
    build = ModuleType("scikit_build_core.build")
    for name in (*NAMES, "get_requires_for_build_wheel", "get_requires_for_build_editable"):
        setattr(build, name, lambda settings=None: ["ninja"])
    package = ModuleType("scikit_build_core")
    package.build = build
    monkeypatch.setitem(sys.modules, "scikit_build_core", package)
    monkeypatch.setitem(sys.modules, "scikit_build_core.build", build)
    spec = importlib.util.spec_from_file_location("build_backend", ROOT / "packaging" / "build_backend.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "platform, libc, version, implementation, expected",
    [
        ("linux-x86_64", "x86_64-pc-linux-gnu", (3, 12), "cpython", ["jaxlib==0.6.1"]),
        ("linux-aarch64", "aarch64-unknown-linux-gnu", (3, 11), "cpython", ["jaxlib==0.6.1"]),
        ("linux-x86_64", "x86_64-pc-linux-gnu", (3, 10), "cpython", []),
        ("macosx-11.0-arm64", None, (3, 14), "cpython", ["jaxlib==0.7.1"]),
        ("macosx-10.9-x86_64", None, (3, 12), "cpython", []),
        ("linux-x86_64", "x86_64-alpine-linux-musl", (3, 12), "cpython", []),
        ("linux-x86_64", "x86_64-pc-linux-gnu", (3, 15), "cpython", []),
        ("linux-x86_64", "x86_64-pc-linux-gnu", (3, 11), "pypy", []),
        ("linux-riscv64", "riscv64-unknown-linux-gnu", (3, 12), "cpython", []),
    ],
)
def test_headers_of_jaxlib(backend, monkeypatch, platform, libc, version, implementation, expected):
    monkeypatch.setattr(sysconfig, "get_platform", lambda: platform)
    monkeypatch.setattr(sysconfig, "get_config_var", {"HOST_GNU_TYPE": libc}.get)
    interpreter = SimpleNamespace(version_info=(*version, 0), implementation=SimpleNamespace(name=implementation))
    monkeypatch.setattr(backend, "sys", interpreter)
    assert backend.get_requires_for_build_wheel() == ["ninja", *expected, "wheel>=0.40"]
    assert backend.get_requires_for_build_editable({}) == ["ninja", *expected]
    for name in NAMES:
        assert callable(getattr(backend, name))


@pytest.mark.parametrize(
    "modules, expected",
    [
        (["_core", "_cuda", "_xla"], "flatstep-1.0-cp312-abi3-linux_x86_64.whl"),
        (["_core", "_xla"], "flatstep-1.0-0cpu-cp312-abi3-linux_x86_64.whl"),
        (["_core", "_cuda"], "flatstep-1.0-0nojax-cp312-abi3-linux_x86_64.whl"),
        (["_core"], "flatstep-1.0-0cpu_nojax-cp312-abi3-linux_x86_64.whl"),
    ],
)
def test_a_wheel_says_what_it_lacks(backend, tmp_path, monkeypatch, modules, expected):
    """pip keeps wheels that it has built, and would take one without CUDA after nvcc was installed."""
    wheelfile = pytest.importorskip("wheel.wheelfile")

    def build(directory, settings, metadata):
        name = "flatstep-1.0-cp312-abi3-linux_x86_64.whl"
        with wheelfile.WheelFile(Path(directory, name), "w") as archive:  # which writes RECORD
            for module in modules:
                archive.writestr(f"flatstep/{module}.abi3.so", "")
            archive.writestr("flatstep-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: flatstep\nVersion: 1.0\n")
            archive.writestr("flatstep-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: cp312-abi3-linux_x86_64\n")
        return name

    monkeypatch.setattr(backend._backend, "build_wheel", build)
    assert backend.build_wheel(str(tmp_path)) == expected
    assert [path.name for path in tmp_path.iterdir()] == [expected]
