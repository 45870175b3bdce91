"""Fixtures that several tests share."""

from __future__ import annotations

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
