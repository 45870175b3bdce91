"""What is exported, and every public signature, is what golden/public says."""

from __future__ import annotations

import pytest

from golden import public

OPTIONAL = {"flatstep.torch": ["torch"], "flatstep.jax": ["optax"], "flatstep.jax.flax": ["optax", "flax"]}


@pytest.mark.parametrize("module", public.MODULES)
def test_public(module):
    """After a change that is meant, python -m golden.write in tests/helpers writes the texts again."""
    for needed in OPTIONAL.get(module, []):
        pytest.importorskip(needed)
    assert public.describe(module).splitlines() == public.path_of(module).read_text().splitlines()
