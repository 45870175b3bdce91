"""DeepSpeedCPUAdam: Adam in C++, which DeepSpeed compiles at its first use (ninja and a compiler are needed)."""

from __future__ import annotations

from functools import partial

from ..contender import Contender, Peer, Task
from ..data import Data
from ..layouts import F32
from .torch_tensors import contender


def _deepspeed(task: Task, data: Data) -> Contender:
    from deepspeed.ops.adam import DeepSpeedCPUAdam
    from deepspeed.utils import logger

    logger.setLevel("ERROR")  # it would write a line for each
    return contender("DeepSpeedCPUAdam", partial(DeepSpeedCPUAdam, lr=task.rate, adamw_mode=False), data)


def _left_out(task: Task) -> str:
    return "may have to be compiled, which takes a minute" if task.quick else ""


PEERS = [Peer("DeepSpeedCPUAdam", _deepspeed, {"adam": ""}, [F32], left_out=_left_out)]
