# SPDX-License-Identifier: Apache-2.0
"""What is written soon comes whole and in order, before whatever is written after it."""

from __future__ import annotations

import os

import pytest

from ttyscribe.player.output import Output


def test_pieces_written_soon_come_in_order_and_before_the_next_write() -> None:
    reader, writer = os.pipe()
    output = Output(writer)
    sent = b""
    for number in range(50):
        piece = b"%d," % number * 3
        sent += piece
        output.soon(piece)
    output.write(b"end")
    os.close(writer)
    with open(reader, "rb") as file:
        assert file.read() == sent + b"end"


def test_a_reader_that_takes_nothing_does_not_hold_up_settling() -> None:
    reader, writer = os.pipe()
    output = Output(writer)
    output.soon(bytes(1 << 20))
    assert not output.settle(0.1)
    received = 0
    while received < 1 << 20:
        received += len(os.read(reader, 1 << 20))
    assert output.settle(10)


def test_a_reader_that_is_gone_is_an_error_at_a_later_call() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    output = Output(writer)
    output.soon(b"lost")
    with pytest.raises(BrokenPipeError):
        output.settle(10)
    with pytest.raises(BrokenPipeError):
        output.write(b"more")
