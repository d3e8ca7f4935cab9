"""Program files: round trip, determinism, and that damage is always one clear error."""

from __future__ import annotations

import dataclasses
import json
import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from reverb_fpga.compiler import rvb
from reverb_fpga.compiler.backend import Hints, lower
from reverb_fpga.compiler.program import Program
from reverb_fpga.compiler.testing import RandomOptions, plain_meta, random_network
from reverb_fpga.hw.config import preset
from reverb_fpga.hw.errors import InputError


@pytest.fixture(scope="module")
def program() -> Program:
    rng = np.random.default_rng(7)
    network = random_network(rng, RandomOptions(max_side=6, max_channels=6, max_layers=2))
    return lower(network, preset("tiny"), plain_meta(network), Hints(max_strip_rows=2))


def _same(a: Program, b: Program) -> bool:
    for field in dataclasses.fields(Program):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if not (np.array_equal(x, y) if isinstance(x, np.ndarray) else x == y):
            return False
    return True


def test_round_trip_is_exact_and_deterministic(program: Program, tmp_path: Path) -> None:
    first, second = rvb.save(program, tmp_path / "a.rvb"), rvb.save(program, tmp_path / "b.rvb")
    assert first.read_bytes() == second.read_bytes()
    assert _same(rvb.load(first), program)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.rvb", "b.rvb"]


def _loads_or_refuses(path: Path, program: Program) -> bool:
    """True if refused; whatever loads must be the very same program."""
    try:
        loaded = rvb.load(path)
    except InputError as error:
        message = str(error)
    else:
        assert _same(loaded, program)
        return False
    assert "\n" not in message
    assert message.startswith(str(path))
    return True


def test_flipped_bits_are_found(program: Program, tmp_path: Path) -> None:
    good = rvb.save(program, tmp_path / "good.rvb").read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / "bad.rvb"
    refused = 0
    for position in rng.integers(0, 8 * len(good), 400):
        data = bytearray(good)
        data[position // 8] ^= 1 << (position % 8)
        path.write_bytes(data)
        refused += _loads_or_refuses(path, program)
    assert refused > 300


def test_truncated_files_are_found(program: Program, tmp_path: Path) -> None:
    good = rvb.save(program, tmp_path / "good.rvb").read_bytes()
    path = tmp_path / "bad.rvb"
    for length in [*range(0, len(good), max(1, len(good) // 60)), len(good) - 1]:
        path.write_bytes(good[:length])
        assert _loads_or_refuses(path, program)


def test_random_bytes_are_found(program: Program, tmp_path: Path) -> None:
    good = rvb.save(program, tmp_path / "good.rvb").read_bytes()
    rng = np.random.default_rng(1)
    path = tmp_path / "bad.rvb"
    for _ in range(100):
        data = bytearray(good)
        start = int(rng.integers(0, len(good)))
        data[start : start + 16] = rng.bytes(16)
        path.write_bytes(data)
        _loads_or_refuses(path, program)


def _rewrite(path: Path, target: Path, change: dict[str, object]) -> Path:
    """A well-formed zip whose manifest differs."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in source.namelist():
            content = source.read(name)
            if name == "manifest.json":
                content = json.dumps({**json.loads(content), **change}).encode()
            archive.writestr(name, content)
    return target


def test_files_of_version_1_are_read(program: Program, tmp_path: Path) -> None:
    """Every layer read the one before it, and had its additions at the top."""
    good = rvb.save(program, tmp_path / "good.rvb")
    with zipfile.ZipFile(good) as archive:
        layers = json.loads(archive.read("manifest.json"))["layers"]
    for layer in layers:
        (only,) = layer.pop("maps")
        layer["additions"] = only["additions"]
    old = _rewrite(good, tmp_path / "old.rvb", {"version": 1, "layers": layers})
    assert rvb.load(old).layers == program.layers


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 3}, "version 3"),
        ({"contract": 99}, "contract 99"),
        ({"version": True}, "version True"),
        ({"format": "zip"}, "not a reverb-fpga program"),
        ({"labels": ["a"]}, "outputs and labels differ"),
        ({"labels": []}, "labels"),
        ({"timesteps": -1}, "timesteps"),
        ({"logit_scale": "1"}, "logit_scale"),
        ({"logit_scale": float("inf")}, "logit_scale"),
        ({"layers": []}, "layers"),
        ({"input": {}}, "input"),
        ({"target": {"name": "ulx3s-85f", "digest": "0" * 16}}, "compiled for configuration ulx3s-85f"),
        ({"target": {"name": "nowhere", "digest": "0" * 16}}, "no configuration 'nowhere'"),
        ({"sections": {}}, "sections"),
        ({"extra": 1}, "top level"),
        ({"name": "two\nlines"}, "name"),
    ],
)
def test_manifest_fields_are_checked(program: Program, tmp_path: Path, change: dict[str, object], message: str) -> None:
    bad = _rewrite(rvb.save(program, tmp_path / "good.rvb"), tmp_path / "bad.rvb", change)
    with pytest.raises(InputError, match=message):
        rvb.load(bad)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        rvb.load(tmp_path / "missing.rvb")
    with pytest.raises(InputError, match="cannot be read"):
        rvb.load(tmp_path)
    (tmp_path / "text.rvb").write_text("hello")
    with pytest.raises(InputError, match="not a program file"):
        rvb.load(tmp_path / "text.rvb")
    with zipfile.ZipFile(tmp_path / "zip.rvb", "w") as archive:
        archive.writestr("a", "b")
    with pytest.raises(InputError, match="its members are not"):
        rvb.load(tmp_path / "zip.rvb")


def test_a_bomb_is_not_unpacked(program: Program, tmp_path: Path) -> None:
    good = rvb.save(program, tmp_path / "good.rvb")
    bomb = tmp_path / "bomb.rvb"
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in source.namelist():
            archive.writestr(name, bytes(1 << 26) if name == "weight.bin" else source.read(name))
    with pytest.raises(InputError, match=r"weight.bin is larger"):
        rvb.load(bomb)


@pytest.mark.parametrize("trailer", [b"", b"PK\x06\x07" + bytes(16)])
def test_a_directory_of_many_members_is_not_read(tmp_path: Path, trailer: bytes) -> None:
    """Half a million entries: 23 MB of file would become several hundred of objects."""
    number = 500_000
    entry = b"PK\x01\x02" + bytes(42)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 7, 7, number * len(entry), 30, 0)
    path = tmp_path / "many.rvb"
    path.write_bytes(b"PK\x03\x04" + bytes(26) + entry * number + trailer + end)
    script = (
        "import resource, sys; from reverb_fpga.compiler import rvb; from reverb_fpga.hw.errors import InputError\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (100 << 20),) * 2)\n"
        "try: rvb.load(sys.argv[1])\n"
        "except InputError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "program file" in done.stdout


def test_a_layer_has_additions(program: Program, tmp_path: Path) -> None:
    """Reports divide by them."""
    first = program.layers[0]
    none = dataclasses.replace(first, maps=(dataclasses.replace(first.maps[0], additions=0),))
    changed = dataclasses.replace(program, layers=(none, *program.layers[1:]))
    with pytest.raises(InputError, match=r"layers\[0\].maps: a layer without additions"):
        rvb.save(changed, tmp_path / "none.rvb")


def test_a_fifo_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.rvb")
    with pytest.raises(InputError, match=r"cannot be read .*not a regular file"):
        rvb.load(tmp_path / "pipe.rvb")


def test_configuration_is_checked(program: Program, tmp_path: Path) -> None:
    path = rvb.save(program, tmp_path / "a.rvb")
    with pytest.raises(InputError, match="compiled for configuration tiny"):
        rvb.load(path, preset("ulx3s-85f"))
