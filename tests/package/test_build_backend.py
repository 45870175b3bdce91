"""What the build backend asks for, by platform: jaxlib for its headers where there is a wheel of it."""

from __future__ import annotations

import importlib.util
import sys
import sysconfig
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
    assert backend.get_requires_for_build_wheel() == ["ninja", *expected]
    assert backend.get_requires_for_build_editable({}) == ["ninja", *expected]
    for name in NAMES:
        assert callable(getattr(backend, name))
