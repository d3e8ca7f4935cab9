"""A checkpoint from a compiled program, to train on where the run that it came from is gone.

    python benchmarks/restored.py cnv-dense --data-dir data -o runs/restored/cnv-dense.safetensors
    reverb-fpga train --init runs/restored/cnv-dense.safetensors ...

Signs, integer weights, gains and biases are the program's, so that the checkpoint names the classes that the program
names, but for roundings; its input is normalised anew. How sure training was of a sign is not in a program: latent
weights are all of one size. For networks of the zoo with one time step, without shortcuts and gates, of learnable or
plain ReverB.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click
import numpy as np
import torch
from intnets import network_of
from numpy.typing import NDArray
from torch import Tensor, nn

from reverb_fpga.compiler.backend import lower
from reverb_fpga.compiler.passes.reorder import in_first_order
from reverb_fpga.compiler.program import Program
from reverb_fpga.host import cli
from reverb_fpga.host.bundled import load_model
from reverb_fpga.host.images import to_codes
from reverb_fpga.hw.config import Config, preset
from reverb_fpga.hw.errors import InputError
from reverb_fpga.models.activation import Activation
from reverb_fpga.models.checkpoint import save_checkpoint
from reverb_fpga.models.data import load_split, statistics
from reverb_fpga.models.description import INPUT, InputSpec
from reverb_fpga.models.evaluation import evaluate
from reverb_fpga.models.image_set import ImageSet
from reverb_fpga.models.network import Layer, Network
from reverb_fpga.models.zoo import DatasetSpec, Options, build
from reverb_fpga.sim.golden import GoldenModel
from reverb_fpga.sim.golden.schedule import Strip, decode

LATENT = 0.3
"""Size of latent weights whose signs count: training moves them within -1..1."""
STEP = 1 / 32
"""Of the codes of every tensor; any other would do, normalisation makes up for it."""
_CALIBRATION = 2048
_BATCH = 256

Reals = NDArray[np.float64]


def restored(program: Program, config: Config, data: ImageSet) -> Network:
    """The network of a program; `data` are training images, of which the statistics of its normalisation are."""
    if program.timesteps > 1 or program.system not in ("reverb", "reverb-learnable"):
        told = f"{program.system} with {program.timesteps} time steps"
        raise InputError(f"{program.name}: {told} cannot be restored, only reverb and reverb-learnable with one")
    height, width, channels = data.images.shape[1:]
    shape = InputSpec(channels, height, width, *statistics(data.images))
    dataset = DatasetSpec(program.dataset, shape, data.classes)
    network = build(program.arch, dataset, Options(system=program.system, act_bits=8))
    network.set_quantised(True)
    if any(layer.shortcuts or layer.gate or layer.kind == "pool" for layer in network.spec.layers):
        raise InputError(f"{program.name}: it has shortcuts, gates or layers that pool, which cannot be restored")
    if any(info.order for info in program.layers):
        program = lower(in_first_order(network_of(program, config)), config, program.meta)
    strips = {strip.index: strip for strip in decode(program, config).strips}
    pixels = torch.from_numpy(np.ascontiguousarray(data.sample(_CALIBRATION).images)).permute(0, 3, 1, 2)
    network.eval()
    for info, layer in zip(program.layers, network.stages(), strict=True):
        strip = strips[info.strips[0][0]]
        _give_weights(layer, strip)
        unit = STEP / (1 << config.fraction_bits) if info.spiking else program.logit_scale
        if info.spiking:
            _give_step(network.tensor(info.name))
        wanted = _of_program(strip, unit, info.shape[0]).of(_current_of(network, layer, strip))
        if layer.bn is None:
            _give_scale(layer, wanted)
        else:
            _give_normalisation(network, layer, wanted, pixels)
    return network


@dataclasses.dataclass(frozen=True)
class Affine:
    """``gain * z + offset``, per channel."""

    gain: Reals
    offset: Reals

    def of(self, inner: Affine) -> Affine:
        """This as a function of what `inner` makes of z."""
        gain = self.gain / inner.gain
        return Affine(gain, self.offset - gain * inner.offset)


def _of_program(strip: Strip, unit: float, channels: int) -> Affine:
    """The current in what a membrane unit is worth, of the integer z (docs/numerics.md, section 3)."""
    gain = np.ldexp(strip.gain.astype(np.float64), -strip.fields["r_shift"])
    return Affine(unit * gain[:channels], unit * strip.bias[:channels])


def _give_step(tensor: Activation) -> None:
    assert tensor.scale is not None, "a tensor without codes"
    tensor.scale.data.fill_(STEP)


def _give_weights(layer: Layer, strip: Strip) -> None:
    """Those of the program: signs at :data:`LATENT`, the largest integer of every channel as that."""
    assert layer.weight is not None
    out, channels, *kernel = layer.weight.shape
    taps = strip.fields["n_tap_y"] * strip.fields["n_tap_x"]
    matrix = strip.weights.matrix.reshape(taps, -1, strip.weights.matrix.shape[1])
    channels = channels if kernel else channels // taps
    integers = matrix[:, :channels, :out].transpose(2, 1, 0)
    latent = integers * (LATENT / np.abs(integers).max(axis=(1, 2), keepdims=True))
    layer.weight.data.copy_(torch.from_numpy(latent.reshape(layer.weight.shape)))


def _current_of(network: Network, layer: Layer, strip: Strip) -> Affine:
    """The current of a layer in front of its normalisation, of its integer z."""
    ones, fields = np.ones(layer.spec.out_channels), strip.fields
    if layer.spec.source != INPUT:
        one = ones * STEP / (fields["n_pool_y"] * fields["n_pool_x"])
        # without a normalisation the integers' scale is not made up for
        return Affine(one if layer.bn is not None else one * _scale(layer), 0 * ones)
    weights = layer.effective_weight().detach().double().numpy()
    mean, std = network.spec.input.mean, network.spec.input.std
    return Affine(ones * _scale(layer) / std[0], -(weights.sum(axis=(2, 3)) * mean).sum(axis=1) / std[0])


def _scale(layer: Layer) -> float:
    """What the integer 1 is in a layer with weights of several bits, as :func:`_give_weights` left them."""
    return LATENT / ((1 << layer.spec.weight.bits - 1) - 1)


def _give_scale(layer: Layer, wanted: Affine) -> None:
    """What makes `wanted` of the current where weights of several bits and a bias do."""
    assert layer.weight is not None
    assert layer.bias is not None
    layer.weight.data.mul_(torch.from_numpy(wanted.gain)[:, None])
    layer.bias.data.copy_(torch.from_numpy(wanted.offset))


@torch.no_grad()
def _give_normalisation(network: Network, layer: Layer, wanted: Affine, pixels: Tensor) -> None:
    """What makes `wanted` of the current, whose statistics over `pixels` it gets."""
    found: list[Tensor] = []
    norm = layer.bn
    assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d), "a layer without normalisation"
    handle = norm.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0].transpose(0, 1).flatten(1)))
    for start in range(0, len(pixels), _BATCH):
        network(pixels[start : start + _BATCH])
    handle.remove()
    current = torch.cat(found, dim=1).double()
    mean, var = current.mean(dim=1), current.var(dim=1)
    deviation = (var + norm.eps).sqrt()
    gain, offset = torch.from_numpy(wanted.gain), torch.from_numpy(wanted.offset)
    for parameter, value in (
        (norm.running_mean, mean),
        (norm.running_var, var),
        (norm.weight, gain * deviation),
        (norm.bias, offset + gain * mean),
    ):
        assert parameter is not None
        parameter.copy_(value)


@click.command(help=__doc__)
@click.argument("model")
@click.option("--data-dir", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--target", default="ulx3s-85f", show_default=True, help="Configuration that it was compiled for.")
@click.option("--seed", default=0, show_default=True, help="Of the run it came from, which held out its images.")
@click.option("-o", "--out", required=True, type=click.Path(dir_okay=False, path_type=Path))
def main(model: str, data_dir: Path, target: str, seed: int, out: Path) -> None:
    """Entry point."""
    program = load_model(model)
    data, test = (load_split(program.dataset, data_dir, split) for split in ("train", "test"))
    network = restored(program, preset(target), data)
    result = evaluate(network, test)
    golden = GoldenModel(program, preset(target)).run(to_codes(list(test.images), program.input)).argmax(axis=1)
    out.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(network, out, {"seed": seed})
    click.echo(
        f"{program.name}: {100 * (golden == test.labels).mean():.2f} % right by the program, {result.accuracy:.2f} % "
        f"by {out}, density {result.density:.3f}"
    )


if __name__ == "__main__":
    cli.run(main, "restored.py")
