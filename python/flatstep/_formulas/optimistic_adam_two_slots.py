"""Optimistic Adam without Nesterov's momentum. The kernel keeps no ``previous``: it makes it again from the moments."""

from .optimistic_adam import update

__all__ = ["update"]
