"""What the legs of a layer are: its own convolution, its shortcuts, what makes its gate; and the weights they hold."""

from __future__ import annotations

from reverb_fpga.compiler.program import INPUT_TENSOR, LayerInfo, Program
from reverb_fpga.compiler.row_mode import weight_rows
from reverb_fpga.hw.contract import Gate

__all__ = ["IMAGE", "held_rows", "kind_of", "source_of"]

IMAGE = "image"

_GATES = {
    Gate.SUM: "sums of the gate",
    Gate.SIGMOID: "sigmoid of gate",
    Gate.APPLY: "gated convolution",
}


def source_of(program: Program, info: LayerInfo, position: int) -> str:
    """Name of the tensor that a leg reads."""
    source = info.maps[position].source
    return IMAGE if source == INPUT_TENSOR else program.layers[source].name


def kind_of(program: Program, info: LayerInfo, position: int) -> str:
    """What it is, in a few words for people."""
    leg, last = info.maps[position], len(info.maps) - 1
    gate = Gate(leg.gate)
    if gate is not Gate.NONE:
        return _GATES[gate]
    if leg.additions == 0:
        return "neurons"
    if _is_identity(program, info, position):
        return "pooling" if position == last and last == 0 else "identity shortcut"
    if _is_border(program, info, position):
        return "border of its pool"
    gated = any(other.gate for other in info.maps)
    if position < last or gated:
        return "conv. shortcut"
    return "convolution" if info.shape[1:] != (1, 1) else "linear"


def _is_identity(program: Program, info: LayerInfo, position: int) -> bool:
    """Whether a leg adds every event once: one place of the window for each pooled position."""
    _, fields = program.descriptor(info.descriptors_of(position)[0])
    channels, rows, columns = info.shape
    pooled = fields["n_pool_y"] * fields["n_pool_x"]
    return info.maps[position].additions == channels * rows * columns * pooled


def _is_border(program: Program, info: LayerInfo, position: int) -> bool:
    """Whether it takes away what a padded pool finds beyond a border: it steps over the whole source."""
    _, fields = program.descriptor(info.descriptors_of(position)[0])
    sides = (
        (info.shape[1], fields["y_step"], fields["in_height"]),
        (info.shape[2], fields["x_step"], fields["in_width"]),
    )
    return position < len(info.maps) - 1 and any(out > 1 and step >= side for out, step, side in sides)


def held_rows(program: Program, info: LayerInfo) -> list[int]:
    """Weight rows per bank of every leg; those that two legs share count for the first that reads them."""
    seen: set[int] = set()
    found = []
    for position, leg in enumerate(info.maps):
        rows: set[int] = set()
        if leg.additions:
            _, fields = program.descriptor(info.descriptors_of(position)[0])
            for number in range(fields["row_passes"] or fields["n_passes"]):
                start = fields["w_base"] + number * fields["w_pass_stride"]
                rows |= set(range(start, start + weight_rows(fields)))
        found.append(len(rows - seen))
        seen |= rows
    return found
