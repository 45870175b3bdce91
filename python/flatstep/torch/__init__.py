"""flatstep for PyTorch: drop-in replacements for torch.optim's Adam family, and Optimistic Adam.

Changing the import is all there is to do::

    from flatstep.torch import AdamW  # instead of torch.optim
"""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError(f'flatstep.torch needs PyTorch: pip install "flatstep[torch]" ({error})') from None

from .flat import flatten_parameters
from .rules import Adam, AdamW, AMSGrad, OptimisticAdam

__all__ = ["AMSGrad", "OptimisticAdam", "Adam", "AdamW", "flatten_parameters"]
