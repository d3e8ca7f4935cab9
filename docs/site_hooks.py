"""Pages of the site that are made from the code, and those that lie outside of ``docs``.

``commands.md`` is the help of every command, ``layers.md`` what a network's description can say, ``CONTRIBUTING.md``
and ``CHANGELOG.md`` are the repository's own. mkdocs calls these functions.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import click
from mkdocs.structure.files import File, Files

from reverb_fpga.host import cli
from reverb_fpga.hw.boards.table import BOARDS
from reverb_fpga.hw.config import PRESETS
from reverb_fpga.models import layers
from reverb_fpga.models.description import SYSTEMS
from reverb_fpga.models.zoo import ARCHITECTURES

ROOT = Path(__file__).parent.parent
OUTSIDE = ("CONTRIBUTING.md", "CHANGELOG.md")
_ROLE = re.compile(
    r":(?:class|func|meth|mod|attr|data):<code>~?([^<]*)</code>|:(?:class|func|meth|mod|attr|data):`~?([^`]*)`"
)
_SPECS = ("LayerSpec", "WeightSpec", "NeuronSpec", "PoolSpec", "GateSpec", "TensorSpec", "InputSpec")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages."""
    made = {"commands.md": _commands(), "layers.md": _layers(), **{name: _outside(name) for name in OUTSIDE}}
    decisions = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
    section = next(entry for part in config.nav for entry in next(iter(part.values())) if "Decisions" in entry)
    section["Decisions"] = ["decisions/README.md", *(f"decisions/{path.name}" for path in decisions)]
    for name, content in made.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links to what lies outside of ``docs`` lead to its page here."""
    for name in OUTSIDE:
        markdown = markdown.replace(f"](../{name})", f"]({name})")
    return markdown


def on_page_content(html: str, **_: Any) -> str:
    """Roles of docstrings as code."""
    return _ROLE.sub(lambda found: f"<code>{(found[1] or found[2]).rsplit('.', 1)[-1]}</code>", html)


def _outside(name: str) -> str:
    text = (ROOT / name).read_text(encoding="utf-8")
    return re.sub(r"\]\(docs/", "](", text)


def _commands() -> str:
    parts = [
        "# Commands",
        "",
        "What `--help` prints. Results go to standard output, progress and errors to standard error.",
    ]
    context = click.Context(cli.cli, info_name=cli.PROGRAM, terminal_width=100, max_content_width=100)
    for name in cli.COMMANDS:
        command = cli.cli.get_command(context, name)
        assert command is not None
        child = click.Context(command, info_name=name, parent=context, terminal_width=100, max_content_width=100)
        parts += ["", f"## {name}", "", "```text", command.get_help(child), "```"]
    return "\n".join(parts)


_INTRODUCTION = """# Supported layers

Made from the code: what a description (`NetworkSpec`, the JSON in a checkpoint) can say. The compiler takes all of it,
as far as it fits a configuration; what does not fit is refused by layer and reason ([Compiler](compiler.md)).

Systems: {systems}. Architectures of the zoo: {architectures}.
"""


_MODULES = """
## Modules of other frameworks

What `rf.compile` has a counterpart for; how each is taken, and what is refused: [Your own network](import.md).
Subclasses that compute the same, and modules that are made of these, are followed.

| from | what |
|---|---|
| layers of `torch.nn`, and those of SpikingJelly of the same names | {layers} |
| functions of torch, and methods of tensors | {functions} |
| neurons | {neurons} |
"""


def _modules() -> list[str]:
    """From the importer's own tables; they need torch, which a build of the site may do without."""
    try:
        from reverb_fpga.compiler.frontends import functions, layers, neurons
    except ModuleNotFoundError:
        return [
            "",
            "## Modules of other frameworks",
            "",
            "This site was built without torch: see [Your own network](import.md).",
        ]
    named = (f"{package}.{name}" for package, name in neurons._READERS)
    tables = {"layers": layers._LAYERS, "functions": sorted(functions.FUNCTIONS), "neurons": named}
    return [_MODULES.format(**{name: _quoted(table) for name, table in tables.items()})]


def _layers() -> str:
    parts = [_INTRODUCTION.format(systems=_quoted(SYSTEMS), architectures=_quoted(ARCHITECTURES))]
    for name in _SPECS:
        parts += _spec(getattr(layers, name))
    return "\n".join([*parts, *_modules(), *_configurations()])


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _spec(spec: type) -> list[str]:
    head = inspect.getdoc(spec) or ""
    parts = ["", f"## {spec.__name__}", "", _plain(re.split(r"\n(?:Attributes|Parameters)\n-+", head)[0]), ""]
    parts += ["| field | values | what |", "|---|---|---|"]
    hints, said = get_type_hints(spec), _said(head)
    for field in dataclasses.fields(spec):
        what = _plain(said.get(field.name, "")).replace("|", "\\|")
        parts.append(f"| `{field.name}` | {_values(hints[field.name])} | {what} |")
    return parts


def _plain(text: str) -> str:
    return " ".join(text.replace("``", "`").split())


def _said(text: str) -> dict[str, str]:
    """What a docstring says of each of its fields."""
    body = re.split(r"\n(?:Attributes|Parameters)\n-+\n", text)
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?=\S)", body[1]) if len(body) > 1 else ():
        head, _, rest = entry.partition("\n")
        names = head.partition(" : ")[0]
        for name in names.split(","):
            found[name.strip()] = rest
    return found


def _values(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(hint))
    if isinstance(hint, type) and not get_args(hint):
        return hint.__name__
    parts = [_values(part) for part in get_args(hint) if part is not ...]
    if get_origin(hint) is tuple:
        return f"{parts[0]}, ..." if ... in get_args(hint) else ", ".join(parts)
    return " or ".join("none" if part == "NoneType" else part for part in parts)


def _configurations() -> list[str]:
    shown = (
        "lanes",
        "ports",
        "additions_per_cycle",
        "act_words",
        "count_words",
        "weight_rows",
        "layer_groups",
        "skip_words",
        "max_timesteps",
    )
    parts = [
        "",
        "## What a configuration holds",
        "",
        f"| configuration | boards | {' | '.join(shown)} |",
        "|---" * (len(shown) + 2) + "|",
    ]
    for name, config in PRESETS.items():
        boards = ", ".join(board.name for board in BOARDS.values() if board.config == name) or "simulation"
        parts.append(f"| `{name}` | {boards} | {' | '.join(f'{getattr(config, field):,}' for field in shown)} |")
    return parts
