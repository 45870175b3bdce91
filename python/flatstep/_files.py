"""An optimizer in a file: its state_dict with the parameters, in the safetensors format. Used by _optimizer.py.

Tensors are named by leaf number, ``params/0``, ``state/mu/0`` or ``ema/0``, because a dict's keys may be anything. All
else is JSON in the metadata, under "flatstep": the state_dict, in which a list with one entry a leaf stands for each
structure like params, and "structure", which says where each leaf number belongs.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

import numpy as np

from . import _outline
from ._trees import Tree

# Of what is described above; what the state_dict itself holds has a version of its own. What an older flatstep would
# have to ignore raises one of the two, so that it is rejected there.
FORMAT = 2  # 1 has no averages; a file without any is written as 1

FilePath = str | os.PathLike[str]
Tensors = Mapping[str, np.ndarray[Any, Any]]

_METADATA = "flatstep"
_INFINITY = "inf"
_CODES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}  # safetensors' names of dtypes
_OTHER_KINDS = {stat.S_IFDIR: "directory", stat.S_IFIFO: "FIFO", stat.S_IFSOCK: "socket"}
_KINDS = {"structure": object, "slots": list, "numbers": dict, "leaf_counts": list, "leaf_numbers": dict}


def write(path: FilePath, tree: Tree, saved: Mapping[str, Any]) -> None:
    """Writes a state_dict that has "params" too; ``tree`` is their structure. An old file is replaced at the end."""
    library = _library()
    with naming_errors(path):
        described, tensors = _described(tree, saved), _tensors(tree, saved)
        with _in_place_of(_target(os.fsdecode(path))) as file:
            _write(file, tensors, {_METADATA: json.dumps(described, allow_nan=False)})
            file.flush()
            _open(library, file.name)  # a header too long for the library shows now, while there is an old file


def read(path: FilePath, tree: Tree) -> dict[str, Any]:
    """The state_dict, with "params", that a file holds, under the keys of the tree's dicts where they are the same.

    Raises ValueError for what ``write`` has not written; whether the structure is the tree's is not asked here.
    """
    library = _library()
    _check_is_file(os.stat(path).st_mode, "what save() has written")  # before it is opened: a FIFO would wait
    open(path, "rb").close()  # raises OSErrors that name the file
    with _open(library, os.fsdecode(path)) as file:
        described = _parsed(file.metadata())
        layout = _outline.read(described.pop("structure"), tree)
        slots = described.pop("slots")
        whole = ["params", *(["ema"] if described.pop("ema", False) is True else [])]
        columns = _columns(file, [*whole, *[f"state/{slot}" for slot in slots]], len(layout.leaves))
    return {
        **described,
        "numbers": {
            name: _spread(layout, f"numbers['{name}']", value) if isinstance(value, list) else _of_json(value)
            for name, value in described["numbers"].items()
        },
        "leaf_counts": _spread(layout, "leaf_counts", described["leaf_counts"]),
        "leaf_numbers": {
            name: _spread(layout, f"leaf_numbers['{name}']", column)
            for name, column in described["leaf_numbers"].items()
        },
        **{name: _spread(layout, name, columns[name]) for name in whole},
        "state": {slot: _spread(layout, slot, columns[f"state/{slot}"]) for slot in slots},
    }


@contextmanager
def naming_errors(path: FilePath) -> Iterator[None]:
    """Makes what is found wrong within a ValueError that names the file."""
    name = os.fsdecode(path)
    try:
        yield
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from error
    except RecursionError:
        raise ValueError(f"{name}: its structure is nested too deeply") from None


def _library() -> Any:
    try:
        import safetensors
    except ImportError as error:
        raise ImportError('save and load need safetensors: pip install "flatstep[files]"') from error
    return safetensors


def _open(library: Any, name: str) -> Any:
    try:
        return library.safe_open(name, framework="numpy")
    except library.SafetensorError as error:
        raise ValueError(f"expected a whole safetensors file, but it cannot be read as one: {error}") from error


def _check_is_file(mode: int, expected: str) -> None:
    if not stat.S_ISREG(mode):
        kind = _OTHER_KINDS.get(stat.S_IFMT(mode), "device")
        raise ValueError(f"it is a {kind}, expected {expected}")


# Writing.


def _described(tree: Tree, saved: Mapping[str, Any]) -> dict[str, Any]:
    """All of a state_dict but its arrays, as JSON can hold it."""
    return {
        "format": FORMAT if "ema" in saved else 1,
        **{key: value for key, value in saved.items() if key not in ("params", "state", "ema")},
        **({"ema": True} if "ema" in saved else {}),
        "numbers": {
            name: _in_json(value) if value is None or isinstance(value, float) else tree.match(value, name)
            for name, value in saved["numbers"].items()
        },
        "leaf_counts": tree.match(saved["leaf_counts"], "leaf_counts"),
        "leaf_numbers": {name: tree.match(column, name) for name, column in saved["leaf_numbers"].items()},
        "slots": list(saved["state"]),
        "structure": _outline.write(tree.build(range(len(tree.leaves))), "params"),
    }


def _in_json(number: float | None) -> float | str | None:
    """A number of an optimizer; JSON itself has none that is infinite."""
    return _INFINITY if number == math.inf else number


def _of_json(number: Any) -> Any:
    return math.inf if number == _INFINITY else number


def _tensors(tree: Tree, saved: Mapping[str, Any]) -> Tensors:
    structures = {key: saved[key] for key in ("params", "ema") if key in saved}
    structures |= {f"state/{slot}": value for slot, value in saved["state"].items()}
    return {
        f"{name}/{leaf}": array
        for name, structure in structures.items()
        for leaf, array in enumerate(tree.match(structure, name))
    }


def _write(file: BinaryIO, tensors: Tensors, metadata: Mapping[str, str]) -> None:
    """The safetensors format: the header's length, the header, the tensors' bytes without gaps.

    The library's own writers would hold a copy of everything, or, as of 0.8, make a file of other permissions and lose
    the number of the operating system's error.
    """
    header: dict[str, Any] = {"__metadata__": metadata}
    widest_first = sorted(tensors.items(), key=lambda item: -item[1].itemsize)  # keeps each aligned to its items
    end = 0
    for name, array in widest_first:
        start, end = end, end + array.nbytes
        header[name] = {"dtype": _CODES[array.dtype.name], "shape": array.shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for _, array in widest_first:  # one that is not in C order is copied here
        file.write(array.reshape(-1).view(np.uint8).data)


def _target(path: str) -> str:
    """The file that a path leads to."""
    if os.path.basename(path) in ("", os.curdir, os.pardir):  # realpath would make "model/" the file "model"
        raise ValueError("it is the name of a directory, expected that of a file")
    return os.path.realpath(path)


@contextmanager
def _in_place_of(target: str) -> Iterator[BinaryIO]:
    """A new file that replaces the target when the block ends well; when it does not, nothing has changed."""
    mode = _mode(target)
    folder = os.path.dirname(target)
    temporary = os.path.join(folder, f".flatstep-{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:
            if mode is not None:
                os.fchmod(file.fileno(), mode | stat.S_IRUSR)  # never open to more than the old one, but to us
            yield file
            file.flush()
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            error.filename = target
            del error.filename2  # where there is one, a message goes on with " -> "
        raise
    _sync(folder)


def _mode(target: str) -> int | None:
    """The permissions of a file that is to be replaced; None where there is none yet."""
    try:
        mode = os.stat(target).st_mode
    except FileNotFoundError:
        return None
    _check_is_file(mode, "a file or a new name")
    return stat.S_IMODE(mode)


def _sync(folder: str) -> None:
    """Makes the new name last through a power cut, on file systems on which a directory can be synced."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


# Reading.


def _parsed(metadata: Mapping[str, str] | None) -> dict[str, Any]:
    """What ``_described`` has made."""
    text = (metadata or {}).get(_METADATA)
    if text is None:
        raise ValueError("a safetensors file, but not of an optimizer; expected what save() has written")
    try:
        described = json.loads(text)
    except ValueError as error:
        raise ValueError(f"its metadata is not JSON: {error}") from None
    if not isinstance(described, dict) or "format" not in described:
        raise ValueError("its metadata lacks 'format'; expected what save() has written")
    found = described.pop("format")
    if type(found) is not int or not 1 <= found <= FORMAT:
        raise ValueError(
            f"it has file format {found!r}, expected at most {FORMAT}; use the flatstep that wrote it, or a newer one"
        )
    missing = [key for key in _KINDS if key not in described]
    if missing:
        raise ValueError(f"its metadata lacks {missing}; expected what save() has written")
    for key in ("params", "state"):
        if key in described:  # what is unknown to a state_dict, too, is for _loading.py to reject
            raise ValueError(f"its metadata has the unknown key {key!r}; expected what save() has written")
    for key, kind in _KINDS.items():
        if not isinstance(described[key], kind):
            raise ValueError(f"its metadata's {key} is a {type(described[key]).__name__}, expected a {kind.__name__}")
    return described


def _columns(file: Any, names: Sequence[str], leaves: int) -> dict[str, list[Any]]:
    """The file's tensors under each name, by leaf number. Any others are an error."""
    columns = {name: [f"{name}/{leaf}" for leaf in range(leaves)] for name in names}
    expected = [tensor for column in columns.values() for tensor in column]
    missing, unknown = set(expected).difference(file.keys()), set(file.keys()).difference(expected)
    if missing or unknown:
        raise ValueError(f"it lacks the tensors {sorted(missing)[:5]} and has the unknown {sorted(unknown)[:5]}")
    return {name: [_tensor(file, tensor) for tensor in column] for name, column in columns.items()}


def _tensor(file: Any, name: str) -> Any:
    try:
        return file.get_tensor(name)
    except (AttributeError, TypeError) as error:  # the library looks for the dtype in NumPy
        raise ValueError(f"its tensor {name} cannot be read: {error}") from error


def _spread(layout: Tree, name: str, column: Any) -> Any:
    """A structure of the entries of a column; ``layout`` has the number of each."""
    leaves = len(layout.leaves)
    if not isinstance(column, list) or len(column) != leaves:
        raise ValueError(f"its metadata's {name} is not a list with an entry for each of the {leaves} leaves")
    return layout.build([column[number] for number in layout.leaves])
