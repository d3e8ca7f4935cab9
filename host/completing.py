"""What a shell offers for an argument that is a model."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from .bundled import bundled_models

__all__ = ["complete_models"]


def complete_models(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Bundled models by name, and files."""
    names = [CompletionItem(name) for name in bundled_models() if name.startswith(incomplete)]
    return [*names, CompletionItem(incomplete, type="file")]
