"""Valid programs, changed at random as a stranger might, and sealed again: only the verifier stands in the way."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from legs import split, with_bias_through_skip

from reverb_fpga.compiler.backend import Hints, lower
from reverb_fpga.compiler.backend.geometry import walks_of
from reverb_fpga.compiler.program import LayerInfo, MapInfo, Program, sections_crc32
from reverb_fpga.compiler.testing import RandomOptions, plain_meta, random_network
from reverb_fpga.hw.config import Config
from reverb_fpga.hw.contract import (
    CRC_WORD,
    DESCRIPTOR_FIELDS,
    DESCRIPTOR_WORDS,
    LAYER_FIELDS,
    PROGRAM_FIELDS,
    SLOT_FIELDS,
    Field,
    Opcode,
    field_range,
    pack,
    unpack,
)
from reverb_fpga.hw.errors import InputError

__all__ = ["Draft", "bases", "mutated"]

SECTIONS = ("slot", "param", "weight", "act", "count")
LENGTHS = ("n_slot_entries", "n_param_words", "n_weight_words", "n_act_words", "n_count_words")
Rng = np.random.Generator
Fields = dict[str, int]


def bases(rng: Rng, config: Config, number: int) -> list[Program]:
    """Programs that the compiler made: strips, rings, pad records, several bits, static inputs; some with legs."""
    found: list[Program] = []
    options = RandomOptions(max_side=6, max_channels=9, max_layers=3, max_timesteps=3)
    while len(found) < number:
        network = random_network(rng, options)
        if max(walk.window for legs in walks_of(network) for walk in legs) <= config.table_entries:
            hints = (
                Hints(), Hints(ring_rows=1), Hints(max_strip_rows=1), Hints(max_strip_rows=2, ring_rows=3),
                Hints(input_rows=1), Hints(input_rows=3, ring_rows=1),
            )  # fmt: skip
            row_mode = True if config.taps > 1 else None
            hint = dataclasses.replace(hints[int(rng.integers(len(hints)))], row_mode=row_mode)
            try:
                program = lower(network, config, plain_meta(network), hint)
            except InputError as error:
                if "too large" not in str(error):
                    raise
                continue
            legs = int(rng.integers(5)) if config.taps == 1 else 5  # those that are split off gather
            if legs == 0:
                program = with_bias_through_skip(program, config, rng)
            elif legs == 1:
                program = split(program, config, rng, gates=True)
            found.append(program)
    return found


@dataclasses.dataclass
class Draft:
    """A program taken apart: fields of its descriptors (``steps``: those of INPUT and LAYER), and its sections."""

    program: Program
    head: Fields
    steps: list[Fields]
    sections: dict[str, np.ndarray]

    @property
    def layers(self) -> tuple[Fields, ...]:
        return tuple(step for step in self.steps if step["opcode"] == Opcode.LAYER)

    @property
    def loads(self) -> tuple[Fields, ...]:
        """Descriptor 0 and those of INPUT."""
        return (self.head, *(step for step in self.steps if step["opcode"] == Opcode.INPUT))

    @classmethod
    def of(cls, program: Program) -> Draft:
        descriptors = [program.descriptor(index)[1] for index in range(program.n_descriptors - 1)]
        sections = {name: getattr(program, name).copy() for name in SECTIONS}
        return cls(program, descriptors[0], descriptors[1:], sections)

    def sealed(self) -> Program:
        """The program with lengths, layer table and hash that fit; ValueError where something cannot be packed."""
        words: list[int] = []
        lengths = dict(zip(LENGTHS, (len(self.sections[name]) for name in SECTIONS), strict=True))
        head = {**self.head, **lengths, "n_descriptors": len(self.steps) + 2}
        words += pack(PROGRAM_FIELDS, head, DESCRIPTOR_WORDS)
        for step in self.steps:
            words += pack(DESCRIPTOR_FIELDS[Opcode(step["opcode"])], step, DESCRIPTOR_WORDS)
        words += pack(DESCRIPTOR_FIELDS[Opcode.END], {"opcode": Opcode.END}, DESCRIPTOR_WORDS)
        desc = np.array(words, dtype=np.uint32)
        program = dataclasses.replace(self.program, desc=desc, layers=self._table(), **self.sections)
        desc[CRC_WORD] = sections_crc32(program.sections())
        return program

    def _table(self) -> tuple:
        table = []
        for number, info in enumerate(self.program.layers):
            strips, rows = [], 0
            for index, layer in enumerate(self.steps):
                if layer.get("layer") == number and not layer["store_skip"]:
                    strips.append((index + 1, rows, layer["rows"]))
                    rows += layer["rows"]
            firing = (layer for layer in self.layers if layer["layer"] == number and not layer["store_skip"])
            cols = next((layer["cols"] for layer in firing), 1)
            shape = (info.shape[0], rows, cols)
            timesteps = self.program.timesteps
            table.append(
                dataclasses.replace(
                    info, strips=tuple(strips), shape=shape, timesteps=timesteps, maps=self._maps(number, info)
                )
            )
        return tuple(table)

    def _maps(self, number: int, info: LayerInfo) -> tuple[MapInfo, ...]:
        """The legs of the layer's first strip."""
        legs = self.of_layer(number)
        fires = next((index for index, layer in enumerate(legs) if not layer["store_skip"]), len(legs) - 1)
        return tuple(
            dataclasses.replace(info.maps[min(index, len(info.maps) - 1)], gate=leg["gate"])
            for index, leg in enumerate(legs[: fires + 1])
        )

    def of_layer(self, number: int) -> list[Fields]:
        return [layer for layer in self.layers if layer["layer"] == number]

    def some_layer(self, rng: Rng) -> tuple[int, list[Fields]]:
        number = self.layers[int(rng.integers(len(self.layers)))]["layer"]
        return number, self.of_layer(number)


def _value(rng: Rng, field: Field, old: int) -> int:
    low, high = field_range(field)
    choices = [low, high, 0, 1, 2, old + 1, old - 1, 2 * old, old ^ 1, int(rng.integers(low, high + 1))]
    return int(np.clip(choices[int(rng.integers(len(choices)))], low, high))


def _field(rng: Rng) -> Field:
    fields = [field for field in LAYER_FIELDS if field.name not in ("opcode", "gap", "layer")]
    return fields[int(rng.integers(len(fields)))]


def one_field(draft: Draft, rng: Rng) -> None:
    layer, field = draft.layers[int(rng.integers(len(draft.layers)))], _field(rng)
    layer[field.name] = _value(rng, field, layer[field.name])


def field_of_layer(draft: Draft, rng: Rng) -> None:
    _, strips = draft.some_layer(rng)
    field = _field(rng)
    value = _value(rng, field, strips[0][field.name])
    for strip in strips:
        strip[field.name] = value


def head_field(draft: Draft, rng: Rng) -> None:
    name = str(rng.choice(["in_act_base", "in_cnt_base", "in_slots", "in_channels", "in_records", "n_outputs"]))
    field = next(field for field in PROGRAM_FIELDS if field.name == name)
    loads = (draft.head,) if name == "n_outputs" else draft.loads
    chosen = loads if rng.random() < 0.3 else (loads[int(rng.integers(len(loads)))],)
    value = _value(rng, field, chosen[0][field.name])
    for load in chosen:
        load[field.name] = value


def geometry(draft: Draft, rng: Rng) -> None:
    """Another walk; columns follow it, as the contract asks."""
    _, strips = draft.some_layer(rng)
    changes: Fields = {}
    for name in ("ix0", "x_step", "x_pool", "x_tap", "in_width", "in_height", "iy0", "y_step", "y_pool", "y_tap"):
        if rng.random() < 0.3:
            near = strips[0][name] + int(rng.integers(-2, 3))
            wide = int(rng.choice([0, 1, 2, 3, 63]))
            changes[name] = near if name in ("ix0", "iy0") else max(0, near if rng.random() < 0.7 else wide)
    if rng.random() < 0.2:
        changes["cols"] = int(rng.integers(1, 40))
    for strip in strips:
        strip.update(changes)
        for level in ("step", "pool", "tap"):
            strip[f"src_col_{level}"] = strip[f"x_{level}"] * strip["t_src"]
        strip["src_col0"] = strip["ix0"] * strip["t_src"]
        if "cols" in changes:
            strip["dst_row_stride"] = strip["cols"] * strip["timesteps"]


def move(draft: Draft, rng: Rng) -> None:
    """A tensor somewhere else: where it is written and where it is read."""
    number = int(rng.integers(0, len(draft.program.layers) + 1))
    reach = int(rng.choice([8, 64, 400]))
    act, count = int(rng.integers(0, reach)), int(rng.integers(0, reach))
    if rng.random() < 0.3:  # onto the constant record or another tensor
        other = draft.layers[int(rng.integers(len(draft.layers)))]
        act, count = other["src_act_base"], other["src_cnt_base"]
    if number == 0:
        acts, counts = (act - draft.head["in_act_base"], count - draft.head["in_cnt_base"])
        for load in draft.loads:
            load["in_act_base"], load["in_cnt_base"] = load["in_act_base"] + acts, load["in_cnt_base"] + counts
    for strip in draft.layers:
        if strip["layer"] == number:
            strip |= {"src_act_base": act, "src_cnt_base": count}
        if strip["layer"] == number - 1:
            strip |= {"dst_act_base": act, "dst_cnt_base": count}


def ring(draft: Draft, rng: Rng) -> None:
    """Another number of rows in a ring."""
    number = int(rng.integers(0, len(draft.program.layers)))
    writers, readers = draft.of_layer(number), draft.of_layer(number + 1)
    if not writers:
        return
    stride = writers[0]["dst_row_stride"]
    rows = max(1, writers[0]["dst_ring"] // max(1, stride) + int(rng.integers(-2, 3)))
    if rows * stride >= 1 << 16:
        return
    row = 0
    for strip in writers:
        strip["dst_ring"], strip["dst_row0"] = rows * stride, row % rows * stride
        row += 0 if strip["store_skip"] else strip["rows"]
    for strip in readers:
        strip["src_ring"] = rows * stride
        for name, factor in (
            ("src_row0", "iy0"),
            ("src_row_step", "y_step"),
            ("src_row_pool", "y_pool"),
            ("src_row_tap", "y_tap"),
        ):
            strip[name] = strip[factor] % rows * stride


def neurons(draft: Draft, rng: Rng) -> None:
    _, strips = draft.some_layer(rng)
    values = {
        "tau_q": [0, 1, 128, 255, 256], "r_shift": [0, 1, 5, 31, 43, 44, 62, 63], "code_max": [1, 2, 127, 255],
        "w_base": [0, 1, 2], "w_pass_stride": [0, 1], "param_base": [0, 1], "slot_base": [0, 1, 2],
        "n_passes": [1, 2, 3], "pass_slots": [0, 1, 2, 3, 255], "row_passes": [0, 0, 1, 2],
        "repeat_passes": [0, 1, 2, 9], "soft_reset": [0, 1],
        "reset": [0, 1, 4096, (1 << 23) - 1],
    }  # fmt: skip
    changes = {name: int(rng.choice(few)) for name, few in values.items() if rng.random() < 0.25}
    for strip in strips:
        strip.update(changes)


def slot_entry(draft: Draft, rng: Rng) -> None:
    slots = draft.sections["slot"]
    if not len(slots):
        return
    index = int(rng.integers(len(slots)))
    entry = unpack(SLOT_FIELDS, [int(slots[index])])
    field = SLOT_FIELDS[int(rng.integers(len(SLOT_FIELDS)))]
    entry[field.name] = _value(rng, field, entry[field.name])
    if rng.random() < 0.2:
        entry |= {"shift": 15}
    slots[index] = pack(SLOT_FIELDS, entry, 1)[0]


def slot_order(draft: Draft, rng: Rng) -> None:
    slots = draft.sections["slot"]
    if not len(slots):
        return
    one, other = rng.integers(len(slots), size=2)
    slots[[one, other]] = slots[[other, one]]


def slots_apart(draft: Draft, rng: Rng) -> None:
    """Groups far from each other: cells of z are shared."""
    for index, word in enumerate(draft.sections["slot"]):
        entry = unpack(SLOT_FIELDS, [int(word)])
        entry["group"] = entry["group"] * int(rng.choice([1, 16])) % 32
        draft.sections["slot"][index] = pack(SLOT_FIELDS, entry, 1)[0]


def words(draft: Draft, rng: Rng) -> None:
    name = SECTIONS[int(rng.choice([1, 1, 2, 2, 3, 4]))]
    section = draft.sections[name]
    if not len(section):
        return
    number = int(rng.choice([1, 5, len(section)]))
    places = rng.integers(len(section), size=number)
    bits = 32 if name == "param" else int(rng.choice([8, 16, 32]))
    section[places] = rng.integers(0, 1 << bits, size=number).astype(np.uint32)


def stray_bit(draft: Draft, rng: Rng) -> None:
    section = draft.sections[SECTIONS[int(rng.integers(len(SECTIONS)))]]
    if len(section):
        section[int(rng.integers(len(section)))] ^= np.uint32(1 << int(rng.integers(32)))


def lengths(draft: Draft, rng: Rng) -> None:
    name = SECTIONS[int(rng.integers(len(SECTIONS)))]
    section, kind = draft.sections[name], int(rng.integers(4))
    changed = (section[:-1], np.append(section, np.uint32(0)), section[:0], np.concatenate([section, section]))
    draft.sections[name] = changed[kind].astype(np.uint32)


def order(draft: Draft, rng: Rng) -> None:
    """Strips left out, repeated or exchanged."""
    steps = draft.steps
    one, other = (int(index) for index in rng.integers(len(steps), size=2))
    kind = int(rng.integers(3))
    if kind == 0 and len(draft.layers) > 1:
        del steps[one]
    elif kind == 1:
        steps.insert(other, dict(steps[one]))
    else:
        steps[one], steps[other] = steps[other], steps[one]


def time_steps(draft: Draft, rng: Rng) -> None:
    steps = int(rng.integers(1, 10))
    draft.program = dataclasses.replace(draft.program, timesteps=steps)
    for strip in draft.layers:
        strip["timesteps"] = steps
        if strip["layer"] or not strip["static_input"]:
            strip["t_src"] = steps
        strip["dst_row_stride"] = strip["cols"] * steps


Mutation = Callable[[Draft, Rng], None]
MUTATIONS: tuple[tuple[Mutation, int], ...] = (
    (one_field, 10), (field_of_layer, 10), (head_field, 3), (geometry, 14), (move, 14), (ring, 8), (neurons, 12),
    (slot_entry, 10), (slot_order, 5), (slots_apart, 2), (words, 8), (stray_bit, 3), (lengths, 4), (order, 5),
    (time_steps, 3),
)  # fmt: skip


def mutated(rng: Rng, program: Program) -> tuple[Program, list[str]]:
    """A program with one to four changes, and their names. InputError where a value does not fit its field."""
    draft = Draft.of(program)
    weights = np.array([weight for _, weight in MUTATIONS], dtype=float)
    chosen = rng.choice(len(MUTATIONS), size=int(rng.choice([1, 1, 1, 2, 2, 3, 4])), p=weights / weights.sum())
    for index in chosen:
        MUTATIONS[index][0](draft, rng)
    return draft.sealed(), [MUTATIONS[index][0].__name__ for index in chosen]
