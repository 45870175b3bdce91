"""Results as pictures: time and speed against size, and shares of the limit. Used by command.py."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import ceil
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from .results import Measured, Results, Row
from .rules import RULES
from .tail import TAILS
from .threads import SWEEPS, TITLES

FRONT_ENDS = {"numpy": "NumPy", "jax": "JAX", "torch": "PyTorch", **TITLES}
APART = (*SWEEPS, *TAILS)  # front ends whose cases are not a step alone
OURS = "#0072b2"
COLORS = ["#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c564b", "#7f7f7f"]
MARKERS = "sD^vPX*"
WIDEST = 1.15  # share of the limit that is drawn
Panel = tuple[str, list[Measured]]


def write_plots(results: Results, folder: Path) -> list[Path]:
    """Those that there is something to draw for."""
    sweeps = _sweeps(results)
    drawn: list[tuple[str, Figure]] = []
    if sweeps:
        drawn.append(("time.png", _against_size(sweeps, results, "microseconds a step", _microseconds, log=True)))
        drawn.append(("speed.png", _against_size(sweeps, results, "GB/s, of flatstep's bytes", _speed, log=False)))
    if rules := _rules(results):
        drawn.append(("rules.png", _shares(rules, results, _rule_and_layout)))
    if models := _models(results):
        drawn.append(("models.png", _shares(models, results, lambda case: f"{_title(case.rule)}, {case.shape}")))
    for name, figure in drawn:
        figure.savefig(folder / name, format="png", dpi=110)
    return [folder / name for name, _ in drawn]


def _sweeps(results: Results) -> list[Panel]:
    """One-array cases, by front end, rule and layout, where there is more than one size."""
    panels: dict[tuple[str, str, str], list[Measured]] = {}
    for case in results.cases:
        if case.arrays == 1 and case.elements >= 100 and case.rows and case.front_end not in TAILS:
            panels.setdefault(case.key[:3], []).append(case)
    swept = {key: sorted(cases, key=lambda case: case.elements) for key, cases in panels.items() if len(cases) > 1}
    return [(f"{FRONT_ENDS.get(key[0], key[0])}: {_title(key[1])}, {key[2]}", cases) for key, cases in swept.items()]


def _rules(results: Results) -> list[Panel]:
    """The size on which most rules and layouts are measured, by front end; nothing where there is none such."""
    measured = [case for case in results.cases if case.arrays == 1 and case.rows and case.front_end not in APART]
    kinds = {shape: {case.key[:3] for case in measured if case.shape == shape} for shape in {c.shape for c in measured}}
    shape = max(kinds, key=lambda shape: len(kinds[shape]), default="")
    if len(kinds.get(shape, ())) <= len({case.front_end for case in measured}):
        return []
    panels = _by_front_end(results, lambda case: case.shape == shape and case.front_end not in APART)
    return [(f"{title}: {shape}", cases) for title, cases in panels]


def _rule_and_layout(case: Measured) -> str:
    return f"{_title(case.rule)}, {case.layout}"


def _models(results: Results) -> list[Panel]:
    return _by_front_end(results, lambda case: case.arrays > 1 and case.front_end not in APART)


def _by_front_end(results: Results, wanted: Callable[[Measured], bool]) -> list[Panel]:
    panels: dict[str, list[Measured]] = {}
    for case in results.cases:
        if case.rows and wanted(case):
            panels.setdefault(FRONT_ENDS.get(case.front_end, case.front_end), []).append(case)
    return list(panels.items())


def _title(rule: str) -> str:
    """The rule's optimizer; the name of a rule that only older results have."""
    return RULES[rule].title if rule in RULES else rule


def _against_size(
    panels: Sequence[Panel], results: Results, label: str, value: Callable[[Measured, Row], float], log: bool
) -> Figure:
    """One line a contender, the limit dashed; panels share their axes."""
    rows = ceil(len(panels) / 2)
    figure = _figure(11, 1 + 4.2 * rows, results)
    grid = figure.subplots(rows, 2, sharex=True, sharey=True, squeeze=False).ravel()
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    for axes, (title, cases) in zip(grid, panels, strict=False):
        for index, name in enumerate(name for name in _names(cases) if name != "flatstep, decayed"):
            points = [
                (case.elements, value(case, row)) for case in cases for row in case.contenders if row.name == name
            ]
            axes.plot(*zip(*points, strict=True), label=name, **_style(name, index))
        limits = [(case.elements, value(case, case.limit)) for case in cases if case.limit]
        axes.plot(*zip(*limits, strict=True), "k--", linewidth=1.2, label="limit: no maths")
        axes.set(xscale="log", yscale="log" if log else "linear", xlabel="elements", ylabel=label)
        axes.set_title(title, loc="left", fontsize=11)
        axes.tick_params(labelbottom=True, labelleft=True)
        axes.grid(True, color="#e5e5e5", linewidth=0.7)
        axes.legend(fontsize=8, frameon=False, loc="upper left")
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _shares(panels: Sequence[Panel], results: Results, heading: Callable[[Measured], str]) -> Figure:
    """A group of bars a case, a bar a contender; 1 is the limit."""
    lengths = [sum(1 + len(list(case.contenders)) for case in cases) for _, cases in panels]
    figure = _figure(4.4 * len(panels), 1.3 + 0.2 * max(lengths), results)
    grid = figure.subplots(1, len(panels), squeeze=False).flat
    for axes, (title, cases), length in zip(grid, panels, lengths, strict=True):
        _draw_bars(axes, cases, heading)
        axes.set_title(title, loc="left", fontsize=11)
        axes.set(xlim=(0, WIDEST), ylim=(max(lengths) - 0.2, -0.8), xlabel="share of the limit")
        axes.axvline(1, ymin=1 - (length + 0.5) / (max(lengths) + 0.6), color="black", linestyle="--", linewidth=1)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
        axes.spines[["top", "right", "left"]].set_visible(False)
    return figure


def _draw_bars(axes: Axes, cases: Sequence[Measured], heading: Callable[[Measured], str]) -> None:
    names, at = _names(cases), 0
    ticks: dict[int, str] = {}
    for case in cases:
        axes.text(0.01, at + 0.1, heading(case), fontsize=8.5, fontweight="bold", va="center")
        for row in case.contenders:
            at, share = at + 1, row.share
            ticks[at] = f"{row.name} ({row.computes})" if "bits" in row.computes else row.name
            color = _style(row.name, names.index(row.name))["color"]
            axes.barh(at, share.median, 0.8, color=color)
            axes.plot([share.lower, min(share.upper, WIDEST)], [at, at], color="#444444", linewidth=0.9)
            axes.text(WIDEST + 0.015, at, f"{share.median:.2f}", fontsize=7.5, va="center")
        at += 1
    axes.set_yticks(list(ticks), list(ticks.values()), fontsize=7.5)
    axes.tick_params(axis="y", length=0)


def _names(cases: Iterable[Measured]) -> list[str]:
    """Ours first, then the others in their order."""
    names = dict.fromkeys(row.name for case in cases for row in case.contenders)
    return sorted(names, key=lambda name: not name.startswith("flatstep"))


def _style(name: str, index: int) -> dict[str, str | float]:
    if index == 0:
        return dict(color=OURS, marker="o", markersize=5, linewidth=2.2, zorder=3)
    at = (index - 1) % len(COLORS)
    return dict(color=COLORS[at], marker=MARKERS[at], markersize=4, linewidth=1.2)


def _figure(width: float, height: float, results: Results) -> Figure:
    """Headed by what it was measured on."""
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.12))  # no pyplot: no display
    FigureCanvasAgg(figure)
    machine, versions = results.machine, results.versions
    parts = [
        machine.get("processor"),
        f"{versions['threads']} threads, {versions['target']}",
        machine.get("caches"),
        f"flatstep {versions.get('commit') or versions['flatstep']}",
        "quick run: few rounds" if results.settings.get("quick") else None,
        f"{sum(bool(case.rows) for case in results.cases)} of {len(results.cases)} cases measured",
    ]
    figure.suptitle("; ".join(str(part) for part in parts if part), fontsize=8.5, x=0.01, ha="left", color="#444444")
    return figure


def _microseconds(case: Measured, row: Row) -> float:
    return row.seconds.median * 1e6


def _speed(case: Measured, row: Row) -> float:
    return case.gigabytes_per_second(row)
