"""Saved views of a waveform: the signals that matter, for GTKWave and for Surfer.

Both are made from the header of the VCD file itself, so that names and widths are those of the configuration.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

__all__ = ["VIEW", "VIEW_SUFFIXES", "mend_names", "signals", "write_views"]

VIEW: dict[str, tuple[str, ...]] = {
    "schedule": ("clk", "sequencer.state", "sequencer.pc", "sequencer.opcode", "sequencer.fault"),
    "image": ("bytes__valid", "bytes__ready", "bytes__payload"),
    "walker": ("gather.walker.valid", "gather.walker.source"),
    "dispatcher": (
        "gather.dispatcher.busy", "gather.dispatcher.stall_table", "gather.dispatcher.stall_drain",
        "gather.dispatcher.stall_steal",
    ),
    "array": (
        "lanes.beat__valid", "lanes.beat__first", "lanes.beat__last", "lanes.beat__x", "lanes.beat__row",
        "lanes.captured__strobe",
    ),
    "neurons": ("neuron.sequencer.op_valid", "neuron.entry_valid", "neuron.stall_emit"),
    "store": (
        "neuron.emitter.level", "neuron.emitter.act_write__en", "neuron.emitter.act_write__data",
        "neuron.emitter.count_write__en",
    ),
}  # fmt: skip
"""Groups in the order of the data, and the signals of each, without the core's own path."""

VIEW_SUFFIXES = {"gtkwave": ".gtkw", "surfer": ".sucl"}
_CORE = "TOP.top."
_BIT, _HEX, _COMMENT = "@28", "@22", "@200"  # GTKWave's flags of what follows
_OF_YOSYS = re.compile(rb"\$auto\$\S+")
_END = b"$enddefinitions"
_HEAD = ("[size] 1400 900", "[pos] -1 -1", "[sst_expanded] 0", "[signals_width] 260")
_ZOOM = -4  # GTKWave: forty clocks in the window


def signals(waveform: Path) -> dict[str, str]:
    """Signals that the header of a VCD file declares: full name to range, ``[7:0]`` or nothing."""
    return dict(_declared(waveform))


def _declared(waveform: Path) -> Iterator[tuple[str, str]]:
    scopes: list[str] = []
    with waveform.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            match line.split():
                case ["$scope", _, name, *_]:
                    scopes.append(name)
                case ["$upscope", *_]:
                    scopes.pop()
                case ["$var", _, _, _, name, span, "$end"]:
                    yield ".".join([*scopes, name]), span
                case ["$var", _, _, _, name, "$end"]:
                    yield ".".join([*scopes, name]), ""
                case ["$enddefinitions", *_]:
                    return


def mend_names(waveform: Path) -> None:
    """Names that yosys made hold colons, which GTKWave takes for ranges and gives up: in the header, in place."""
    with waveform.open("r+b") as file:
        header = b""
        while _END not in header and (part := file.read(1 << 20)):
            header += part
        file.seek(0)
        if (end := header.find(_END)) >= 0:
            file.write(_OF_YOSYS.sub(lambda name: name[0].replace(b":", b"_").replace(b".", b"_"), header[:end]))


def write_views(waveform: Path) -> tuple[Path, Path, tuple[str, ...]]:
    """Write ``NAME.gtkw`` and ``NAME.sucl`` beside ``NAME.vcd``.

    Returns
    -------
    saved, commands : Path
        For GTKWave and for Surfer.
    missing : tuple of str
        Signals of :data:`VIEW` that the file does not have; they are left out.
    """
    declared = signals(waveform)
    view = {
        group: {_CORE + name: declared[_CORE + name] for name in names if _CORE + name in declared}
        for group, names in VIEW.items()
    }
    saved, commands = (waveform.with_suffix(end) for end in VIEW_SUFFIXES.values())
    saved.write_text("\n".join(_gtkwave(view)) + "\n")
    commands.write_text("\n".join(_surfer(view)) + "\n")
    wanted = (_CORE + name for names in VIEW.values() for name in names)
    return saved, commands, tuple(name for name in wanted if name not in declared)


def _gtkwave(view: dict[str, dict[str, str]]) -> Iterator[str]:
    yield from _HEAD
    yield f"*{_ZOOM}.0 -1"
    for group, members in view.items():
        yield from (_COMMENT, f"-{group}")
        for name, span in members.items():
            yield from (_HEX if span else _BIT, f"{name}{span}")


def _surfer(view: dict[str, dict[str, str]]) -> Iterator[str]:
    for group, members in view.items():
        yield f"divider_add {group}"
        yield from (f"variable_add {name}" for name in members)
    yield "zoom_fit"
