"""Where steps run: targets and threads."""

from __future__ import annotations

from . import _core

__version__ = _core.version


def targets() -> list[str]:
    """The names of the targets that this machine can run, best first.

    An optimizer takes the best when it is made, or the one that the environment variable ``FLATSTEP_TARGET`` names. All
    of them give the same bits.

    Example:
        >>> import numpy as np, flatstep
        >>> flatstep.Adam(np.ones(3), learning_rate=0.1).target in flatstep.targets()
        True
    """
    return _core.targets()


def get_num_threads() -> int:
    """How many threads a large step uses; small ones run on the calling thread.

    By default what OpenMP would use: ``OMP_NUM_THREADS``, else all processors of this process. The threads are
    flatstep's own, are started by the first large step, and sleep between steps.

    Example:
        >>> import flatstep
        >>> flatstep.get_num_threads() >= 1
        True
    """
    return _core.get_num_threads()


def set_num_threads(n: int) -> None:
    """Sets how many threads a large step uses, for the whole process. The bits do not depend on it.

    Args:
        n: at least 1.

    Raises:
        ValueError: n is less than 1.

    Example:
        >>> import flatstep
        >>> flatstep.set_num_threads(1)
        >>> flatstep.get_num_threads()
        1
    """
    _core.set_num_threads(n)
