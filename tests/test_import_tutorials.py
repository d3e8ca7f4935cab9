"""Modules in the style of public tutorials: each compiles and agrees, or is refused; docs/import.md says the same."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("spikingjelly")
pytest.importorskip("snntorch")
pytest.importorskip("nir")

from tutorial_modules import CASES, IMAGES, Case  # noqa: E402

import reverb_fpga as rf  # noqa: E402
from reverb_fpga.compiler.frontends.nir_modules import NirModule  # noqa: E402
from reverb_fpga.compiler.frontends.running import Samples, run_module  # noqa: E402
from reverb_fpga.hw.errors import InputError  # noqa: E402

DOCUMENT = Path(__file__).parent.parent / "docs/import.md"
NAMES = [(framework, index) for framework, cases in CASES.items() for index in range(len(cases))]
AGREE = 94  # of 100 images; the weights are random, so that some logits nearly tie
ALIKE = {True: 0.85, False: 0.999}  # least correlation of the logits, of networks with spikes of 0 and 1 and others


@functools.cache
def outcome(framework: str, index: int) -> tuple[rf.Model | None, Any, str]:
    """The model if it compiles, the module, and what the table says."""
    case = CASES[framework][index]
    torch.manual_seed(7)
    module = case.make()
    try:
        model = rf.compile(module, samples_of(case), timesteps=case.steps, target="large")
    except InputError as error:
        return None, module, f"refused: {error}"
    rounded = [note for note in model.notes if "float weights are rounded" in note]
    return model, module, "compiles; weights rounded to 8 bits" if rounded else "compiles; no weight rounded"


def samples_of(case: Case) -> torch.Tensor:
    return IMAGES if case.samples is None else case.samples()


@pytest.mark.parametrize(("framework", "index"), NAMES)
def test_a_module_compiles_and_agrees_or_is_refused_by_layer_and_reason(framework: str, index: int) -> None:
    model, module, told = outcome(framework, index)
    if model is None:
        assert re.match(r"refused: layer \S+: \S+", told), told
        assert "\n" not in told
        return
    agreed, case = model.agreement, CASES[framework][index]
    assert agreed is not None
    assert agreed.images == 100
    assert agreed.agree >= AGREE, str(agreed)
    if framework == "NIR":
        module = NirModule(module, 1e-4)
    wanted = run_module(module, Samples(samples_of(case).numpy()), case.steps)
    found = model.logits(samples_of(case))
    assert np.ptp(wanted - wanted.mean(0)) > 0.02  # it does not say the same of every image
    alike = np.corrcoef((wanted - wanted.mean(0)).ravel(), (found - found.mean(0)).ravel())[0, 1]
    assert alike >= ALIKE[model.program.timesteps > 1]


def test_the_table_in_the_documentation_is_what_happens() -> None:
    rows = ["| framework | module | what becomes of it |", "|---|---|---|"]
    for framework, index in NAMES:
        rows.append(f"| {framework} | {CASES[framework][index].what} | {outcome(framework, index)[2]} |")
    wanted = "\n".join(rows)
    text = DOCUMENT.read_text(encoding="utf-8")
    found = text.partition("<!-- tutorials -->\n")[2].partition("\n<!-- end of tutorials -->")[0]
    assert found == wanted, f"docs/import.md should have between its marks:\n{wanted}"
