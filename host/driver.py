"""The device as a program sees it: memories, a program, images in, logits out."""

from __future__ import annotations

import contextlib
import dataclasses
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.program import Program
from reverb_fpga.hw import contract
from reverb_fpga.hw.config import named
from reverb_fpga.hw.contract import Csr, Fault, LinkOp, LinkStatus, Region, State
from reverb_fpga.hw.errors import DeviceError, InputError

from .bundled import advice
from .session import Identity, Session, SilenceError, Timing
from .stream import Stream, StreamError
from .transport import Transport

__all__ = ["Device", "Inference", "Progress", "Shape", "Status"]

Progress = Callable[[int, int], None]
"""Called with words done and words in all."""

WORD_BYTES = 4
READ_AHEAD = 8192  # bytes that the host holds ready for the device
_AT_REST = (State.IDLE, State.HALTED, State.DONE, State.ERROR)
_REMEDY = {
    Fault.HASH_MISMATCH: "the loaded program is damaged; load it again",
    Fault.CONFIG_MISMATCH: "the program was compiled for another configuration",
    Fault.WATCHDOG: "a layer took longer than the watchdog allows; raise WATCHDOG or report the program",
}


@dataclasses.dataclass(frozen=True)
class Status:
    """State of the sequencer.

    Parameters
    ----------
    state : State
    armed : bool
        The loaded program has passed its hash check and was not written since.
    fault : Fault
        Why it is in state ERROR.
    pc : int
        Descriptor it is at, or has stopped at.
    """

    state: State
    armed: bool
    fault: Fault
    pc: int


@dataclasses.dataclass(frozen=True, eq=False)
class Inference:
    """Result of one image.

    Parameters
    ----------
    logits : int64 array (n_outputs,)
        Membrane potentials of the output layer; times ``Program.logit_scale`` they are real-valued.
    cycles : int
        Clock cycles of the computation, from the last input byte to DONE.
    waited : int or None
        Clock cycles since the image before in which the array did not compute; only of streamed images.
    """

    logits: NDArray[np.int64]
    cycles: int
    waited: int | None = None


@dataclasses.dataclass(frozen=True)
class Shape:
    """What of a program its input and its results depend on.

    Parameters
    ----------
    input_bytes : int
        Of an image.
    n_outputs : int
        Logits.
    """

    input_bytes: int
    n_outputs: int

    def bytes_of(self, codes: NDArray[np.uint8]) -> bytes:
        """One image as the device takes it. Raises InputError if it is none of this program's."""
        data = np.ascontiguousarray(codes)
        if data.dtype != np.uint8 or data.size != self.input_bytes:
            raise InputError(f"{data.size} codes of {data.dtype}; the program takes {self.input_bytes} of uint8")
        return data.tobytes()


class Device:
    """An overlay behind a byte transport.

    Errors of the line and of the device are :class:`DeviceError`, one line each. After one of the line, call
    :meth:`connect` again (or make a new Device); nothing hangs longer than :class:`Timing` allows.

    Parameters
    ----------
    transport : Transport
        Closed with the device.
    timing : Timing, optional
    """

    def __init__(self, transport: Transport, timing: Timing | None = None) -> None:
        self.transport = transport
        self.timing = timing or Timing()
        self._session = Session(transport, self.timing)
        self._identity: Identity | None = None
        self._loaded: Shape | None = None
        self._halt_after: int | None = None  # of the device, where it is known
        self._input = b""  # of the image under way
        self._given = 0  # bytes of it that the device has

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.transport.close()

    # -- session --------------------------------------------------------------------------------------------

    @property
    def identity(self) -> Identity:
        """What the device said when it was connected."""
        if self._identity is None:
            raise DeviceError(f"{self.transport.name} is not connected; call connect first")
        return self._identity

    @property
    def heard(self) -> int:
        """Bytes that have come while an answer was awaited; many, and no answer: it is no board that speaks."""
        return self._session.heard

    def connect(self, config_digest: int | None = None) -> Identity:
        """Begin a session. A running image goes on; see :meth:`reset`.

        Parameters
        ----------
        config_digest : int, optional
            The configuration that the device must have.

        Raises
        ------
        DeviceError
            If nothing answers, or a device of another version or configuration.
        """
        identity = self._session.hello()
        if identity.max_payload < WORD_BYTES:
            raise DeviceError(
                f"{self.transport.name} says that a frame may carry {identity.max_payload} bytes, which is nonsense; "
                "program the board again"
            )
        if config_digest is not None and identity.config_digest != config_digest:
            raise DeviceError(
                f"{self.transport.name} has {named(identity.config_digest)}, wanted is {named(config_digest)}; "
                f"{advice(identity.config_digest)}"
            )
        self._identity = identity
        self._halt_after = None
        return identity

    def try_connect(self) -> Identity | None:
        """The same, without conditions; None if nothing answers. Raises DeviceError if what answers is no overlay."""
        try:
            return self.connect()
        except SilenceError:
            return None

    def set_timing(self, timing: Timing) -> None:
        """Wait otherwise from now on."""
        self.timing = self._session.timing = timing

    # -- words ----------------------------------------------------------------------------------------------

    @property
    def _payload(self) -> int:
        """Bytes of words or input in a frame."""
        return min(self.identity.max_payload, contract.MAX_PAYLOAD)

    @property
    def _words_per_frame(self) -> int:
        return self._payload // WORD_BYTES

    def read(self, region: Region, offset: int, count: int) -> NDArray[np.uint32]:
        """Words of one region, uint32 array (count,).

        Raises
        ------
        InputError
            If the range leaves the region.
        DeviceError
            If the device refuses (the core is running) or the line fails.
        """
        _check_range(region, offset, count)
        parts = [np.empty(0, np.uint32)]
        for start in range(offset, offset + count, self._words_per_frame):
            words = min(self._words_per_frame, offset + count - start)
            body = struct.pack("<IH", contract.address(region, start), words)
            status, data = self._session.request(LinkOp.READ, body, words * WORD_BYTES)
            self._accepted(LinkOp.READ, status, f"{region.name} word {start}")
            if len(data) != words * WORD_BYTES:
                raise DeviceError(f"{self.transport.name} sent {len(data)} bytes for {words} words of {region.name}")
            parts.append(np.frombuffer(data, "<u4").astype(np.uint32))
        return np.concatenate(parts)

    def write(
        self,
        region: Region,
        offset: int,
        words: Sequence[int] | NDArray[np.uint32],
        progress: Progress | None = None,
    ) -> None:
        """Write words to consecutive offsets of one region.

        Raises
        ------
        InputError
            If the range leaves the region.
        DeviceError
            If the device refuses (the core is running) or the line fails.
        """
        data = np.asarray(words, dtype=np.uint32)
        _check_range(region, offset, len(data))
        for start in range(0, len(data), self._words_per_frame):
            part = data[start : start + self._words_per_frame]
            body = struct.pack("<I", contract.address(region, offset + start)) + part.astype("<u4").tobytes()
            status, _ = self._session.request(LinkOp.WRITE, body)
            self._accepted(LinkOp.WRITE, status, f"{region.name} word {offset + start}")
            if progress is not None:
                progress(start + len(part), len(data))

    def read_register(self, register: Csr) -> int:
        """One register."""
        return int(self.read(Region.CSR, register, 1)[0])

    def write_register(self, register: Csr, value: int) -> None:
        """One register."""
        self.write(Region.CSR, register, [value])

    def _accepted(self, opcode: LinkOp, status: int, what: str) -> None:
        if status == LinkStatus.OK:
            return
        try:
            reason = LinkStatus(status).name
        except ValueError:
            reason = f"status {status}"
        hint = "; the core is running: reset it first" if status == LinkStatus.BUSY else ""
        raise DeviceError(f"{self.transport.name} refuses {opcode.name} of {what}: {reason}{hint}")

    # -- control --------------------------------------------------------------------------------------------

    def status(self) -> Status:
        """State of the sequencer."""
        word = self.read_register(Csr.STATUS)
        try:
            fields = contract.unpack(contract.STATUS_FIELDS, [word])
            return Status(State(fields["state"]), bool(fields["armed"]), Fault(fields["error"]), fields["pc"])
        except (ValueError, InputError):
            raise DeviceError(f"{self.transport.name}: status word {word:#010x} is none of this version's") from None

    def reset(self) -> None:
        """Return the sequencer to IDLE from any state; loaded memories are kept."""
        self._halt_after = None
        self._input, self._given = b"", 0
        status, _ = self._session.request(LinkOp.RESET, b"")
        self._accepted(LinkOp.RESET, status, "the sequencer")
        self._wait({State.IDLE})
        self._halt_after = contract.NO_HALT  # which a reset restores

    def start(self, halt_after: int = contract.NO_HALT) -> None:
        """Begin an image, up to state INPUT; an image that was given up in the middle is dropped.

        Parameters
        ----------
        halt_after : int
            State HALTED after that descriptor, until :meth:`resume`.
        """
        self._input, self._given = b"", 0
        if self.status().state not in _AT_REST:
            self.reset()
        self._go("start", halt_after)

    def resume(self, halt_after: int = contract.NO_HALT) -> None:
        """Go on from HALTED, until the next halt."""
        self._go("resume", halt_after)

    def _go(self, bit: str, halt_after: int) -> None:
        if halt_after != self._halt_after:
            self._halt_after = None
            self.write_register(Csr.HALT_AFTER, halt_after)
            self._halt_after = halt_after
        self.write_register(Csr.CONTROL, contract.pack(contract.CONTROL_FIELDS, {bit: 1}, 1)[0])

    def wait(self) -> None:
        """Until the sequencer has halted or is done; it gets the rest of the image when it asks for it.

        Raises
        ------
        DeviceError
            If it stops with a fault, is not there ``Timing.run`` after the last byte that it took, or leaves some.
        """
        self._finish({State.HALTED, State.DONE})

    def _finish(self, states: set[State]) -> None:
        if self._wait(states).state is State.DONE and self._given < len(self._input):
            raise DeviceError(
                f"{self.transport.name} is done with an image, but took {self._given} of {len(self._input)} bytes"
            )

    def _wait(self, states: set[State]) -> Status:
        deadline = self.transport.clock() + self.timing.run
        while True:
            status = self.status()
            if status.state in states:
                return status
            if status.state is State.ERROR and State.IDLE not in states:
                raise self._fault(status)
            if status.state is State.INPUT and self._give():
                deadline = self.transport.clock() + self.timing.run
                continue
            if self.transport.clock() > deadline:
                wanted = " or ".join(sorted(state.name for state in states))
                raise DeviceError(
                    f"{self.transport.name} is still in state {status.state.name} at descriptor {status.pc} after "
                    f"{self.timing.run:.0f} s (wanted {wanted}); reset it"
                )

    def _fault(self, status: Status) -> DeviceError:
        remedy = _REMEDY.get(status.fault)
        return DeviceError(
            f"{self.transport.name} stopped with {status.fault.name} at descriptor {status.pc}"
            + (f": {remedy}" if remedy else "")
        )

    # -- programs and images --------------------------------------------------------------------------------

    def load(self, program: Program, progress: Progress | None = None) -> None:
        """Load a program, unless the device holds it already. Its hash is checked by the device before the first image.

        Raises
        ------
        DeviceError
            If it was compiled for another configuration, or the line fails.
        """
        if program.config_digest != self.identity.config_digest:
            raise DeviceError(
                f"program {program.name} was compiled for configuration {program.config_name}, "
                f"{self.transport.name} has {named(self.identity.config_digest)}; {advice(self.identity.config_digest)}"
            )
        self._loaded = None
        self.reset()
        total = sum(len(words) for _, words in program.sections())
        if not self.holds(program):
            self._send_words(program, progress, total)
        if progress is not None:
            progress(total, total)
        self._loaded = shape_of(program)

    def holds(self, program: Program) -> bool:
        """Whether the device has this program, and its hash has been checked since it was last written to."""
        head = program.desc[: contract.DESCRIPTOR_WORDS]
        if not self.status().armed:
            return False
        return bool(np.array_equal(self.read(Region.DESC, 0, len(head)), head))

    def _send_words(self, program: Program, progress: Progress | None, total: int) -> None:
        """All sections in one stream."""
        stream = Stream(self._session, contract.STREAM_WORDS, self._payload)
        for region, words in program.sections():
            stream.put(struct.pack("<II", contract.address(region, 0), len(words)))
            stream.put(words.astype("<u4").tobytes())
        while not stream.delivered:
            stream.work(wait=True)
            if progress is not None:
                progress(max(0, total - stream.unsent // WORD_BYTES), total)
        stream.close()

    def attach(self, program: Program) -> None:
        """Go on with a program that was loaded by other means, or in an earlier session."""
        self.attach_shape(shape_of(program))

    def attach_shape(self, shape: Shape) -> None:
        """The same for whatever takes and gives so much."""
        self._loaded = shape

    def infer(self, codes: NDArray[np.uint8]) -> Inference:
        """Compute one image.

        Parameters
        ----------
        codes : uint8 array
            In C order as the device takes them: record by record (row, column, time step), channel fastest.

        Raises
        ------
        InputError
            If the number of codes is not that of the program's input.
        DeviceError
            If no program is loaded, the device stops with a fault, or the line fails.
        """
        if self._loaded is None:
            raise DeviceError(f"no program is loaded into {self.transport.name}")
        data = self._loaded.bytes_of(codes)
        self.start()
        self.feed(data)
        self._finish({State.DONE})
        return Inference(self.logits(), self.read_register(Csr.CYCLES))

    def stream(self, images: Iterable[NDArray[np.uint8] | None]) -> Iterator[Inference]:
        """Compute images as fast as line and array allow: the next ones arrive while one computes.

        Parameters
        ----------
        images : iterable of uint8 arrays, as for :meth:`infer`
            Taken as the device has room. None: there is no image now, but there may be one later.

        Yields
        ------
        Inference
            Of every image, in order.

        Raises
        ------
        InputError, DeviceError
            As of :meth:`infer`. All images whose results were not yielded must be repeated.
        """
        if self._loaded is None:
            raise DeviceError(f"no program is loaded into {self.transport.name}")
        if self.status().state not in _AT_REST:
            self.reset()
        if self._halt_after != contract.NO_HALT:
            self.write_register(Csr.HALT_AFTER, contract.NO_HALT)
            self._halt_after = contract.NO_HALT
        stream = Stream(self._session, self._loaded.n_outputs, self._payload)
        try:
            yield from self._streamed(stream, iter(images), self._loaded)
        except StreamError as error:
            if error.status == LinkStatus.FAULT:
                status = self.status()
                stream.close()
                raise self._fault(status) from None
            raise
        except DeviceError:
            raise
        except BaseException:  # given up, or a bad image: stop computing
            with contextlib.suppress(DeviceError):
                self.reset()
            raise
        stream.close()

    def _streamed(
        self, stream: Stream, images: Iterator[NDArray[np.uint8] | None], shape: Shape
    ) -> Iterator[Inference]:
        put = got = 0
        more = True
        while more or got < put:
            while more and stream.unsent < READ_AHEAD:
                try:
                    codes = next(images)
                except StopIteration:
                    more = False
                    break
                if codes is None:
                    break
                stream.put(shape.bytes_of(codes))
                put += 1
            stream.work(wait=True, idle=got == put)
            while len(stream.words) >= contract.RECORD_HEAD + shape.n_outputs:
                number, cycles, waited = (stream.words.popleft() & 0xFFFFFFFF for _ in range(contract.RECORD_HEAD))
                if number != got & 0xFFFFFFFF:
                    raise DeviceError(f"{self.transport.name} sent result {number} in the place of {got}; reset it")
                logits = np.array([stream.words.popleft() for _ in range(shape.n_outputs)], dtype=np.int64)
                got += 1
                yield Inference(logits, cycles, waited)

    def feed(self, data: bytes) -> None:
        """Hand over the codes of one image, as soon as the sequencer is in state INPUT.

        A device that takes the image some rows at a time gets the others in :meth:`wait`.
        """
        self._wait({State.INPUT})
        self._input, self._given = data, 0
        self._give()

    def _give(self) -> bool:
        """Send input until none is left or the core computes rows of what it has; whether it took any."""
        begin = self._given
        while self._given < len(self._input):
            part = self._input[self._given : self._given + self._payload]
            status, _ = self._session.request(LinkOp.INPUT, struct.pack("<I", self._given) + part)
            if status in (LinkStatus.NOT_READY, LinkStatus.BAD_OFFSET):
                self._explain_input()
            if status == LinkStatus.NOT_READY:  # it may have taken a part
                taken = self.read_register(Csr.INPUT_BYTES)
                if not self._given <= taken <= self._given + len(part):
                    raise DeviceError(
                        f"{self.transport.name} says that it took {taken} bytes of an image, it had {self._given}; "
                        "reset it"
                    )
                self._given = taken
                break
            self._accepted(LinkOp.INPUT, status, f"byte {self._given}")
            self._given += len(part)
        return self._given > begin

    def _explain_input(self) -> None:
        """A fault is the better message, if there is one."""
        status = self.status()
        if status.state is State.ERROR:
            raise self._fault(status)

    def logits(self) -> NDArray[np.int64]:
        """Membrane potentials of the last layer, int64 array (n_outputs,); after DONE."""
        if self._loaded is None:
            raise DeviceError(f"no program is loaded into {self.transport.name}")
        return self.read(Region.MEMBRANE, 0, self._loaded.n_outputs).view(np.int32).astype(np.int64)

    def counters(self, n_descriptors: int) -> NDArray[np.uint32]:
        """Counters of the last image, uint32 array (n_descriptors, COUNTERS)."""
        words = self.read(Region.COUNTER, 0, n_descriptors * contract.COUNTERS)
        return words.reshape(n_descriptors, contract.COUNTERS)


def shape_of(program: Program) -> Shape:
    """Input bytes and outputs, from the descriptors. Raises InputError if that is not a PROGRAM descriptor."""
    opcode, fields = program.descriptor(0)
    if opcode is not contract.Opcode.PROGRAM:
        raise InputError(f"program {program.name}: descriptor 0 is {opcode.name}, not PROGRAM")
    return Shape(fields["in_channels"] * program.input_records, fields["n_outputs"])


def _check_range(region: Region, offset: int, words: int) -> None:
    if offset < 0 or words < 0 or offset + words > 1 << contract.OFFSET_BITS:
        raise InputError(f"{words} words from {offset} on leave region {region.name}")
