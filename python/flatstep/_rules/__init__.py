"""All optimizers, declared: one file each. The front ends read them, and ``python -m flatstep._rules`` writes the
public classes and functions from them. For the package's own use.
"""

from .adam import ADAM, ADAMW
from .amsgrad import AMSGRAD
from .common import LEARNING_RATE
from .declaration import DECAY_STATE, RATE_STATE, Arguments, Declaration, Jax, Number, Option, Part, Torch
from .lion import LION
from .optimistic_adam import OPTIMISTIC_ADAM
from .optimistic_amsgrad import OPTIMISTIC_AMSGRAD
from .optimistic_gradient_descent import OPTIMISTIC_GRADIENT_DESCENT
from .rmsprop import RMSPROP

OPTIMIZERS = (AMSGRAD, OPTIMISTIC_ADAM, OPTIMISTIC_AMSGRAD, ADAM, ADAMW, LION, RMSPROP, OPTIMISTIC_GRADIENT_DESCENT)
"""In the order of the documentation; a class stands behind that from which it is derived."""

__all__ = [
    "ADAM",
    "ADAMW",
    "AMSGRAD",
    "DECAY_STATE",
    "LEARNING_RATE",
    "LION",
    "OPTIMISTIC_ADAM",
    "OPTIMISTIC_AMSGRAD",
    "OPTIMISTIC_GRADIENT_DESCENT",
    "OPTIMIZERS",
    "RATE_STATE",
    "RMSPROP",
    "Arguments",
    "Declaration",
    "Jax",
    "Number",
    "Option",
    "Part",
    "Torch",
]
