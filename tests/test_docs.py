"""Every command that README, docs and help show: its options exist, its files are there; what is quick is run."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from reverb_fpga.host import bundled, cli

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("host/assets/models/*.md")])
FOLLOWED = set(ROOT.glob("docs/tutorials/*.md"))  # tests/test_tutorials.py runs what they show
TOOLS = ("reverb-fpga", "python", "python3", "pytest", "pip", "torchrun")
ELSEWHERE = ("git", "cd", "apt", "pre-commit", ".", ".ci/run")  # not ours to try
_PLACEHOLDERS = {"CONFIG": "ulx3s-85f", "N": "1", "K": "1"}
CHECKPOINT = bundled.ASSETS / "models" / "fashion-mnist-small.safetensors"


@dataclass(frozen=True)
class Shown:
    """A command as a page shows it."""

    page: str
    words: tuple[str, ...]
    mention: bool = False  # in a sentence: it need not be complete

    def __str__(self) -> str:
        return f"{self.page}: {' '.join(self.words)}"


def _blocks(text: str) -> Iterator[str]:
    """Lines of code blocks, continuation lines joined."""
    fenced, rest = False, ""
    for line in text.splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            rest += line.strip()
            if rest.endswith("\\"):
                rest = rest[:-1] + " "
                continue
            yield rest
            rest = ""


def _split(page: str, line: str, *, mention: bool = False) -> Iterator[Shown]:
    try:
        words = shlex.split(line, comments=True)
    except ValueError:
        return
    command: list[str] = []
    redirected = [place for place, word in enumerate(words) if word in (">", ">>")]
    words = words[: min(redirected, default=len(words))]  # what follows is the shell's
    for word in [*words, "&&"]:
        if word == "&&":
            if command and command[0] in TOOLS + ELSEWHERE:
                yield Shown(page, tuple(_PLACEHOLDERS.get(part, part) for part in command), mention)
            command = []
        else:
            command.append(word)


def _shown() -> Iterator[Shown]:
    for page in (page for page in PAGES if page not in FOLLOWED):
        text = page.read_text(encoding="utf-8")
        name = str(page.relative_to(ROOT))
        for line in _blocks(text):
            yield from _split(name, line)
        for code in re.findall(r"`([^`\n]+)`", text):
            if code.startswith(tuple(f"{tool} " for tool in TOOLS)):
                yield from _split(name, code, mention=True)
    for name in cli.COMMANDS:
        command = cli.cli.get_command(click.Context(cli.cli), name)
        assert command is not None
        for line in re.sub(r"\\\n\s*", " ", command.epilog or "").splitlines():
            if line.strip().startswith(("reverb-fpga ", "torchrun ")):
                yield from _split(f"help of {name}", re.split(r"(?<=\S) {3,}", line.strip())[0])


def _all() -> list[Shown]:
    return sorted(set(_shown()), key=str)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))  # its scripts import each other
    return tmp_path


def _make(words: tuple[str, ...]) -> None:
    """The files and folders that a command may expect."""
    for word in words[1:]:
        path = Path(word)
        if word.startswith("-") or path.is_absolute() or path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".safetensors", ".rvb", ".png", ".jpg") or word in ("CHECKPOINT", "FILE.rvb"):
            path.touch()
        elif word in ("data", "folder/", "photos/") or word.startswith(("out/", "runs/")):
            path.mkdir(exist_ok=True)


def _parse(command: click.Command, name: str, words: tuple[str, ...]) -> click.Context:
    """The context of a command line, with every option known and of its type."""
    given = [word for word in words if word != "..."]
    try:
        return command.make_context(name, given, resilient_parsing="..." in words)
    except click.exceptions.Exit:
        return click.Context(command)


def _ours(words: tuple[str, ...]) -> tuple[click.Command, click.Context]:
    if words[0] == "COMMAND":
        words = ("info", *words[1:])
    if words[0].startswith("-"):
        return cli.cli, _parse(cli.cli, "reverb-fpga", words)
    command = cli.cli.get_command(click.Context(cli.cli), words[0])
    assert command is not None, f"no command {words[0]}"
    return command, _parse(command, words[0], words[1:])


def _script(path: Path) -> object:
    spec = importlib.util.spec_from_file_location(f"documented_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module.main


def _check_script(path: Path, words: tuple[str, ...]) -> None:
    """A script's options: those of its click command, or those that its own help lists."""
    assert path.is_file(), path
    main = _script(path)
    if isinstance(main, click.Command):
        _parse(main, path.name, words)
        return
    done = subprocess.run([sys.executable, str(path), "--help"], capture_output=True, text=True, check=True)
    for word in words:
        if word.startswith("-"):
            assert re.search(rf"(?<!\S){re.escape(word)}\b", done.stdout), word


def _check(shown: Shown) -> None:
    tool, *rest = shown.words
    words = tuple(rest)
    if tool == "reverb-fpga":
        _ours(words)
    elif tool == "torchrun":
        _ours(words[words.index("reverb_fpga.host.cli") + 1 :])
    elif tool == "pip":
        _check_pip(words)
    elif tool == "pytest":
        missing = [
            word for word in words if word.startswith("tests/") and not (ROOT / word.partition("::")[0]).exists()
        ]
        assert not missing
    elif tool in ("python", "python3") and words[0] != "-m":
        _check_script(ROOT / words[0], words[1:])


def _check_pip(words: tuple[str, ...]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for word in words:
        extras = re.fullmatch(r"(?:\.|reverb-fpga)\[(.+)\]", word)
        for extra in extras[1].split(",") if extras else ():
            assert extra in project["optional-dependencies"]


def test_commands_are_found() -> None:
    found = [str(shown) for shown in _all()]
    assert len(found) > 60
    for expected in ("README.md: pip install .", "README.md: reverb-fpga classify", "README.md: reverb-fpga data"):
        assert expected in found
    assert any(line.startswith("help of train: torchrun") for line in found)


@pytest.mark.parametrize("shown", _all(), ids=str)
def test_a_command_that_is_shown_can_be_given(shown: Shown, place: Path) -> None:
    if shown.words[0] in ("python", "torchrun") or "train" in shown.words:
        pytest.importorskip("torch")
    _make(shown.words)
    try:
        _check(shown)
    except (click.MissingParameter, click.BadOptionUsage):
        if not shown.mention:
            raise
    except click.BadParameter as error:
        if not (shown.mention and re.search("'[A-Z]+'", error.message)):  # a word that stands for a value
            raise


COMPILED = [
    shown
    for shown in _all()
    if shown.words[:2] == ("reverb-fpga", "compile") and not {"--dataset", "CHECKPOINT"} & set(shown.words)
    if not shown.mention
]


@pytest.mark.parametrize("shown", COMPILED, ids=str)
def test_a_compilation_that_is_shown_is_made(shown: Shown, place: Path) -> None:
    words = list(shown.words[1:])
    Path(words[1]).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(CHECKPOINT, words[1])
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    assert caught.value.code == 0
    assert Path(words[words.index("-o") + 1]).stat().st_size > 1000


TRAINED = [
    shown
    for shown in _all()
    if shown.words[:2] == ("reverb-fpga", "train") and not {"--help", "..."} & set(shown.words) and not shown.mention
]


@pytest.mark.parametrize("shown", TRAINED, ids=str)
def test_a_training_that_is_shown_has_settings_that_fit(shown: Shown, place: Path) -> None:
    pytest.importorskip("torch")
    from reverb_fpga.host.commands import train
    from reverb_fpga.models.description import InputSpec
    from reverb_fpga.models.zoo import DatasetSpec, describe

    _, context = _ours(shown.words[1:])
    names = {"out", "resume", "device", "threads", "as_json", "no_progress", "target", "strict"}
    settings = train._settings({name: value for name, value in context.params.items() if name not in names})
    settings.check(1)
    side, channels = (28, 1) if "mnist" in settings.dataset else (32, 3)
    shape = InputSpec(channels, side, side, (128,) * channels, (64.0,) * channels)
    describe(settings.arch, DatasetSpec(settings.dataset, shape, tuple("0123456789")), settings.options)


QUICK = [
    shown
    for shown in _all()
    if shown.words[0] == "reverb-fpga" and shown.words[1:] in (("classify",), ("info",), ("report", "cifar10-cnv"))
]


@pytest.mark.parametrize("shown", QUICK, ids=str)
def test_quick_commands_run(shown: Shown, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([*shown.words[1:], *(["--limit", "2"] if shown.words[1] == "classify" else [])])
    assert caught.value.code == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_are_named_exist(page: Path) -> None:
    """Paths of the repository in links and in code: none of them is a thing of the past."""
    text = page.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text) if "://" not in link]
    missing = [link for link in links if not (page.parent / link).exists()]
    rooms = r"`((?:models|compiler|hw|sim|host|benchmarks|tests|docs|examples)/[\w./*-]+)`"
    missing += [name for name in re.findall(rooms, text) if not any(ROOT.glob(name.rstrip("/")))]
    assert not missing


def test_bundled_models_have_cards_and_fit_every_board() -> None:
    from reverb_fpga.hw.boards.table import BOARDS

    programs = {name: bundled.load_model(name) for name in bundled.bundled_models()}
    cards = "\n".join(path.read_text() for path in (bundled.ASSETS / "models").glob("*.md"))
    for name in programs:
        assert re.search(rf"^# .*\b{re.escape(name)}(?![\w-])", cards, re.MULTILINE), name
    configurations = {program.config_name for program in programs.values()}
    assert {board.config for board in BOARDS.values()} <= configurations
