"""``reverb-fpga boards``."""

from __future__ import annotations

import json
from typing import Any

import click

from reverb_fpga.hw.boards.table import LinkKind
from reverb_fpga.hw.errors import DeviceError, printable

from .. import ports
from ..console import make_table, output

__all__ = ["command"]

_EXAMPLES = """\b
Examples:
  reverb-fpga boards
  reverb-fpga boards --json
"""


@click.command(name="boards", epilog=_EXAMPLES)
@click.option("--json", "as_json", is_flag=True, help="A JSON list on standard output, and nothing else there.")
def command(as_json: bool) -> None:
    """List the boards that are attached: port, rate, configuration, or what is in the way.

    Looks at serial ports whose USB identity is that of a known board; nothing is sent to any other device.
    """
    found = [_look(candidate) for candidate in ports.candidates()]
    if as_json:
        click.echo(json.dumps(found))
        return
    console = output()
    if not found:
        console.say("no board is attached: no serial port has the USB identity of a known board")
        return
    table = make_table("port", "link", "rate", "configuration", "device")
    for entry in found:
        rate = str(entry["baud"] or "")
        what = entry["configuration"] or f"- ({entry['error']})"
        table.add_row(printable(entry["port"]), entry["link"], rate, what, printable(entry["device"]))
    console.table(table)
    if note := _latency_note(found):
        console.say(note)


def _look(candidate: ports.Candidate) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "port": candidate.port, "device": candidate.description, "link": candidate.link.value,
        "baud": None, "configuration": None, "error": None, "low_latency": None,
    }  # fmt: skip
    try:
        rate = 115_200 if candidate.link is LinkKind.USB else None
        with ports.connect(candidate.port, rate) as (device, identity):
            entry["configuration"] = ports.configuration_name(identity.config_digest)
            entry["baud"] = None if candidate.link is LinkKind.USB else getattr(device.transport, "baud", None)
            entry["low_latency"] = getattr(device.transport, "low_latency", None)
    except DeviceError as error:
        entry["error"] = str(error)
    return entry


def _latency_note(found: list[dict[str, Any]]) -> str:
    slow = [entry["port"] for entry in found if entry["low_latency"] is False]
    if not slow:
        return ""
    return (
        f"{', '.join(map(printable, slow))}: low-latency mode could not be set; the overlay fills the bridge's "
        "packets, so nothing waits. All the same: echo 1 | sudo tee /sys/bus/usb-serial/devices/ttyUSB0/latency_timer"
    )
