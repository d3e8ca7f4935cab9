"""The integer network of a compiled program, to compile it again: from its weight planes, walks and parameters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.geometry import Geometry, Pool
from reverb_fpga.compiler.intnet import INPUT, IntInput, IntLayer, IntMap, IntNetwork, WeightKind
from reverb_fpga.compiler.program import INPUT_TENSOR, LayerInfo, Program
from reverb_fpga.host.balancing import IMAGES, spread
from reverb_fpga.host.images import encoded
from reverb_fpga.host.inputs import ItemReader, Selection, gather_items
from reverb_fpga.hw.config import Config
from reverb_fpga.hw.errors import InputError
from reverb_fpga.models.data import load_split
from reverb_fpga.sim.golden import GoldenModel
from reverb_fpga.sim.golden.schedule import Strip

__all__ = ["network_of", "placing_codes"]


def placing_codes(program: Program, data_dir: Path | None) -> NDArray[np.uint8]:
    """Input codes (N, T_in, H, W, C) by which its channels are placed: of training images spread over the split, or,
    without a folder of the data set, of bundled test images."""
    if data_dir is None:
        _, pixels = ItemReader(program, strict=True).read_all(gather_items(Selection(limit=IMAGES), program))
        return encoded(pixels, program)
    return encoded(list(spread(load_split(program.dataset, data_dir, "train").images, IMAGES)), program)


def network_of(program: Program, config: Config) -> IntNetwork:
    """The network of a compiled program, chain or graph; its channels in the order that the program has.

    Raises
    ------
    InputError
        It has gates.
    """
    strips = {strip.index: strip for strip in GoldenModel(program, config).schedule.strips}
    pads = [strip.pad for strip in strips.values() if strip.pad is not None]
    source = program.input
    pad = pads[0][: source.channels] if pads else np.zeros(source.channels, dtype=np.uint8)
    layers = tuple(_layer(program, info, strips) for info in program.layers)
    steps = program.input_records // (source.height * source.width)
    first = IntInput(source.channels, source.height, source.width, pad)
    return IntNetwork(first, layers, program.timesteps, static_input=steps == 1)


def _layer(program: Program, info: LayerInfo, strips: dict[int, Strip]) -> IntLayer:
    if any(leg.gate for leg in info.maps):
        raise InputError(f"layer {info.name} has a gate: such programs cannot be compiled again")
    legs = [strips[info.descriptors_of(position)[0]] for position in range(len(info.maps))]
    maps = tuple(_map(program, info, position, strip) for position, strip in enumerate(legs))
    last = legs[-1]
    f, reset = last.fields, last.fields["reset"]
    return IntLayer(
        name=info.name, maps=maps, threshold=last.threshold[: info.shape[0]], tau_q=f["tau_q"], code_max=f["code_max"],
        spiking=bool(f["spiking"]), timesteps=f["timesteps"], reset=reset if f["soft_reset"] else None,
        order=info.order,
    )  # fmt: skip


def _map(program: Program, info: LayerInfo, position: int, strip: Strip) -> IntMap:
    number, f, c_out = info.maps[position].source, strip.fields, info.shape[0]
    read = number == INPUT_TENSOR
    c_in = program.input.channels if read else program.layers[number].shape[0]
    matrix = strip.weights.matrix.reshape(f["n_tap_y"], f["n_tap_x"], -1, strip.weights.matrix.shape[1])
    kind, bits = _kind(strip)
    return IntMap(
        source=INPUT if read else program.layers[number].name,
        weight=np.ascontiguousarray(matrix[:, :, :c_in, :c_out].transpose(3, 2, 0, 1)),
        kind=kind, bits=bits, geometry=_geometry(f), gain=_of(strip.gain, c_out), r_shift=f["r_shift"],
        bias=_of(strip.bias, c_out),
    )  # fmt: skip


def _of(values: NDArray[np.int64], channels: int) -> NDArray[np.int64]:
    return np.array(values[:channels])


def _kind(strip: Strip) -> tuple[WeightKind, int]:
    """Kind and bits of its weights, from the planes of its first group."""
    planes = [(entry.shift, entry.negate) for entry in strip.weights.entries if entry.group == 0]
    if strip.weights.entries[0].subtract_s:
        return WeightKind.BINARY, 1
    if planes == [(0, False)]:
        return WeightKind.UNIT, 1
    if planes[-1] == (0, True):
        return WeightKind.TERNARY, 1
    return WeightKind.MULTIBIT, len(planes)


def _geometry(f: dict[str, int]) -> Geometry:
    before, after, stride, padding = [], [], [], []
    for axis in "yx":
        number, tap, origin = f[f"n_pool_{axis}"], f[f"{axis}_tap"], f[f"i{axis}0"]
        pooled_input = number > 1 and tap > 1
        before.append(number if pooled_input else 1)
        after.append(1 if pooled_input else number)
        stride.append(f[f"{axis}_step"] // number)
        padding.append(-origin // (tap if pooled_input else 1))
    pools = [Pool((sides[0], sides[1]), (sides[0], sides[1])) for sides in (before, after)]
    return Geometry((stride[0], stride[1]), (padding[0], padding[1]), (1, 1), *pools)
