"""Images a second of the golden model and of the same network in PyTorch, measured alternately in one run.

    python benchmarks/golden_speed.py --arch cnv --threads 1

The network has random weights: both compute densely, so that neither depends on them. Times are medians, of the
processor where there is one thread (others may use the machine) and of the clock on the wall otherwise; loading numba
is not in them. ``blas`` is which kernels numpy's BLAS has chosen: OPENBLAS_CORETYPE, where it is set, binds them, and
not PyTorch's (ONEDNN_MAX_CPU_ISA, ATEN_CPU_CAPABILITY).
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable

import click

from reverb_fpga.host import cli
from reverb_fpga.hw import processes


def seconds(action: Callable[[], object], clock: Callable[[], float]) -> float:
    """How long an action takes."""
    started = clock()
    action()
    return clock() - started


def measure(
    arch: str, timesteps: int, batch: int, rounds: int, threads: int, compiled: bool
) -> dict[str, float | int | str]:
    """Medians of both, and how many times as fast the golden model is."""
    import numpy as np
    import torch
    from threadpoolctl import threadpool_info
    from trainer_speed import DATA

    from reverb_fpga.compiler.pipeline import compile_checkpoint
    from reverb_fpga.hw.config import preset
    from reverb_fpga.models.checkpoint import save_checkpoint
    from reverb_fpga.models.testing import randomise
    from reverb_fpga.models.zoo import Options, build
    from reverb_fpga.sim.golden import GoldenModel

    torch.set_num_threads(threads)
    options = Options(timesteps=timesteps, v_th=0.25 if timesteps > 1 else 0.0, act_bits=8)
    network = randomise(build(arch, DATA[arch], options), 1).eval()
    config = preset("ulx3s-85f")
    with processes.scratch(".golden-speed-") as folder:
        path = save_checkpoint(network, folder / "network.safetensors")
        golden = GoldenModel(compile_checkpoint(path, config).program, config, threads, compiled)
    pixels = np.random.default_rng(0).integers(0, 256, (batch, *DATA[arch].input.shape), dtype=np.uint8)
    codes = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
    images = torch.from_numpy(pixels).contiguous(memory_format=torch.channels_last)
    network.to(memory_format=torch.channels_last)
    clock = time.process_time if threads == 1 else time.perf_counter
    times: tuple[list[float], list[float]] = ([], [])
    with torch.no_grad():
        for _ in range(rounds + 1):
            times[0].append(seconds(lambda: network(images), clock))
            times[1].append(seconds(lambda: golden.run(codes), clock))
    blas = next((str(pool["architecture"]) for pool in threadpool_info() if "architecture" in pool), "unknown")
    slow, fast = (statistics.median(values[1:]) for values in times)
    return {
        "arch": arch, "timesteps": timesteps, "batch": batch, "threads": threads,
        "compiled": compiled, "blas": blas,
        "pytorch_images_per_second": round(batch / slow, 1), "golden_images_per_second": round(batch / fast, 1),
        "golden_over_pytorch": round(slow / fast, 2),
    }  # fmt: skip


@click.command(help=__doc__)
@click.option("--arch", type=click.Choice(["cnv", "fmnist"]), default="cnv", show_default=True)
@click.option("--timesteps", type=click.IntRange(1, 8), default=1, show_default=True)
@click.option("--batch-size", type=click.IntRange(1), default=128, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--compiled/--numpy", default=True, show_default=True, help="With numba around the products, or without.")
def main(arch: str, timesteps: int, batch_size: int, rounds: int, threads: int, compiled: bool) -> None:
    """Entry point."""
    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")
    if any(os.environ.get(name) != str(threads) for name in names):  # read once, when numpy is imported
        environment = os.environ | dict.fromkeys(names, str(threads))
        sys.exit(processes.run([sys.executable, *sys.argv], env=environment).returncode)
    click.echo(json.dumps(measure(arch, timesteps, batch_size, rounds, threads, compiled)))


if __name__ == "__main__":
    cli.run(main, "golden_speed.py")
