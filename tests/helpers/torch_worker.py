"""One of the two processes that test_torch_distributed.py starts: runs the scenarios, reports each as JSON."""

from __future__ import annotations

import json
import sys
import tempfile
import traceback
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

import torch_averages  # noqa: F401
import torch_checkpoints  # noqa: F401
import torch_norms  # noqa: F401
import torch_training  # noqa: F401
from torch_twins import RANKS, SCENARIOS


def run(name: str, store: dist.Store, rank: int) -> str:
    """What came of a scenario. Each has a process group of its own, so that one that fails leaves no traces."""
    store = dist.PrefixStore(name, store)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=RANKS, timeout=timedelta(seconds=20))
    try:
        SCENARIOS[name]()
        return "passed"
    except BaseException:  # torch's CheckpointException is no Exception
        return traceback.format_exc()
    finally:
        store.set(f"done {rank}", "")
        store.wait([f"done {other}" for other in range(RANKS)], timedelta(seconds=60))
        dist.destroy_process_group()


def main(folder: str, rank: int, names: list[str]) -> None:
    torch.set_num_threads(1)
    tempfile.tempdir = folder
    store = dist.FileStore(str(Path(folder, "store")), RANKS)
    report = Path(folder, f"report-{rank}")
    results = {}
    for name in names or SCENARIOS:
        results[name] = run(name, store, rank)
        report.write_text(json.dumps(results))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
