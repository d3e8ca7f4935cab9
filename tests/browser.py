"""A headless Chromium from the system's packages, for pages that we write."""

from __future__ import annotations

import dataclasses
import html
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

__all__ = ["Look", "look_at"]

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_PROBE = """<!DOCTYPE html><body style="margin:0">
<iframe id="f" src="{page}" style="width:{width}px;height:{height}px;border:0">
</iframe><script>
const frame = document.getElementById("f")
setTimeout(() => {{
  const page = frame.contentDocument, root = page.documentElement, drawn = []
  const visit = node => {{
    if (node.tagName === "CANVAS") drawn.push(node)
    if (node.shadowRoot) node.shadowRoot.querySelectorAll("*").forEach(visit)
  }}
  page.querySelectorAll("*").forEach(visit)
  const texts = [...page.querySelectorAll("h1, svg text")].map(node => node.textContent)
  const found = {{title: page.title, width: root.scrollWidth, height: root.scrollHeight, canvases: drawn.length, texts}}
  document.body.innerHTML = "<pre id=found></pre>"
  document.getElementById("found").textContent = JSON.stringify(found)
}}, 6000)
</script>"""


@dataclasses.dataclass(frozen=True)
class Look:
    """What a browser shows of a page.

    Parameters
    ----------
    found : str
        JSON: title, width and height of the content in pixels, canvases drawn, texts of headings and pictures.
    errors : list of str
        What the console says beside notes.
    """

    found: str
    errors: list[str]


def look_at(page: Path, width: int, height: int = 4000) -> Look:
    """Open a page in a frame of a width. Skips the test where there is no browser."""
    browser = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if browser is None:
        pytest.skip("no browser: apt install chromium")
    probe = page.with_name(f"probe-{width}.html")
    probe.write_text(_PROBE.format(page=page.name, width=width, height=height), encoding="utf-8")
    with tempfile.TemporaryDirectory() as profile:
        command = [
            browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files",
            f"--user-data-dir={profile}", f"--window-size={max(width, 500)},{height}", "--virtual-time-budget=10000",
            "--enable-logging=stderr", "--dump-dom", probe.as_uri(),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stdout[-2000:] + done.stderr[-2000:]
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return Look(html.unescape(found[1]), [line for line in console if "[bokeh" not in line])
