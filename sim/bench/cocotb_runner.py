"""cocotb's Verilator runner, with what it fixes made choosable: visible signals, compiler flags, the tools' place."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from cocotb_tools import runner

from reverb_fpga.hw import processes

from .. import verilate

__all__ = ["PortsRunner"]

runner.MAX_PARALLEL_BUILD_JOBS = verilate.BUILD_JOBS

_STEERING = ("WAVES", "GUI", "RANDOM_SEED", "COVERAGE", "COVERAGE_RCFILE", "PYGPI_USERS")


@contextmanager
def _own_environment() -> Iterator[None]:
    """Without the variables by which a shell steers cocotb: what a bench does is its own options' business."""
    steering = {name: os.environ[name] for name in list(os.environ) if name in _STEERING or name.startswith("COCOTB_")}
    for name in steering:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(steering)


class PortsRunner(runner.Verilator):
    """Does not make every signal public (a control file says which are), which makes models many times faster.

    Parameters
    ----------
    make_variables : str
        Definitions for the compile step, as in MAKEFLAGS.
    objects : sequence of Path
        Object files of Verilator's runtime that need not be compiled again.
    modules : Path, optional
        Directory of bench modules.
    """

    def __init__(self, make_variables: str = "", objects: Sequence[Path] = (), modules: Path | None = None) -> None:
        super().__init__()
        self._verilator, self._tools = verilate.verilator_environment()
        self._make_variables = make_variables
        self._objects = objects
        self._modules = modules

    def build(self, *arguments: Any, **options: Any) -> None:
        with _own_environment():
            super().build(*arguments, **options)

    def test(self, *arguments: Any, **options: Any) -> Path:
        with _own_environment():
            return super().test(*arguments, **options)

    def _execute_cmds(self, cmds: Any, cwd: Any, stdout: TextIO | None = None) -> None:
        for command in cmds:
            code = processes.run(command, cwd=cwd, env=self.env, stdout=stdout, stderr=stdout).returncode
            if code:
                raise RuntimeError(f"{Path(command[0]).name} ended with exit code {code}")

    def _simulator_in_path_build_only(self) -> None:
        self.executable = str(self._verilator)

    def _set_env_common(self) -> None:
        self.env.update({name: self._tools[name] for name in ("VERILATOR_ROOT", "PATH")})
        self.env["MAKEFLAGS"] = self._make_variables
        os_path = self.env["PATH"]
        super()._set_env_common()  # takes over the environment, ours included; then adds to it
        self.env["PATH"] = f"{os_path}{os.pathsep}{self.env['PATH']}"
        self.env["VERILATOR_ROOT"] = self._tools["VERILATOR_ROOT"]
        self.env["MAKEFLAGS"] = self._make_variables
        if self._modules is not None:
            self.env["PYTHONPATH"] = f"{self._modules}{os.pathsep}{self.env['PYTHONPATH']}"

    def _build_command(self) -> list[list[str]]:
        verilator, make = super()._build_command()
        commands = [[word for word in verilator if word != "--public-flat-rw"]]
        if self._objects:  # copied after Verilator ran, so that make finds them newer than its makefile
            commands.append(["cp", *map(str, self._objects), str(self.build_dir)])
        return [*commands, list(make)]
