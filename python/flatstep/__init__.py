"""Fused optimizer steps: in place, in one pass over memory, with the same bits on every processor."""

from .flat import flatten
from .optimizer import Optimizer
from .rules import Adam, AdamW, AMSGrad, OptimisticAdam, OptimisticGradientDescent
from .runtime import __version__, get_num_threads, set_num_threads, targets

__all__ = [
    "AMSGrad",
    "Adam",
    "AdamW",
    "OptimisticAdam",
    "OptimisticGradientDescent",
    "Optimizer",
    "__version__",
    "flatten",
    "get_num_threads",
    "set_num_threads",
    "targets",
]
