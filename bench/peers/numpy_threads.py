"""flatstep on NumPy arrays, on all threads and on one."""

from __future__ import annotations

from ..threads import on_all_and_on_one
from .numpy_ours import PEERS as OURS

PEERS = on_all_and_on_one(OURS[0])
