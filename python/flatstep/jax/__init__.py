"""flatstep for JAX: optax's Adam family, fused, and in place under ``jax.jit`` with donation.

What replaces ``optax.amsgrad`` and its like goes on with their states. Best is their ``step``::

    opt = flatstep.jax.amsgrad(1e-3)
    state = opt.init(params)
    step = jax.jit(lambda params, state, batch: opt.step(params, state, grads(params, batch)), donate_argnums=(0, 1))
"""

from . import _versions

_versions.check()

from . import _optimizers  # noqa: E402
from ._around import ema  # noqa: E402
from ._optimizers import *  # noqa: E402, F403

ema.__module__ = "flatstep.jax"
__all__ = [*_optimizers.__all__, "ema"]
