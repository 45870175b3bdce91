"""What is timed, and who makes it: the two nouns that cases, peers and the runner share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .data import Data
from .layouts import Layout

Array = np.ndarray[Any, Any]


def _nothing() -> None:
    pass


def _no_params() -> list[Array]:
    return []


@dataclass(frozen=True)
class Contender:
    """Something to time: ``run`` is one step over a case's arrays, done when it returns."""

    name: str
    run: Callable[[], None]
    params: Callable[[], Sequence[Array]] = _no_params  # as they are now, for the accuracy
    refresh: Callable[[], None] = _nothing  # takes in gradients that were drawn since
    is_limit: bool = False
    computes: str = ""  # what, where it is not what the case says
    bytes_per_element: float | None = None  # where it does not move what flatstep's step does
    compile_seconds: float | None = None


@dataclass(frozen=True)
class Task:
    """What a contender is asked for."""

    rule: str
    layout: Layout
    arrays: int
    elements: int
    quick: bool = False
    rate: float = 1e-3  # the learning rate


@dataclass(frozen=True)
class Peer:
    """One way to take a step. ``computes``: by rule that it takes, "" for that rule or what it computes instead."""

    name: str
    make: Callable[[Task, Data], Contender]
    computes: Mapping[str, str]
    layouts: Sequence[Layout]
    is_ours: bool = False
    is_meant_for: Callable[[Task], bool] = lambda task: True
    left_out: Callable[[Task], str] = lambda task: ""  # why it does not take part though it is meant to, or ""

    def takes(self, task: Task) -> bool:
        return task.rule in self.computes and task.layout in self.layouts and self.is_meant_for(task)


def reason(error: Exception) -> str:
    """Why a peer is left out, in one line."""
    return (str(error) and f"{type(error).__name__}: {error}".splitlines()[0]) or type(error).__name__
