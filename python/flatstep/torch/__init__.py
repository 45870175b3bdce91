"""flatstep for PyTorch: drop-in replacements for torch.optim's Adam family, and Optimistic Adam.

Changing the import is all there is to do::

    from flatstep.torch import AdamW  # instead of torch.optim
"""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError(f'flatstep.torch needs PyTorch: pip install "flatstep[torch]" ({error})') from None

from . import _optimizers
from ._clip import clip_grad_norm_
from ._flat import flatten_parameters
from ._optimizers import *  # noqa: F403

__all__ = ["clip_grad_norm_", "flatten_parameters"]
__all__ += _optimizers.__all__
