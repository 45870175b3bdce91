"""What developers run, each in an environment of its own: ``pip install nox``, then ``nox -s test``.

The sessions are test, slow, lint, types, docs, wheel and bench: ``nox --list`` says what each does.
"""

import nox

nox.options.sessions = ["lint", "test"]


@nox.session
def test(session: nox.Session) -> None:
    """The fast tests, on all cores."""
    session.install(".[test]")
    session.run("pytest", *session.posargs)


@nox.session
def slow(session: nox.Session) -> None:
    """The tests that take long (mypy and the code of the documentation, too), and those on an emulated device."""
    session.install(".[test,lint,docs]")
    session.run("pytest", "-m", "slow or stand_in", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style of Python and C++."""
    session.install("clang-format==23.1.5", "ruff==0.17.6")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    sources = session.run("git", "ls-files", "*.h", "*.cpp", "*.cuh", "*.cu", external=True, silent=True)
    session.run("clang-format", "--dry-run", "--Werror", *str(sources).split())


@nox.session
def types(session: nox.Session) -> None:
    """mypy on the package as it is installed."""
    session.install(".[test,lint]")
    session.run("mypy", "-p", "flatstep")


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation, with all examples of the gallery, under docs/_build/html."""
    session.install(".[docs]")
    session.run("python", "-m", "sphinx", "-W", "docs", "docs/_build/html")


@nox.session(venv_backend="none")
def wheel(session: nox.Session) -> None:
    """A wheel for this Python, under dist/, that other machines can install."""
    session.run("packaging/wheel", external=True)


@nox.session
def bench(session: nox.Session) -> None:
    """Steps beside those of the other libraries; more arguments go to ``python -m flatstep bench``."""
    session.install(".[bench,torch,jax]")
    session.run("python", "-m", "flatstep", "bench", *session.posargs)
