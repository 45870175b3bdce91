"""Where optimizers were before version 0.2: for pickles that name this module."""

from ._optimizers import *  # noqa: F403
