"""States that version 0.1 wrote, by every front end, are loaded, and the next step has the same bits."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

from cases import assert_same_bits
from flatstep._trees import Tree
from golden import encode, numpy_states, write
from table import JAX, TABLE

needs_torch = pytest.mark.skipif(not find_spec("torch"), reason="needs torch")
needs_jax = pytest.mark.skipif(not find_spec("optax"), reason="needs jax and optax")


def names(folder: str, suffix: str) -> list[str]:
    paths = (write.FOLDER / "states-0.1" / folder).glob(f"*{suffix}")
    return sorted(path.name.removesuffix(suffix) for path in paths)


def same(actual, expected, what=""):
    """Equal structures of equal arrays and values."""
    if isinstance(expected, dict):
        assert actual.keys() == expected.keys(), what
        for key, own in expected.items():
            same(actual[key], own, f"{what}.{key}")
    elif isinstance(expected, (list, tuple)):
        assert type(actual) is type(expected) and len(actual) == len(expected), what
        for i, (one, other) in enumerate(zip(actual, expected, strict=True)):
            same(one, other, f"{what}.{i}")
    elif isinstance(expected, np.ndarray):
        expected = expected.astype(np.float32) if expected.dtype.name == "bfloat16" else expected
        assert_same_bits(actual, expected, what)
    else:
        assert actual == expected and type(actual) is type(expected), what


@pytest.mark.parametrize("name", names("numpy", ".json"))
def test_numpy(name):
    if name.endswith("bfloat16"):
        pytest.importorskip("ml_dtypes")
    golden = encode.read(numpy_states.FOLDER / f"{name}.json")
    params = numpy_states.params(name)
    for leaf, saved in zip(Tree(params).leaves, Tree(golden["params"]).leaves, strict=True):
        leaf[...] = saved
    opt = numpy_states.make(name, params, learning_rate=0.5)
    opt.load_state_dict(golden["state_dict"])
    same(opt.state_dict(), golden["state_dict"])
    opt.step(numpy_states.grads(name, write.STEPS))
    same({"params": opt.params, "state_dict": opt.state_dict()}, golden["stepped"])


def check_torch(opt, golden):
    """The optimizer has the saved values, and a step makes of them what it should."""
    from golden import torch_states

    same(torch_states.values(opt), golden["saved"])
    torch_states.set_grads(torch_states.params_of(opt), write.STEPS)
    opt.step()
    same(torch_states.values(opt), golden["stepped"])


@needs_torch
@pytest.mark.parametrize("name", names("torch", ".json"))
def test_torch_state_dict(name):
    import torch

    from golden import torch_states

    golden = encode.read(torch_states.FOLDER / f"{name}.json")
    _, opt = torch_states.start(name, lr=0.5)
    with torch.no_grad():
        for param, saved in zip(torch_states.params_of(opt), golden["saved"], strict=True):
            param.copy_(torch.from_numpy(saved["param"]))
    opt.load_state_dict(torch.load(torch_states.FOLDER / f"{name}.pt", weights_only=True))
    check_torch(opt, golden)


@needs_torch
@pytest.mark.parametrize("name", names("torch", ".pickle.pt"))
def test_torch_pickle(name):
    """A whole optimizer, by the names that its classes had in modules then."""
    import torch

    from golden import torch_states

    loaded = torch.load(torch_states.FOLDER / f"{name}.pickle.pt", weights_only=False)
    flat, opt = loaded if isinstance(loaded, tuple) else (None, loaded)
    assert flat is None or flat is opt.param_groups[0]["params"][0]
    check_torch(opt, encode.read(torch_states.FOLDER / f"{name}.json"))


@needs_torch
@pytest.mark.filterwarnings("ignore")  # torch's own, about its checkpoints
def test_torch_distributed_checkpoint():
    import torch

    if not torch.distributed.is_available():
        pytest.skip("this torch has no distributed part")
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

    from golden import torch_checkpoint as golden

    modules = {name: golden.net() for name in golden.MAKE}
    opts = {name: golden.MAKE[name](module.parameters()) for name, module in modules.items()}
    parts = {
        name: dict(zip(("model", "optimizer"), get_state_dict(modules[name], opt), strict=True))
        for name, opt in opts.items()
    }
    dcp.load(parts, checkpoint_id=golden.FOLDER, no_dist=True)
    stepped = encode.read(golden.STEPPED)
    assert stepped.keys() == golden.MAKE.keys()
    for name, module in modules.items():
        own = parts[name]
        set_state_dict(module, opts[name], model_state_dict=own["model"], optim_state_dict=own["optimizer"])
        golden.set_grads(module, write.STEPS)
        opts[name].step()
        same(golden.values(module, opts[name]), stepped[name], name)


@needs_jax
@pytest.mark.parametrize("name", names("jax", ".json"))
def test_jax(name):
    import jax

    from golden import jax_states

    golden = encode.read(jax_states.FOLDER / f"{name}.json")
    opt = jax_states.make(name)
    own = jax_states.params()
    state = opt.init(own)
    assert jax_states.types(state) == golden["types"]
    assert list(jax_states.flat(state)) == list(golden["state"])
    state = jax.tree.unflatten(jax.tree.structure(state), golden["state"].values())
    own = jax.tree.unflatten(jax.tree.structure(own), golden["params"].values())
    own, state = jax_states.step(opt, own, state, write.STEPS)
    same({"params": jax_states.flat(own), "state": jax_states.flat(state)}, golden["stepped"])


def test_none_is_missing():
    """Each setting has its file. To add what is missing, run python -m golden.write in tests/helpers."""
    assert set(names("numpy", ".json")) == set(numpy_states.SETTINGS)
    assert {name.split("-")[0] for name in numpy_states.SETTINGS} == {entry.optimizer.__name__ for entry in TABLE}
    if find_spec("torch"):
        from golden import torch_states

        faces = {face.name for entry in TABLE for face in entry.torch}
        assert {name.split("-")[0] for name in torch_states.SETTINGS} == faces
        for suffix in (".json", ".pickle.pt"):
            assert set(names("torch", suffix)) == set(torch_states.SETTINGS)
    if find_spec("optax"):
        from golden import jax_states

        assert set(names("jax", ".json")) == set(jax_states.MAKE)
        assert {function for function, _ in jax_states.MAKE.values()} == set(JAX)
