"""Variants of one network, trained alike with several seeds: mean, deviation, and whether they are distinguishable.

    python benchmarks/compare.py systems --dataset cifar10 --data-dir data --epochs 12 --out runs/systems
    python benchmarks/compare.py bits --dataset cifar10 --data-dir data --epochs 12 --out runs/bits
    python benchmarks/compare.py systems --arch cnv --width 0.5 --epochs 6 --limit 20000 --out runs/systems-small
    python benchmarks/compare.py bits --dataset cifar10 --data-dir data --init runs/cnv/best.safetensors --epochs 3 \
        --lr 5e-4 --qat-start 0 --seeds 1 --out runs/bits-tuned

`systems` trains ReverB, learnable ReverB and the vanilla SNN (real weights, binary spikes), all with float activations,
for the vanilla SNN has no others. ReverB with V_th = 0 computes one step of a still image; the vanilla SNN takes
--timesteps. `bits` trains learnable ReverB with activations of 8, 6 and 4 bits.

Every run is a folder of its own below --out: one that has finished is not repeated, one that was cut short is resumed.
Two variants count as distinguishable where Welch's t-test over the seeds gives p < 0.05. Writes comparison.json and
comparison.png.
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
from runs import settings_of, title_of, trained, training_options
from scipy import stats

from reverb_fpga.host import cli
from reverb_fpga.models.settings import TrainSettings
from reverb_fpga.models.zoo import Options

LEVEL = 0.05


@dataclass(frozen=True)
class Result:
    """Runs of one variant, one entry per seed: test accuracy in percent, and density 0..1."""

    name: str
    accuracies: tuple[float, ...]
    densities: tuple[float, ...]


def variants(kind: str, width: float, timesteps: int) -> dict[str, Options]:
    """The options of every variant, by name."""
    if kind == "bits":
        return {f"{bits} bits": Options(act_bits=bits, width=width) for bits in (8, 6, 4)}
    return {
        "reverb": Options(system="reverb", width=width),
        "reverb-learnable": Options(system="reverb-learnable", width=width),
        "snn": Options(system="snn", v_th=0.5, timesteps=timesteps, width=width),
    }


def run_all(settings: TrainSettings, options: dict[str, Options], seeds: list[int], out: Path) -> list[Result]:
    """Train every variant with every seed. Seed by seed, so that what is there early is already a comparison."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in options}
    for seed, (name, chosen) in itertools.product(seeds, options.items()):
        print(f"{name}, seed {seed}", file=sys.stderr)
        folder = out / f"{name.replace(' ', '-')}-seed{seed}"
        value = trained(replace(settings, options=chosen, seed=seed), folder)
        found[name].append((float(value["accuracy"]), float(value["density"])))
    return [Result(name, *(tuple(column) for column in zip(*runs, strict=True))) for name, runs in found.items()]


def deviation(values: Sequence[float]) -> float:
    """Standard deviation of the sample (n - 1); NaN for a single value."""
    return statistics.stdev(values) if len(values) > 1 else math.nan


def p_value(one: Sequence[float], two: Sequence[float]) -> float:
    """Welch's two-sided p; NaN for fewer than two values on a side, 0 or 1 where neither side varies."""
    if min(len(one), len(two)) < 2:
        return math.nan
    if len(set(one)) == len(set(two)) == 1:
        return float(one[0] == two[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # runs of one variant may well give the same accuracy
        return float(stats.ttest_ind(one, two, equal_var=False).pvalue)


def pairs(results: list[Result]) -> list[dict[str, Any]]:
    """Every two variants: the gap of their means in points, and Welch's p."""
    return [
        {
            "pair": [one.name, two.name],
            "gap": statistics.fmean(one.accuracies) - statistics.fmean(two.accuracies),
            "p": p_value(one.accuracies, two.accuracies),
        }
        for one, two in itertools.combinations(results, 2)
    ]


def verdict(p: float) -> str:
    """`p` in words."""
    if math.isnan(p):
        return "one seed: no test"
    return f"{'distinguishable' if p < LEVEL else 'not distinguishable'} (p = {p:.3f})"


def table(results: list[Result]) -> str:
    """For people."""
    lines = ["variant             test accuracy %   density %   seeds"]
    for result in results:
        mean, spread = statistics.fmean(result.accuracies), deviation(result.accuracies)
        density = 100 * statistics.fmean(result.densities)
        around = "       " if math.isnan(spread) else f"+- {spread:4.2f}"
        lines.append(f"{result.name:18} {mean:8.2f} {around}   {density:9.1f}   {len(result.accuracies):5}")
    for pair in pairs(results):
        lines.append(f"{pair['pair'][0]} - {pair['pair'][1]}: {pair['gap']:+.2f} points, {verdict(pair['p'])}")
    return "\n".join(lines)


def draw(results: list[Result], title: str, picture: Path) -> None:
    """Every run as a point, the mean and deviation of each variant beside them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for place, result in enumerate(results):
        axes.plot([place - 0.08] * len(result.accuracies), result.accuracies, "o", alpha=0.5, color="C0")
        mean, spread = statistics.fmean(result.accuracies), deviation(result.accuracies)
        if not math.isnan(spread):
            axes.errorbar(place + 0.08, mean, spread, marker="s", capsize=4, color="C1")
    axes.set_xticks(range(len(results)), [result.name for result in results])
    axes.set_ylabel("test accuracy [%]")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    figure.savefig(picture, dpi=120)


@click.command(help=__doc__)
@click.argument("kind", type=click.Choice(["systems", "bits"]))
@training_options
@click.option(
    "--density-target", default=0.2, show_default=True, help="Density per layer above which the penalty acts."
)
@click.option("--timesteps", default=2, show_default=True, help="Of the vanilla SNN.")
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True, help="Runs of every variant.")
def main(kind: str, out: Path, width: float, timesteps: int, seeds: int, **options: Any) -> None:
    """Entry point."""
    settings = settings_of(**options)
    results = run_all(settings, variants(kind, width, timesteps), list(range(seeds)), out)
    value = {"runs": [vars(result) for result in results], "pairs": pairs(results)}
    (out / "comparison.json").write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    draw(results, title_of(settings, width), out / "comparison.png")
    click.echo(table(results))


if __name__ == "__main__":
    cli.run(main, "compare.py")
