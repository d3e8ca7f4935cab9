"""A compiled program: the memory sections of ``hw/contract.py`` and what people need to know about them."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.hw import contract
from reverb_fpga.hw.config import Config
from reverb_fpga.hw.contract import CRC_WORD, DESCRIPTOR_WORDS, PARAM_WORDS, Gate, Opcode, Region
from reverb_fpga.hw.errors import InputError

__all__ = [
    "INPUT_TENSOR",
    "ArrayInput",
    "InputTransform",
    "LayerInfo",
    "MapInfo",
    "Program",
    "ProgramMeta",
    "Section",
    "section_capacity",
    "sections_crc32",
]

Section = NDArray[np.uint32]
_IN_RECORDS = contract.field_of(contract.INPUT_FIELDS, "in_records")


@dataclasses.dataclass(frozen=True)
class ArrayInput:
    """Real numbers as a module of its own takes them, instead of an image.

    ``code = clip(floor(x * scale[c] + offset[c] + 0.5), 0, 255)`` per channel of the array, which then is read in the
    shape of the program's input.

    Parameters
    ----------
    shape : tuple of int
        Of one input, without batch and time: (channels, height, width), or (features,).
    scale, offset : tuple of float
        Per channel; one for all features.
    """

    shape: tuple[int, ...]
    scale: tuple[float, ...]
    offset: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class InputTransform:
    """How an image becomes input codes: ``code = clip(floor(pixel * scale[c] + offset[c] + 0.5), 0, 255)``.

    Parameters
    ----------
    channels, height, width : int
        An image of any size is converted to 1 (grey) or 3 (RGB) channels and resized to this.
    scale, offset : tuple of float, per channel
        From pixels 0..255 to codes.
    invert : bool
        True if the training images are light on dark and a photograph would be dark on light; never applied silently.
    array : ArrayInput or None
        Its inputs are no images; scale and offset say nothing then.
    """

    channels: int
    height: int
    width: int
    scale: tuple[float, ...]
    offset: tuple[float, ...]
    invert: bool = False
    array: ArrayInput | None = None


INPUT_TENSOR = -1
"""Number of the image among the tensors that a layer may read; layers have theirs."""


@dataclasses.dataclass(frozen=True)
class MapInfo:
    """One summand of a layer's current.

    Parameters
    ----------
    source : int
        The layer whose tensor it reads, or :data:`INPUT_TENSOR`.
    additions : int
        Synaptic additions of one dense time step.
    gate : int
        :class:`~reverb_fpga.hw.contract.Gate`: what kind of leg it is.
    """

    source: int
    additions: int
    gate: int = 0

    @property
    def once(self) -> bool:
        """It runs before the first strip only."""
        return self.gate in (Gate.SUM, Gate.SIGMOID)


@dataclasses.dataclass(frozen=True)
class LayerInfo:
    """One layer as a person and ``verify`` see it.

    Parameters
    ----------
    name : str
    shape : (C, H, W) of its output
    timesteps : int
        Steps that its output records hold.
    spiking : bool
    strips : tuple of (descriptor, first output row, rows)
        Which descriptors fire it, in order. After descriptor ``d`` has run, those rows are in the layer's ring.
        Those of its other legs (all maps but the last) come immediately before ``d``.
    maps : tuple of MapInfo
        One per leg, in the order in which they run: those that make a gate, then the summands of the current.
    order : tuple of int (C,) or None
        For every channel of its records which one it is of the network that was compiled; None: the same.
    """

    name: str
    shape: tuple[int, int, int]
    timesteps: int
    spiking: bool
    strips: tuple[tuple[int, int, int], ...]
    maps: tuple[MapInfo, ...]
    order: tuple[int, ...] | None = None

    def of_network(self, codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Codes (..., C) of its records, the channels in the order of the network that was compiled."""
        return codes if self.order is None else codes[..., np.argsort(self.order)]

    @property
    def additions(self) -> int:
        """Synaptic additions of one dense time step."""
        return sum(leg.additions for leg in self.maps)

    def descriptors(self, descriptor: int) -> range:
        """All descriptors of the strip that ``descriptor`` fires: one per leg, less those that ran before the first."""
        again = [leg for leg in self.maps if descriptor == self.strips[0][0] or not leg.once]
        return range(descriptor - len(again) + 1, descriptor + 1)

    def descriptors_of(self, position: int) -> list[int]:
        """All descriptors of one leg."""
        back = len(self.maps) - 1 - position
        strips = self.strips[:1] if self.maps[position].once else self.strips
        return [fires - back for fires, _, _ in strips]


@dataclasses.dataclass(frozen=True)
class ProgramMeta:
    """What the integers of a network do not say; fields as in :class:`Program`."""

    name: str
    arch: str
    system: str
    dataset: str
    accuracy: float | None
    labels: tuple[str, ...]
    input: InputTransform
    logit_scale: float


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """Everything that is loaded into an overlay, and its description.

    The sections are uint32 arrays, images of the regions from offset 0 (see :class:`reverb_fpga.hw.contract.Region`);
    ``act`` and ``count`` hold only the constant (pad) record. Descriptor 0 holds their lengths and CRC-32.

    Parameters
    ----------
    config_name : str, config_digest : int
        The configuration it was compiled for.
    logit_scale : float
        Real-valued logit of one membrane unit of the output layer (mean over T included).
    """

    name: str
    arch: str
    system: str
    dataset: str
    timesteps: int
    accuracy: float | None
    labels: tuple[str, ...]
    input: InputTransform
    layers: tuple[LayerInfo, ...]
    logit_scale: float
    config_name: str
    config_digest: int
    desc: Section
    slot: Section
    param: Section
    weight: Section
    act: Section
    count: Section

    def sections(self) -> Iterator[tuple[Region, Section]]:
        """Regions and their words, in loading and hashing order."""
        yield Region.DESC, self.desc
        yield Region.SLOT, self.slot
        yield Region.PARAM, self.param
        yield Region.WEIGHT, self.weight
        yield Region.ACT, self.act
        yield Region.COUNT, self.count

    @property
    def meta(self) -> ProgramMeta:
        """What the integers of its network do not say."""
        return ProgramMeta(**{field.name: getattr(self, field.name) for field in dataclasses.fields(ProgramMeta)})

    @property
    def n_descriptors(self) -> int:
        """Descriptors in the schedule, PROGRAM and END included."""
        return len(self.desc) // DESCRIPTOR_WORDS

    @property
    def input_records(self) -> int:
        """Records of an image: those that descriptor 0 takes, and those of all INPUT descriptors."""
        words = self.desc[: self.n_descriptors * DESCRIPTOR_WORDS].reshape(-1, DESCRIPTOR_WORDS)
        loads = np.isin(words[:, 0] & 0xFF, (Opcode.PROGRAM, Opcode.INPUT))
        return int((words[loads, _IN_RECORDS.word] & contract.field_range(_IN_RECORDS)[1]).sum(dtype=np.int64))

    def descriptor(self, index: int) -> tuple[Opcode, dict[str, int]]:
        """Decoded descriptor. Raises InputError on an unknown opcode or reserved bits."""
        words = [int(w) for w in self.desc[index * DESCRIPTOR_WORDS : (index + 1) * DESCRIPTOR_WORDS]]
        try:
            opcode = Opcode(words[0] & 0xFF)
        except ValueError:
            raise InputError(f"descriptor {index}: unknown opcode {words[0] & 0xFF:#04x}") from None
        return opcode, contract.unpack(contract.DESCRIPTOR_FIELDS[opcode], words)


def section_capacity(config: Config) -> dict[str, int]:
    """Words of each section that an overlay of `config` holds, by the section's name."""
    return {
        "desc": config.descriptors * DESCRIPTOR_WORDS,
        "slot": config.slot_entries,
        "param": config.param_groups * PARAM_WORDS * config.neuron_lanes,
        "weight": config.weight_rows * config.banks * config.weight_words,
        "act": config.act_words * config.banks,
        "count": config.count_words * config.banks,
    }


def sections_crc32(sections: Iterator[tuple[Region, Section]]) -> int:
    """CRC-32 as the gateware computes it: little-endian words, the word that holds the CRC itself taken as 0."""
    crc = 0
    for region, words in sections:
        body = np.array(words, dtype="<u4")
        if region is Region.DESC:
            body[CRC_WORD : CRC_WORD + 1] = 0
        crc = zlib.crc32(body.tobytes(), crc)
    return crc
