"""The one table of cases: front end x rule x layout x shape. Used by runner.py; ``--only`` chooses from it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .layouts import BF16, F16, F32, F32_MU_BF16, F64, Layout
from .rules import RULES
from .shapes import GAN, GPT2, TEN_THOUSAND, THOUSAND, TINY, Shape, one_array
from .tail import TAILS
from .threads import SWEEPS

DECADES = [10**power for power in range(3, 9)]
HALF_DECADES = [round(10 ** (half / 2)) for half in range(6, 17)]
# Closest where one thread and more take about as long.
BY_THREADS = [10**3, 10**4, 33_000, 50_000, 70_000, 10**5, 200_000, 500_000, 10**6, 3 * 10**6, 10**7]
BIG = HALF_DECADES[-2]  # 32 million: more than caches hold
HUGE = 2**28  # of a device


class Case(NamedTuple):
    """The front end, rule and data of a step. Its contenders are timed in turns with each other."""

    front_end: str
    rule: str
    layout: Layout
    shape: Shape

    @property
    def name(self) -> str:
        return f"{self.front_end}, {self.rule}, {self.layout.name}, {self.shape.name}"

    @property
    def words(self) -> set[str]:
        """What ``--only`` can name it by."""
        return {self.front_end, self.rule, self.layout.param}


class Row(NamedTuple):
    """Every rule on every layout over every shape."""

    front_end: str
    rules: Sequence[str]
    layouts: Sequence[Layout]
    shapes: Sequence[Shape]


def table(quick: bool, sizes: Sequence[int] = ()) -> list[Row]:
    """``sizes`` stand for those that are swept over."""
    big = [one_array(10**6 if quick else BIG)]
    huge = [one_array(10**7 if quick else HUGE)]
    fine = [one_array(size) for size in sizes or ([10**3, 10**5, 10**6] if quick else HALF_DECADES)]
    coarse = [one_array(size) for size in sizes or ([10**3, 10**6] if quick else DECADES[:-1])]
    models = [TINY, GAN] if quick else [TINY, THOUSAND, TEN_THOUSAND, GAN, GPT2]
    tails = [one_array(size) for size in sizes or ([10**6] if quick else [10**6, 2**26])]
    by_threads = [one_array(size) for size in sizes or ([50_000, 10**6] if quick else BY_THREADS)]
    few = [TINY] if quick else [TINY, THOUSAND, GAN, GPT2]
    return [
        Row("numpy", ["amsgrad"], [F32], fine),
        Row("numpy", ["amsgrad"], [F32], [THOUSAND, *models] if quick else models),
        Row("numpy", list(RULES), [F32], big),
        Row("numpy", ["amsgrad"], [F64, F32_MU_BF16, F16], big),
        Row("jax", ["amsgrad"], [F32], coarse if quick else fine),
        Row("jax", ["amsgrad"], [F32], few),
        Row("jax", ["adam", "optimistic_adam"], [F32], big),
        Row("jax", ["amsgrad"], [] if quick else [F32_MU_BF16, BF16], big),
        Row("torch", ["amsgrad"], [F32], fine),
        Row("torch", ["amsgrad"], [F32], models),
        Row("torch", ["adam"], [F32], coarse),
        Row("torch", ["adam"], [F32], [GAN] if quick else [*few, *big]),
        Row("torch", ["optimistic_adam"], [F32], big),
        Row("torch", ["amsgrad"], [F64, F32_MU_BF16, BF16, F16], big),
        Row("cuda", ["amsgrad", "adam", "optimistic_adam"], [F32], huge),
        Row("cuda", ["amsgrad"], [F32], models),
        Row("cuda", ["amsgrad"], [F32_MU_BF16, BF16, F16], huge),
        Row(TAILS.numpy, ["amsgrad"], [F32], [*models[:2], *tails]),
        Row(TAILS.jax, ["amsgrad"], [F32], [*models[:2], *tails]),
        Row(TAILS.torch, ["amsgrad"], [F32], [*models[:2], *tails]),
        Row(SWEEPS.numpy, ["amsgrad"], [F32], by_threads),
        *(Row(sweep, ["amsgrad"], [F32], [] if quick and not sizes else by_threads) for sweep in SWEEPS[1:]),
    ]


def cases(quick: bool, sizes: Sequence[int] = (), only: Iterable[str] = ()) -> list[Case]:
    """Each case once. Of ``only``, a case has a word of every kind that words are given of: numpy torch adam is two."""
    rows = table(quick, sizes)
    every = dict.fromkeys(
        Case(row.front_end, rule, layout, shape)
        for row in rows
        for rule in row.rules
        for layout in row.layouts
        for shape in row.shapes
    )
    unique = list({case.name: case for case in every}.values())
    kinds = [
        {case.front_end for case in unique},
        {case.rule for case in unique},
        {case.layout.param for case in unique},
    ]
    wanted = set(only)
    if unknown := wanted - set().union(*kinds):
        raise ValueError(f"no case is named {', '.join(sorted(unknown))}; {', '.join(sorted(set().union(*kinds)))} are")
    chosen = [wanted & kind or kind for kind in kinds]
    return [case for case in unique if all(case.words & kind for kind in chosen)]
