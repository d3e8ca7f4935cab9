"""Names that strangers chose, as the page shows them."""

from __future__ import annotations

import re

from reverb_fpga.hw.errors import printable

__all__ = ["shorten"]

_FORMULA = re.compile(r"\$\$|\\\(|\\\[")
"""What makes a chart's text a formula, for which the library would fetch a typesetter from the network."""


def shorten(text: str, most: int) -> str:
    """`text` on one line of at most `most` characters, and no formula. The rest of the page escapes it."""
    plain = _FORMULA.sub(lambda found: " ".join(found[0]), printable(text))
    return plain if len(plain) <= most else plain[: most - 1] + "…"
