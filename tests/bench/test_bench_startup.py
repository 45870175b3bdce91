"""Start-up is timed in fresh interpreters, beside what flatstep stands on. No test looks at the clock."""

from __future__ import annotations

import pytest

pytest.importorskip("rich")

from flatstep.bench import startup
from rich.console import Console

pytestmark = pytest.mark.slow


def test_figures(capsys):
    """Of what can be imported, in order; what goes beyond another program is held against it round by round."""
    programs = [*startup.PROGRAMS[:4], startup.Program("never", "pass", "Python", ("no_such_module",))]
    ticks = []
    rows = startup.measure_startup(2, lambda: ticks.append(1), programs)
    assert len(ticks) == 3  # one warms up
    assert [row.title for row in rows] == [program.title for program in programs[:4]]
    seconds = {row.title: row.seconds for row in rows}
    for row in rows:
        assert len(row.seconds) == 2 and min(row.seconds) > 0
        without = seconds[row.without] if row.without else [0.0, 0.0]
        assert row.beyond == [own - other for own, other in zip(row.seconds, without, strict=True)]
    startup.show_startup(startup.as_json(rows), Console())
    assert "that of import numpy" in capsys.readouterr().out


@pytest.mark.parametrize("program", [p for p in startup.PROGRAMS if "." in p.title], ids=lambda program: program.title)
def test_programs_run(program):
    for name in program.needs:
        pytest.importorskip(name)
    assert startup.measure_startup(0, programs=[startup.Program(program.title, program.lines)])
    assert program.without is None or program.without in {other.title for other in startup.PROGRAMS}


def test_a_program_that_fails_says_why():
    with pytest.raises(RuntimeError, match="no_such_module"):
        startup.measure_startup(1, programs=[startup.Program("broken", "import no_such_module")])
