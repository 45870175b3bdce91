"""Fused optimizer steps: in place, in one pass over memory, with the same bits on every processor."""

from . import _optimizers
from ._flat import flatten
from ._norm import global_norm
from ._optimizer import Optimizer
from ._optimizers import *  # noqa: F403
from ._runtime import __version__, get_num_threads, set_num_threads, targets

__all__ = [
    "Optimizer",
    "__version__",
    "flatten",
    "get_num_threads",
    "global_norm",
    "set_num_threads",
    "targets",
]
__all__ += _optimizers.__all__
