"""Programs with shortcuts made by hand: every strip of a compiled program becomes a chain of legs.

The legs read the source of their strip, through the same window or only its first tap, with weights from anywhere in
the weight memory, slot programs of their own and parameters of their own; so they have other currents, other numbers
of passes and another order of groups and planes than the leg that fires.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from reverb_fpga.compiler.program import Program, sections_crc32
from reverb_fpga.compiler.row_mode import slots_of
from reverb_fpga.hw import contract
from reverb_fpga.hw.config import Config
from reverb_fpga.hw.contract import (
    DESCRIPTOR_FIELDS,
    DESCRIPTOR_WORDS,
    PARAM_FIELDS,
    PARAM_WORDS,
    SLOT_FIELDS,
    Gate,
    Opcode,
)

__all__ = ["sealed", "split", "with_bias_through_skip"]

Fields = dict[str, int]


def sealed(program: Program) -> Program:
    """The program with section lengths and checksum that are right."""
    _, head = program.descriptor(0)
    head |= {
        "n_descriptors": program.n_descriptors, "n_slot_entries": len(program.slot),
        "n_param_words": len(program.param), "n_weight_words": len(program.weight),
    }  # fmt: skip
    for _ in range(2):  # a checksum may cover the descriptor that holds it
        head["crc32"] = sections_crc32(program.sections())
        desc = program.desc.copy()
        desc[:DESCRIPTOR_WORDS] = contract.pack(DESCRIPTOR_FIELDS[Opcode.PROGRAM], head, DESCRIPTOR_WORDS)
        program = dataclasses.replace(program, desc=desc)
    return program


class _Constants:
    """Slot program and parameters that grow."""

    def __init__(self, program: Program, config: Config) -> None:
        self.config = config
        self.slot = [int(word) for word in program.slot]
        self.param = [int(word) for word in program.param]

    def add_slots(self, entries: list[Fields]) -> int | None:
        """Where they lie; None if there is no room."""
        base = len(self.slot)
        if base + len(entries) > self.config.slot_entries:
            return None
        self.slot += [contract.pack(SLOT_FIELDS, entry, 1)[0] for entry in entries]
        return base

    def add_params(self, gain: np.ndarray, bias: np.ndarray, threshold: np.ndarray) -> int | None:
        """The same for whole groups of channels."""
        lanes = self.config.neuron_lanes
        base, groups = len(self.param) // (PARAM_WORDS * lanes), len(gain) // lanes
        if base + groups > self.config.param_groups:
            return None
        words = np.array(
            [
                contract.pack(
                    PARAM_FIELDS,
                    {"gain": m, "bias_low": b & 0xFFFF, "bias_high": b >> 16 & 0xFF, "threshold": theta},
                    PARAM_WORDS,
                )
                for m, b, theta in zip(gain.tolist(), bias.tolist(), threshold.tolist(), strict=True)
            ]
        )
        self.param += words.reshape(groups, lanes, PARAM_WORDS).transpose(0, 2, 1).ravel().tolist()
        return base

    def params(self, base: int, groups: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Gain, bias and threshold of some groups."""
        lanes = self.config.neuron_lanes
        words = np.array(self.param).reshape(-1, PARAM_WORDS, lanes)[base : base + groups]
        bias = words[:, 0] >> 16 | (words[:, 1] & 0xFF) << 16
        signed = [((part ^ 0x800000) - 0x800000).ravel() for part in (bias, words[:, 1] >> 8)]
        return (words[:, 0] & 0xFFFF).ravel(), *signed


def _groups(program: Program, config: Config, fields: Fields) -> int:
    count = fields["n_passes"] * slots_of(fields, config)
    words = program.slot[fields["slot_base"] : fields["slot_base"] + count]
    entries = [contract.unpack(SLOT_FIELDS, [int(word)]) for word in words]
    return 1 + max(entry["group"] for entry in entries if entry["valid"])


def _steps(program: Program) -> list[tuple[Opcode, Fields]]:
    return [program.descriptor(index) for index in range(1, program.n_descriptors - 1)]


def _layers(program: Program) -> list[Fields]:
    return [fields for opcode, fields in _steps(program) if opcode is Opcode.LAYER]


def _assembled(program: Program, strips: list[list[Fields]], constants: _Constants) -> Program:
    """The program with these descriptors, strip by strip, in place of those of its layers."""
    moved, at = {}, 1
    words = [int(word) for word in program.desc[:DESCRIPTOR_WORDS]]
    left = iter(strips)
    for number, (opcode, fields) in enumerate(_steps(program), start=1):
        legs = next(left) if opcode is Opcode.LAYER else [fields]
        at += len(legs)
        moved[number] = at - 1
        for leg in legs:
            words += contract.pack(DESCRIPTOR_FIELDS[opcode], leg, DESCRIPTOR_WORDS)
    words += [int(word) for word in program.desc[-DESCRIPTOR_WORDS:]]
    first = {legs[0]["layer"]: legs for legs in reversed(strips)}
    layers = tuple(
        dataclasses.replace(
            info,
            strips=tuple((moved[index], first, rows) for index, first, rows in info.strips),
            maps=tuple(dataclasses.replace(info.maps[-1], gate=int(leg["gate"])) for leg in first[layer]),
        )
        for layer, info in enumerate(program.layers)
    )
    return sealed(
        dataclasses.replace(
            program,
            layers=layers,
            desc=np.array(words, dtype=np.uint32),
            slot=np.array(constants.slot, dtype=np.uint32),
            param=np.array(constants.param, dtype=np.uint32),
        )
    )


def _extra_legs(program: Program, config: Config, wanted: list[int]) -> list[int]:
    """How many legs every strip of each layer gets: those wanted, or none where they do not fit."""
    room = config.descriptors - program.n_descriptors
    found = []
    for layer, number in enumerate(wanted):
        strips = [fields for fields in _layers(program) if fields["layer"] == layer]
        words = max(
            fields["rows"] * fields["cols"] * fields["timesteps"] * _groups(program, config, fields)
            for fields in strips
        )
        fits = words <= config.skip_words and number * len(strips) <= room
        found.append(number if fits else 0)
        room -= found[-1] * len(strips)
    return found


def split(program: Program, config: Config, rng: np.random.Generator, gates: bool = False) -> Program:
    """Strips become two or three legs each, as many as there is room for; with ``gates``, whole maps get one before."""
    constants = _Constants(program, config)
    room = config.descriptors - program.n_descriptors
    numbers = _extra_legs(program, config, [0 if gates else int(rng.integers(1, 3)) for _ in program.layers])
    variants: dict[tuple[int, int], Fields] = {}
    strips = []
    for fields in _layers(program):
        groups = _groups(program, config, fields)
        legs = [fields]
        before = _gated(program, constants, fields, groups, rng) if gates and room >= 3 else None
        if before is not None:
            strips.append([*before, fields | {"add_skip": 1, "skip_groups": groups, "repeat_passes": 0}])
            room -= len(before)
            continue
        number = numbers[fields["layer"]]
        if number:
            before = []
            for index in range(number):
                key = fields["layer"], index
                if key not in variants:
                    variants[key] = _variant(program, constants, fields, groups, rng)
                before.append(
                    fields
                    | variants[key]
                    | {"repeat_passes": 0, "store_skip": 1, "spiking": 0, "add_skip": int(index > 0)}
                )
            legs = [*before, fields | {"add_skip": 1}]
            legs = [leg | {"skip_groups": groups, "repeat_passes": 0} for leg in legs]
        strips.append(legs)
    return _assembled(program, strips, constants)


def _gated(
    program: Program, constants: _Constants, fields: Fields, groups: int, rng: np.random.Generator
) -> list[Fields] | None:
    """SUM, SIGMOID and APPLY before a strip that is a whole map; None if it is not, or there is no room."""
    config, steps, lanes = constants.config, fields["timesteps"], constants.config.neuron_lanes
    info = program.layers[fields["layer"]]
    words = fields["rows"] * fields["cols"] * steps * groups
    if info.shape[1:] != (fields["rows"], fields["cols"]) or words + steps * groups > config.skip_words:
        return None
    reach = 1 << int(rng.integers(2, 18))
    factors = rng.integers(-reach, reach, steps * lanes)
    drained = int(rng.integers(1, config.slots + 1))
    slots = constants.add_slots(_slot_program(groups, drained, rng))
    base = constants.add_params(np.zeros_like(factors), np.zeros_like(factors), factors)
    if slots is None or base is None:
        return None
    common = fields | {
        "repeat_passes": 0, "store_skip": 1, "spiking": 0, "skip_groups": groups,
        "gate_base": int(rng.integers(words, config.skip_words - steps * groups + 1)),
    }  # fmt: skip
    nothing = {
        "rows": 1, "cols": 1, "n_tap_y": 1, "n_tap_x": 1, "n_pool_y": 1, "n_pool_x": 1, "iy0": fields["in_height"],
        "pad_record": 0, "slot_base": slots, "n_passes": (len(constants.slot) - slots) // drained,
        "pass_slots": drained, "w_pass_stride": 0, "param_base": base,
    }  # fmt: skip
    return [
        common | _variant(program, constants, fields, groups, rng) | {"gate": Gate.SUM},
        common | nothing | {"gate": Gate.SIGMOID},
        common | _variant(program, constants, fields, groups, rng) | {"gate": Gate.APPLY},
    ]


def _variant(program: Program, constants: _Constants, fields: Fields, groups: int, rng: np.random.Generator) -> Fields:
    """Fields of a leg that differ from those of the leg that fires; the same for all strips of a layer."""
    config = constants.config
    found: Fields = {"r_shift": int(np.clip(fields["r_shift"] + rng.integers(-2, 3), 0, 63))}
    if rng.random() < 0.5:
        found |= {"n_tap_y": 1, "n_tap_x": 1, "n_pool_y": 1, "n_pool_x": 1}
    if rng.random() < 0.7:
        drained = int(rng.integers(1, config.slots + 1))
        entries = _slot_program(groups, drained, rng)
        base = constants.add_slots(entries)
        if base is not None:
            found |= {"slot_base": base, "n_passes": len(entries) // drained, "pass_slots": drained}
    walk = fields | found
    taps = walk["n_tap_y"] * walk["n_tap_x"] * walk["src_slots"]
    rows = len(program.weight) // (config.banks * config.weight_words)
    if walk["n_passes"] * taps <= rows:
        found["w_pass_stride"] = int(rng.integers(0, (rows - taps) // max(1, walk["n_passes"] - 1) + 1))
        found["w_base"] = int(rng.integers(0, rows - (walk["n_passes"] - 1) * found["w_pass_stride"] - taps + 1))
    elif walk["n_passes"] > fields["n_passes"]:
        found |= {name: fields[name] for name in ("n_passes", "slot_base", "pass_slots")}
    lanes = groups * config.neuron_lanes
    reach = (fields["code_max"] << config.fraction_bits) // 2 + 1
    gain = rng.integers(0, 65536, lanes) * (rng.random(lanes) < 0.9)
    bias = rng.integers(-reach, reach + 1, lanes)
    if rng.random() < 0.2:
        bias = rng.choice([-(1 << 23), (1 << 23) - 1, -(1 << 17), (1 << 17) - 1, 0], lanes)
    channels = program.layers[fields["layer"]].shape[0]
    gain[channels:], bias[channels:] = 0, 0  # lanes without a channel stay silent
    base = constants.add_params(gain, bias, np.zeros(lanes, dtype=np.int64))
    return found if base is None else found | {"param_base": base}


def _slot_program(groups: int, slots: int, rng: np.random.Generator) -> list[Fields]:
    """Binary, or two or three planes; groups whole one after the other, so that they finish in ascending order."""
    planes = int(rng.choice([1, 1, 2, 3]))
    entries: list[Fields] = []
    for group in range(groups):
        for plane in range(planes):
            if rng.random() < 0.1:
                entries.append({"valid": 0})
            entries.append(
                {
                    "group": group, "shift": 1 if planes == 1 else plane, "valid": 1,
                    "negate": int(planes > 1 and plane == planes - 1), "subtract_s": int(planes == 1),
                    "first": int(plane == 0), "final": int(plane == planes - 1),
                }
            )  # fmt: skip
    return [*entries, *({"valid": 0} for _ in range(-len(entries) % slots))]


def with_bias_through_skip(program: Program, config: Config, rng: np.random.Generator) -> Program:
    """The same function: a part of every bias takes the way through the skip memory, in a leg without gain."""
    constants = _Constants(program, config)
    numbers = _extra_legs(program, config, [1] * len(program.layers))
    moved: dict[int, tuple[Fields, Fields] | None] = {}
    strips = []
    limit = 1 << (config.skip_width - 1)
    for fields in _layers(program):
        groups = _groups(program, config, fields)
        layer = fields["layer"]
        if layer not in moved:
            gain, bias, threshold = constants.params(fields["param_base"], groups)
            part = rng.integers(-limit, limit, len(bias))
            part[program.layers[layer].shape[0] :] = 0
            part = np.clip(part, bias - ((1 << 23) - 1), bias + (1 << 23))  # so that the rest has 24 bits
            leg = constants.add_params(np.zeros_like(gain), part, threshold)
            rest = constants.add_params(gain, bias - part, threshold)
            moved[layer] = None if leg is None or rest is None else ({"param_base": leg}, {"param_base": rest})
        change = moved[layer]
        if change is None or not numbers[layer]:
            strips.append([fields])
            continue
        common = fields | {"skip_groups": groups, "repeat_passes": 0}  # a leg repeats none
        strips.append([common | change[0] | {"store_skip": 1, "spiking": 0}, common | change[1] | {"add_skip": 1}])
    return _assembled(program, strips, constants)
