"""Which sequences of legs the verifier and the golden model accept."""

from __future__ import annotations

import pytest

from reverb_fpga.compiler.leg_checks import LegChecks
from reverb_fpga.hw.config import preset
from reverb_fpga.hw.contract import LAYER_FIELDS, SIGMOID, Gate
from reverb_fpga.hw.errors import InputError
from reverb_fpga.hw.neuron.gate import sigmoid

TINY = preset("tiny")
GROUPS = 3
Fields = dict[str, int]
PLAIN: Fields = {field.name: 0 for field in LAYER_FIELDS} | {
    "layer": 1,
    "rows": 2,
    "cols": 3,
    "timesteps": 4,
    "spiking": 1,
}
LEG = PLAIN | {"skip_groups": GROUPS}
STORE = LEG | {"store_skip": 1, "spiking": 0}
ADD = LEG | {"add_skip": 1}
BOTH = STORE | {"add_skip": 1}
AT = 200  # of the gates: behind the 72 words of a strip
SUM = STORE | {"gate": Gate.SUM, "gate_base": AT}
MAKE = SUM | {"gate": Gate.SIGMOID, "rows": 1, "cols": 1}
APPLY = SUM | {"gate": Gate.APPLY}
OTHER = {"layer": 2}


def check(*schedule: Fields) -> None:
    legs = LegChecks(TINY)
    for index, fields in enumerate(schedule):
        legs.take(fields, GROUPS, f"descriptor {index}")
    legs.end("the end")


@pytest.mark.parametrize(
    "schedule",
    [
        [PLAIN],
        [STORE, ADD],
        [STORE, BOTH, BOTH, ADD, PLAIN, STORE, ADD],
        [SUM, MAKE, APPLY, ADD, APPLY, BOTH, ADD],
        [SUM, MAKE, PLAIN | OTHER, STORE | OTHER, ADD | OTHER, APPLY, ADD],
        [SUM, MAKE, SUM | OTHER | {"gate_base": AT + 12}, APPLY, ADD, MAKE | OTHER | {"gate_base": AT + 12}],
        [SUM, SUM, MAKE, APPLY, ADD],
    ],
)
def test_accepted(schedule: list[Fields]) -> None:
    check(*schedule)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ([ADD], "descriptor 0: adds what no leg has stored"),
        ([STORE, PLAIN], "descriptor 1: does not add what the leg before it has stored"),
        ([STORE], "the end: ends with a leg"),
        ([STORE, ADD, ADD], "descriptor 2: adds what no leg"),
        ([STORE, ADD | {"cols": 6, "rows": 1}], "cols is 6|rows is 1"),
        ([STORE, ADD | OTHER], "layer is 2, of the leg that it adds 1"),
        ([STORE, ADD | {"timesteps": 3}], "timesteps is 3"),
        ([STORE | {"skip_groups": 2}], "skip_groups = 2, its slot program has 3"),
        ([PLAIN | {"skip_groups": 3}], "skip_groups = 3 without a shortcut"),
        ([STORE | {"spiking": 1}], "a leg that goes to the skip memory fires"),
        ([STORE | {"rows": 10}], "needs 360 words of skip memory, there are 256"),
        ([SUM | {"gate_base": 245}], "needs 257 words of skip memory"),
        ([PLAIN | {"gate": 1}], "a leg with a gate must store and not add"),
        ([STORE, SUM, ADD], "descriptor 1: does not add what the leg before it"),
        ([MAKE], "reads what no leg SUM of its layer has left"),
        ([SUM, APPLY], "reads what no leg SIGMOID of its layer has left"),
        ([SUM, MAKE, MAKE], "descriptor 2: reads what no leg SUM"),
        ([SUM, MAKE | {"gate_base": AT + 1}], "reads what no leg SUM"),
        ([SUM, MAKE | {"rows": 2}], "makes gates at more than one position"),
        ([SUM, MAKE, APPLY | OTHER], "reads what no leg SIGMOID"),
        ([SUM, MAKE, SUM | OTHER | {"gate_base": AT + 11}, APPLY], "descriptor 3: reads what no leg SIGMOID"),
        ([SUM, MAKE, STORE | OTHER | {"rows": 6}, ADD | OTHER | {"rows": 6}, APPLY], "descriptor 4: reads what no leg"),
        ([SUM | {"gate_base": 71}, MAKE | {"gate_base": 71}, APPLY | {"gate_base": 71}], "stores where the gates lie"),
    ],
)  # fmt: skip
def test_refused(schedule: list[Fields], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check(*schedule)


def test_sigmoid_is_symmetric_and_within_half_a_step() -> None:
    """Of 1/16 in its argument, at a slope of at most 1/4, and half a unit of rounding."""
    import math

    values = [sigmoid(x) for x in range(-len(SIGMOID), len(SIGMOID))]
    assert values == sorted(values)
    assert [256 - value for value in reversed(values)] == values
    for x, value in enumerate(values, start=-len(SIGMOID)):
        for exact in (x / 16, (x + 0.999) / 16):
            assert abs(value / 256 - 1 / (1 + math.exp(-exact))) < 1 / 128 + 1 / 512
