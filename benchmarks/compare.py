"""Variants of one network, trained alike with several seeds: mean, deviation, and whether they are distinguishable.

    python benchmarks/compare.py systems --dataset cifar10 --data-dir data --epochs 12 --out runs/systems
    python benchmarks/compare.py bits --dataset cifar10 --data-dir data --epochs 12 --out runs/bits
    python benchmarks/compare.py systems --arch cnv --width 0.5 --epochs 6 --limit 20000 --out runs/systems-small
    python benchmarks/compare.py bits --dataset cifar10 --data-dir data --init runs/cnv/best.safetensors --epochs 3 \
        --lr 5e-4 --qat-start 0 --seeds 1 --out runs/bits-tuned

`systems` trains ReverB, learnable ReverB, ternary weights, the vanilla SNN (real weights), the binary SNN and AGMM, all
with float activations, for those with spikes of 0 and 1 have no others. ReverB with V_th = 0 computes one step of a
still image; spikes of 0 and 1 take --timesteps. `bits` trains learnable ReverB with activations of 8, 6 and 4 bits, and
with first layers of 2-bit and 1-bit weights instead of 4-bit ones.

Every run is a folder of its own below --out: one that has finished is not repeated, one that was cut short is resumed.
Two variants count as distinguishable where Welch's t-test over the seeds gives p < 0.05. Writes comparison.json and
comparison.png, and flips.png: the share of binary weights whose sign an epoch turned (AGMM-BSNN paper, eq. 8).
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
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from runs import settings_of, title_of, trained, training_options
from scipy import stats

from reverb_fpga.host import cli
from reverb_fpga.models.curve import read_metrics
from reverb_fpga.models.settings import TrainSettings
from reverb_fpga.models.zoo import Options

LEVEL = 0.05


@dataclass(frozen=True)
class Result:
    """Runs of one variant, one entry per seed: test accuracy in percent, density 0..1, and the sign flips of epochs.

    `flips` holds the share of binary weights that changed their sign in each epoch, 0..1, one list per seed;
    empty lists without binary weights.
    """

    name: str
    accuracies: tuple[float, ...]
    densities: tuple[float, ...]
    flips: tuple[list[float], ...] = ()


def variants(kind: str, width: float, timesteps: int) -> dict[str, Options]:
    """The options of every variant, by name."""
    if kind == "bits":
        codes = {f"{bits} bits": Options(act_bits=bits, width=width) for bits in (8, 6, 4)}
        first = {f"first layer {bits}": Options(act_bits=8, first_bits=bits, width=width) for bits in (2, 1)}
        return codes | first
    real = {name: Options(system=name, width=width) for name in ("reverb", "reverb-learnable", "ternary")}
    binary = {
        name: Options(system=name, v_th=0.5, timesteps=timesteps, width=width) for name in ("snn", "bsnn", "agmm-bsnn")
    }
    return real | binary


def run_all(settings: TrainSettings, options: dict[str, Options], seeds: list[int], out: Path) -> list[Result]:
    """Train every variant with every seed. Seed by seed, so that what is there early is already a comparison."""
    found: dict[str, list[tuple[float, float, list[float]]]] = {name: [] for name in options}
    for seed, (name, chosen) in itertools.product(seeds, options.items()):
        print(f"{name}, seed {seed}", file=sys.stderr)
        folder = out / f"{name.replace(' ', '-')}-seed{seed}"
        value = trained(replace(settings, options=chosen, seed=seed), folder)
        flips = [line["sign_flips"] for line in read_metrics(folder / "metrics.jsonl")]
        turned = [float(share) for share in flips if share is not None]
        found[name].append((float(value["accuracy"]), float(value["density"]), turned))
    return [Result(name, *zip(*runs, strict=True)) for name, runs in found.items()]


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


def _axes(title: str) -> tuple[Figure, Axes]:
    """Of a new plot."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_title(title)
    axes.grid(alpha=0.3)
    return figure, axes


def draw(results: list[Result], title: str, picture: Path) -> None:
    """Every run as a point, the mean and deviation of each variant beside them."""
    figure, axes = _axes(title)
    for place, result in enumerate(results):
        axes.plot([place - 0.08] * len(result.accuracies), result.accuracies, "o", alpha=0.5, color="C0")
        mean, spread = statistics.fmean(result.accuracies), deviation(result.accuracies)
        if not math.isnan(spread):
            axes.errorbar(place + 0.08, mean, spread, marker="s", capsize=4, color="C1")
    axes.set_xticks(range(len(results)), [result.name for result in results], rotation=20)
    axes.set_ylabel("test accuracy [%]")
    figure.savefig(picture, dpi=120)


def draw_flips(results: list[Result], title: str, picture: Path) -> None:
    """Mean share of the signs that each epoch turned, a line per variant; nothing where no weight is binary."""
    lines = {result.name: [statistics.fmean(at) for at in zip(*result.flips, strict=False)] for result in results}
    lines = {name: line for name, line in lines.items() if line}
    if not lines:
        return
    figure, axes = _axes(title)
    for name, line in lines.items():
        axes.plot(range(1, 1 + len(line)), [100 * share for share in line], marker="o", label=name)
    axes.set_xlabel("epoch")
    axes.set_ylabel("signs turned [% of binary weights]")
    axes.set_yscale("log")
    axes.legend()
    figure.savefig(picture, dpi=120)


@click.command(help=__doc__)
@click.argument("kind", type=click.Choice(["systems", "bits"]))
@training_options
@click.option(
    "--density-target", default=0.2, show_default=True, help="Density per layer above which the penalty acts."
)
@click.option("--timesteps", default=2, show_default=True, help="Of systems with spikes of 0 and 1.")
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True, help="Runs of every variant.")
def main(kind: str, out: Path, width: float, timesteps: int, seeds: int, **options: Any) -> None:
    """Entry point."""
    settings = settings_of(**options)
    results = run_all(settings, variants(kind, width, timesteps), list(range(seeds)), out)
    value = {"runs": [vars(result) for result in results], "pairs": pairs(results)}
    (out / "comparison.json").write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    draw(results, title_of(settings, width), out / "comparison.png")
    draw_flips(results, title_of(settings, width), out / "flips.png")
    click.echo(table(results))


if __name__ == "__main__":
    cli.run(main, "compare.py")
