"""One step on each front end that is installed, as a check of an installed wheel. Run by try_wheel and cibuildwheel."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np

import flatstep

START, RATE = np.arange(1.0, 1_000_001.0, dtype=np.float32), 0.1  # enough for a second thread


def on_numpy() -> np.ndarray:
    param = START.copy()
    flatstep.AMSGrad(param, RATE).step(np.ones_like(param))
    return param


def on_torch() -> np.ndarray:
    import torch

    import flatstep.torch

    param = torch.nn.Parameter(torch.tensor(START))
    param.grad = torch.ones_like(param)
    flatstep.torch.AMSGrad([param], lr=RATE).step()
    return param.detach().numpy()


def on_jax() -> np.ndarray:
    import jax

    import flatstep.jax

    opt = flatstep.jax.amsgrad(RATE)
    param = jax.numpy.asarray(START)
    param, _ = jax.jit(opt.step)(param, opt.init(param), jax.numpy.ones_like(param))
    return np.asarray(param)


FRONT_ENDS: dict[str, Callable[[], np.ndarray]] = {"numpy": on_numpy, "torch": on_torch, "jax": on_jax}


def main() -> None:
    assert flatstep.__file__.startswith(sys.prefix), f"not the installed flatstep: {flatstep.__file__}"
    for name, step in FRONT_ENDS.items():
        if find_spec(name) is None:
            print(f"{name}: not installed")
            continue
        np.testing.assert_allclose(step(), START - RATE, rtol=1e-6)
        print(f"{name}: one step")


if __name__ == "__main__":
    main()
