"""Framing: round trips, canonical lengths, and garbage that must never crash."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reverb_fpga.host.framing import FrameDecoder, FramingError, cobs_decode, cobs_encode, encode_frame

zero_rich = st.lists(st.sampled_from([0, 0, 1, 7, 255]), max_size=1100).map(bytes)
anything = st.binary(max_size=1100)


@given(data=st.one_of(zero_rich, anything))
def test_cobs_round_trip(data: bytes) -> None:
    encoded = cobs_encode(data)
    assert 0 not in encoded
    assert len(encoded) <= len(data) + len(data) // 254 + 1
    assert cobs_decode(encoded) == data


@pytest.mark.parametrize(
    ("data", "encoded"),
    [
        (b"", b"\x01"),
        (b"\0", b"\x01\x01"),
        (b"\x11\x22\0\x33", b"\x03\x11\x22\x02\x33"),
        (b"\x05" * 254, b"\xff" + b"\x05" * 254),
        (b"\x05" * 255, b"\xff" + b"\x05" * 254 + b"\x02\x05"),
        (b"\x05" * 254 + b"\0", b"\xff" + b"\x05" * 254 + b"\x01\x01"),
    ],
)
def test_cobs_known_answers(data: bytes, encoded: bytes) -> None:
    assert cobs_encode(data) == encoded
    assert cobs_decode(encoded) == data


@given(data=anything)
def test_decoding_garbage_decodes_or_raises_framing_error(data: bytes) -> None:
    try:
        decoded = cobs_decode(data)
    except FramingError:
        return
    assert len(decoded) <= len(data)


@given(
    contents=st.lists(st.binary(min_size=2, max_size=300), max_size=6), cuts=st.lists(st.integers(1, 40), min_size=1)
)
def test_frames_arrive_however_the_stream_is_cut(contents: list[bytes], cuts: list[int]) -> None:
    wire = b"".join(encode_frame(content) for content in contents)
    decoder, frames, at, turn = FrameDecoder(), [], 0, 0
    while at < len(wire):
        step = cuts[turn % len(cuts)]
        frames += decoder.feed(wire[at : at + step])
        at, turn = at + step, turn + 1
    assert frames == contents


@given(garbage=st.lists(st.binary(max_size=300), max_size=20), content=st.binary(min_size=2, max_size=50))
@settings(max_examples=200)
def test_garbage_never_becomes_a_frame_nor_hides_the_next(garbage: list[bytes], content: bytes) -> None:
    decoder = FrameDecoder()
    for piece in garbage:
        assert all(frame is None for frame in decoder.feed(piece))
    assert decoder.feed(encode_frame(content))[-1] == content


@given(content=st.binary(min_size=2, max_size=60), at=st.integers(0, 1 << 16), bit=st.integers(0, 7))
def test_a_flipped_bit_never_yields_other_content(content: bytes, at: int, bit: int) -> None:
    wire = bytearray(encode_frame(content))
    wire[at % len(wire)] ^= 1 << bit
    frames = FrameDecoder().feed(bytes(wire) + b"\0")
    assert all(frame in (None, content) for frame in frames)


def test_an_endless_frame_takes_bounded_memory() -> None:
    decoder = FrameDecoder()
    for _ in range(100):
        assert decoder.feed(b"\x01" * 1000) == []
    assert len(decoder._pending) <= 2049
    assert decoder.feed(b"\0") == [None]
    assert decoder.feed(encode_frame(b"ok")) == [b"ok"]
