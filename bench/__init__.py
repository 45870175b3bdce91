"""Microbenchmarks: what a step costs, beside what moving its bytes costs. Run by ``python -m flatstep bench``."""

from .cases import Contender, contenders
from .measure import Result, measure
from .report import show, write_json

__all__ = ["Contender", "Result", "contenders", "measure", "show", "write_json"]
