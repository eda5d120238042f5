# SPDX-License-Identifier: Apache-2.0
"""What a recording says of its start, whatever its user chooses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttyscribe.session.identity import identify, shortened
from ttyscribe.session.setup import start_member
from ttyscribe.tlog import escape

LONG = "x" * 10000
BYTES = st.binary(max_size=3000)


def test_start_tells_what_was_started_as_it_is() -> None:
    environ = {b"SHELL": b"/bin/sh", b"TERM": b"xterm", b"SSH_CONNECTION": b"1.2.3.4 5 6 7"}
    member = start_member(["sh", "-c", "echo \udcff"], "/bin/sh", environ, title="a title")
    assert member["command"] == ["sh", "-c", "echo \ufffd"]
    assert (member["title"], member["shell"], member["remote"]) == ("a title", "/bin/sh", "1.2.3.4")
    assert member["env"] == {"SHELL": "/bin/sh", "TERM": "xterm"}


@pytest.mark.parametrize("text", [LONG, "é" * 5000, "\\" * 5000, "\x01" * 5000, "🙂" * 5000])
def test_start_is_bounded_whatever_is_long(text: str) -> None:
    data = text.encode()
    environ = {b"A": data, b"B": data, data: b"1", b"SSH_CLIENT": data}
    for command in ([text], ["sh", *[text] * 9], ["x"] * 10000, [""] * 10000):
        member = start_member(command, text, environ, title=text, captured=["A", "B", text])
        assert len(escape.value(member)) < 2560
        assert str(member["title"]).endswith("…")
    assert start_member(["sh", "-c", LONG], "sh", {})["command"] == [
        "sh", "-c", "x" * (1024 - 6 - 5 - 5 - 3 - 3) + "…"
    ]  # fmt: skip
    assert start_member(["x"] * 10000, "sh", {})["command"][-1] == "…"  # type: ignore[index]


def test_name_of_the_terminal_is_bounded() -> None:
    assert len(identify("u", {b"TERM": LONG.encode()}).term) < 128


@given(st.text(max_size=300), st.integers(3, 300))
def test_shortened_text_fits_and_is_cut_only_where_it_has_to_be(text: str, room: int) -> None:
    clean = text.encode(errors="replace").decode()
    short = shortened(clean, room)
    assert len(escape.light(short)) - 2 <= room
    if short != clean:
        assert len(escape.light(clean)) - 2 > room
        assert short.endswith("…") and clean.startswith(short[:-1])
