"""A golden distributed checkpoint: modules sharded over two processes, with their optimizers.

write.py writes it, test_golden_states.py reads it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import distribute_tensor

import flatstep.torch as front

from . import encode, torch_states, write

FOLDER = write.FOLDER / "states-0.1" / "torch-distributed"
STEPPED = FOLDER.with_suffix(".json")
RANKS = 2

MAKE: dict[str, Any] = {
    "AMSGrad-optax": lambda params: front.AMSGrad(params, lr=0.1, convention="optax"),
    "AdamW": lambda params: front.AdamW(params, lr=0.1, weight_decay=0.3),
    "OptimisticAdam": lambda params: front.OptimisticAdam(params, lr=0.1),
}


def net() -> torch.nn.Module:
    """Rows that two ranks cannot share evenly."""
    module = torch.nn.Linear(2, 3, bias=False)
    with torch.no_grad():
        for i, param in enumerate(module.parameters()):
            param.copy_(torch.linspace(-1 - i, 1, param.numel()).reshape(param.shape))
    return module


def set_grads(module: torch.nn.Module, step: int) -> None:
    for i, param in enumerate(module.parameters()):
        grad = (torch.linspace(-1, 1 + i, param.numel()) / (3 + step)).reshape(param.shape)
        mesh = getattr(param, "device_mesh", None)
        param.grad = grad if mesh is None else distribute_tensor(grad, mesh, param.placements)  # type: ignore[attr-defined]


def whole(tensor: torch.Tensor) -> Any:
    return torch_states.to_numpy(tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor)


def values(module: torch.nn.Module, opt: torch.optim.Optimizer) -> list[dict[str, Any]]:
    return [
        {"param": whole(param), **{key: whole(value) for key, value in opt.state[param].items()}}
        for param in module.parameters()
    ]


def _rank(rank: int, store: str, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=RANKS)
    checkpoint: dict[str, Any] = {}
    pairs = {name: (fully_shard(net()), make) for name, make in MAKE.items()}
    made = {name: (module, make(module.parameters())) for name, (module, make) in pairs.items()}
    for name, (module, opt) in made.items():
        for step in range(write.STEPS):
            set_grads(module, step)
            opt.step()
        opt.zero_grad()
        checkpoint[name] = dict(zip(("model", "optimizer"), get_state_dict(module, opt), strict=True))
    dcp.save(checkpoint, checkpoint_id=folder)
    stepped = {}
    for name, (module, opt) in made.items():
        set_grads(module, write.STEPS)
        opt.step()
        stepped[name] = values(module, opt)
    if rank == 0:
        encode.write(STEPPED, stepped)
    dist.destroy_process_group()


def write_missing() -> None:
    if not FOLDER.exists():
        with tempfile.TemporaryDirectory() as store:
            torch.multiprocessing.spawn(_rank, (str(Path(store, "store")), str(FOLDER)), RANKS)
