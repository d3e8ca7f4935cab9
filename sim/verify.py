"""Golden model against hardware, descriptor by descriptor: any program, any images, any backend.

The hardware halts after every descriptor, so that every tensor can be read although buffers are reused. Compared are
the count words and events of everything a strip stores (order included), and the logits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.program import Program
from reverb_fpga.hw.config import Config
from reverb_fpga.hw.contract import EVENT_VALUE_BITS, NO_HALT, Region

from .golden import GoldenModel
from .golden.schedule import Strip

__all__ = ["Difference", "Target", "Verification", "Verifier"]

Progress = Callable[[int, int], None]
"""Called with (image, descriptor) before a descriptor is compared."""


class Target(Protocol):
    """What can be verified: the gateware in simulation, or a board."""

    def load(self, program: Program) -> None:
        """Write all sections."""

    def start(self, halt_after: int = NO_HALT) -> None:
        """Begin an image; stop after that descriptor."""

    def feed(self, data: bytes) -> None:
        """Send input bytes, in state INPUT."""

    def resume(self, halt_after: int = NO_HALT) -> None:
        """Go on after a halt."""

    def wait(self) -> object:
        """Until it has halted or is done. Raises DeviceError if the sequencer reports a fault, or never gets there."""

    def read(self, region: Region, offset: int, count: int) -> Sequence[int] | NDArray[np.uint32]:
        """Consecutive words of a region."""


@dataclasses.dataclass(frozen=True)
class Difference:
    """The first thing that is not as it should be.

    Parameters
    ----------
    image : int
    layer : str
    descriptor : int
    place : str
        Row, column, step and channel; or the logit.
    expected, got : str
    """

    image: int
    layer: str
    descriptor: int
    place: str
    expected: str
    got: str

    def __str__(self) -> str:
        return (
            f"image {self.image}, layer {self.layer} (descriptor {self.descriptor}), {self.place}: "
            f"expected {self.expected}, the hardware has {self.got}"
        )


@dataclasses.dataclass(frozen=True)
class Verification:
    """Outcome of :meth:`Verifier.run`.

    Parameters
    ----------
    images, descriptors, events, logits : int
        How much was compared.
    difference : Difference or None
        The first one; nothing after it was compared.
    cycles : tuple of pairs of int
        Of every image without halts, in simulation: measured, and what the cycle model predicts.
    """

    images: int
    descriptors: int
    events: int
    logits: int
    difference: Difference | None
    cycles: tuple[tuple[int, int], ...] = ()

    def __str__(self) -> str:
        amount = f"{self.images} image(s), {self.descriptors} descriptors, {self.events:,} events, {self.logits} logits"
        if self.difference is not None:
            return f"DIFFERENT after {amount}\n{self.difference}"
        text = f"identical: {amount}"
        if self.cycles:
            measured, predicted = (sum(column) / len(column) for column in zip(*self.cycles, strict=True))
            worst = max((100 * (wanted / found - 1) for found, wanted in self.cycles), key=abs)
            text += f"\n{measured:,.0f} cycles an image, {predicted:,.0f} by the cycle model"
            text += f" ({worst:+.2f} %)" if len(self.cycles) == 1 else f" (means; the worst image {worst:+.2f} %)"
        return text


class Verifier:
    """Compares a target with the golden model for one program.

    Parameters
    ----------
    program : Program
    config : Config
    target : Target
    """

    def __init__(self, program: Program, config: Config, target: Target) -> None:
        self.model = GoldenModel(program, config)
        self._config = config
        self._target = target
        self._events = self._descriptors = 0
        target.load(program)

    def run(self, codes: NDArray[np.uint8], progress: Progress | None = None) -> Verification:
        """Compare images, input codes (N, T_in, H, W, C), one after the other until the first difference.

        Raises
        ------
        DeviceError
            If the hardware faults or hangs.
        """
        self._events = self._descriptors = 0
        logits = 0
        for image in range(len(codes)):
            difference = self._image(image, codes[image : image + 1], progress)
            if difference is not None:
                return Verification(image + 1, self._descriptors, self._events, logits, difference)
            logits += self.model.schedule.n_outputs
        return Verification(len(codes), self._descriptors, self._events, logits, None)

    def _image(self, image: int, codes: NDArray[np.uint8], progress: Progress | None) -> Difference | None:
        stored, logits = self.model.run_strips(codes)
        target, strips = self._target, self.model.schedule.strips
        target.start(strips[0].index)
        target.feed(self.model.input_bytes(codes)[0].tobytes())
        for number, strip in enumerate(strips):
            if progress is not None:
                progress(image, strip.index)
            target.wait()
            found = self._strip(image, strip, stored[strip.index][0])
            if found is not None:
                return found
            self._descriptors += 1
            target.resume(strips[number + 1].index if number + 1 < len(strips) else NO_HALT)
        target.wait()
        return self._logits(image, strips[-1], logits[0])

    def _logits(self, image: int, strip: Strip, logits: NDArray[np.int64]) -> Difference | None:
        words = np.asarray(self._target.read(Region.MEMBRANE, 0, len(logits)), dtype=np.int64) & 0xFFFFFFFF
        found = (words ^ 0x80000000) - 0x80000000
        wrong = np.flatnonzero(found != logits)
        if not len(wrong):
            return None
        first = int(wrong[0])
        return self._difference(image, strip, f"logit {first}", int(logits[first]), int(found[first]))

    def _strip(self, image: int, strip: Strip, expected: NDArray[np.uint8]) -> Difference | None:
        """Compare what one descriptor stored; ``expected`` is (positions, T, slots * banks)."""
        if not strip.fields["spiking"]:
            return None
        records = strip.outputs.ravel()
        counts = self._read(Region.COUNT, strip.target.cnt_base, records, 1)
        events = self._read(Region.ACT, strip.target.act_base, records, strip.target.slots)
        expected = expected.reshape(len(records), strip.target.slots, self._config.banks)
        for number in range(len(records)):
            for bank in range(self._config.banks):
                wanted = _events(expected[number, :, bank])
                if counts[number, 0, bank] == len(wanted) and (events[number, : len(wanted), bank] == wanted).all():
                    self._events += len(wanted)
                    continue
                found = events[number, : counts[number, 0, bank], bank]
                return self._explain(image, strip, number, bank, wanted, found)
        return None

    def _read(self, region: Region, base: int, records: NDArray[np.int64], slots: int) -> NDArray[np.int64]:
        """Words (records, slots, banks); one request per run of consecutive records."""
        banks = self._config.banks
        parts = []
        for run in np.split(records, np.flatnonzero(np.diff(records) != 1) + 1):
            offset = (base + int(run[0]) * slots) * banks
            parts.append(np.asarray(self._target.read(region, offset, len(run) * slots * banks), dtype=np.int64))
        return np.concatenate(parts).reshape(len(records), slots, banks)

    def _explain(
        self, image: int, strip: Strip, number: int, bank: int, wanted: NDArray[np.int64], found: NDArray[np.int64]
    ) -> Difference:
        """The first channel that differs, or how the record is malformed."""
        position, step = divmod(number, strip.fields["timesteps"])
        row, column = divmod(position, strip.fields["cols"])
        where = f"row {self._first_row(strip) + row}, column {column}, step {step}"
        wanted_codes, found_codes = _by_index(wanted), _by_index(found)
        for index in sorted(wanted_codes.keys() | found_codes.keys()):
            expected, got = wanted_codes.get(index, 0), found_codes.get(index, 0)
            if expected != got:
                place = f"{where}, {self._channel(strip, index * self._config.banks + bank)}"
                return self._difference(image, strip, place, expected, got)
        text = f"{where}, events of bank {bank}"
        return self._difference(image, strip, text, _listed(wanted), _listed(found))

    def _channel(self, strip: Strip, channel: int) -> str:
        """A channel of a record, and which one of the network it is, where that is another."""
        order = self.model.program.layers[strip.fields["layer"]].order
        if order is None or channel >= len(order) or order[channel] == channel:
            return f"channel {channel}"
        return f"channel {channel} ({order[channel]} of the network)"

    def _first_row(self, strip: Strip) -> int:
        """Output row that the strip begins with."""
        for descriptor, first, _ in self.model.program.layers[strip.fields["layer"]].strips:
            if descriptor == strip.index:
                return first
        return 0

    def _difference(self, image: int, strip: Strip, place: str, expected: object, got: object) -> Difference:
        layer = self.model.program.layers[strip.fields["layer"]].name
        return Difference(image, layer, strip.index, place, str(expected), str(got))


def _events(codes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Event words of one bank of a record, in ascending index."""
    index = np.flatnonzero(codes)
    return codes[index].astype(np.int64) | index << EVENT_VALUE_BITS


def _by_index(events: NDArray[np.int64]) -> dict[int, int]:
    mask = (1 << EVENT_VALUE_BITS) - 1
    return {int(event) >> EVENT_VALUE_BITS: int(event) & mask for event in events}


def _listed(events: NDArray[np.int64]) -> str:
    mask = (1 << EVENT_VALUE_BITS) - 1
    return str([(int(event) >> EVENT_VALUE_BITS, int(event) & mask) for event in events])
