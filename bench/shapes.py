"""What a step goes over: one array of some size, or the arrays of a model. Used by cases.py."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from typing import NamedTuple

import numpy as np

Lengths = tuple[int, ...]


class Shape(NamedTuple):
    """The shapes of a step's arrays, made when they are wanted. Can be pickled."""

    name: str
    make: Callable[[], list[Lengths]]

    @property
    def elements(self) -> int:
        return sum(map(prod, self.make()))


def one_array(elements: int) -> Shape:
    return Shape(f"one array of {elements:,}", partial(_single, elements))


def _single(elements: int) -> list[Lengths]:
    return [(elements,)]


def gpt2_small() -> list[Lengths]:
    """GPT-2 small's 148 parameters: 124 million numbers."""
    width = 768
    block: list[Lengths] = [(width,)] * 2  # a layer norm, as follows twice
    block += [(width, 3 * width), (3 * width,), (width, width), (width,)]
    block += [(width,)] * 2
    block += [(width, 4 * width), (4 * width,), (4 * width, width), (width,)]
    return [(50257, width), (1024, width), *block * 12, (width,), (width,)]


def gan() -> list[Lengths]:
    """Generator and discriminator of a convolutional GAN for 64 x 64 pixels (DCGAN): 6 million numbers."""
    generator: list[Lengths] = [(100, 512, 4, 4), (512,), (512,)]
    discriminator: list[Lengths] = [(64, 3, 4, 4)]
    for narrow in (256, 128, 64):
        generator += [(2 * narrow, narrow, 4, 4), (narrow,), (narrow,)]
    for narrow in (64, 128, 256):
        discriminator += [(2 * narrow, narrow, 4, 4), (2 * narrow,), (2 * narrow,)]
    return [*generator, (64, 3, 4, 4), *discriminator, (1, 512, 4, 4)]


def small(count: int) -> list[Lengths]:
    """Small arrays, of 64 to 4,096 elements."""
    return [(int(length),) for length in np.random.default_rng(0).integers(64, 4097, count)]


TINY = Shape("one array of 8", partial(_single, 8))
GPT2 = Shape("GPT-2 small, 148 arrays", gpt2_small)
GAN = Shape("DCGAN, 24 arrays", gan)
THOUSAND = Shape("1,000 small arrays", partial(small, 1_000))
TEN_THOUSAND = Shape("10,000 small arrays", partial(small, 10_000))
