"""Fixtures that several tests share."""

from __future__ import annotations

import os

# Before jax is imported anywhere: it would take most of a device's memory, of which torch's tests need some too.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import pytest

import flatstep


@pytest.fixture(params=flatstep.targets())
def target(request, monkeypatch) -> str:
    """Each target that this machine can run, forced for the test."""
    monkeypatch.setenv("FLATSTEP_TARGET", request.param)
    return request.param


@pytest.fixture
def threads():
    """Sets the thread count; it is put back after the test."""
    before = flatstep.get_num_threads()
    yield flatstep.set_num_threads
    flatstep.set_num_threads(before)
