"""A core in cocotb as a target of :class:`~reverb_fpga.sim.verify.Verifier`.

The verifier is blocking code; it runs in a thread of ``cocotb.bridge`` and comes back into the simulation through
``cocotb.resume``.
"""

from __future__ import annotations

from cocotb.task import resume
from cocotb.triggers import ValueChange

from reverb_fpga.compiler.program import Program
from reverb_fpga.hw import contract
from reverb_fpga.hw.contract import CONTROL_FIELDS, NO_HALT, STATUS_FIELDS, Csr, Fault, Region, State
from reverb_fpga.hw.errors import DeviceError

from .buses import HostInitiator
from .environment import Bench
from .streams import StreamSource

__all__ = ["CoreTarget"]

_SETTLED = (State.HALTED, State.DONE, State.ERROR)
_CONTROL_CYCLES = 4  # from taking a write of CONTROL to the state it leads to


class CoreTarget:
    """A core, through its host bus and its input stream.

    Parameters
    ----------
    bench : Bench
        Around a :class:`~reverb_fpga.hw.core.Core`.
    bus : HostInitiator
    source : StreamSource
    """

    def __init__(self, bench: Bench, bus: HostInitiator, source: StreamSource) -> None:
        self._bench = bench
        self._source = source
        self._state = bench.port("state")
        self._write = resume(bus.write)
        self._read = resume(bus.read)
        self._send = resume(source.send)
        self._tick = resume(bench.tick)
        self._settle = resume(self._until_settled)

    def load(self, program: Program) -> None:
        """Write all sections."""
        for region, words in program.sections():
            self._write(contract.address(region, 0), map(int, words))

    def start(self, halt_after: int = NO_HALT) -> None:
        """Begin an image."""
        self._control("start", halt_after)

    def resume(self, halt_after: int = NO_HALT) -> None:
        """Go on after a halt."""
        self._control("resume", halt_after)

    def _control(self, bit: str, halt_after: int) -> None:
        self._write(contract.address(Region.CSR, Csr.HALT_AFTER), [halt_after])
        self._write(contract.address(Region.CSR, Csr.CONTROL), contract.pack(CONTROL_FIELDS, {bit: 1}, 1))
        self._tick(_CONTROL_CYCLES)

    def feed(self, data: bytes) -> None:
        """Until the core has taken all bytes."""
        self._send(data)
        self._tick(_CONTROL_CYCLES)

    def wait(self) -> None:
        """Until it has halted or is done. Raises DeviceError if it has faulted."""
        if self._settle() is State.ERROR:
            status = contract.unpack(STATUS_FIELDS, self.read(Region.CSR, Csr.STATUS, 1))
            raise DeviceError(f"the core stopped: {Fault(status['error']).name} at descriptor {status['pc']}")

    async def _until_settled(self) -> State:
        while (state := State(int(self._state.value))) not in _SETTLED:
            await ValueChange(self._state)
        await self._bench.tick()
        return state

    def read(self, region: Region, offset: int, count: int) -> list[int]:
        """Consecutive words of a region."""
        return self._read(contract.address(region, offset), count)

    def csr(self, register: Csr) -> int:
        """Value of a register."""
        return self.read(Region.CSR, register, 1)[0]
