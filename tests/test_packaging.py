"""The wheel and the source distribution hold every module and every asset."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("api", "models", "compiler", "hw", "host", "sim")


def _files_of_the_repository() -> set[str]:
    """Everything git tracks in the rooms, as it is called there."""
    listed = subprocess.run(["git", "ls-files", *ROOMS], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return {name for name in listed.stdout.split() if (ROOT / name).exists()}


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheel and source distribution, built from a copy of the tracked files."""
    copy = tmp_path_factory.mktemp("source")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in listed.stdout.split("\n"):
        if name and (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    output = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(output), str(copy)]
    result = subprocess.run(build, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return output


def test_the_wheel_holds_every_file_of_every_room(distributions: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"reverb_fpga/{name.removeprefix('api/')}" for name in _files_of_the_repository()} - names == set()
    packages = {name.split("/")[0] for name in names if not name.split("/")[0].endswith(".dist-info")}
    assert packages == {"reverb_fpga"}


def test_the_source_distribution_builds_the_same(distributions: Path) -> None:
    (sdist,) = distributions.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert _files_of_the_repository() - names == set()
    assert {"pyproject.toml", "README.md", "LICENSE"} <= names


def test_the_wheel_needs_neither_torch_nor_amaranth(distributions: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    archive = zipfile.ZipFile(wheel)
    (metadata,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    required = [
        line.partition(": ")[2]
        for line in archive.read(metadata).decode().splitlines()
        if line.startswith("Requires-Dist: ") and "extra ==" not in line
    ]
    assert len(required) >= 5
    assert not [name for name in required if name.startswith(("torch", "amaranth", "matplotlib"))]


def test_imports_go_one_way() -> None:
    """hw needs neither torch nor the compiler; the shared definitions need no amaranth."""
    forbidden = {
        "hw": ("torch", "reverb_fpga.compiler", "reverb_fpga.models", "reverb_fpga.host", "reverb_fpga.sim"),
        "models": ("amaranth", "reverb_fpga.compiler", "reverb_fpga.host", "reverb_fpga.sim"),
        "compiler": ("amaranth", "reverb_fpga.host", "reverb_fpga.sim"),
        "sim": ("torch", "reverb_fpga.models"),
    }
    wrong = []
    for room, names in forbidden.items():
        for path in sorted((ROOT / room).rglob("*.py")):
            for number, line in enumerate(path.read_text().splitlines(), 1):
                words = line.split()
                if len(words) > 1 and words[0] in ("import", "from") and words[1].startswith(names):
                    wrong.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert wrong == []


@pytest.mark.parametrize("module", ["contract", "config", "errors", "boards.table", "boards.report", "boards.logs"])
def test_shared_definitions_are_light(module: str) -> None:
    code = (
        f"import sys, reverb_fpga.hw.{module}; print([m for m in ('amaranth', 'numpy', 'torch') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
