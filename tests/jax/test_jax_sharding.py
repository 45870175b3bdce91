"""Sharded steps: no collective, no copy, in place, an unsharded step's bits. The scenarios are in jax_mesh_*.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("jax")
pytest.importorskip("optax")

from jax_mesh_worker import SCENARIOS
from repository import HELPERS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str]:
    """What came of each scenario, in one process of eight devices; for all that it did not reach, its last words."""
    devices = "--xla_force_host_platform_device_count=8"
    result = subprocess.run(
        [sys.executable, "-W", "error", str(HELPERS / "jax_mesh_worker.py")],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {devices}", "JAX_PLATFORMS": "cpu"},
    )
    found = dict(json.loads(line) for line in result.stdout.splitlines())
    return {name: found.get(name, f"not reached: {result.stderr[-2000:]}") for name in SCENARIOS}


@pytest.mark.parametrize("name", SCENARIOS)
def test_sharded(name, outcomes):
    assert outcomes[name] == "passed"
