"""flatstep for PyTorch: drop-in replacements for torch.optim's Adam family, and Optimistic Adam.

Changing the import is all there is to do::

    from flatstep.torch import AdamW  # instead of torch.optim
"""

try:
    import torch as _torch
except ImportError as error:
    raise ImportError(f'flatstep.torch needs PyTorch 2.10 or later: pip install "flatstep[torch]" ({error})') from None
if not hasattr(_torch.Tensor, "__dlpack_c_exchange_api__"):  # through which the core reads tensors; since torch 2.10
    raise ImportError(
        f"flatstep.torch needs PyTorch 2.10 or later, found {_torch.__version__}: "
        'pip install --upgrade "flatstep[torch]"'
    )

from . import _optimizers
from ._clip import clip_grad_norm_
from ._flat import flatten_parameters
from ._optimizers import *  # noqa: F403

__all__ = ["clip_grad_norm_", "flatten_parameters"]
__all__ += _optimizers.__all__
