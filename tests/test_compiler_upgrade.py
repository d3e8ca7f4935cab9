"""Program files of contract version 1 are read, and compute what they always did."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from reverb_fpga.compiler import rvb
from reverb_fpga.compiler.backend import lower
from reverb_fpga.compiler.program import Program
from reverb_fpga.compiler.testing import RandomOptions, plain_meta, random_network
from reverb_fpga.compiler.upgrade import old_digest
from reverb_fpga.host.bundled import bundled_models, load_model
from reverb_fpga.hw.config import preset
from reverb_fpga.hw.contract import CONTRACT_VERSION, DESCRIPTOR_WORDS, PROGRAM_FIELDS, pack
from reverb_fpga.hw.errors import InputError
from reverb_fpga.sim.golden import GoldenModel

TINY = preset("tiny")
# what version 1 printed for the presets that are still what they were
DIGESTS = {
    "tiny": 0x9369A55BA06BB154,
    "ulx3s-85f": 0x8FB62A51E13E7668,
}

# SHA-256 of two images' logits: from version 1, or from when the model was bundled
LOGITS = {
    "fashion-mnist": "1d25007c71f5ba33",
    "fashion-mnist-t2": "bcfcf93eb4444c0b",
    "cifar10-cnv": "7b50aceb2959c821",
    "cifar10-cnv-t2": "f97ea5bbbe2938ca",
    "cnv-dense": "491b1007c9ad60a8",
    "cifar10-cnv-row": "7b50aceb2959c821",
    "cnv-dense-row": "491b1007c9ad60a8",
    "cnv-sparse": "610ff7b681bd9e61",
    "cnv-dense-t2": "00920cc9185f5bdb",
    "resnet20-classic": "31d88b1a0fed2e17",
    "resnet20-row": "31d88b1a0fed2e17",
    "fashion-mnist-12f": "069ef9ccd4f2c0bd",
    "fashion-mnist-25f": "069ef9ccd4f2c0bd",
}


@pytest.fixture(scope="module")
def program() -> Program:
    network = random_network(np.random.default_rng(7), RandomOptions(max_side=6, max_channels=6, max_layers=2))
    return lower(network, TINY, plain_meta(network))


def as_version_1(program: Program, path: Path, digest: int = DIGESTS["tiny"], **head: int) -> Path:
    """The file that version 1 would have written; ``head`` spoils fields of its descriptor 0."""
    desc = program.desc.copy()
    body = b"".join(words.astype("<u4").tobytes() for _, words in program.sections())[4 * DESCRIPTOR_WORDS :]
    _, fields = program.descriptor(0)
    fields |= {"version": 1, "config_low": digest & 0xFFFFFFFF, "config_high": digest >> 32, "crc32": zlib.crc32(body)}
    desc[:DESCRIPTOR_WORDS] = pack(PROGRAM_FIELDS, fields | head, DESCRIPTOR_WORDS)
    new = rvb.save(program, path.with_suffix(".new"))
    with zipfile.ZipFile(new) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in source.namelist():
            content = desc.tobytes() if name == "desc.bin" else source.read(name)
            if name == "manifest.json":
                manifest = json.loads(content)
                manifest["contract"] = 1
                manifest["target"]["digest"] = f"{digest:016x}"
                manifest["sections"]["desc"]["sha256"] = hashlib.sha256(desc.tobytes()).hexdigest()
                content = json.dumps(manifest).encode()
            archive.writestr(name, content)
    return path


def test_digests_of_version_1_are_known() -> None:
    assert {name: old_digest(preset(name)) for name in DIGESTS} == DIGESTS
    assert old_digest(dataclasses.replace(TINY, z_depth=32)) is None


def test_an_old_program_becomes_the_new_one(program: Program, tmp_path: Path) -> None:
    loaded = rvb.load(as_version_1(program, tmp_path / "old.rvb"))
    for field in dataclasses.fields(Program):
        np.testing.assert_array_equal(getattr(loaded, field.name), getattr(program, field.name), field.name)
    assert rvb.save(loaded, tmp_path / "again.rvb").read_bytes() == rvb.save(program, tmp_path / "new.rvb").read_bytes()
    assert loaded.descriptor(0)[1]["version"] == CONTRACT_VERSION


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ({"crc32": 1}, "do not match their checksum"),
        ({"version": CONTRACT_VERSION}, "does not start with PROGRAM of contract version 1"),
        ({"config_low": 1}, "digest differs"),
    ],
)
def test_damaged_old_programs_are_refused(program: Program, tmp_path: Path, head: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        rvb.load(as_version_1(program, tmp_path / "old.rvb", **head))


def test_the_logits_of_every_bundled_model_are_known() -> None:
    assert set(LOGITS) == set(bundled_models()), "add what the next test computes for the new model"


def test_an_old_program_of_another_configuration_says_which(program: Program, tmp_path: Path) -> None:
    """The digests that are compared are those of version 1: two equal numbers told nothing."""
    path = as_version_1(program, tmp_path / "old.rvb", TINY.digest)
    with pytest.raises(InputError) as error:
        rvb.load(path)
    assert f"tiny ({TINY.digest:016x}), not for tiny as it is here in version 1 (9369a55ba06bb154)" in str(error.value)


@pytest.mark.parametrize(("name", "digest"), LOGITS.items())
def test_bundled_models_give_the_logits_that_they_gave(name: str, digest: str) -> None:
    program = load_model(name)
    model, image = GoldenModel(program, preset(program.config_name)), program.input
    shape = (2, model.input_steps, image.height, image.width, image.channels)
    codes = (np.arange(np.prod(shape)) * 40503 >> 7).astype(np.uint8).reshape(shape)
    assert hashlib.sha256(model.run(codes).astype("<i8").tobytes()).hexdigest()[:16] == digest
