"""The process that test_jax_sharding.py starts: runs the scenarios, and prints what came of each as a line of JSON."""

from __future__ import annotations

import json
import sys
import traceback

import jax_mesh_ensembles  # noqa: F401
import jax_mesh_layouts  # noqa: F401
import jax_mesh_limits  # noqa: F401
import jax_mesh_steps  # noqa: F401
from jax_meshes import SCENARIOS


def main(names: list[str]) -> None:
    for name in names or SCENARIOS:
        try:
            SCENARIOS[name]()
            outcome = "passed"
        except Exception:
            outcome = traceback.format_exc()
        print(json.dumps([name, outcome]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
