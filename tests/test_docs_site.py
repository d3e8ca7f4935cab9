"""The documentation as a site: it builds, no link or anchor is broken, nothing is fetched, what is made is complete."""

from __future__ import annotations

import ast
import html
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import reverb_fpga
from reverb_fpga.host import cli

pytest.importorskip("material")
pytest.importorskip("mkdocstrings")

ROOT = Path(__file__).parent.parent
QUESTION = re.compile(r"^## (.*)$", re.MULTILINE)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(target)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


def _text(page: Path) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8")))


def test_every_page_is_there(site: Path) -> None:
    wanted = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    wanted.remove(Path("decisions/README.html"))
    wanted |= {Path(name) for name in ("commands.html", "layers.html", "CONTRIBUTING.html", "decisions/index.html")}
    assert not {page for page in wanted if not (site / page).is_file()}


def test_links_lead_somewhere(site: Path) -> None:
    """Once more, of the finished pages: files and anchors."""
    anchors = {
        page: set(re.findall(r'\bid="([^"]+)"', page.read_text(encoding="utf-8"))) for page in site.rglob("*.html")
    }
    broken = []
    for page in anchors:
        for link in re.findall(r'<a [^>]*href="([^"]+)"', page.read_text(encoding="utf-8")):
            path, _, anchor = html.unescape(link).partition("#")
            if "://" in path or page.name == "404.html":
                continue
            target = (page.parent / path).resolve() if path else page
            if not target.is_file() or (anchor and target.suffix == ".html" and anchor not in anchors[target]):
                broken.append(f"{page.name}: {link}")
    assert len(anchors) > 20
    assert not broken


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.search(r'<(?:script|img|iframe)[^>]*src="(?:https?:)?//', text), page
        assert not re.search(r'<link[^>]*rel="(?:stylesheet|preconnect)"[^>]*href="(?:https?:)?//', text), page


def test_what_is_made_from_the_code_is_complete(site: Path) -> None:
    commands = _text(site / "commands.html")
    for name, (_, summary) in cli.COMMANDS.items():
        assert f"Usage: reverb-fpga {name} " in commands, summary
    layers = _text(site / "layers.html")
    for field in ("pool_before", "dilation", "ulx3s-85f", "agmm-bsnn", "resnet34", "14,336"):
        assert field in layers
    for module in ("AdaptiveAvgPool2d", "adaptive_avg_pool2d", "spikingjelly.ParametricLIFNode", "snntorch.Lapicque"):
        assert module in layers, module
    reference = _text(site / "api.html")
    for name in reverb_fpga.__all__:
        assert f"rf.{name}" in reference, name
    for name in (
        "agreement",
        "classify",
        "Verification",
        "Candidate",
        "Board",
        "run_bench",
        "compile_checkpoint",
        "GoldenModel",
        "CycleModel",
        "to_codes",
        "InputError",
        "Parameters",
    ):
        assert name in reference
    assert ":class:" not in reference


def _messages() -> str:
    """Texts of the code, one after the other."""
    found = []
    for room in ("host", "compiler", "hw", "models", "sim"):
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return "\n".join(found)


def test_questions_are_messages_of_the_code() -> None:
    headings = [text for text in QUESTION.findall((ROOT / "docs" / "faq.md").read_text()) if not text.endswith("?")]
    assert len(headings) >= 10
    messages = _messages()
    assert not [heading for heading in headings if heading not in messages]
