"""Every rule of the verifier: a program that breaks it, however well sealed, is refused and the fault named."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from mutations import Draft

from reverb_fpga.compiler.backend import Hints, lower
from reverb_fpga.compiler.geometry import Geometry
from reverb_fpga.compiler.intnet import INPUT, IntInput, IntLayer, IntNetwork
from reverb_fpga.compiler.program import Program
from reverb_fpga.compiler.program_checks import check_program
from reverb_fpga.compiler.row_mode import slots_of
from reverb_fpga.compiler.testing import plain_layer, plain_meta
from reverb_fpga.hw.config import Config, preset
from reverb_fpga.hw.contract import SLOT_FIELDS, Opcode, pack, unpack
from reverb_fpga.hw.errors import InputError

TINY = preset("tiny")
RNG = np.random.default_rng(5)


def _layer(name: str, source: str, shape: tuple[int, ...], *, padding: int = 0, last: bool = False) -> IntLayer:
    channels = shape[0]
    return plain_layer(
        name, source, RNG.choice([-1, 1], shape), geometry=Geometry(padding=(padding, padding)),
        gain=np.full(channels, 300), r_shift=3, bias=np.full(channels, 5000), threshold=np.full(channels, 500),
        tau_q=256 if last else 64, spiking=not last, timesteps=2,
    )  # fmt: skip


def _program(hints: Hints | None = None) -> Program:
    """3 channels with a pad record, 4 x 4, two convolutions, a classifier; each layer in one strip unless hinted."""
    source = IntInput(3, 4, 4, np.array([7, 0, 9], dtype=np.uint8))
    layers = (
        _layer("one", INPUT, (6, 3, 3, 3), padding=1),
        _layer("two", "one", (5, 6, 3, 3), padding=1),
        _layer("fc", "two", (3, 5, 4, 4), last=True),
    )
    network = IntNetwork(source, layers, 2, static_input=False)
    return lower(network, TINY, plain_meta(network), hints)


def _refused(program: Program, message: str, config: Config = TINY) -> None:
    with pytest.raises(InputError, match=message) as error:
        check_program(program, config)
    assert "\n" not in str(error.value)


def _ring(draft: Draft, tensor: int, act: int, count: int) -> None:
    """Move the tensor that layer ``tensor`` stores (-1: the input), where it is stored and where it is read."""
    if tensor < 0:
        draft.head |= {"in_act_base": act, "in_cnt_base": count}
    for strip in draft.layers:
        if strip["layer"] == tensor:
            strip |= {"dst_act_base": act, "dst_cnt_base": count}
        if strip["layer"] == tensor + 1:
            strip |= {"src_act_base": act, "src_cnt_base": count}


@pytest.mark.parametrize("tensor", [-1, 0, 1])
def test_nothing_is_stored_over_the_pad_record(tensor: int) -> None:
    """It comes with the program: the next image would read what this one left."""
    draft = Draft.of(_program())
    places = {-1: (1000, 200), 0: (2000, 400), 1: (3000, 600)}
    for each, (act, count) in places.items():
        _ring(draft, each, act, count)
    check_program(draft.sealed(), TINY)
    for act, count in ((1, 1), (100, 0), (0, 100)):
        _ring(draft, tensor, act, count)
        if (act, count) == (1, 1):  # the last words of the record, not its count
            assert len(draft.sections["act"]) == 2 * TINY.banks
        _refused(draft.sealed(), "is stored over the constant record")


def test_a_result_is_not_stored_over_its_source() -> None:
    """Outputs are stored while later ones are gathered: a row of a strip must not replace a row that it reads."""
    draft = Draft.of(_program())
    for layer in (0, 1):
        changed = Draft.of(_program())
        source = changed.layers[layer]
        _ring(changed, layer, source["src_act_base"], source["src_cnt_base"])
        _refused(changed.sealed(), "stores its result over what it reads")
    check_program(draft.sealed(), TINY)


@pytest.mark.parametrize("name", ["act", "cnt"])
def test_count_and_words_of_a_record_belong_together(name: str) -> None:
    """Shifted by a record: the rows are there, the counts are those of other records."""
    draft = Draft.of(_program())
    _ring(draft, 0, 1000, 500)
    check_program(draft.sealed(), TINY)
    for strip in draft.layers:
        if strip["layer"] == 1:
            strip[f"src_{name}_base"] += strip["src_slots"] if name == "act" else 1
    _refused(draft.sealed(), "is not where its rows")


def test_columns_are_proven_too() -> None:
    draft = Draft.of(_program())
    _ring(draft, 0, 1000, 500)
    draft.layers[1]["src_act_base"] += draft.layers[1]["src_slots"]
    draft.layers[1]["src_cnt_base"] += 1
    _refused(draft.sealed(), "row 0 of its source is not where its rows from 0 on read it")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cols": 200, "x_step": 63, "src_col_step": 126}, "x reaches 12538, at most 8191"),
        ({"rows": 200, "y_step": 63, "src_row_step": 0}, "y reaches 12538, at most 8191"),
        ({"src_col_step": 3}, r"src_col_step is 3, not x_step \* t_src"),
        ({"src_row_step": 40}, "src_row_step is not reduced modulo its ring"),
        ({"dst_row0": 1}, "its ring is not of whole rows"),
        ({"t_src": 1}, "t_src is 1|not x_step|not ix0"),
        ({"static_input": 1}, "static_input does not fit"),
        ({"src_slots": 3}, "src_slots does not fit"),
        ({"dst_slots": 4}, "dst_slots does not fit"),
        ({"w_base": 2000}, "its weight rows do not exist"),
        ({"slot_base": 250}, "its slot entries do not exist"),
        ({"param_base": 127}, "its parameters do not exist"),
        ({"tau_q": 257}, "tau_q is 257"),
        ({"n_passes": 0}, "n_passes is 0"),
        ({"pass_slots": 3}, "drains 3 slots of a pass, which has 2"),
        ({"pad_cnt_base": 1}, "its pad record is not there"),
        ({"src_ring": 4095}, "row 0 of its source was never stored where it is read"),
    ],
)
def test_fields_of_the_first_layer(changes: dict[str, int], message: str) -> None:
    draft = Draft.of(_program())
    info = draft.program.layers[0]
    if "cols" in changes or "rows" in changes:  # a layer table that says the same
        shape = (info.shape[0], changes.get("rows", info.shape[1]), changes.get("cols", info.shape[2]))
        layers = (dataclasses.replace(info, shape=shape), *draft.program.layers[1:])
        draft.program = dataclasses.replace(draft.program, layers=layers)
        changes = {**changes, "dst_row_stride": 2 * shape[2], "dst_ring": 2 * shape[1] * shape[2]}
    draft.layers[0].update(changes)
    _refused(draft.sealed(), message)


def test_a_pad_record_is_the_inputs() -> None:
    draft = Draft.of(_program())
    draft.layers[1]["pad_record"] = 1
    _refused(draft.sealed(), "a pad record beside a tensor that is not the image")
    for bank, word, message in ((1, 5 | 1 << 8, "misplaced event in bank 1"), (0, 0, "misplaced event in bank 0")):
        draft = Draft.of(_program())
        draft.sections["act"].reshape(-1, TINY.banks)[0, bank] = word
        draft.sections["count"][bank] = max(1, draft.sections["count"][bank])
        _refused(draft.sealed(), message)
    draft = Draft.of(_program())
    draft.sections["count"][0] = 9
    _refused(draft.sealed(), "holds more events than words in bank 0")


@pytest.mark.parametrize(
    ("section", "bit"), [("slot", 19), ("slot", 31), ("act", 16), ("count", 9), ("weight", 8), ("weight", 31)]
)
def test_bits_that_no_memory_keeps(section: str, bit: int) -> None:
    """The device hashes what its memories hold; a program with such a bit never starts."""
    draft = Draft.of(_program())
    draft.sections[section][-1] |= 1 << bit
    _refused(draft.sealed(), f"section {section} sets bits that have no meaning")


def test_unused_entries_are_looked_at_as_well() -> None:
    draft = Draft.of(_program())
    draft.sections["slot"] = np.append(draft.sections["slot"], np.uint32(1 << 31))
    _refused(draft.sealed(), "section slot sets bits")
    for section in ("param", "weight", "act"):
        draft = Draft.of(_program())
        draft.sections[section] = np.append(draft.sections[section], np.uint32(0))
        _refused(draft.sealed(), f"section {section} has .* words, not a multiple of")


def _with_channels(channels: int) -> Program:
    """An output layer straight on that many input channels; the compiler would not emit more than it may."""
    network = IntNetwork(
        IntInput(4, 1, 1, np.zeros(4, dtype=np.uint8)),
        (dataclasses.replace(_layer("fc", INPUT, (2, 4, 1, 1), last=True), timesteps=1),),
        1,
        static_input=True,
    )
    draft = Draft.of(lower(network, TINY, plain_meta(network)))
    slots = -(-channels // TINY.banks)
    transform = dataclasses.replace(
        draft.program.input, channels=channels, scale=(1.0,) * channels, offset=(0.0,) * channels
    )
    draft.program = dataclasses.replace(draft.program, input=transform)
    draft.head |= {"in_channels": channels, "in_slots": slots}
    draft.layers[0]["src_slots"] = slots
    draft.sections["weight"] = np.ones(slots * TINY.banks, dtype=np.uint32)
    return draft.sealed()


def test_a_channel_beyond_the_index_of_an_event_is_refused() -> None:
    check_program(_with_channels(512), TINY)
    _refused(_with_channels(513), "513 input channels, at most 512")


def _slots(draft: Draft, **changes: int) -> Draft:
    """Changes in every slot entry."""
    for index, word in enumerate(draft.sections["slot"]):
        entry = unpack(SLOT_FIELDS, [int(word)])
        draft.sections["slot"][index] = pack(SLOT_FIELDS, {**entry, **changes}, 1)[0]
    return draft


def test_no_sum_may_overflow() -> None:
    _refused(_slots(Draft.of(_program()), shift=15).sealed(), r"z may reach \d+, which 28 bits do not hold")
    for narrow, message in (
        (dataclasses.replace(TINY, acc_width=12), "S may reach 6885, which 12 bits do not hold"),
        (dataclasses.replace(TINY, z_width=13), r"-?z may reach \d+, which 13 bits"),
    ):
        draft = Draft.of(dataclasses.replace(_program(), config_digest=narrow.digest))
        draft.head |= {"config_low": narrow.digest & 0xFFFFFFFF, "config_high": narrow.digest >> 32}
        _refused(draft.sealed(), message, narrow)


def test_weight_rows_are_not_read_over_and_over() -> None:
    """So that what a file makes the verifier and the golden model unpack is bounded by what it holds."""
    draft = Draft.of(_program())
    passes, slots = draft.layers[1]["n_passes"], slots_of(draft.layers[1], TINY)
    draft.layers[1].update({"w_pass_stride": 0, "n_passes": 50 * passes, "slot_base": 0})
    draft.sections["slot"] = np.zeros(50 * passes * slots, dtype=np.uint32)
    old = _program()
    start, used = old.descriptor(2)[1]["slot_base"], passes * slots
    draft.sections["slot"][:used] = old.slot[start : start + used]
    _refused(draft.sealed(), "weight rows are read by more than 4 passes each")


def test_parameters_fit_the_configuration() -> None:
    narrow = dataclasses.replace(TINY, membrane_width=20, gain_width=8, skip_width=18)
    for section_word, message in ((5000 << 16 | 300, "a gain does not fit 8 bits"), (0, None)):
        draft = Draft.of(dataclasses.replace(_program(), config_digest=narrow.digest))
        draft.head |= {"config_low": narrow.digest & 0xFFFFFFFF, "config_high": narrow.digest >> 32}
        params = draft.sections["param"].reshape(-1, 2, TINY.neuron_lanes)
        params[:, 0], params[:, 1] = section_word, 1 << 8
        if message is None:
            params[0, 1, 0] = 0x80
            message = "a bias does not fit 20 bits"
        _refused(draft.sealed(), message, narrow)


def _listed_twice(program: Program) -> Program:
    first = program.layers[0]
    return dataclasses.replace(
        program, layers=(dataclasses.replace(first, strips=first.strips * 2), *program.layers[1:])
    )


def _with_maps(*changes: dict[str, int]) -> Callable[[Program], Program]:
    """The layer table says something else of the second layer's legs."""

    def change(program: Program) -> Program:
        info = program.layers[1]
        maps = tuple(dataclasses.replace(info.maps[0], **each) for each in changes)
        layers = (program.layers[0], dataclasses.replace(info, maps=maps), program.layers[2])
        return dataclasses.replace(program, layers=layers)

    return change


def _output_first(program: Program) -> Program:
    """The last strip of layer two, whose rows nobody waits for, runs after the output layer."""
    draft = Draft.of(program)
    draft.steps.insert(0, draft.steps.pop())
    return draft.sealed()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_with_maps({"source": -1}), "reads tensor 0, by the layer table it is -1"),
        (_with_maps({"gate": 2}), "its kind of leg is not that of the layer table"),
        (_with_maps({}, {}), "its layer has another number of legs"),
        (_with_maps(), "its layer has no legs"),
        (_listed_twice, "strips of layer one differ from the layer table"),
        (_output_first, "src_slots does not fit|never stored"),
    ],
)
def test_the_layer_table_is_the_schedules(change: Callable[[Program], Program], message: str) -> None:
    _refused(change(_program()), message)


def test_the_output_layer_runs_last() -> None:
    """Its membranes are the logits, and every layer uses the same memory for them."""
    draft = Draft.of(_program(Hints(max_strip_rows=1)))
    reader = next(strip for strip in draft.layers if strip["layer"] == 2)
    extra = dict(draft.layers[-2])
    assert extra["layer"] == 1
    # a fifth row of layer two that the classifier does not read
    info = draft.program.layers[1]
    layers = list(draft.program.layers)
    layers[1] = dataclasses.replace(info, shape=(info.shape[0], 5, info.shape[2]))
    draft.program = dataclasses.replace(draft.program, layers=tuple(layers))
    extra |= {"dst_act_base": 3800, "dst_cnt_base": 900, "dst_row0": 0}
    draft.steps.append(extra)
    assert reader["n_tap_y"] == 4
    _refused(draft.sealed(), "its output layer is not the last to run")


# -- rows of the input that come later ------------------------------------------------------------------------


def _streamed(rows: int = 3) -> Draft:
    """The image a ring of some rows, each layer a strip at a time."""
    return Draft.of(_program(Hints(input_rows=rows)))


def test_an_input_in_strips_is_taken() -> None:
    draft = _streamed()
    assert len(draft.loads) > 1
    check_program(draft.sealed(), TINY)


def test_input_rows_are_not_overwritten_before_their_last_reader() -> None:
    """Rows that come a strip too early lie where those before are still to be read."""
    draft = _streamed()
    places = [index for index, step in enumerate(draft.steps) if step["opcode"] == Opcode.INPUT]
    assert draft.steps[places[0] - 1]["opcode"] == Opcode.LAYER
    draft.steps.insert(places[0] - 1, draft.steps.pop(places[0]))
    _refused(draft.sealed(), "of its source is not where|was never stored where|is not where it reads it")


def test_input_rows_that_come_too_late() -> None:
    draft = _streamed()
    place = next(index for index, step in enumerate(draft.steps) if step["opcode"] == Opcode.INPUT)
    draft.steps.insert(place + 1, draft.steps.pop(place))
    _refused(draft.sealed(), "is not where|was never stored")


def test_input_rows_in_another_order() -> None:
    """The bytes come in order: what is exchanged are the places of the rows."""
    draft = _streamed(2)
    one, other = draft.loads[0], draft.loads[1]
    records = min(one["in_records"], other["in_records"])
    draft = _streamed(2)
    assert records
    for name in ("in_act_base", "in_cnt_base"):
        one, other = draft.loads[0][name], draft.loads[1][name]
        draft.loads[0][name], draft.loads[1][name] = other + (one == other), one
    _refused(draft.sealed(), "is not where|was never stored|outside the activation memory")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"in_channels": 2}, "its channels are not those of the image"),
        ({"in_slots": 3}, "in_slots does not fit"),
        ({"in_act_base": TINY.act_words}, "outside the activation memory"),
        ({"in_cnt_base": TINY.count_words - 1}, "outside the activation memory"),
        ({"in_cnt_base": 0}, "constant record"),
    ],
)
def test_senseless_rows_of_the_input(changes: dict[str, int], message: str) -> None:
    draft = _streamed()
    draft.loads[-1].update(changes)
    _refused(draft.sealed(), message)


def test_half_a_row_of_the_input() -> None:
    draft = _streamed()
    draft.loads[0]["in_records"] -= 1
    draft.loads[-1]["in_records"] += 1
    _refused(draft.sealed(), "takes no whole rows")


def test_every_row_of_the_input_once() -> None:
    draft = _streamed()
    place = next(index for index, step in enumerate(draft.steps) if step["opcode"] == Opcode.INPUT)
    twice = _streamed()
    twice.steps.insert(place, dict(twice.steps[place]))
    _refused(twice.sealed(), "its input records are not those of its input")
    del draft.steps[place]
    _refused(draft.sealed(), "its input records are not those of its input")


def test_no_input_after_the_output_layer() -> None:
    draft = _streamed()
    draft.steps.append(draft.steps.pop(next(i for i, step in enumerate(draft.steps) if step["opcode"] == Opcode.INPUT)))
    with pytest.raises(InputError):
        check_program(draft.sealed(), TINY)
