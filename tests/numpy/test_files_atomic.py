"""save: the new file is written whole or the old one stays whole, whatever happens."""

from __future__ import annotations

import errno
import os
import random
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flatstep
from flatstep import _files
from repository import HELPERS
from saving import content, large, sample

safetensors = pytest.importorskip("safetensors")
resource = pytest.importorskip("resource")


def test_where_it_is_written(tmp_path):
    """Over a file, keeping its permissions; through a link; under any kind of path; nowhere else."""
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_bytes(b"old")
    real.chmod(0o640)
    link.symlink_to("real")
    sample().save(str(link))
    assert link.is_symlink() and stat.S_IMODE(real.stat().st_mode) == 0o640
    sample().save(tmp_path / "new")
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o666 & ~umask
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "new", "real"]
    assert real.read_bytes() == (tmp_path / "new").read_bytes()
    opt = sample(seed=1)
    opt.load(str(link))
    assert content(opt) == content(sample())


def test_a_path_without_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sample().save("model")
    sample().load("model")


@pytest.mark.parametrize("method, expected", [("save", "a file or a new name"), ("load", r"what save\(\) has written")])
@pytest.mark.parametrize("kind", ["directory", "device", "FIFO", "socket"])
def test_only_files(kind, method, expected, tmp_path, monkeypatch):
    """Anything else is neither replaced nor, which might take for ever, read."""
    monkeypatch.chdir(tmp_path)
    path = "/dev/null" if kind == "device" else "other"
    with socket.socket(socket.AF_UNIX) as bound:
        {"directory": os.mkdir, "device": os.stat, "FIFO": os.mkfifo, "socket": bound.bind}[kind](path)
        before = os.stat(path).st_ino, os.stat(path).st_mode
        with pytest.raises(ValueError, match=f"^{path}: it is a {kind}, expected {expected}"):
            getattr(sample(), method)(path)
    assert (os.stat(path).st_ino, os.stat(path).st_mode) == before
    assert os.listdir() == ([] if kind == "device" else ["other"])


@pytest.mark.parametrize("path", ["", ".", "..", "model/", "new/", "model/.", "new/..", "folder/"])
def test_names_of_folders(path, tmp_path, monkeypatch):
    """They would lead to a file of that name, or over one."""
    monkeypatch.chdir(tmp_path)
    os.mkdir("folder")
    Path("model").write_bytes(b"old")
    with pytest.raises(ValueError, match=f"^{path}: it is the name of a directory, expected that of a file"):
        sample().save(path)
    assert sorted(os.listdir()) == ["folder", "model"] and Path("model").read_bytes() == b"old"


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o200, 0o000])
def test_permissions_on_the_way(mode, tmp_path, monkeypatch):
    """What is written can be read back by its owner, and by nobody who could not read the old file."""
    path, seen, open_it = tmp_path / "model", [], _files._open

    def noted(library: Any, name: str) -> Any:
        seen.append(stat.S_IMODE(os.stat(name).st_mode))
        return open_it(library, name)

    sample().save(path)
    path.chmod(mode)
    monkeypatch.setattr(_files, "_open", noted)
    sample().save(path)
    assert seen == [mode | stat.S_IRUSR] and stat.S_IMODE(path.stat().st_mode) == mode


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="No such file or directory: '.*nowhere/model'$"):
        sample().save(tmp_path / "nowhere" / "model")


def test_a_header_too_long_to_be_read_is_not_written(tmp_path):
    sample().save(tmp_path / "model")
    old = (tmp_path / "model").read_bytes()
    opt = flatstep.Adam({"x" * 100_000_000: np.ones(1)}, learning_rate=0.1)
    with pytest.raises(ValueError, match="model: expected a whole safetensors file, .* [hH]eader"):
        opt.save(tmp_path / "model")
    assert_only_file(tmp_path / "model", old)


def assert_only_file(path: Path, expected: bytes) -> None:
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert path.read_bytes() == expected


def test_failing_at_any_byte_leaves_the_old_file(tmp_path):
    """The system writes that many bytes and no more, as if the disk were full."""
    path = tmp_path / "model"
    large(1).save(path)
    old, opt = path.read_bytes(), large(2)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in [0, 1, 7, 8, 9, *range(100, len(old), 4999), len(old) - 1]:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
            with pytest.raises(OSError, match=f"File too large: '{path}'") as raised:
                opt.save(path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert raised.value.errno == errno.EFBIG
        assert_only_file(path, old)


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_failing_late_leaves_the_old_file(function, error, tmp_path, monkeypatch):
    path = tmp_path / "model"
    large(1).save(path)
    old = path.read_bytes()

    def fail(*_: Any) -> None:
        raise error(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(error) as raised:
        large(2).save(path)
    if error is OSError:
        assert str(raised.value) == f"[Errno {errno.EIO}] Input/output error: '{path}'"
    assert_only_file(path, old)


def test_written_through_before_it_replaces(tmp_path, monkeypatch):
    """File, name, folder, in this order; a folder that cannot be synced does not matter."""
    calls = []
    fsync, rename = os.fsync, os.replace

    def noted_fsync(descriptor: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        calls.append("folder" if is_folder else f"file of {os.fstat(descriptor).st_size}")
        fsync(descriptor)
        if is_folder:
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", lambda *paths: (calls.append("replace"), rename(*paths)))
    large(1).save(tmp_path / "model")
    assert calls == [f"file of {(tmp_path / 'model').stat().st_size}", "replace", "folder"]


KILLED_AT = """
import os, resource, signal, sys
import numpy as np
from saving import large
path, limits = sys.argv[1], sys.argv[2:]
old, opt = open(path, "rb").read(), large(2)
for limit in map(int, limits):
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        opt.save(path)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) == (limit < len(old)), (limit, status)
    assert (open(path, "rb").read() == old) == (limit < len(old)), limit
"""


@pytest.mark.skipif(sys.platform != "linux", reason="has the system kill a process at a byte")
def test_killed_at_any_byte_leaves_the_old_file(tmp_path):
    """The system kills the process when it writes that byte; with one more, the new file is there."""
    path = tmp_path / "model"
    large(1).save(path)
    old = path.read_bytes()
    limits = [0, 1, 7, 8, 9, *range(100, len(old), 4999), len(old) - 1, len(old)]
    arguments = [sys.executable, "-W", "ignore", "-c", KILLED_AT, path, *map(str, limits)]
    subprocess.run(arguments, cwd=HELPERS, check=True, timeout=120)
    opt = large(1)
    opt.load(path)
    assert content(opt) == content(large(2))
    assert {entry.suffix for entry in tmp_path.iterdir()} == {"", ".tmp"}


SAVES_FOR_EVER = """
import itertools, os, sys
import numpy as np, flatstep
path, start = sys.argv[1], int(sys.argv[2])
os.fsync = lambda descriptor: None  # outlasts the machine, not the process; without it most moments are in a write
opt = flatstep.Adam(np.zeros(300_000, np.float32), learning_rate=1.0)
for value in itertools.count(start):
    for array in (opt.params, *opt.state.values()):
        array[...] = value
    opt.learning_rate = value
    opt.save(path)
    os.write(1, f"{value}\\n".encode())
"""


@pytest.mark.slow
def test_killed_at_random_moments_leaves_the_old_or_the_new_file(tmp_path):
    """Which file was the last to be finished is known to within one."""
    path, chance, start = tmp_path / "model", random.Random(0), 1
    opt = flatstep.Adam(np.zeros(300_000, np.float32), learning_rate=1.0)
    for _ in range(12):
        arguments = [sys.executable, "-c", SAVES_FOR_EVER, path, str(start)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
            first = process.stdout.readline()
            try:
                process.wait(chance.uniform(0, 0.03))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
            finished = int((first + process.communicate(timeout=60)[0]).split()[-1])
        assert process.returncode == -signal.SIGKILL
        opt.load(path)
        value = opt.learning_rate
        assert finished <= value <= finished + 1
        for array in (opt.params, *opt.state.values()):
            np.testing.assert_array_equal(array, np.float32(value))
        start = int(value) + 1
