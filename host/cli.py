"""The ``reverb-fpga`` command: a table of commands, loaded when used, and the one place where errors become exit codes.

Results go to standard output, progress and errors to standard error.
"""

from __future__ import annotations

import errno
import importlib
import importlib.metadata
import io
import os
import sys
from typing import NoReturn

import click

from reverb_fpga.hw.errors import Interrupted, ReverbError, printable

__all__ = ["COMMANDS", "cli", "main", "run"]

COMMANDS: dict[str, tuple[str, str]] = {
    "classify": ("classify", "Classify images with a compiled model: golden model, gateware or board."),
    "train": ("train", "Train a network on a data set."),
    "compile": ("compile", "Compile a trained network for a board (NAME.rvb)."),
    "verify": ("verify", "Compare the golden model with the gateware, tensor by tensor."),
    "simulate": ("simulate", "Run a program in the simulated gateware; waveforms."),
    "build": ("build", "Make a bitstream for a board, or export its project."),
    "program": ("program", "Load a bitstream into a board."),
    "report": ("report", "Print the figures of a build or of a compiled model."),
    "info": ("info", "Versions, configurations, boards, bundled models, tools."),
}
"""Command name to (module in :mod:`reverb_fpga.host.commands`, one-line help)."""

_PROGRAM = "reverb-fpga"


class LazyGroup(click.Group):
    """A group that imports a command's module only when the command runs or its own help is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"reverb_fpga.host.commands.{COMMANDS[cmd_name][0]}")
        command = module.command
        if not isinstance(command, click.Command):
            raise TypeError(f"{module.__name__}.command is not a click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog="'reverb-fpga COMMAND --help' shows options and examples. With a fresh install, try: reverb-fpga classify",
)
@click.version_option(package_name="reverb-fpga", prog_name=_PROGRAM)
def cli() -> None:
    """Binary-weight, real-valued-spike networks on FPGAs: train, compile, verify, build, classify."""


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal or file that is not UTF-8 must not end a command
            stream.reconfigure(errors="backslashreplace")
    run(cli, _PROGRAM, arguments)


def run(command: click.Command, name: str, arguments: list[str] | None = None) -> NoReturn:
    """Run `command` and exit with 0, 1 (device), 2 (input), 3 (build, environment) or 130; an error is one line."""
    try:
        code = command.main(args=arguments, prog_name=name, standalone_mode=False)
        sys.stdout.flush()
    except ReverbError as error:
        _complain(name, str(error))
        sys.exit(error.exit_code)
    except (click.exceptions.Abort, KeyboardInterrupt):
        sys.exit(Interrupted.exit_code)
    except click.ClickException as error:
        _complain(name, f"{error.format_message()}{_help_hint(error)}")
        sys.exit(error.exit_code)
    except BrokenPipeError:
        _close_quietly()
    except OSError as error:
        if error.errno == errno.EPIPE:
            _close_quietly()
        _complain(name, f"{error.filename or 'system'}: {error.strerror or error}")
        sys.exit(ReverbError.exit_code)
    sys.exit(code if isinstance(code, int) else 0)


def _help_hint(error: click.ClickException) -> str:
    if isinstance(error, click.UsageError) and error.ctx is not None:
        return f" (see {error.ctx.command_path} --help)"
    return ""


def _complain(name: str, message: str) -> None:
    """One line on standard error."""
    print(f"{name}: error: {printable(' '.join(message.split()))}", file=sys.stderr)


def _close_quietly() -> NoReturn:
    """The reader of our output has gone: end without the interpreter complaining about the flush at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)


if __name__ == "__main__":
    main()
