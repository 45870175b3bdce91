"""The tables of the page on performance, from the results of the benchmark. Used by conf.py.

A ratio is the median, over the rounds, of a peer's time divided by flatstep's in the same round.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SIZES = (1_000, 100_000, 10_000_000, 31_622_777)  # of one array; the pictures show more
TITLES = {"numpy": "NumPy arrays", "torch": "PyTorch", "jax": "JAX"}
TAILS = ("tail-torch", "tail-jax")  # cases of a step with what follows the gradients around it


def substitutions(results: Path) -> dict[str, str]:
    """What the page puts in by name, of the latest run."""
    runs = {path: json.loads(path.read_text(encoding="utf-8")) for path in results.glob("*/results.json")}
    path = max(runs, key=lambda path: runs[path]["settings"]["date"])
    run = runs[path]
    tables = {f"ratios_{name.replace('-', '_')}": _ratios(run, name) for name in (*TITLES, *TAILS)}
    return {**tables, "bench_machine": _machine(run, path.parent.name), "bench_shares": _shares(run)}


def _machine(run: dict[str, Any], name: str) -> str:
    machine, versions = run["machine"], run["versions"]
    peers = ", ".join(f"{peer} {versions[peer]}" for peer in ("numpy", "torch", "jax", "optax") if peer in versions)
    return (
        f"The run is `bench/results/{name}`, of {run['settings']['date']}: {machine['processor']}, "
        f"{machine['processors']} processors, flatstep {versions['flatstep']} on target `{versions['target']}` with "
        f"{versions['threads']} threads, {peers}."
    )


def _cases(run: dict[str, Any], front_end: str, layout: str) -> list[dict[str, Any]]:
    return [case for case in run["cases"] if case["front_end"] == front_end and case["layout"] == layout]


def _ratios(run: dict[str, Any], front_end: str) -> str:
    """A table for each rule in float32: a row for each shape, a column for each peer."""
    cases = _cases(run, front_end, "float32")
    if front_end not in TAILS:
        cases = [case for case in cases if case["arrays"] > 1 or case["elements"] in SIZES]
    tables = [_table([case for case in cases if case["rule"] == rule]) for rule in _in_order(cases, "rule")]
    return "\n\n".join(table for table in tables if table)


def _in_order(rows: list[dict[str, Any]], key: str) -> list[str]:
    return list(dict.fromkeys(row[key] for row in rows))


def _table(cases: list[dict[str, Any]]) -> str:
    """The ratios of one rule; nothing where it has no peer."""
    peers = _in_order([row for case in cases for row in case["rows"] if _is_peer(row)], "name")
    if not peers:
        return ""
    heads = [peer.replace("DeepSpeedCPUAdam", "DeepSpeed CPUAdam") for peer in peers]
    lines = [f"| `{cases[0]['rule']}` | {' | '.join(heads)} |", "|---" * (1 + len(peers)) + "|"]
    for case in cases:
        times = {row["name"]: f"{row['times_ours'][1]:.2f}" for row in case["rows"] if _is_peer(row)}
        if times:
            lines.append(f"| {case['shape']} | {' | '.join(times.get(peer, '') for peer in peers)} |")
    return "\n".join(lines)


def _is_peer(row: dict[str, Any]) -> bool:
    """Whether the row is of another way to step: another library's, or optax's protocol with our own."""
    is_ours = row.get("is_ours") or row["name"].endswith("decayed")
    return not (row.get("is_limit") or is_ours) and bool(row.get("times_ours"))


def _shares(run: dict[str, Any]) -> str:
    """flatstep's own share of the limit, by front end and size, of AMSGrad, which is measured at most sizes."""
    lines = ["| front end | AMSGrad, float32 | share of the limit |", "|---|---|---|"]
    for front_end, title in TITLES.items():
        for case in _cases(run, front_end, "float32"):
            ours = next((row for row in case["rows"] if row.get("is_ours")), None)
            if ours and case["arrays"] == 1 and case["rule"] == "amsgrad":
                lines.append(f"| {title} | {case['shape']} | {ours['share'][1]:.2f} |")
    return "\n".join(lines)
