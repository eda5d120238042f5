# SPDX-License-Identifier: Apache-2.0
"""What a message that lies or is broken gets: one error that names it."""

from __future__ import annotations

import json

import pytest

from ttyscribe.errors import FormatError
from ttyscribe.tlog import Decoder, parse

GOOD: dict[str, object] = {
    "ver": "2.3", "host": "h", "rec": "r-1", "user": "u", "term": "xterm", "session": 1,
    "id": 1, "pos": 0, "time": 1.5, "timing": "=80x24>2+5]1/2<1", "in_txt": "i", "in_bin": [],
    "out_txt": "ab\ufffd", "out_bin": [255, 254],
}  # fmt: skip


def line(**changes: object) -> bytes:
    fields = {**GOOD, **changes}
    return json.dumps({k: v for k, v in fields.items() if v is not ...}).encode()


def decode(*lines: bytes, lax: bool = False) -> list[object]:
    decoder = Decoder(lax)
    return [
        event
        for number, data in enumerate(lines, 1)
        for event in decoder.decode(parse(data, f"f:{number}"))
    ]


def test_the_good_message_is_good() -> None:
    assert decode(line()) == [
        (0, "r", b"80x24"), (0, "o", b"ab"), (5_000_000, "o", b"\xff\xfe"), (5_000_000, "i", b"i"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"ver": "3.0"}, "'ver' is 3.0; this player reads versions 2.x"),
        ({"ver": 3}, "'ver' is 3.0"),
        ({"ver": "1.9"}, "'ver' is 1.9"),
        ({"ver": "two"}, "'ver' is not a version"),
        ({"ver": ...}, "'ver' is missing"),
        ({"rec": ...}, "'rec' is missing"),
        ({"host": 1}, "'host' is not text"),
        ({"user": None}, "'user' is missing"),
        ({"id": "1"}, "'id' is not a whole number"),
        ({"id": True}, "'id' is not a whole number"),
        ({"id": 0}, "'id' is less than 1"),
        ({"session": -1}, "'session' is not a whole number"),
        ({"pos": 1.5}, "'pos' is not a whole number"),
        ({"time": "now"}, "'time' is not a number"),
        ({"time": ...}, "'time' is missing"),
        ({"out_bin": [255, 256]}, "'out_bin' is not an array of numbers 0 to 255"),
        ({"out_bin": [255, True]}, "'out_bin' is not an array of numbers 0 to 255"),
        ({"out_bin": "no"}, "'out_bin' is not an array"),
        ({"timing": ">2]1/2<1 "}, "timing does not parse at ' '"),
        ({"timing": ">2?"}, "timing does not parse at '?'"),
        ({"timing": "+" + "9" * 5000}, "timing does not parse"),
        ({"timing": ">9"}, "timing asks for more output text than there is"),
        ({"timing": "<9"}, "timing asks for more input text than there is"),
        ({"timing": ">2]1/3"}, "timing asks for more output bytes than there are"),
        ({"timing": ">2]2/2"}, "timing asks for more output bytes than there are"),
        ({"timing": "[2/0"}, "timing asks for more input bytes than there are"),
        ({"timing": ">2]1/2"}, "timing leaves text over"),
        ({"timing": ">3<1"}, "timing leaves bytes over"),
        ({"timing": ""}, "timing leaves text over"),
    ],
)
def test_a_broken_message_is_named_with_its_fault(changes: dict[str, object], says: str) -> None:
    with pytest.raises(FormatError) as caught:
        decode(line(**changes))
    text = str(caught.value)
    assert text.startswith("f:1: ")
    assert says in text
    assert "\n" not in text
    if "rec" not in changes:
        assert "recording r-1" in text
    if "id" not in changes:
        assert "message 1" in text


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b'"x"', b"\xff", b"[" * 100_000, b'{"ver":' + b"9" * 100_000 + b"}"]
)
def test_what_is_no_json_object_is_no_message(data: bytes) -> None:
    with pytest.raises(FormatError, match="not a tlog message"):
        parse(data, "f:1")


@pytest.mark.parametrize("ver", ["2.0", 2, 2.1, "2", "2.2"])
def test_older_messages_lack_what_came_later(ver: object) -> None:
    gone = {"time": ..., "rec": ...} if ver in ("2.0", 2, "2") else {"time": ...}
    assert decode(line(ver=ver, **gone))


def test_unknown_members_and_minor_versions_are_passed_over() -> None:
    assert decode(line(ver="2.9", new={"a": 1}))


def test_a_gap_in_ids_is_an_error_unless_lax() -> None:
    with pytest.raises(FormatError, match="messages 2 to 3 missing before it"):
        decode(line(), line(id=4))
    with pytest.raises(FormatError, match="f:2: .*message 3: message 2 missing before it"):
        decode(line(), line(id=3))
    assert decode(line(), line(id=4), lax=True)


def test_a_step_back_in_ids_is_an_error_unless_lax() -> None:
    with pytest.raises(FormatError, match="its id steps back after 2"):
        decode(line(id=1), line(id=2), line(id=2))
    assert decode(line(id=5), line(id=4), lax=True)


def test_missing_beginning_is_an_error_but_where_a_part_is_asked_for() -> None:
    with pytest.raises(FormatError, match="message 3: messages 1 to 2 missing before it; --lax"):
        decode(line(id=3))
    with pytest.raises(FormatError, match="message 2: message 1 missing before it; --lax"):
        decode(line(id=2))
    assert decode(line(id=3), lax=True)
    decoder = Decoder(partial=True)
    assert decoder.decode(parse(line(id=3), "f:1"))
    with pytest.raises(FormatError, match="message 4 missing before it"):
        decoder.decode(parse(line(id=5), "f:2"))


def test_pos_never_goes_back() -> None:
    with pytest.raises(FormatError, match="its pos 3 ms goes back behind 9 ms"):
        decode(line(pos=9), line(id=2, pos=3), lax=True)


def test_escapes_in_a_recording_id_do_not_reach_the_terminal() -> None:
    with pytest.raises(FormatError) as caught:
        decode(line(rec="\x1b[2J\n", timing="?"))
    assert "\\x1b[2J\\n" in str(caught.value)
