"""Amaranth layouts and signatures shared between blocks, derived from the contract."""

from __future__ import annotations

import dataclasses

from amaranth.hdl import Mux, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from . import contract
from .config import Config

__all__ = [
    "READ_CYCLES",
    "ActWrite",
    "Beat",
    "Captured",
    "CountWrite",
    "LocalBus",
    "byte_stream",
    "drained_slots",
    "event_layout",
    "field_layout",
    "layer_layout",
    "slot_layout",
    "word_layout",
]


def field_layout(fields: tuple[contract.Field, ...], words: int) -> data.FlexibleLayout:
    """Layout of ``words`` consecutive 32-bit words (word 0 in the low bits) with the contract's fields."""
    return data.FlexibleLayout(
        contract.WORD_BITS * words,
        {
            field.name: data.Field(
                signed(field.width) if field.signed else unsigned(field.width),
                contract.WORD_BITS * field.word + field.lsb,
            )
            for field in fields
        },
    )


def word_layout(fields: tuple[contract.Field, ...], word: int) -> data.FlexibleLayout:
    """Layout of one of these words alone."""
    return field_layout(tuple(dataclasses.replace(field, word=0) for field in fields if field.word == word), 1)


def layer_layout() -> data.FlexibleLayout:
    """A whole LAYER descriptor."""
    return field_layout(contract.LAYER_FIELDS, contract.DESCRIPTOR_WORDS)


def drained_slots(layer: data.View, config: Config) -> Value:
    """Slots of a pass of this layer that leave the array."""
    whole = Mux(layer.row_passes.any(), config.row_slots, config.slots) if config.taps > 1 else config.slots
    return Mux(layer.pass_slots.any(), layer.pass_slots, whole)[: bits_for(config.slots)]


def slot_layout() -> data.FlexibleLayout:
    """One slot entry."""
    return field_layout(contract.SLOT_FIELDS, 1)


def event_layout() -> data.StructLayout:
    """A word of the activation memory."""
    return data.StructLayout({"value": contract.EVENT_VALUE_BITS, "index": contract.EVENT_INDEX_BITS})


def byte_stream() -> stream.Signature:
    """A stream of bytes."""
    return stream.Signature(8)


READ_CYCLES = dict.fromkeys(contract.Region, 2) | {
    contract.Region.PARAM: 3,
    contract.Region.WEIGHT: 6,
    contract.Region.ACT: 6,
    contract.Region.COUNT: 6,
    contract.Region.MEMBRANE: 3,
}
"""Cycles from ``r_en`` to ``r_data`` of each region's leaf: more where its memories lie all over the device."""


class LocalBus(wiring.Signature):
    """Host-bus leaf, seen from the initiator.

    Members
    -------
    addr : Out(addr_width)
        Word offset within the region.
    w_en, w_data : Out(1), Out(32)
        Write in this cycle.
    r_en : Out(1)
        Read; ``r_data`` is valid exactly :data:`READ_CYCLES` later. Not together with ``w_en``.
    r_data : In(32)
    """

    def __init__(self, addr_width: int = contract.OFFSET_BITS) -> None:
        super().__init__(
            {
                "addr": Out(addr_width),
                "w_en": Out(1),
                "w_data": Out(contract.WORD_BITS),
                "r_en": Out(1),
                "r_data": In(contract.WORD_BITS),
            }
        )


class ActWrite(wiring.Signature):
    """Events to be stored, at most one per bank and cycle; always accepted.

    Members
    -------
    en : Out(banks)
        One bit per bank.
    addr, data : Out(ArrayLayout(16 bits, banks))
        Word address in the bank and event word.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(
            {
                "en": Out(config.banks),
                "addr": Out(data.ArrayLayout(bits_for(config.act_words - 1), config.banks)),
                "data": Out(data.ArrayLayout(event_layout(), config.banks)),
            }
        )


class CountWrite(wiring.Signature):
    """Number of events of a finished record, all banks at once; always accepted.

    Members
    -------
    en : Out(1)
    addr : Out(...)
        Count address, the same in every bank.
    count : Out(ArrayLayout(9 bits, banks))
    """

    def __init__(self, config: Config) -> None:
        super().__init__(
            {
                "en": Out(1),
                "addr": Out(bits_for(config.count_words - 1)),
                "count": Out(data.ArrayLayout(contract.COUNT_BITS, config.banks)),
            }
        )


class Beat(wiring.Signature):
    """One cycle of the lane array.

    Members
    -------
    valid : Out(1)
        This cycle is a beat. Everything else is ignored when it is 0.
    first, last : Out(1)
        First and last beat of a pass (both in a pass of one beat).
    x : Out(ArrayLayout(8, ports))
        Activation codes; 0 on a port without an event.
    row : Out(ArrayLayout(lanes, ports))
        Weight bits; bit ``lane``. Any value on a port without an event.
    keep, capture, cell : Out(1), Out(1), Out(range(ROW_CELLS))
        Only with row mode, valid with ``last``: keep the sums of the unfinished columns in ``cell``; the pass is
        captured. In gather mode 0, 1 and the last cell, which holds 0.
    """

    def __init__(self, config: Config) -> None:
        row_mode = {"keep": Out(1), "capture": Out(1), "cell": Out(range(contract.ROW_CELLS))}
        super().__init__(
            {
                "valid": Out(1),
                "first": Out(1),
                "last": Out(1),
                "x": Out(data.ArrayLayout(contract.EVENT_VALUE_BITS, config.ports)),
                "row": Out(data.ArrayLayout(config.lanes, config.ports)),
                **(row_mode if config.taps > 1 else {}),
            }
        )


class Captured(wiring.Signature):
    """Result of one pass, from the lane array to the neuron unit.

    Members
    -------
    strobe : Out(1)
        P and S are valid from the cycle after this pulse on, and hold until the next pulse, that included. It comes at
        least as many cycles later as a pass has slots.
    p : Out(ArrayLayout(acc_width, lanes))
    s : Out(acc_width)
    release : In(1)
        Pulse of the consumer: one more pass may be captured. It queues as many as ``config.captured_passes`` says.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(
            {
                "strobe": Out(1),
                "p": Out(data.ArrayLayout(config.acc_width, config.lanes)),
                "s": Out(config.acc_width),
                "release": In(1),
            }
        )
