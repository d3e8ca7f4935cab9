"""cocotb's Verilator runner, with what it fixes made choosable: visible signals, compiler flags, the tools' place."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from cocotb_tools import runner

from .. import verilate

__all__ = ["PortsRunner"]

runner.MAX_PARALLEL_BUILD_JOBS = verilate.BUILD_JOBS


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
