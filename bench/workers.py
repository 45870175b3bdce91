"""A process that calls functions for this one, in an environment that is set before OpenMP is loaded.

OpenMP reads ``OMP_WAIT_POLICY`` once, when it is loaded. Used by runner.py and beside.py.
"""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")
PASSIVE = {"OMP_WAIT_POLICY": "passive"}  # OpenMP's threads sleep when they have nothing to do


class Died(Exception):
    """The process ended before it had answered."""


class Worker:
    """One process. A context manager: the process ends with it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        spawn = get_context("spawn")
        self._connection, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_serve, args=(theirs,))
        with _changed_environment(environment):
            self._process.start()
        theirs.close()

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """What the function returns there. RuntimeError: what it raised, as text."""
        try:
            self._connection.send((function, arguments))
            answer, error = self._connection.recv()
        except (EOFError, OSError):
            self._process.join()
            raise Died(f"the process ended with status {self._process.exitcode}") from None
        if error:
            raise RuntimeError(error)
        result: T = answer
        return result

    def close(self) -> None:
        self._connection.close()
        self._process.kill()
        self._process.join()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _serve(connection: Connection) -> None:
    """Answers until the other process closes the connection. Ctrl-C is for the other process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            function, arguments = connection.recv()
        except (EOFError, OSError):
            return
        try:
            answer = function(*arguments), ""
        except Exception:
            answer = None, traceback.format_exc()
        connection.send(answer)


@contextmanager
def _changed_environment(changes: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
