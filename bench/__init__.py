"""Microbenchmarks: what a step costs, beside what moving its bytes costs. Run by ``python -m flatstep bench``."""

from .cases import Contender, contenders
from .handover import HandOver, measure_handover
from .measure import Result, measure
from .report import show, write_json

__all__ = ["Contender", "HandOver", "Result", "contenders", "measure", "measure_handover", "show", "write_json"]
