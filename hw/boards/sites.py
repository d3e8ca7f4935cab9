"""Where the block RAMs of a board's design go, found beforehand (decision 15)."""

from __future__ import annotations

import json
import re
from importlib import resources
from typing import Any

from ..errors import InputError

__all__ = ["Sites", "fix_block_rams", "read_sites", "sites_of"]

Sites = dict[str, str]
"""Site of a DP16KD by the cell's name: ``X4/Y22/EBR0``, column, row and place there."""

_SITE = re.compile(r"X\d{1,3}/Y\d{1,3}/EBR[0-3]")


def sites_of(board: str) -> Sites:
    """Sites that were found for a board; none for most."""
    file = resources.files(__package__) / "sites" / f"{board}.json"
    return read_sites(file.read_text(), file.name) if file.is_file() else {}


def read_sites(text: str, name: str) -> Sites:
    """A table of sites, checked.

    Raises
    ------
    InputError
        No table of cells and sites, or two cells at one site.
    """
    sites = json.loads(text)
    if not isinstance(sites, dict) or not all(
        isinstance(site, str) and _SITE.fullmatch(site) for site in sites.values()
    ):
        raise InputError(f"{name}: not a table of cells and sites of block RAM, such as X4/Y22/EBR0")
    if len(set(sites.values())) < len(sites):
        raise InputError(f"{name}: two cells at one site")
    return sites


def fix_block_rams(module: dict[str, Any], sites: Sites) -> bool:
    """Have nextpnr place the block RAMs of a flat netlist at their sites.

    Nearly all block RAM of the device is used, in a few rows. The placer makes a legal placement of it in one step, and
    how much wire that costs is luck. Block RAM without a site is placed by nextpnr.

    Returns
    -------
    bool
        Whether that is done: not if the netlist lacks one that has a site, for they were found for another netlist.
    """
    cells = module["cells"]
    if not all(cells.get(name, {}).get("type") == "DP16KD" for name in sites):
        return False
    for name, site in sites.items():
        cells[name].setdefault("attributes", {})["BEL"] = site
    return True
