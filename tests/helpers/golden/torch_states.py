"""Golden files of the PyTorch optimizers: state_dicts and whole optimizers saved by ``torch.save``.

write.py writes them, test_golden_states.py reads them. A ``.pt`` file holds a state_dict, a ``.pickle.pt`` file the
optimizer itself, or a module's flat parameters and their optimizer. The ``.json`` file has the parameters of both, and
what one step more makes of parameters and state.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch

import flatstep.torch as front
from table import TABLE, in_torch_words

from . import encode, write

FOLDER = write.FOLDER / "states-0.1" / "torch"


def of_table() -> dict[str, dict[str, Any]]:
    """Each face of an optimizer with its defaults, and each row by which it differs from them."""
    return {
        face.name if row == "default" else f"{face.name}-{row}": {**face.arguments, **in_torch_words(entry, own)}
        for entry in TABLE
        for face in entry.torch
        for row, own in (face.rows or {"default": {}}).items()
    }


SETTINGS: dict[str, dict[str, Any]] = {
    **of_table(),
    "Adam-groups": {},
    "Adam-bfloat16": dict(mu_dtype=torch.bfloat16),
    "AdamW-amsgrad": dict(amsgrad=True),
    "AMSGrad-bfloat16": dict(mu_dtype=torch.bfloat16),
    "OptimisticAdam-bfloat16": dict(mu_dtype=torch.bfloat16),
    "AMSGrad-flat": {},
}
NUMBERS: dict[str, Any] = dict(lr=0.1, betas=(0.8, 0.95), eps=1e-6, eps_root=2.0**-40, weight_decay=0.3)


def params(name: str) -> list[torch.nn.Parameter]:
    """Parameters of several dtypes; the last one never has a gradient. With mu_dtype, all are float32."""
    dtypes = [torch.float32, torch.float64, torch.bfloat16, torch.float32]
    shapes = [(2, 3), (), (5,), (3,)]
    if name.endswith("bfloat16"):
        dtypes = [torch.float32] * len(shapes)
    return [
        torch.nn.Parameter(torch.linspace(-1 - i, 1, shape.numel(), dtype=torch.float64).reshape(shape).to(dtype))
        for i, (shape, dtype) in enumerate(zip(map(torch.Size, shapes), dtypes, strict=True))
    ]


def groups(name: str, own: list[torch.nn.Parameter]) -> list[dict[str, Any]]:
    second: dict[str, Any] = dict(params=own[2:], lr=0.03, maximize=True)
    if name == "Adam-groups":
        second["amsgrad"] = True
    return [dict(params=own[:2]), second]


def flat_parameter() -> Any:
    """The parameters of a module in one buffer."""
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1))
    for i, param in enumerate(module.parameters()):
        param.data = torch.linspace(-1 - i, 1, param.numel()).reshape(param.shape)
    return front.flatten_parameters(module)


def set_grads(own: list[torch.nn.Parameter], step: int) -> None:
    """The gradients of a step, 0 first. One parameter has none at step 1, the last one never has any."""
    for i, param in enumerate(own):
        if (step == 1 and i == 1) or param.shape == (3,):
            param.grad = None
        else:
            grad = torch.linspace(-1, 1 + i, param.numel(), dtype=torch.float64) / (3 + step)
            param.grad = grad.reshape(param.shape).to(param.dtype)


def make(name: str, own: list[torch.nn.Parameter], **more: Any) -> Any:
    cls = getattr(front, name.split("-")[0])
    numbers = {key: value for key, value in NUMBERS.items() if key in inspect.signature(cls).parameters}
    return cls(groups(name, own), **{**numbers, **SETTINGS[name], **more})


def params_of(opt: Any) -> list[torch.nn.Parameter]:
    return [param for group in opt.param_groups for param in group["params"]]


def to_numpy(tensor: torch.Tensor) -> Any:
    """A copy of the tensor. bfloat16, which NumPy lacks, becomes float32."""
    tensor = tensor.detach()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy().copy()


def values(opt: Any) -> list[dict[str, Any]]:
    """Every parameter and its state, by key."""
    return [
        {"param": to_numpy(p), **{key: to_numpy(value) for key, value in opt.state.get(p, {}).items()}}
        for p in params_of(opt)
    ]


def start(name: str, **more: Any) -> tuple[Any, Any]:
    """What is pickled whole, and the optimizer in it."""
    if name == "AMSGrad-flat":
        flat = flat_parameter()
        opt = front.AMSGrad([flat], **{**NUMBERS, **more})
        return (flat, opt), opt
    opt = make(name, params(name), **more)
    return opt, opt


def write_missing() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in SETTINGS:
        path, whole = FOLDER / f"{name}.pt", FOLDER / f"{name}.pickle.pt"
        if path.exists():
            continue
        pickled, opt = start(name)
        for step in range(write.STEPS):
            set_grads(params_of(opt), step)
            opt.step()
        opt.zero_grad()
        torch.save(pickled, whole)
        torch.save(opt.state_dict(), path)
        saved = values(opt)
        set_grads(params_of(opt), write.STEPS)
        opt.step()
        encode.write(FOLDER / f"{name}.json", {"saved": saved, "stepped": values(opt)})
