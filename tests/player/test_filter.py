# SPDX-License-Identifier: Apache-2.0
"""The filter between a recording and the auditor's terminal."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttyscribe.player.filter import LIMIT, TerminalFilter


def filtered(*pieces: bytes) -> bytes:
    screen = TerminalFilter()
    return b"".join(screen.feed(piece) for piece in pieces) + screen.finish()


QUERIES = {
    "primary device attributes": b"\x1b[c",
    "primary device attributes, numbered": b"\x1b[0c",
    "secondary device attributes": b"\x1b[>c",
    "tertiary device attributes": b"\x1b[=0c",
    "DECID": b"\x1bZ",
    "status report": b"\x1b[5n",
    "cursor position report": b"\x1b[6n",
    "DEC cursor position report": b"\x1b[?6n",
    "terminal parameters": b"\x1b[1x",
    "mode report": b"\x1b[?2026$p",
    "ANSI mode report": b"\x1b[4$p",
    "version": b"\x1b[>0q",
    "kitty keyboard": b"\x1b[?u",
    "window size": b"\x1b[18t",
    "window title": b"\x1b[21t",
    "window resize": b"\x1b[8;10;10t",
    "iconify": b"\x1b[2t",
    "checksum": b"\x1b[1;1;1;1;10;10*y",
    "print": b"\x1b[5i",
    "key options": b"\x1b[?4m",
    "graphics attributes": b"\x1b[?2;1S",
    "foreground colour": b"\x1b]10;?\x07",
    "background colour": b"\x1b]11;?\x1b\\",
    "palette colour": b"\x1b]4;1;?\x07",
    "palette colours, set and asked": b"\x1b]4;1;red;2;?\x07",
    "clipboard write": b"\x1b]52;c;ZXZpbA==\x07",
    "clipboard read": b"\x1b]52;c;?\x1b\\",
    "iTerm2 file": b"\x1b]1337;File=name=eA==:AAAA\x07",
    "settings": b"\x1bP$qm\x1b\\",
    "termcap": b"\x1bP+q544e\x1b\\",
    "programmed keys": b"\x1bP0;1|17/6c730d\x1b\\",
    "macro": b"\x1bP1;0;0!z1b5b63\x1b\\",
    "kitty graphics": b"\x1b_Gi=1,a=q,t=f;L2V0Yy9wYXNzd2Q=\x1b\\",
    "controls within": b"\x1b[\x00\x0b6\x7fn",
    "controls after the escape": b"\x1b\x00[6n",
    "number with zeros": b"\x1b]0052;c;AA==\x07",
    "number with controls": b"\x1b]5\x002;c;AA==\x07",
    "UTF-8 form of CSI": b"\xc2\x9b6n",
    "8-bit form of CSI": b"\x9b6n",
    "8-bit form of CSI in a broken character": b"\xe2\x9b6n",
    "another encoding": b"\x1b%@",
    "another encoding, of another kind": b"\x1b%/G",
    "keys in 8-bit form": b"\x1b G",
    "keyboard lock": b"\x1b[2h",
    "keyboard lock among others": b"\x1b[4;02h",
}


@pytest.mark.parametrize("query", QUERIES.values(), ids=list(QUERIES))
def test_query_is_not_sent_on_and_text_around_it_is(query: bytes) -> None:
    result = filtered(b"before" + query + b"after")
    assert query not in result
    rest = result.replace(b"\x18", b"")
    assert rest in (b"beforeafter", b"before6nafter", b"before\xe26nafter")


@pytest.mark.parametrize("query", QUERIES.values(), ids=list(QUERIES))
def test_query_split_at_every_byte_gives_the_same(query: bytes) -> None:
    whole = filtered(b"a" + query + b"z")
    data = b"a" + query + b"z"
    assert filtered(*(data[at : at + 1] for at in range(len(data)))) == whole
    for at in range(len(data)):
        assert filtered(data[:at], data[at:]) == whole


PASSED = {
    "colours": b"\x1b[0;1;38;5;196mred\x1b[m",
    "cursor and erase": b"\x1b[H\x1b[2J\x1b[10;20H\x1b[K",
    "modes": b"\x1b[?1049h\x1b[?25l\x1b[?2004h\x1b[?1006h",
    "cursor shape": b"\x1b[4 q",
    "title": b"\x1b]0;is this a title?\x07",
    "hyperlink": b"\x1b]8;;http://example.org/?a\x1b\\link\x1b]8;;\x1b\\",
    "set colour": b"\x1b]11;#000000\x07",
    "title stack": b"\x1b[22;0;0t\x1b[23;0;0t",
    "sixel": b"\x1bPq#0;2;0;0;0#0~~@@\x1b\\",
    "scroll region": b"\x1b[1;24r",
    "key options set": b"\x1b[>4;2m",
    "restore cursor": b"\x1b[s\x1b[u",
    "soft reset": b"\x1b[!p",
    "charset": b"\x1b(0lqqk\x1b(B",
    "Linux console cursor": b"\x1b[?0c",
    "insert mode": b"\x1b[4;20h",
    "column mode, which has the keyboard lock's number": b"\x1b[?2h",
    "bytes of Latin-1": b"\xe9t\xe9\xa0\xff",
    "characters of all lengths": "\u00db\u0430\u1000\uffdb\U0001f600\U0010ffff".encode(),
}


@pytest.mark.parametrize("data", PASSED.values(), ids=list(PASSED))
def test_ordinary_sequence_passes_unchanged(data: bytes) -> None:
    assert filtered(b"x" + data + b"y") == b"x" + data + b"y"


def test_removed_query_does_not_join_its_surroundings_into_another() -> None:
    result = filtered(b"\x1b[" + b"\x1b[c" + b"6n" + b"\x1b" + b"\x1b[c" + b"[c")
    terminal_sees = re.sub(rb"\x1b[^\x18]*\x18", b"", result)
    assert b"\x1b" not in terminal_sees


def test_unfinished_string_does_not_let_what_comes_before_it_through() -> None:
    assert filtered(b"\xc2\x9b6n\x1bP$q", b"m\x1b\\") == b"\x186n\x18"


def test_8_bit_control_goes_and_the_characters_that_hold_its_byte_stay() -> None:
    assert filtered(b"\x1b%@\x9b6n\x9bc\x90$qm\x9c") == b"\x18\x186n\x18c\x18$qm\x18"
    assert filtered("Û\x9b".encode()) == "Û".encode() + b"\x18"
    assert filtered(b"\x1b%\xc3\x9b6n") == b"\x18\xc3\x9b6n"
    assert filtered(b"\xe2\x9b") == b"\xe2\x18"


def test_string_that_ends_in_another_piece_does_not_take_what_follows_along() -> None:
    for end in (b"\x1b\\", b"\xc2\x9c"):
        assert filtered(b"\x1b_Gi=1", end, b"text") == b"\x18text"


def test_answerback_vanishes() -> None:
    assert filtered(b"a\x05b") == b"ab"
    assert filtered(b"\x1b\x05[6n") == b"\x18"


def test_clipboard_write_longer_than_the_limit_is_left_out_whole() -> None:
    secret = b"\x1b]52;c;" + b"QUFB" * LIMIT + b"\x07"
    assert filtered(secret + b"end") == b"\x18end"
    pieces = [secret[at : at + 1000] for at in range(0, len(secret), 1000)]
    assert filtered(*pieces, b"end") == b"\x18end"


def test_no_more_than_the_limit_is_held_back() -> None:
    for start in (b"\x1b[", b"\x1b]0;", b"\x1b]4;1;", b"\x1b]", b"\x1bP", b"\x1b", b"\x1b]52;"):
        screen = TerminalFilter()
        screen.feed(start)
        for _ in range(20):
            screen.feed(b"1" * 1000)
            assert len(screen._pending) <= LIMIT + 1000
    screen = TerminalFilter()
    screen.feed(b"\x1b%")
    for _ in range(20):
        screen.feed(b"!" * 1000)
        assert len(screen._pending) <= LIMIT + 1000


def test_text_after_a_linux_console_palette_reset_is_not_held_back() -> None:
    screen = TerminalFilter()
    assert screen.feed(b"\x1b]Rhello") == b"\x1b]Rhello"


def test_unfinished_sequence_is_left_out_at_the_end() -> None:
    assert filtered(b"text\x1b[") == b"text"


FRAGMENTS = st.sampled_from(
    [*QUERIES.values(), *PASSED.values(), b"\x1b", b"\x1b[", b"\x1b]", b"\x18", b"\xc2", b"\x9b",
     b"\xe2\x80", b"\x1b%", b"\x1bP", b"\x07", b"\x1b\\", b"\x9c", b"c", b"6n", b"52;",
     "é日本🙂".encode()]
)  # fmt: skip


@given(st.lists(FRAGMENTS | st.binary(max_size=6), max_size=12), st.lists(st.integers(0, 200)))
def test_any_split_gives_the_same(parts: list[bytes], cuts: list[int]) -> None:
    data = b"".join(parts)
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[a:b] for a, b in itertools.pairwise(edges)]
    assert filtered(*pieces) == filtered(data)


@given(st.lists(FRAGMENTS | st.binary(max_size=6), max_size=12))
def test_what_is_let_through_holds_nothing_to_take_out(parts: list[bytes]) -> None:
    # Whoever writes next begins with CAN or an escape, which ends a sequence in progress.
    once = filtered(b"".join(parts)) + b"\x18"
    assert filtered(once) == once


@given(st.text(st.characters(blacklist_categories=["Cc", "Cs"])))
def test_text_passes_unchanged(text: str) -> None:
    assert filtered(text.encode()) == text.encode()
