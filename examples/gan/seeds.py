"""Trains the GAN of ring.py from eight starts with each setting, and stores what each generator learned.

    python examples/gan/seeds.py

The gallery draws the file, so that building the documentation does not train. It takes some minutes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

import ring

OUTPUT = Path(__file__).parents[1] / "gallery" / "ring.json"
SEEDS = 8
STEPS = 3000
SHOWN = 200  # samples of each generator that are stored


def run(name: str, seed: int, steps: int) -> dict[str, Any]:
    """What one generator learned: Gaussians found, the share of samples on one, and some of the samples."""
    samples = ring.train(ring.SETTINGS[name], steps, seed=seed)
    found, share = ring.quality(samples)
    points = [[round(float(x), 2), round(float(y), 2)] for x, y in samples[:SHOWN]]
    return {"optimizer": name, "seed": seed, "found": found, "share": round(share, 3), "samples": points}


def write(output: Path, seeds: int, steps: int) -> None:
    """Trains all, prints a line for each, and writes the file, a run a line."""
    torch.set_num_threads(1)  # a step of networks so small ends before a second thread begins
    runs = []
    for name in ring.SETTINGS:
        for seed in range(seeds):
            runs.append(run(name, seed, steps))
            print(f"{name:<24} seed {seed}: {runs[-1]['found']} found, {runs[-1]['share']:.0%} on one", flush=True)
    lines = ",\n".join(json.dumps(each, separators=(",", ":")) for each in runs)
    centers = json.dumps([[round(float(x), 3), round(float(y), 3)] for x, y in ring.centers()])
    output.write_text(f'{{"steps": {steps}, "centers": {centers}, "runs": [\n{lines}\n]}}\n', encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--output", type=Path, default=OUTPUT, help="JSON to write (%(default)s)")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="starts of each setting (%(default)s)")
    parser.add_argument("--steps", type=int, default=STEPS, help="steps of both networks (%(default)s)")
    arguments = parser.parse_args()
    write(arguments.output, arguments.seeds, arguments.steps)
