r"""Flax's training states with fused steps in them. Needs flax; flatstep does not import this module itself.

Flax's own classes take flatstep's optimizers too, as they take optax's; what they call is ``update``, which with
``apply_updates`` goes over memory twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import _versions

_versions.require("flax", by="flatstep.jax.flax", extra="flax")

from flax import nnx  # noqa: E402
from flax.linen.fp8_ops import OVERWRITE_WITH_GRADIENT  # noqa: E402
from flax.training import train_state  # noqa: E402

from ._transformation import FusedTransformation  # noqa: E402


class TrainState(train_state.TrainState):
    """flax.training.train_state.TrainState whose ``apply_gradients`` is one fused step.

    .. math:: (p, s) \\leftarrow \\mathit{step}(p, s, g)

    Made by ``create(apply_fn=..., params=..., tx=...)``, as flax's is.

    Args:
        step: how many steps were done.
        apply_fn: the model's function.
        params: the parameters, updated in place where the state is donated.
        tx: an optimizer of flatstep.jax.
        opt_state: its state.

    Raises:
        TypeError: ``tx`` has no fused step (a chain, say: flax's own TrainState takes those).

    Example:
        >>> import jax.numpy as jnp, flatstep.jax
        >>> from flatstep.jax.flax import TrainState
        >>> params = {"w": jnp.ones(2)}
        >>> state = TrainState.create(apply_fn=None, params=params, tx=flatstep.jax.adam(0.5))
        >>> state = state.apply_gradients(grads={"w": jnp.ones(2)})
        >>> state.params["w"], int(state.step)
        (Array([0.5, 0.5], dtype=float32), 1)

    References:
        ``flax.training.train_state.TrainState``.
    """

    def apply_gradients(self, *, grads: Any, **kwargs: Any) -> Any:
        """The state after one step; further arguments replace fields, as in flax."""
        step = _step_of(self.tx)
        if isinstance(grads, Mapping) and OVERWRITE_WITH_GRADIENT in grads:
            return super().apply_gradients(grads=grads, **kwargs)
        params, opt_state = step(self.params, self.opt_state, grads)
        return self.replace(step=self.step + 1, params=params, opt_state=opt_state, **kwargs)


class Optimizer(nnx.Optimizer[Any]):
    """flax.nnx.Optimizer whose ``update`` is one fused step.

    .. math:: (p, s) \\leftarrow \\mathit{step}(p, s, g)

    Args:
        model: the module to train, as for flax's, like all arguments.
        tx: an optimizer of flatstep.jax.
        wrt: which variables are trained.
        graph: flax's graph mode. Default None: as set in flax.

    Raises:
        TypeError: ``tx`` has no fused step.

    Example:
        >>> import jax.numpy as jnp, flatstep.jax
        >>> from flax import nnx
        >>> from flatstep.jax.flax import Optimizer
        >>> model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
        >>> optimizer = Optimizer(model, flatstep.jax.adam(1e-2), wrt=nnx.Param)
        >>> grads = nnx.grad(lambda model: (model(jnp.ones((4, 2))) ** 2).mean())(model)
        >>> optimizer.update(model, grads)
        >>> int(optimizer.step[...])
        1

    References:
        ``flax.nnx.Optimizer``.
    """

    def update(self, model: Any, grads: Any, /, **kwargs: Any) -> None:
        """Steps the model's variables. Returns nothing: a fused step makes no updates."""
        params, gradients, state = (
            nnx.as_pure(part)
            for part in (
                nnx.state(model, self.wrt, graph=self.graph),
                nnx.state(grads, self.wrt, graph=self.graph),
                self.opt_state,
            )
        )
        new_params, new_state = _step_of(self.tx)(params, state, gradients, **nnx.as_pure(kwargs))
        nnx.update(model, new_params)
        nnx.update(self.opt_state, nnx.state(new_state, graph=self.graph))
        self.step[...] += 1


def _step_of(tx: Any) -> Any:
    if not isinstance(tx, FusedTransformation) or not hasattr(tx, "step"):
        raise TypeError(
            f"tx is {type(tx).__name__}, without a fused step; expected an optimizer of flatstep.jax itself. flax's "
            "own class takes chains and wrappers of them"
        )
    return tx.step
