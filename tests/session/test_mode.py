# SPDX-License-Identifier: Apache-2.0
"""What a session sets of its pty's mode, and how that comes to the user's terminal."""

from __future__ import annotations

import os
import termios
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttyscribe.terminal.mode import PtyMode, apply

IFLAG, OFLAG, CFLAG, LFLAG, CC = 0, 1, 2, 3, 6
# Some that a pty takes, of each kind.
INPUT = (termios.ICRNL, termios.IXON, termios.IXANY, termios.ISTRIP, termios.BRKINT)
OUTPUT = (termios.OPOST, termios.ONLCR, termios.OCRNL, termios.TAB3)
LOCAL = (termios.ECHO, termios.ICANON, termios.ISIG, termios.IEXTEN, termios.NOFLSH)
CHARACTERS = (termios.VINTR, termios.VERASE, termios.VSUSP, termios.VEOL)

settings = st.fixed_dictionaries(
    {
        IFLAG: st.sets(st.sampled_from(INPUT)),
        OFLAG: st.sets(st.sampled_from(OUTPUT)),
        LFLAG: st.sets(st.sampled_from(LOCAL)),
        CC: st.dictionaries(st.sampled_from(CHARACTERS), st.binary(min_size=1, max_size=1)),
    }
)


@pytest.fixture(scope="module")
def pty() -> Iterator[tuple[int, int]]:
    master, slave = os.openpty()
    yield master, slave
    os.close(master)
    os.close(slave)


def set_all(fd: int, setting: dict[int, object]) -> None:
    mode = termios.tcgetattr(fd)
    for word, of_word in ((IFLAG, INPUT), (OFLAG, OUTPUT), (LFLAG, LOCAL)):
        chosen = setting[word]
        assert isinstance(chosen, set)
        for flag in of_word:
            mode[word] = mode[word] | flag if flag in chosen else mode[word] & ~flag
    characters = setting[CC]
    assert isinstance(characters, dict)
    for number, character in characters.items():
        mode[CC][number] = character
    termios.tcsetattr(fd, termios.TCSANOW, mode)


@given(settings, settings)
def test_what_is_set_comes_to_a_terminal_of_the_same_mode(
    pty: tuple[int, int], first: dict[int, object], then: dict[int, object]
) -> None:
    master, slave = pty
    set_all(slave, first)
    outer = termios.tcgetattr(slave)
    followed = PtyMode(master)
    set_all(slave, then)
    apply(followed.change(), outer)
    inner = termios.tcgetattr(slave)
    termios.tcsetattr(slave, termios.TCSANOW, outer)
    assert termios.tcgetattr(slave) == inner


@given(settings)
def test_what_is_not_set_is_left_alone(pty: tuple[int, int], setting: dict[int, object]) -> None:
    master, slave = pty
    set_all(slave, setting)
    followed = PtyMode(master)
    assert followed.change() == b""
    mode = termios.tcgetattr(slave)
    mode[LFLAG] ^= termios.ECHOK
    termios.tcsetattr(slave, termios.TCSANOW, mode)
    other: list[Any] = [0, 0, termios.CS8, termios.ECHO, 0, 0, [b"\0"] * 32]
    apply(followed.change(), other)
    assert other[:LFLAG] == [0, 0, termios.CS8]
    assert other[LFLAG] | termios.ECHOK == termios.ECHO | termios.ECHOK
    assert other[CC] == [b"\0"] * 32
    followed.forget()
    assert followed.change() == b""


def test_line_ends_that_another_makes_are_no_setting(pty: tuple[int, int]) -> None:
    """And come back with the terminal that leaves them to the pty."""
    master, slave = pty
    set_all(slave, {IFLAG: {termios.ICRNL}, OFLAG: {termios.OPOST}, LFLAG: set(LOCAL), CC: {}})
    followed = PtyMode(master)
    followed.shown(taken=True, processes=False)
    assert not termios.tcgetattr(slave)[OFLAG] & termios.OPOST
    assert followed.change() == b""
    followed.shown(taken=True, processes=True)
    assert termios.tcgetattr(slave)[OFLAG] & termios.OPOST
    assert followed.change() == b""


def test_a_program_that_makes_its_line_ends_itself_goes_on_to(pty: tuple[int, int]) -> None:
    master, slave = pty
    set_all(slave, {IFLAG: set(), OFLAG: {termios.OPOST}, LFLAG: set(), CC: {}})
    followed = PtyMode(master)
    followed.shown(taken=True, processes=True)
    set_all(slave, {IFLAG: set(), OFLAG: set(), LFLAG: set(), CC: {}})
    followed.shown(taken=False, processes=False)
    followed.shown(taken=True, processes=True)
    assert not termios.tcgetattr(slave)[OFLAG] & termios.OPOST


@given(st.binary(max_size=80))
def test_what_tells_nothing_sensible_breaks_nothing(change: bytes) -> None:
    apply(change, [0, 0, 0, 0, 0, 0, [b"\0"] * 32])
