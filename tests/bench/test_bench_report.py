"""What is shown and written of a run: what a user asks first, then the details."""

from __future__ import annotations

from dataclasses import replace

import pytest

from repository import README

pytest.importorskip("rich")
pytest.importorskip("matplotlib")

from flatstep.bench import compare, full_report, report, results, summary, threads

from bench_results import made_up, made_up_run, row, shown
from flatstep.__main__ import main


def test_where_ours_stands_is_told():
    small = dict(shape="one array of 1,000", elements=1000)
    found = [
        made_up(row("flatstep", share=0.97), row("faster", 0.8), row("about", 0.95), row("slower", 2.0)),
        made_up(row("flatstep", share=0.5), row("flatstep, decayed", 0.5), **small),
        made_up(**small),  # that was not measured
    ]
    standing = report.standing(found)
    assert (standing.cases, standing.measured) == (3, 2)
    assert [row.name for _, row in standing.behind] == ["faster"]
    assert [row.name for _, row in standing.behind_within_spread] == ["about"]
    assert [case for case, _ in standing.short_of_limit] == found[:1]
    text = shown(report.show_standing, standing)
    assert "measured: 2 of 3 cases" in text and "faster takes 0.800" in text and "about takes 0.950" in text


def test_the_summary_has_a_line_for_each_peer_and_front_end():
    """Medians by size, which every case counts in; ours and the sweeps of threads are no peers."""
    sizes = [(8, 3.0), (10_000, 5.0), (10_001, 2.0), (999_999, 4.0), (10**6, 0.5), (10**8, 1.5)]
    found = [made_up(row("flatstep"), row("peer", ratio), elements=elements) for elements, ratio in sizes]
    found += [made_up(row("flatstep.jax"), row("flatstep.jax, update"), row("peer", 7.0), front_end="jax")]
    found[-1].rows[0].is_ours = True
    found += [made_up(row("flatstep"), row("flatstep, one thread", 9.0), front_end=threads.SWEEPS.numpy)]
    odd = replace(row("odd", 2.0), computes="moments in 8 bits")
    found += [made_up(row("flatstep"), odd, elements=10**5), made_up(row("peer", 100.0))]  # the last without ours
    assert summary.ratios(found) == [
        summary.Ratio("numpy", "peer", "", (4.0, 3.0, 1.0), 0.5, 6),
        summary.Ratio("jax", "peer", "", (None, None, 7.0), 7.0, 1),
        summary.Ratio("numpy", "odd", "moments in 8 bits", (None, 2.0, None), 2.0, 1),
    ]
    text = shown(full_report.show_report, made_up_run(*found))
    lines = [line.split() for line in text.splitlines()]
    assert ["numpy", "peer", "4.00", "3.00", "1.00", "0.50", "6"] in lines
    assert ["numpy", "odd", "2.00", "2.00", "1", "moments", "in", "8", "bits"] in lines
    details = [text.index(words) for words in ("measured:", "Threads:", "times ours", "Bytes that")]
    assert text.index(" odd ") < min(details) and details == sorted(details)


def test_the_written_report_is_what_is_shown(tmp_path, capsys):
    run = made_up_run(made_up(row("limit"), row("flatstep"), row("peer", 2.0)))
    full_report.write_report(run, tmp_path / "report.txt")
    written = (tmp_path / "report.txt").read_text(encoding="utf-8")
    results.write(run, tmp_path / "results.json")
    for words in (" peer ", "of limit", "Bytes that a step moves"):
        assert words in written
    assert main(["bench", "show", str(tmp_path)]) == 0
    assert capsys.readouterr().out.split() == written.split()


def test_results_of_older_runs_can_be_read():
    for path in (README.parent / "bench" / "results").glob("*/results.json"):
        found = results.read(path)
        assert summary.ratios(found.cases)
        assert "of limit" in shown(full_report.show_report, found)
        assert not [*compare.only_in(found, found)]
