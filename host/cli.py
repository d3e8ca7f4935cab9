"""The ``reverb-fpga`` command: a table of commands, loaded when used, and the one place where errors become exit codes.

Results go to standard output, progress and errors to standard error.
"""

from __future__ import annotations

import errno
import importlib
import importlib.metadata
import io
import os
import signal
import sys
from contextlib import suppress
from typing import NoReturn

import click
from click.shell_completion import CompletionItem

from reverb_fpga.hw import interrupts
from reverb_fpga.hw.errors import Interrupted, ReverbError, printable

__all__ = ["COMMANDS", "PROGRAM", "cli", "complete_variable", "main", "run"]

COMMANDS: dict[str, tuple[str, str]] = {
    "classify": ("classify", "Classify images with a compiled model: golden model, gateware or board."),
    "train": ("train", "Train a network on a data set."),
    "compile": ("compile", "Compile a trained network for a board (NAME.rvb)."),
    "verify": ("verify", "Compare the golden model with the gateware, tensor by tensor."),
    "simulate": ("simulate", "Run a program in the simulated gateware; waveforms."),
    "build": ("build", "Make a bitstream for a board, or export its project."),
    "program": ("program", "Load a bitstream into a board."),
    "report": ("report", "Print the figures of a build or of a compiled model."),
    "compare": ("compare", "Two models, or two builds, side by side."),
    "spikes": ("spikes", "What every layer fires on one image, as a picture."),
    "data": ("data", "Which data sets a folder holds, and whether they are whole."),
    "boards": ("boards", "List the boards that are attached."),
    "info": ("info", "Versions, configurations, boards, bundled models, tools."),
    "doctor": ("doctor", "What is installed, what is missing, and how to get it."),
    "completion": ("completion", "Print the script that completes commands in a shell."),
}
"""Command name to (module in :mod:`reverb_fpga.host.commands`, one-line help)."""

PROGRAM = "reverb-fpga"


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

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Commands by the table, without their modules; then options of the group."""
        found = [CompletionItem(name, help=text) for name, (_, text) in COMMANDS.items() if name.startswith(incomplete)]
        return found or click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog="'reverb-fpga COMMAND --help' shows options and examples. With a fresh install, try: reverb-fpga classify",
)
@click.version_option(package_name="reverb-fpga", prog_name=PROGRAM)
def cli() -> None:
    """Binary-weight, real-valued-spike networks on FPGAs: train, compile, verify, build, classify."""


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal or file that is not UTF-8 must not end a command
            stream.reconfigure(errors="backslashreplace")
    run(cli, PROGRAM, arguments)


def run(command: click.Command, name: str, arguments: list[str] | None = None) -> NoReturn:
    """Run `command` and exit; an error is one line.

    The exit code is 0, 1 (device), 2 (input), 3 (build, environment) or, where a signal asked for the end, 128 and its
    number: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP. A reader of our output that goes away ends the command
    quietly with 0.
    """
    with interrupts.unwinding():
        _check_streams(name)
        try:
            code = _invoke(command, name, arguments)
            sys.stdout.flush()
        except ReverbError as error:
            _complain(name, str(error))
            _leave(_signal_code() if isinstance(error, Interrupted) else error.exit_code)
        except (click.exceptions.Abort, KeyboardInterrupt):
            _leave(_signal_code())
        except click.ClickException as error:
            _usage(name, error)
            _leave(error.exit_code)
        except OSError as error:
            if error.errno != errno.EPIPE:
                _complain(name, f"{error.filename or 'system'}: {error.strerror or error}")
            _leave(0 if error.errno == errno.EPIPE else ReverbError.exit_code)
        except SystemExit as stop:  # rich meets a closed pipe with an exit of its own
            _leave(0 if isinstance(stop.__context__, BrokenPipeError) else stop.code)
        _leave(code if isinstance(code, int) else 0)


def complete_variable(name: str) -> str:
    """What a shell sets in the environment when it asks for completions."""
    return f"_{name}_COMPLETE".replace("-", "_").upper()


def _invoke(command: click.Command, name: str, arguments: list[str] | None) -> object:
    """What click's own ``main`` does, but for closed pipes: it ends the process with 1 there."""
    if complete_variable(name) in os.environ:  # a shell that asks for completions
        return command.main(args=arguments, prog_name=name, standalone_mode=False)
    try:
        with command.make_context(name, list(sys.argv[1:] if arguments is None else arguments)) as context:
            return command.invoke(context)
    except click.exceptions.Exit as stop:
        return stop.exit_code


def _signal_code() -> int:
    return 128 + (interrupts.arrived() or signal.SIGINT)


def _usage(name: str, error: click.ClickException) -> None:
    """One line; or, where a command was called without anything, its help."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is not None and error.message == context.get_help():  # click 8.2 and later report it as an error
        print(error.message, file=sys.stderr)
        return
    hint = f" (see {context.command_path} --help)" if context is not None else ""
    _complain(name, f"{error.format_message()}{hint}")


def _complain(name: str, message: str) -> None:
    """One line on standard error, if anyone listens there."""
    with suppress(OSError):
        print(f"{name}: error: {printable(' '.join(message.split()))}", file=sys.stderr, flush=True)


def _check_streams(name: str) -> None:
    """Results must have somewhere to go: say so before the work. Standard error may be missing."""
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for the rest of the process
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        _complain(name, "standard output is closed, so results have nowhere to go; to discard them use >/dev/null")
        sys.exit(ReverbError.exit_code)


def _leave(code: int | str | None) -> NoReturn:
    """Exit. What cannot be written any more is dropped, or the interpreter would complain about it at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)


if __name__ == "__main__":
    main()
