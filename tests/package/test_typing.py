"""A wrong argument in a user's script is an error of the type checker, and a right one is not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not find_spec("mypy"), reason="mypy is not installed")]

PACKAGE = Path(__file__).parents[2] / "python"

# A line that mypy is to reject names the code of the error.
SCRIPTS = {
    "numpy": """
import numpy as np
import flatstep

params = {"w": np.ones(2, np.float32), "b": [np.zeros(1)]}
opt = flatstep.AMSGrad(params, 1e-3, b1=np.float32(0.9), eps=lambda count: 1e-8, convention="paper")
flatstep.Adam(params, learning_rate={"w": 0.1, "b": [lambda count: 0.1]}, mu_dtype="bfloat16")
opt.step(params, grad_scale=0.5)
opt.learning_rate = lambda count: 0.1
opt.weight_decay = {"w": 0.0, "b": [0.1]}
count: int = opt.count

class Mine(flatstep.AdamW):
    def __init__(self, params: object, rate: float) -> None:
        super().__init__(params, rate, weight_decay=0.1)

Mine(params, 0.1).step(params)
flatstep.Adam(params)  # call-arg
flatstep.Adam(params, 0.1, 0.9)  # call-arg
flatstep.Adam(params, lr=0.1)  # call-arg
flatstep.Adam(params, "0.1")  # arg-type
flatstep.Adam(params, 0.1, b1=None)  # arg-type
flatstep.Adam(params, 0.1, alpha=1.0)  # call-arg
flatstep.AMSGrad(params, 0.1, convention="keras")  # arg-type
flatstep.OptimisticAdam(params, 0.1, nesterov="yes")  # arg-type
opt.step(params, scale=1.0)  # call-arg
opt.lr = 0.1  # attr-defined
opt.b1 = "0.9"  # assignment
opt.maximize = True  # assignment
""",
    "torch": """
import torch
import flatstep.torch

model = torch.nn.Linear(2, 1)
rate = torch.tensor(1e-3)
opt = flatstep.torch.AMSGrad(model.parameters(), lr=1e-3, betas=(0.9, 0.99), convention="optax")
flatstep.torch.Adam([{"params": model.parameters(), "lr": 0.1}], rate, mu_dtype=torch.bfloat16)
flatstep.torch.AdamW(model.named_parameters(), weight_decay=0.1, fused=True)
torch.optim.lr_scheduler.StepLR(opt, 10)
opt.step()
base: torch.optim.Optimizer = opt

class Mine(flatstep.torch.OptimisticAdam):
    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__(model.parameters(), alpha=0.5)

Mine(model).zero_grad(set_to_none=True)
flatstep.torch.Adam(model)  # arg-type
flatstep.torch.Adam(model.parameters(), learning_rate=0.1)  # call-arg
flatstep.torch.Adam(model.parameters(), "0.1")  # arg-type
flatstep.torch.Adam(model.parameters(), betas=0.9)  # arg-type
flatstep.torch.Adam(model.parameters(), betas=(0.9,))  # arg-type
flatstep.torch.AMSGrad(model.parameters(), convention="keras")  # arg-type
flatstep.torch.AMSGrad(model.parameters(), amsgrad=True)  # call-arg
flatstep.torch.AdamW(model.parameters(), decoupled_weight_decay=False)  # call-arg
flatstep.torch.OptimisticAdam(model.parameters(), mu_dtype="bfloat16")  # arg-type
flatstep.torch.OptimisticAdam(model.parameters(), 1e-3, (0.9, 0.999), 1e-8, 0, 1.0)  # call-arg
""",
    "jax": """
import jax
import jax.numpy as jnp
import numpy as np
import flatstep.jax

params = {"w": jnp.ones(2)}
opt = flatstep.jax.amsgrad(1e-3, convention="torch", mu_dtype=jnp.bfloat16)
state = opt.init(params)
params, state = opt.step(params, state, params, grad_scale=0.5)
step = jax.jit(lambda params, state, grads: opt.step(params, state, grads), donate_argnums=(0, 1))
flatstep.jax.adamw(lambda count: 0.1 / count, weight_decay=jnp.float32(0.1), mask={"w": True})
flatstep.jax.adam(np.float32(0.1), 0.9, 0.99, weight_decay=0.1)
whole: dict[str, jax.Array] = opt.step(params, state, params)[0]
flatstep.jax.adam()  # call-arg
flatstep.jax.adam("0.1")  # arg-type
flatstep.jax.adam(lr=0.1)  # call-arg
flatstep.jax.adam(0.1, b1="0.9")  # arg-type
flatstep.jax.adam(0.1, 0.9, 0.99, 1e-8, 0.0, None, True)  # call-arg
flatstep.jax.amsgrad(0.1, convention="paper")  # arg-type
flatstep.jax.optimistic_adam_v2(0.1, gamma=1.0)  # call-arg
opt.step(params, state)  # call-arg
opt.step(params, state, params, 0.5)  # call-arg
opt.step(params, state, params, scale=0.5)  # call-arg
opt.step(params, state, params, grad_scale="0.5")  # arg-type
""",
}
NEEDS = {"numpy": ("numpy",), "torch": ("torch",), "jax": ("jax", "optax")}


@pytest.mark.parametrize("script", SCRIPTS)
def test_mypy_finds_wrong_arguments(script, tmp_path, pytestconfig):
    if not all(map(find_spec, NEEDS[script])):
        pytest.skip(f"{script} is not installed")
    file = tmp_path / f"uses_{script}.py"
    file.write_text(SCRIPTS[script], encoding="utf-8")
    cache = pytestconfig.cache.mkdir("mypy")
    options = ["--strict", "--follow-imports=silent", "--ignore-missing-imports", "--no-error-summary"]
    command = [sys.executable, "-m", "mypy", *options, "--config-file=", f"--cache-dir={cache}", file.name]
    environment = {**os.environ, "MYPYPATH": str(PACKAGE)}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert not result.stderr
    lines = SCRIPTS[script].splitlines()
    expected = {(at, line.rpartition("  # ")[2]) for at, line in enumerate(lines, 1) if "  # " in line}
    found = re.findall(r"^\S+?:(\d+): error: .*\[([\w-]+)\]$", result.stdout, re.MULTILINE)
    assert {(int(at), code) for at, code in found} == expected, result.stdout
