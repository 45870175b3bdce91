"""Rejects reads of a tensor's numbers: for tests that a step leaves on the device what lies there."""

from __future__ import annotations

import torch


class NotRead(Exception):
    """The host has asked for a number that lies on the device."""


def forbid(monkeypatch) -> None:
    """From here on the host reads no number."""

    def reject(*_):
        raise NotRead

    for name in ("item", "__float__", "__bool__", "__int__", "tolist", "numpy"):
        monkeypatch.setattr(torch.Tensor, name, reject)
