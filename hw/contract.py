"""The contract between gateware, compiler, golden model and host: every opcode, register, layout and frame.

Plain Python data, written once. The Amaranth layouts and the packers are derived from it.
Prose, units and semantics: ``docs/architecture.md`` and ``docs/numerics.md``.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Mapping

from .errors import InputError

CONTRACT_VERSION = 2
MAGIC = 0x31425652  # "RVB1", little-endian: the constant health register

# -- descriptors --------------------------------------------------------------------------------------------

WORD_BITS = 32  # of everything that is made of words: the host bus, descriptors, weights, registers
DESCRIPTOR_WORDS = 32


class Opcode(enum.IntEnum):
    """First byte of a descriptor. Anything else traps."""

    PROGRAM = 0x50
    INPUT = 0x49
    LAYER = 0x4C
    END = 0x45


@dataclasses.dataclass(frozen=True)
class Field:
    """A bit field of a 32-bit word."""

    name: str
    word: int
    lsb: int
    width: int
    signed: bool = False


def _words(*words: tuple[tuple[str, int] | tuple[str, int, bool], ...]) -> tuple[Field, ...]:
    """Fields packed from bit 0 up, word by word."""
    fields = []
    for index, word in enumerate(words):
        lsb = 0
        for name, width, *signed in word:
            fields.append(Field(name, index, lsb, width, bool(signed and signed[0])))
            lsb += width
        if lsb > 32:
            raise ValueError(f"word {index} has {lsb} bits")
    return tuple(fields)


PROGRAM_FIELDS = _words(
    (("opcode", 8), ("version", 8), ("in_channels", 11)),
    (("in_records", 20),),
    (("in_act_base", 16), ("in_cnt_base", 16)),
    (("in_slots", 9), ("n_outputs", 11)),
    (("n_descriptors", 16), ("n_slot_entries", 16)),
    (("n_param_words", 20),),
    (("n_weight_words", 20),),
    (("n_act_words", 20),),
    (("n_count_words", 20),),
    (("crc32", 32),),
    (("config_low", 32),),
    (("config_high", 32),),
)
"""Descriptor 0: section lengths, first rows of the input, the configuration digest, the CRC-32 over all sections."""

INPUT_FIELDS = tuple(field for field in PROGRAM_FIELDS if field.name == "opcode" or field.name.startswith("in_"))
"""The next rows of the input, where they are stored: fields of descriptor 0, in the same places."""

LAYER_FIELDS = _words(
    (
        ("opcode", 8), ("spiking", 1), ("static_input", 1), ("pad_record", 1), ("store_skip", 1), ("add_skip", 1),
        ("gate", 2), ("gap", 1), ("layer", 8), ("r_shift", 6),
    ),
    (("rows", 10), ("cols", 10), ("timesteps", 5), ("t_src", 5)),
    (("in_height", 10), ("in_width", 10), ("code_max", 8)),
    (("iy0", 12, True), ("ix0", 12, True)),
    (("y_step", 6), ("y_pool", 6), ("y_tap", 6), ("x_step", 6), ("x_pool", 6)),
    (("x_tap", 6), ("n_pool_y", 4), ("n_pool_x", 4), ("n_tap_y", 6), ("n_tap_x", 6)),
    (("src_row0", 16), ("src_row_step", 16)),
    (("src_row_pool", 16), ("src_row_tap", 16)),
    (("src_ring", 16), ("src_cnt_base", 16)),
    (("src_act_base", 16), ("src_slots", 9)),
    (("src_col0", 16, True), ("src_col_step", 16)),
    (("src_col_pool", 16), ("src_col_tap", 16)),
    (("pad_act_base", 16), ("pad_cnt_base", 16)),
    (("dst_act_base", 16), ("dst_cnt_base", 16)),
    (("dst_ring", 16), ("dst_row0", 16)),
    (("dst_row_stride", 16), ("dst_slots", 9)),
    (("w_base", 16), ("w_pass_stride", 16)),
    (("n_passes", 10), ("slot_base", 14), ("pass_slots", 8)),
    (("param_base", 14), ("tau_q", 9), ("skip_groups", 9)),
    (("gate_base", 16), ("row_passes", 10)),
    (("reset", 23), ("soft_reset", 1), ("repeat_passes", 8)),
)  # fmt: skip
"""A strip of output rows of one layer, or of one leg of it. ``gap`` and every bit not named are reserved: zero.

``store_skip``: the current goes to the skip memory instead of the neurons (``spiking`` is 0). ``add_skip``: what lies
there is added to the current. ``skip_groups``: groups of a record in the skip memory, at most 256; 0 without a flag.
``gate``: of :class:`Gate`, a kind of leg, with ``store_skip`` and without ``add_skip``; its gates lie from the word
``gate_base`` on. ``soft_reset``: a neuron that fires keeps its membrane less ``reset`` (0 without the flag).

``pass_slots``: slots of a pass that are drained, the first ones; its entries in the slot program. 0: all.

``row_passes``: 0 in gather mode. In row mode (configurations with three ``taps``) the passes of a source column; there
are ``n_passes = row_passes * n_pool_x`` of an output position.

``repeat_passes``: of a static input. 0: the slots of each pass are drained T times. Otherwise the last that many passes
of a position, which hold every final slot, are drained again for each further step, between the other passes of the
next position and its own last ones. z then has ``z_depth / 2`` cells for a position.
"""


class Gate(enum.IntEnum):
    """Legs of a layer with a data-dependent gate, in this order (numerics.md section 3)."""

    NONE = 0
    SUM = 1
    """Adds its current up over all positions, by step and channel."""
    SIGMOID = 2
    """Turns sums into gates."""
    APPLY = 3
    """Stores its current times the gate."""


ROW_TAPS = 3  # kernel columns that row mode reads at once
ROW_CELLS = 16  # of the sums that wait for their next column, by step and pass; the last one is never written
ROW_FIELDS = ("row_passes",)
"""Fields of LAYER that only a configuration with row mode has; reserved bits to the others."""

GATE_ONE = 256
GATE_SHIFT = 20  # of sum times factor: what is left are sixteenths
FACTOR_BITS = 18  # of the threshold, as the factor of a sum
SIGMOID_STEPS = 16  # to a unit of the argument
SIGMOID: tuple[int, ...] = tuple(
    math.floor(GATE_ONE / (1 + math.exp(-(index + 0.5) / SIGMOID_STEPS)) + 0.5) for index in range(128)
)
"""``256 * sigmoid((x + 1/2) / 16)``, rounded, for x = 0..127; that of ``-1 - x`` is 256 less this."""
GATES: tuple[int, ...] = (*(GATE_ONE - value for value in reversed(SIGMOID)), *SIGMOID)
"""Gates of all arguments, x = -128..127."""

END_FIELDS = _words((("opcode", 8),))

CRC_WORD = next(field.word for field in PROGRAM_FIELDS if field.name == "crc32")
"""Word of descriptor 0 that holds the CRC-32; it counts as 0 when the CRC is taken."""

DESCRIPTOR_FIELDS: Mapping[Opcode, tuple[Field, ...]] = {
    Opcode.PROGRAM: PROGRAM_FIELDS,
    Opcode.INPUT: INPUT_FIELDS,
    Opcode.LAYER: LAYER_FIELDS,
    Opcode.END: END_FIELDS,
}

SLOT_FIELDS = _words(
    (("group", 10), ("shift", 4), ("negate", 1), ("subtract_s", 1), ("first", 1), ("final", 1), ("valid", 1)),
)
"""One entry of the slot program: what a neuron-lane group does with the P values of one slot of one pass."""

PARAM_WORDS = 2
PARAM_FIELDS = _words(
    (("gain", 16), ("bias_low", 16)),
    (("bias_high", 8), ("threshold", 24, True)),
)
"""Parameters of one output channel; ``bias`` is signed 24 bits, split over the words."""

EVENT_VALUE_BITS = 8
EVENT_INDEX_BITS = 8
EVENT_FIELDS = _words(
    (("value", EVENT_VALUE_BITS), ("index", EVENT_INDEX_BITS)),
)
"""A word of the activation memory: activation code and channel index within the bank (channel // banks)."""

COUNT_BITS = 9
MEMBRANE_BITS = PARAM_FIELDS[-1].width  # of a bias and a threshold; a configuration may have fewer
MULTIPLICAND_BITS = 35  # of a current: what two multipliers of 18 bits take
NEURON_WAYS = (2, 4)  # neuron lanes that take turns on one datapath, as a configuration says
TABLE_LIMIT = 1024  # source records of one position; also bounds the time of verifying a program
POSITION_BITS = 14  # source coordinates y and x, signed: image (10 bits), window and pooling
TAU_ONE = 256  # tau_q of a membrane that does not leak; tau = tau_q / 256


def field_of(fields: tuple[Field, ...], name: str) -> Field:
    """The field of that name."""
    return next(field for field in fields if field.name == name)


def field_range(field: Field) -> tuple[int, int]:
    """Smallest and largest value of a field."""
    if field.signed:
        return -(1 << (field.width - 1)), (1 << (field.width - 1)) - 1
    return 0, (1 << field.width) - 1


def pack(fields: tuple[Field, ...], values: Mapping[str, int], words: int) -> list[int]:
    """Pack ``values`` (missing ones are 0) into ``words`` 32-bit words.

    Raises
    ------
    InputError
        If a value does not fit its field, or has no field; says by how much.
    """
    known = {field.name for field in fields}
    if unknown := set(values) - known:
        raise InputError(f"no such field: {', '.join(sorted(unknown))}")
    out = [0] * words
    for field in fields:
        value = int(values.get(field.name, 0))
        low, high = field_range(field)
        if not low <= value <= high:
            raise InputError(f"field {field.name} = {value} does not fit {field.width} bits ({low}..{high})")
        out[field.word] |= (value & ((1 << field.width) - 1)) << field.lsb
    return out


def unpack(fields: tuple[Field, ...], words: list[int]) -> dict[str, int]:
    """Inverse of :func:`pack`. Raises :class:`InputError` if a bit that no field names is set."""
    out = {}
    used = [0] * len(words)
    for field in fields:
        mask = (1 << field.width) - 1
        value = (int(words[field.word]) >> field.lsb) & mask
        used[field.word] |= mask << field.lsb
        if field.signed and value >> (field.width - 1):
            value -= 1 << field.width
        out[field.name] = value
    for index, (word, mask) in enumerate(zip(words, used, strict=True)):
        if int(word) & ~mask & 0xFFFFFFFF:
            raise InputError(f"reserved bits are set in word {index}: {int(word):#010x}")
    if out.get("gap"):
        raise InputError("reserved bits are set in field gap")
    return out


# -- host bus -----------------------------------------------------------------------------------------------

ADDRESS_BITS = 24
OFFSET_BITS = 20
REGION_BITS = ADDRESS_BITS - OFFSET_BITS


class Region(enum.IntEnum):
    """Top four bits of a host-bus word address. Offsets are linear; lanes and banks vary fastest.

    ======== ===========================================================================
    CSR      registers, see :class:`Csr`
    DESC     descriptor * 32 + word
    SLOT     entry
    PARAM    (group * 2 + word) * neuron_lanes + lane
    WEIGHT   (row * banks + bank) * weight_words + word; bit i of word w is lane 32 w + i; behind the words of all lanes
             that of row weight_rows + row, if there is a strip (lanes 0 to 31)
    ACT      word * banks + bank (16 bits: event)
    COUNT    record * banks + bank (9 bits)
    MEMBRANE group * neuron_lanes + lane (sign-extended; read only; the logits after DONE)
    COUNTER  descriptor * 8 + counter (read only)
    ======== ===========================================================================
    """

    CSR = 0
    DESC = 1
    SLOT = 2
    PARAM = 3
    WEIGHT = 4
    ACT = 5
    COUNT = 6
    MEMBRANE = 7
    COUNTER = 8


def address(region: Region, offset: int) -> int:
    """Word address on the host bus."""
    return (region << OFFSET_BITS) | offset


class Csr(enum.IntEnum):
    """Registers of region CSR (word offsets)."""

    MAGIC = 0
    VERSION = 1
    CONFIG_LOW = 2
    CONFIG_HIGH = 3
    STATUS = 4
    CONTROL = 5
    HALT_AFTER = 6
    WATCHDOG = 7
    CYCLES = 8
    INPUT_BYTES = 9
    HASH = 10


STATUS_FIELDS = _words(
    (("state", 4), ("armed", 1), ("gap", 3), ("error", 8), ("pc", 16)),
)
CONTROL_FIELDS = _words(
    (("start", 1), ("resume", 1), ("reset", 1)),
)
NO_HALT = 0xFFFF
WATCHDOG_CYCLES = 1 << 26  # that a descriptor may take, unless the host says otherwise: 1.3 s at 50 MHz
OPCODE_BITS = field_of(END_FIELDS, "opcode").width
STATE_BITS = field_of(STATUS_FIELDS, "state").width
FAULT_BITS = field_of(STATUS_FIELDS, "error").width
PC_BITS = field_of(STATUS_FIELDS, "pc").width


class State(enum.IntEnum):
    """Sequencer state (STATUS.state)."""

    IDLE = 0
    CHECK = 1
    INPUT = 2
    RUN = 3
    HALTED = 4
    DONE = 5
    ERROR = 6


class Fault(enum.IntEnum):
    """Why the sequencer stopped (STATUS.error)."""

    NONE = 0
    BAD_OPCODE = 1
    RESERVED_BITS = 2
    HASH_MISMATCH = 3
    CONFIG_MISMATCH = 4
    WATCHDOG = 5
    BAD_PROGRAM = 6
    BAD_LAYER = 7


class Counter(enum.IntEnum):
    """Counters kept per descriptor (region COUNTER); 32 bits, wrapping."""

    CYCLES = 0
    BEATS = 1
    EVENTS = 2
    PASSES = 3
    STALL_TABLE = 4
    STALL_DRAIN = 5
    STALL_STEAL = 6
    STALL_EMIT = 7


COUNTERS = 8

# -- link ---------------------------------------------------------------------------------------------------

MAX_PAYLOAD = 1024  # bytes of payload in one frame, either way


class LinkOp(enum.IntEnum):
    """Request opcodes; a response repeats the opcode with bit 7 set."""

    HELLO = 0x01
    READ = 0x02
    WRITE = 0x03
    INPUT = 0x04
    RESET = 0x05
    OPEN = 0x06
    DATA = 0x07  # of a stream; not numbered, not answered by itself


RESPONSE_BIT = 0x80
REPORT = LinkOp.DATA | RESPONSE_BIT
NAK = 0xFF  # response to a frame that was not understood: bad CRC, bad length


class LinkStatus(enum.IntEnum):
    """Status byte of a response."""

    OK = 0
    BAD_OPCODE = 1
    BAD_LENGTH = 2
    BUSY = 3
    BAD_OFFSET = 4
    NOT_READY = 5
    BAD_FRAME = 6
    BAD_SEQUENCE = 7
    CORE_TIMEOUT = 8
    GAP = 9
    FAULT = 10
    NO_STREAM = 11


def _header(*fields: tuple[str, int]) -> tuple[Field, ...]:
    """First fields of a frame, whole bytes, one after the other."""
    bits = [sum(width for _, width in fields[:index]) for index in range(len(fields))]
    return tuple(Field(name, at // 32, at % 32, width) for (name, width), at in zip(fields, bits, strict=True))


REQUEST_HEADER = _header(("opcode", 8), ("sequence", 8), ("address", 32), ("words", 16))
DATA_HEADER = _header(("opcode", 8), ("turn", 8), ("epoch", 32), ("position", 32), ("taken", 32))
REPORT_HEADER = _header(
    ("opcode", 8), ("turn", 8), ("status", 8), ("epoch", 32), ("position", 32), ("limit", 32), ("first", 32)
)
STREAM_CLOSE = 0
STREAM_WORDS = 0xFFFF  # OPEN: words for the memories; anything else is a number of logits
RECORD_HEAD = 3  # words of a result before the logits: image number, cycles, clocks waited
REPORT_WORDS = 112  # results in a report at most


CRC32_POLY = 0x04C11DB7  # IEEE 802.3, reflected, as zlib.crc32
