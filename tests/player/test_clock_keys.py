# SPDX-License-Identifier: Apache-2.0
"""The playback clock and keys."""

from __future__ import annotations

import time

import pytest

from ttyscribe.player.clock import END, Clock, format_position, parse_position
from ttyscribe.player.keys import Command, Keys

SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 30), ("30:00", 1800), ("30:", 1800), ("2::", 7200), ("1800", 1800), ("120:", 7200),
     ("1:2:3.5", 3723.5), (":5", 5), ("0.25", 0.25), ("::", 0)],
)  # fmt: skip
def test_position_parts_can_be_left_empty(text: str, seconds: float) -> None:
    assert parse_position(text) == seconds


@pytest.mark.parametrize("text", ["", "x", "1:2:3:4", "-1", "1e3", "1.5:0", "٣", "9" * 20, "1_0"])
def test_wrong_position_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_position(text)


def test_clock_stands_still_while_paused_and_jumps() -> None:
    clock = Clock(paused=True)
    clock.jump(5 * SECOND)
    assert clock.until(6 * SECOND) is None
    assert clock.until(5 * SECOND) == 0.0
    assert clock.position() == 5 * SECOND
    clock.toggle_pause()
    delay = clock.until(6 * SECOND)
    assert delay is not None
    assert 0 < delay <= 1


def test_speed_divides_waits_within_limits() -> None:
    clock = Clock()
    for _ in range(10):
        clock.faster()
    assert clock.speed == 16
    clock.jump(0)
    delay = clock.until(16 * SECOND)
    assert delay is not None
    assert 0.5 < delay <= 1
    for _ in range(20):
        clock.slower()
    assert clock.speed == 1 / 16
    clock.set_speed(0)
    assert clock.until(END) is None


def test_absurd_distance_is_a_wait_of_an_hour() -> None:
    assert Clock().until(10**60) == 3600.0


def test_positions_are_shown_as_hours() -> None:
    assert format_position(3723 * SECOND) == "01:02:03"


@pytest.mark.parametrize(
    ("typed", "commands"),
    [
        (b" p", [Command("pause"), Command("pause")]),
        (b"}{\x7f.", [Command("faster"), Command("slower"), Command("normal"), Command("step")]),
        (b"30:G", [Command("goto", 1800)]),
        (b"G", [Command("end")]),
        (b"5pG", [Command("pause"), Command("end")]),
        (b"\x1b[C\x1bOD", [Command("move", 5), Command("move", -5)]),
        (b"\x1b[A\x1b[B", [Command("move", 60), Command("move", -60)]),
        (b"\x1b[<0;10;10M\x1b[<0;10;10mq", [Command("quit")]),
        (b"\x1b[M qGq", [Command("quit")]),
        (b"\x1b[Iq\x1b[O", [Command("quit")]),
        (b"\x1b[?62;22c\x1b[24;80R", []),
        (b"\x1b]11;rgb:0000/0000/0000\x07\x1bP1+r544e=71\x1b\\", []),
        (b"\x1b[113u", [Command("quit")]),
        (b"\x1b[113;1:3u", []),
        (b"\x1b[99;5u", [Command("quit")]),
        (b"\x1b[27;5;113~", [Command("quit")]),
        (b"\xff\xc3xyz", []),
    ],
)
def test_keys(typed: bytes, commands: list[Command]) -> None:
    assert Keys().feed(typed) == commands
    keys = Keys()
    one_by_one = [command for byte in typed for command in keys.feed(bytes([byte]))]
    assert one_by_one == commands


def test_escape_key_alone_does_not_swallow_the_next_key() -> None:
    keys = Keys()
    assert keys.feed(b"\x1b") == []
    time.sleep(0.15)
    assert keys.feed(b"q") == [Command("quit")]
