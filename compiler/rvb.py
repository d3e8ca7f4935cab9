"""``NAME.rvb``: a compiled program as one file.

A zip of ``manifest.json`` (what people and the host must know, and the SHA-256 of every section) and one binary member
per section (little-endian 32-bit words). The same program always gives the same bytes. A file may come from a stranger:
every length is bounded before anything is unpacked, every field is checked, and the program is verified as the
compiler's own.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from reverb_fpga.compiler.manifest import FORMAT_VERSION, parse_manifest
from reverb_fpga.compiler.program import ArrayInput, Program, Section, section_capacity
from reverb_fpga.compiler.program_checks import check_program
from reverb_fpga.compiler.upgrade import OLD_VERSION, old_digest, upgraded
from reverb_fpga.hw.config import Config, preset
from reverb_fpga.hw.contract import CONTRACT_VERSION
from reverb_fpga.hw.errors import InputError
from reverb_fpga.models.files import read_regular, write_whole

__all__ = ["load", "save"]

SECTIONS = ("desc", "slot", "param", "weight", "act", "count")
_MANIFEST = "manifest.json"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # zip's own: files are the same whenever they are written
_MAX_FILE = 32 << 20  # six sections of at most 4 MiB, and the manifest
_MAX_DIRECTORY = 4096
_ZIP_END = struct.Struct("<4s4H2LH")  # end of central directory
_ZIP_LOCATOR = 20  # bytes of the record before it in a zip of more than 4 GiB, which would be believed instead
_MAX_MANIFEST = 1 << 20
# what zipfile is known to raise on damaged archives
_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError, OverflowError, OSError)


def save(program: Program, path: Path | str) -> Path:
    """Write ``program``: beside the target first, then renamed, so that there is never half a file.

    Raises
    ------
    InputError
        If the file cannot be written, or the loader would refuse it.
    """
    path = Path(path)
    manifest = _checked_manifest(program, path)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        members = [(_MANIFEST, manifest)]
        members += [(f"{name}.bin", _bytes(getattr(program, name))) for name in SECTIONS]
        for name, content in members:
            info = zipfile.ZipInfo(name, _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            info.create_system = 3
            archive.writestr(info, content, compresslevel=9)
    write_whole(path, buffer.getvalue())
    return path


def _checked_manifest(program: Program, path: Path) -> bytes:
    """The manifest as it is written, read once as the loader does: huge weights give numbers that it refuses."""
    try:
        text = json.dumps(_manifest(program), indent=1, sort_keys=True, allow_nan=False)
        parse_manifest(json.loads(text))
    except InputError as error:
        raise InputError(f"{path}: not written, for it could not be loaded: {error}") from None
    except ValueError:
        raise InputError(f"{path}: not written, for it could not be loaded: a number is not finite") from None
    return text.encode()


def _bytes(section: Section) -> bytes:
    return np.ascontiguousarray(section, dtype="<u4").tobytes()


def _manifest(program: Program) -> dict[str, Any]:
    return {
        "format": "reverb-fpga program",
        "version": FORMAT_VERSION,
        "contract": CONTRACT_VERSION,
        "name": program.name,
        "arch": program.arch,
        "system": program.system,
        "dataset": program.dataset,
        "timesteps": program.timesteps,
        "accuracy": program.accuracy,
        "labels": list(program.labels),
        "logit_scale": program.logit_scale,
        "input": {
            "channels": program.input.channels,
            "height": program.input.height,
            "width": program.input.width,
            "scale": list(program.input.scale),
            "offset": list(program.input.offset),
            "invert": program.input.invert,
            **_array(program.input.array),
        },
        "layers": [
            {
                "name": layer.name,
                "shape": list(layer.shape),
                "timesteps": layer.timesteps,
                "spiking": layer.spiking,
                "strips": [list(strip) for strip in layer.strips],
                "maps": [dataclasses.asdict(leg) for leg in layer.maps],
                **({} if layer.order is None else {"order": list(layer.order)}),
            }
            for layer in program.layers
        ],
        "target": {"name": program.config_name, "digest": f"{program.config_digest:016x}"},
        "sections": {
            name: {
                "words": len(getattr(program, name)),
                "sha256": hashlib.sha256(_bytes(getattr(program, name))).hexdigest(),
            }
            for name in SECTIONS
        },
    }


def _array(array: ArrayInput | None) -> dict[str, Any]:
    """Only where there is one: files of images are as they always were."""
    if array is None:
        return {}
    return {"array": {name: list(values) for name, values in dataclasses.asdict(array).items()}}


def load(path: Path | str, config: Config | None = None) -> Program:
    """Read and verify a program.

    Parameters
    ----------
    config : Config, optional
        What the program must be compiled for; the preset that it names if not given.

    Raises
    ------
    InputError
        Missing, not a .rvb, truncated, damaged, of another version or configuration, or inconsistent: one line.
    """
    path = Path(path)
    content = _read(path)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return _load(archive, config)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except _DAMAGE as error:
        raise InputError(f"{path}: damaged or truncated program file ({str(error)[:100]!r})") from None


def _load(archive: zipfile.ZipFile, config: Config | None) -> Program:
    description = parse_manifest(_unpack_manifest(archive))
    name, digest = description["config_name"], description["config_digest"]
    target = config or preset(name)
    old = description.pop("contract") == OLD_VERSION
    wanted = old_digest(target) if old else target.digest
    if digest != wanted:
        here = "which that version did not have" if wanted is None else f"{wanted:016x}"
        version = f" in version {OLD_VERSION}" if old else ""
        raise InputError(
            f"compiled for configuration {name} ({digest:016x}), not for {target.name} as it is here"
            f"{version} ({here}); compile it again"
        )
    description |= _sections(archive, description.pop("sections"), target)
    program = Program(**description)
    if old:
        program = upgraded(program, target)
    check_program(program, target)
    return program


def _read(path: Path) -> bytes:
    content = read_regular(path, _MAX_FILE)
    if content[:4] != b"PK\x03\x04":
        raise InputError(f"{path}: not a program file (.rvb); `reverb-fpga compile` makes one from a checkpoint")
    _check_directory(path, content)
    return content


def _check_directory(path: Path, content: bytes) -> None:
    """A zip's directory is read whole, its entries as objects of many times their bytes: ours has seven, at the end."""
    if len(content) < _ZIP_END.size or content[-_ZIP_LOCATOR - _ZIP_END.size :][:4] == b"PK\x06\x07":
        raise InputError(f"{path}: damaged or truncated program file")
    signature, *_, entries, size, _, comment = _ZIP_END.unpack(content[-_ZIP_END.size :])
    if signature != b"PK\x05\x06" or comment:
        raise InputError(f"{path}: damaged or truncated program file (it does not end as a zip without comment)")
    if entries != len(SECTIONS) + 1 or size > _MAX_DIRECTORY:
        raise InputError(f"{path}: a zip, but not a program file (.rvb): its members are not those of a program")


def _unpack_manifest(archive: zipfile.ZipFile) -> object:
    expected = {_MANIFEST, *(f"{name}.bin" for name in SECTIONS)}
    names = [info.filename for info in archive.infolist()]
    if set(names) != expected or len(names) != len(expected):
        raise InputError("a zip, but not a program file (.rvb): its members are not those of a program")
    text = _member(archive, _MANIFEST, _MAX_MANIFEST)
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise InputError("damaged program file (its manifest is not JSON)") from None


def _member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """Content of a member of at most ``limit`` bytes. Reading to its end also checks the zip's CRC-32."""
    info = archive.getinfo(name)
    if info.file_size > limit or info.compress_type != zipfile.ZIP_DEFLATED:
        raise InputError(f"member {name} is larger than {limit} bytes or not deflated")
    with archive.open(info) as stream:
        content = stream.read(limit + 1)
    if len(content) != info.file_size:
        raise InputError(f"member {name} has {len(content)} bytes, its header says {info.file_size}")
    return content


def _sections(archive: zipfile.ZipFile, listed: Mapping[str, tuple[int, str]], config: Config) -> dict[str, Section]:
    capacity = section_capacity(config)
    sections: dict[str, Section] = {}
    for name in SECTIONS:
        words, digest = listed[name]
        if words > capacity[name]:
            raise InputError(f"section {name} has {words} words, {config.name} holds {capacity[name]}")
        content = _member(archive, f"{name}.bin", 4 * words)
        if len(content) != 4 * words or hashlib.sha256(content).hexdigest() != digest:
            raise InputError(f"section {name} is damaged (its length or SHA-256 differs from the manifest)")
        sections[name] = np.frombuffer(content, dtype="<u4").astype(np.uint32)
    return sections
