"""``reverb-fpga completion``."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from reverb_fpga.hw.errors import EnvironmentMissing

__all__ = ["command"]

_SHELLS = ("bash", "zsh", "fish")
_EXAMPLES = """\b
Examples:
  reverb-fpga completion bash >> ~/.bashrc
  reverb-fpga completion zsh >> ~/.zshrc
  reverb-fpga completion fish > ~/.config/fish/completions/reverb-fpga.fish
"""


@click.command(name="completion", epilog=_EXAMPLES)
@click.argument("shell", type=click.Choice(_SHELLS))
def command(shell: str) -> None:
    """Print the script that completes commands, options and models in a shell."""
    from ..cli import PROGRAM, cli, complete_variable

    kind = get_completion_class(shell)
    assert kind is not None
    try:
        script = kind(cli, {}, PROGRAM, complete_variable(PROGRAM)).source()
    except RuntimeError as error:
        raise EnvironmentMissing(f"no completion for this {shell}: {error}") from None
    click.echo(script)
