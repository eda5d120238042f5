# SPDX-License-Identifier: Apache-2.0
"""Whatever passes on a terminal comes back from its messages, byte for byte."""

from __future__ import annotations

import json
import re
from pathlib import Path
from random import Random

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ttyscribe.tlog
from ttyscribe.errors import FormatError
from ttyscribe.events import INPUT, OUTPUT, WINDOW, Event, Message, window
from ttyscribe.tlog import Decoder, Encoder, Identity, escape, parse

SCHEMA = jsonschema.Draft202012Validator(
    json.loads((Path(ttyscribe.tlog.__file__).parent / "schema.json").read_text())
)
REC = "0123456789abcdef0123456789abcdef-1a2b-3c4d5e"


def identity() -> Identity:
    return Identity("host.example", REC, "zoë", "xterm", 4294967295, 1_795_308_065_071)


# Pieces that cut characters in two, mix in bytes that are no UTF-8, and need escaping.
PIECES = st.one_of(
    st.binary(max_size=40),
    st.text(max_size=20).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.sampled_from(
        [b"\xe2\x82", b"\xac", b"\xf0\x9f\x99\x82", b"\xf0\x9f", b"\xff", b"\xc3", b"\xed\xa0\x80"]
    ),
    st.sampled_from([b"\x1b[31m", b'"\\\x00\x7f', b"\xef\xbf\xbd", b"a" * 200, b"\xc3\xa9" * 60]),
)
SIZES = st.tuples(st.integers(0, 65535), st.integers(0, 65535)).map(lambda size: window(*size))
STEPS = st.one_of(
    st.tuples(st.sampled_from([OUTPUT, INPUT]), PIECES), st.tuples(st.just(WINDOW), SIZES)
)
# Gaps in nanoseconds: none, less than a millisecond, and up to a day.
GAPS = st.one_of(st.just(0), st.integers(0, 2_000_000), st.integers(0, 86_400_000_000_000))
SESSIONS = st.lists(st.tuples(GAPS, STEPS), max_size=30)


def record(
    session: list[tuple[int, tuple[str, bytes]]], payload: int, latency: int
) -> tuple[list[Event], list[Message]]:
    """The session's events, and its messages under payload bytes and latency nanoseconds."""
    encoder = Encoder(identity(), payload)
    events: list[Event] = []
    messages: list[Message] = []
    now = 0
    for gap, (kind, data) in session:
        now += gap
        if encoder.pending_since is not None and now - encoder.pending_since >= latency:
            messages += encoder.flush()
        events.append((now, kind, data))
        messages += encoder.add(now, kind, data)
    messages += encoder.finish(now, {"event": "end", "status": 0, "bytes_in": 0, "bytes_out": 0})
    return events, messages


def replay(messages: list[Message]) -> list[Event]:
    decoder = Decoder()
    return [
        event
        for message in messages
        for event in decoder.decode(parse(message.data, f"test:{message.id}"))
    ]


def stream(events: list[Event], kind: str) -> bytes:
    return b"".join(data for _, its_kind, data in events if its_kind == kind)


def changes(events: list[Event]) -> list[tuple[int, bytes]]:
    """The window sizes at the milliseconds at which they became another."""
    sizes: list[tuple[int, bytes]] = []
    for time, kind, data in events:
        if kind == WINDOW and (not sizes or sizes[-1][1] != data):
            sizes.append((time // 1_000_000, data))
    return sizes


def arrival(events: list[Event], kind: str) -> list[int]:
    """For every byte of one direction, the millisecond at which it came."""
    return [
        time // 1_000_000 for time, its_kind, data in events if its_kind == kind for _ in data
    ]


@settings(max_examples=400, deadline=None)
@given(SESSIONS, st.integers(32, 4096), st.integers(0, 20_000_000_000))
def test_decoding_gives_back_what_was_encoded(
    session: list[tuple[int, tuple[str, bytes]]], payload: int, latency: int
) -> None:
    events, messages = record(session, payload, latency)
    back = replay(messages)
    assert changes(back) == changes(events)
    for kind in (OUTPUT, INPUT):
        sent, got = stream(events, kind), stream(back, kind)
        assert got == sent
        # A byte comes back at its own millisecond, or, where it waited for the
        # rest of its character, at the one of a byte at most three further on.
        came, played = arrival(events, kind), arrival(back, kind)
        end = events[-1][0] // 1_000_000 if events else 0
        for at, millisecond in enumerate(played):
            if sent[at] < 0x80:
                assert millisecond == came[at]
            else:
                assert millisecond in [*came[at : at + 4], end]


@settings(max_examples=200, deadline=None)
@given(SESSIONS, st.integers(32, 300), st.integers(0, 20_000_000_000))
def test_every_message_fits_schema_payload_and_count(
    session: list[tuple[int, tuple[str, bytes]]], payload: int, latency: int
) -> None:
    _, messages = record(session, payload, latency)
    for number, message in enumerate(messages, 1):
        fields = json.loads(message.data)
        SCHEMA.validate(fields)
        assert fields["id"] == message.id == number
        encoded = len(fields["timing"])
        for name in ("in_txt", "out_txt"):
            encoded += len(json.dumps(fields[name], ensure_ascii=False).encode()) - 2
        for name in ("in_bin", "out_bin"):
            encoded += len(json.dumps(fields[name], separators=(",", ":"))) - 2
        assert encoded <= payload


@given(st.text())
def test_only_what_json_requires_is_escaped(text: str) -> None:
    expected = json.dumps(text, ensure_ascii=False).encode("utf-8")
    assert escape.light(text) == expected
    data = text.encode()
    everything = (expected[1:-1], len(text), len(data), False)
    assert escape.fit(data, 0, len(expected)) == everything
    assert escape.portable_fit(data, 0, len(expected)) == everything


def test_what_is_tested_is_the_compiled_form() -> None:
    assert escape.fit is not escape.portable_fit


# Text in which cuts, escapes and invalid bytes are near each other.
NEAR = st.lists(PIECES, max_size=8).map(b"".join)


@settings(max_examples=500, deadline=None)
@given(NEAR, st.integers(0, 400), st.integers(-10, 500))
def test_compiled_and_portable_form_fit_the_same_text(data: bytes, at: int, room: int) -> None:
    at = min(at, len(data))
    text, count, end, full = escape.fit(data, at, room)
    assert escape.portable_fit(data, at, room) == (text, count, end, full)
    assert len(text) <= max(room, 0)
    taken = data[at:end].decode()
    assert (len(taken), text) == (count, json.dumps(taken, ensure_ascii=False).encode()[1:-1])
    # No character more would have done.
    rest = data[end:].decode("utf-8", "surrogateescape")
    valid = rest[:1] and not "\udc80" <= rest[0] <= "\udcff"
    assert full == bool(valid)
    if full:
        more = json.dumps(rest[0], ensure_ascii=False).encode()[1:-1]
        assert len(text) + len(more) > room


@settings(max_examples=300, deadline=None)
@given(NEAR)
def test_compiled_and_portable_form_find_the_same_end_of_what_is_valid(data: bytes) -> None:
    end = escape.valid(data)
    assert escape.portable_valid(data) == end
    data[:end].decode()
    rest = data[end:].decode("utf-8", "surrogateescape")
    assert not rest or "\udc80" <= rest[0] <= "\udcff"


# Texts of JSON strings, with all escapes, and what is nearly one.
ESCAPED = st.lists(
    st.one_of(
        st.text(max_size=10).map(lambda text: json.dumps(text)[1:-1].encode()),
        st.text(max_size=10).map(lambda text: escape.light(text)[1:-1]),
        st.sampled_from(
            [b'\\"', b"\\/", b"\\u00E9", b"\\ud83d\\ude42", b"\\ud83d", b"\\ude42", b"\\u12"]
        ),
        st.sampled_from([b'"', b"\\", b"\x1f", b"\x7f", b" ", b"\xff", b"\xe2\x82", b"\x00"]),
    ),
    max_size=8,
).map(b"".join)


@settings(max_examples=1000, deadline=None)
@given(ESCAPED, st.integers(0, 3), st.integers(0, 3))
def test_compiled_and_portable_form_take_escapes_back_alike(
    data: bytes, before: int, behind: int
) -> None:
    begin = min(before, len(data))
    end = max(begin, len(data) - behind)
    assert escape.unescape(data, begin, end) == escape.portable_unescape(data, begin, end)


@given(st.text(), st.sampled_from([True, False]))
def test_what_was_escaped_is_taken_back(text: str, ascii_only: bool) -> None:
    body = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
    try:
        data = body.encode()
    except UnicodeEncodeError:
        return  # a surrogate by itself, which is no text
    expected = None if re.search("[\ud800-\udfff]", text) else (text.encode(), len(text))
    assert escape.unescape(data, 0, len(data)) == expected


def test_a_place_outside_of_the_data_is_refused() -> None:
    for at in (-1, 4):
        with pytest.raises(ValueError, match="outside"):
            escape.fit(b"abc", at, 10)
    for begin, end in ((-1, 2), (2, 1), (0, 4)):
        with pytest.raises(ValueError, match="outside"):
            escape.unescape(b"abc", begin, end)


LARGE = (
    '{"ver":"2.3","host":"h","rec":"r","user":"u","term":"","session":1,"id":1,"pos":5,'
    '"time":1.005,"timing":"=80x24>%d","in_txt":"","in_bin":[],"out_txt":"%s","out_bin":[]}'
)


@pytest.mark.parametrize(
    ("body", "count"),
    [("é\\n" * 400, 800), ("\\u00e9" * 400, 400), ("x" * 600 + "\\ud83d\\ude42", 601)],
)
def test_a_large_message_is_what_a_small_one_is(body: str, count: int) -> None:
    decoder = Decoder()
    decoder.decode(parse((LARGE % (1, "x")).encode(), "test:1"))
    decoder.lax = True
    message = parse((LARGE % (count, body)).encode(), "test:2")
    shown = json.loads(f'"{body}"')
    assert message.out_txt == shown
    assert decoder.decode(message) == [(5_000_000, OUTPUT, shown.encode())]
    with pytest.raises(FormatError, match="timing"):
        decoder.decode(parse((LARGE % (count + 1, body)).encode(), "test:3"))


@pytest.mark.parametrize("end", ['"', "\\", "\\ud800", "\t"])
def test_a_large_message_that_is_no_json_is_refused(end: str) -> None:
    body = "x" * 600 + end
    with pytest.raises(FormatError, match="not JSON"):
        parse((LARGE % (len(body), body)).encode(), "test:1")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text() | st.floats(-1e9, 1e9),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_members_are_the_json_of_their_values(value: object) -> None:
    assert json.loads(escape.value(value)) == value


def test_text_stays_searchable() -> None:
    encoder = Encoder(identity(), 2048)
    encoder.add(0, OUTPUT, "Привет, wörld/ \x7f\t€\r\n".encode())
    (message,) = encoder.flush()
    assert "Привет, wörld/ \x7f\\t€\\r\\n".encode() in message.data


def test_a_character_cut_in_two_is_one_character() -> None:
    encoder = Encoder(identity(), 2048)
    encoder.add(0, OUTPUT, b"\xe2\x82")
    encoder.add(5_000_000, OUTPUT, b"\xac")
    (message,) = encoder.finish(5_000_000)
    fields = json.loads(message.data)
    assert fields["out_txt"] == "€"
    assert fields["out_bin"] == []
    assert fields["pos"] == 5


def test_a_character_cut_off_by_the_end_is_kept_as_bytes() -> None:
    encoder = Encoder(identity(), 2048)
    encoder.add(0, INPUT, b"a\xf0\x9f\x99")
    (message,) = encoder.finish(0)
    fields = json.loads(message.data)
    assert (fields["in_txt"], fields["in_bin"]) == ("a\ufffd", [0xF0, 0x9F, 0x99])
    assert fields["timing"] == "<1[1/3"


def test_events_of_one_millisecond_and_kind_are_one_record() -> None:
    encoder = Encoder(identity(), 2048)
    encoder.add(0, WINDOW, b"80x24")
    for nanoseconds in (1_000_000, 1_300_000, 1_999_999, 2_000_000):
        encoder.add(nanoseconds, OUTPUT, b"ab")
    (message,) = encoder.flush()
    assert json.loads(message.data)["timing"] == "=80x24+1>6+1>2"


def test_each_message_starts_with_the_window_size() -> None:
    encoder = Encoder(identity(), 64)
    encoder.add(0, WINDOW, b"80x24")
    messages = encoder.add(0, OUTPUT, b"x" * 500) + encoder.flush()
    assert len(messages) > 5
    assert all(json.loads(message.data)["timing"].startswith("=80x24>") for message in messages)


@settings(max_examples=40, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1025, 20_000), st.integers(32, 4096))
def test_what_is_no_text_at_all_comes_back_too(random: Random, size: int, payload: int) -> None:
    data = random.randbytes(size) + "€".encode()[:2]
    session = [(0, (WINDOW, b"65535x65535")), (0, (OUTPUT, data)), (9, (OUTPUT, "€".encode()[2:]))]
    _, messages = record(session, payload, 1 << 60)
    back = replay(messages)
    assert stream(back, OUTPUT) == data + "€".encode()[2:]
    for message in messages:
        fields = json.loads(message.data)
        SCHEMA.validate({**fields, "out_bin": fields["out_bin"][:3]})
        binary = json.dumps(fields["out_bin"], separators=(",", ":"))
        text = json.dumps(fields["out_txt"], ensure_ascii=False).encode()
        assert len(fields["timing"]) + len(text) - 2 + len(binary) - 2 <= payload


def test_a_character_that_follows_binary_is_not_cut_in_two() -> None:
    encoder = Encoder(identity(), 2048)
    messages = encoder.add(0, OUTPUT, bytes(range(128, 192)) * 40 + b"\xff" + b"a\xff" * 600)
    messages += encoder.add(0, OUTPUT, b"\xe2\x82")
    messages += encoder.add(0, OUTPUT, b"\xac") + encoder.finish(0)
    assert json.loads(messages[-1].data)["out_txt"].endswith("€")
