"""Fixtures that several tests share, and how the tests are run."""

from __future__ import annotations

import os

# Threads of OpenMP that wait for work would take the processors from the other test processes.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Read when jax makes its client: by default that takes three quarters of a GPU's memory, and the other tests need it.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import pytest

import flatstep


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """The whole suite runs on all processors, if pytest-xdist is there: ``-n 0`` is for one, ``-n 3`` for three.

    Chosen files run in one process, where the first result comes sooner.
    """
    is_worker = "PYTEST_XDIST_WORKER" in os.environ  # which must not start workers of its own
    is_parallel = config.pluginmanager.hasplugin("xdist") and config.args_source.name != "ARGS" and not is_worker
    if is_parallel and config.option.numprocesses is None and not config.option.usepdb:
        config.option.numprocesses = "auto"
        config.option.dist = "worksteal"


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
