"""Fixtures that several tests share."""

from __future__ import annotations

import os

# Read when jax makes its client: by default that takes three quarters of a GPU's memory, and the other tests need it.
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
