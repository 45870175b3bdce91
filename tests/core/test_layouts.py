"""Each layout of csrc/formats/layouts.h is reached through a public front end, as the comments there say."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

import flatstep
from flatstep import _core

FORMATS = ["float32", "float64", "bfloat16", "float16"]
LAYOUTS = [
    (param, grad, mu, nu)
    for param, grad, mu, nu in product(FORMATS, repeat=4)
    if _core.has_kernel("amsgrad", param, grad, [mu, nu, nu])
]


@pytest.mark.parametrize("layout", LAYOUTS, ids="-".join)
def test_torch_reaches(layout):
    """By grad_dtype, mu_dtype and a loaded state."""
    torch = pytest.importorskip("torch")
    import flatstep.torch

    of_param, of_grad, of_mu, of_nu = [getattr(torch, name) for name in layout]
    param = torch.nn.Parameter(torch.ones(70, dtype=of_param))
    param.grad_dtype = of_grad
    param.grad = torch.ones(70, dtype=of_grad)
    opt = flatstep.torch.AMSGrad([param], lr=0.1, mu_dtype=of_mu)
    moments = {"exp_avg": of_mu, "exp_avg_sq": of_nu, "max_exp_avg_sq": of_nu}
    state = {"step": torch.tensor(0.0), **{key: torch.zeros(70, dtype=dtype) for key, dtype in moments.items()}}
    opt.load_state_dict({**opt.state_dict(), "state": {0: state}})
    opt.step()
    assert {key: opt.state[param][key].dtype for key in moments} == moments
    assert (param < 1).all()


# NumPy's gradients have their parameter's dtype, and so has the second moment.
OF_NUMPY = [(p, g, mu, nu) for p, g, mu, nu in LAYOUTS if p == g == nu and p != "bfloat16"]


@pytest.mark.parametrize("layout", OF_NUMPY, ids="-".join)
def test_numpy_reaches(layout):
    """By mu_dtype."""
    if "bfloat16" in layout:
        pytest.importorskip("ml_dtypes")
    param = np.ones(70, layout[0])
    opt = flatstep.AMSGrad(param, 0.1, mu_dtype=layout[2])
    opt.step(np.ones(70, layout[1]))
    assert [opt.state[slot].dtype.name for slot in ("mu", "nu", "nu_max")] == [layout[2], layout[3], layout[3]]
    assert (param < 1).all()
