# SPDX-License-Identifier: Apache-2.0
"""The auditor's terminal during a playback, and how it was before."""

from __future__ import annotations

import fcntl
import re
import select
import struct
import termios
import time
import tty

from ttyscribe.player.filter import TerminalFilter
from ttyscribe.player.output import Output

# Seconds that a terminal has to obey a resize.
_OBEY_SECONDS = 0.3
# How long a terminal may take nothing before it is left as it is.
_STUCK_SECONDS = 2.0
# No terminal has so many columns or rows.
_SIZE_END = 10_000
_ALTERNATE = re.compile(rb"\x1b\[\?(?:[0-9]+;)*(?:47|1047|1049)(?:;[0-9]+)*([hl])")
_ORIGIN = re.compile(rb"\x1b\[\?(?:[0-9]+;)*(?:6|69)(?:;[0-9]+)*h")
# Terminals differ in what these are at first, so they are reset where they were set.
_KEY_MODES = re.compile(rb"\x1b\[\?(?:[0-9]+;)*(?:67|1007)(?:;[0-9]+)*h")
_COLOURS = re.compile(rb"\x1b\](?:[45]|1[0-9]);")
# The palette, special colours, and those of text, cursor, pointer and selection.
_COLOUR_RESETS = (104, 105, 110, 111, 112, 113, 114, 117, 119)
_KITTY = re.compile(rb"\x1b\[[>=][0-9;]*u")
_TITLE = re.compile(rb"\x1b\][012];")
# How each of these begins; bulk output has none, and one search tells.
_NOTED = re.compile(rb"\x1b(?:\[[?>=]|\])")
# What has no effect where it is not set: cursor keys, keypad, mouse, focus, bracketed
# paste, reports of colour scheme and size, reverse video, scroll region, keyboard lock, insert,
# charsets, colours; local echo off; wrapping, repeating keys and cursor on.
_RESET = (
    b"\x1b[?1l\x1b>\x1b[?9l\x1b[?1000l\x1b[?1001l\x1b[?1002l\x1b[?1003l\x1b[?1004l\x1b[?1005l"
    b"\x1b[?1006l\x1b[?1015l\x1b[?1016l\x1b[?2004l\x1b[?2026l\x1b[?2031l\x1b[?2048l"
    b"\x1b[?5l\x1b7\x1b[r\x1b8\x1b[2l\x1b[4l\x1b[12h\x1b[20l\x1b[?7h\x1b[?8h"
    b"\x0f\x1b(B\x1b)B\x1b*B\x1b+B\x1b[0m\x1b[?25h"
)


class Screen:
    """A terminal that a recording is played on.

    output is written to; keys, where there is one, is a descriptor of the same terminal,
    which is put into raw mode by enter() and restored by leave(). leave() also takes
    back what the recording has set: colours, cursor, modes, size.
    """

    def __init__(self, output: int, keys: int | None) -> None:
        self.output = output
        self.keys = keys
        self._out = Output(output)
        self._filter = TerminalFilter()
        self._saved: list[tuple[int, list[int | list[bytes | int]]]] = []
        self._size = self.size()
        self._asked: tuple[int, int] | None = None
        self._obeys: bool | None = None
        self._status_shown = False
        # What the recording has set and leave() takes back.
        self._alternate = False
        self._origin = False
        self._cursor_shape = False
        self._kitty = False
        self._key_modes = False
        self._key_options = False
        self._colours = False
        self._title = False

    def enter(self) -> None:
        """Raw mode: bytes pass unchanged. Signals from the keyboard still work."""
        for terminal in (self.output, self.keys):
            if terminal is None:
                continue
            try:
                saved = termios.tcgetattr(terminal)
                mode = termios.tcgetattr(terminal)
                mode[tty.IFLAG] &= ~(termios.ICRNL | termios.INLCR | termios.IGNCR | termios.IXON)
                mode[tty.OFLAG] &= ~termios.OPOST
                mode[tty.LFLAG] &= ~(termios.ECHO | termios.ICANON | termios.IEXTEN)
                mode[tty.CC][termios.VMIN] = 1
                mode[tty.CC][termios.VTIME] = 0
                termios.tcsetattr(terminal, termios.TCSADRAIN, mode)
            except termios.error:
                continue  # no terminal, or gone
            self._saved.append((terminal, saved))

    def leave(self) -> None:
        """Give the terminal back as it was."""
        try:
            self._filter = TerminalFilter()
            end = b"\x18" + self._reset() + b"\r\n"
            if self._asked is not None and 0 not in self._size:
                end += _resize(self._size)
            # A terminal that has stopped taking anything can't be given its modes back.
            if self._out.settle(_STUCK_SECONDS):
                self._out.write(end)
        except OSError:
            pass  # it is gone: nothing to restore
        finally:
            # Both are mostly one terminal: the mode saved first is the one from before.
            for terminal, saved in reversed(self._saved):
                try:
                    termios.tcsetattr(terminal, termios.TCSANOW, saved)
                except termios.error:
                    pass
            self._saved = []
        self._forget()

    def write(self, data: bytes, hurry: bool = False, text: bool = False) -> None:
        """Write recorded output, without queries and what could harm. Raises OSError.

        In a hurry it is written soon, while the next is made ready. text tells that all
        output so far was UTF-8.
        """
        data = self._filter.feed(data, text)
        if b"\x1b" in data:
            data = self._note(data)
        if self._status_shown:
            data = self._erasure() + data
        if hurry:
            self._out.soon(data)
        else:
            self._out.write(data)

    def clear(self) -> None:
        """An empty screen, as before the recording's first output."""
        self._filter = TerminalFilter()
        self._status_shown = False
        self._out.write(b"\x18" + self._reset() + b"\x1b[H\x1b[2J")
        self._forget()

    def size(self) -> tuple[int, int]:
        """(columns, rows) of the terminal; zeros where it does not know."""
        try:
            packed = fcntl.ioctl(self.output, termios.TIOCGWINSZ, b"\0" * 8)
        except OSError:
            return 0, 0
        rows, columns, _, _ = struct.unpack("HHHH", packed)
        return columns, rows

    def resize(self, columns: int, rows: int, wait: bool) -> bool:
        """Have the terminal take a recorded size; False if it does not.

        A size that is unknown, or that no terminal has, is not asked for. Without
        wait it is asked, and taken at its word.
        """
        now = self.size()
        if now == (columns, rows) or 0 in now:
            return True
        if not (0 < columns < _SIZE_END and 0 < rows < _SIZE_END):
            return True
        if self._obeys is False:
            return False
        self._asked = (columns, rows)
        self._out.write(_resize(self._asked))
        if not wait:
            return True
        deadline = time.monotonic() + _OBEY_SECONDS
        while self.size() != (columns, rows):
            if time.monotonic() > deadline:
                self._obeys = False
                return False
            select.select([], [], [], 0.01)
        self._obeys = True
        return True

    def show_status(self, text: str) -> None:
        """Draw a status line on the last row, in place of what is there."""
        columns, rows = self.size()
        line = text[: columns or 80].encode("ascii", "replace")
        self._status_shown = True
        self._out.write(b"\x1b7\x1b[%d;1H\x1b[0;7m\x1b[K%b\x1b[0m\x1b8" % (rows or 24, line))

    def _erasure(self) -> bytes:
        """Empty the status line, so that it does not scroll up with the output."""
        return b"\x1b7\x1b[%d;1H\x1b[0m\x1b[2K\x1b8" % (self.size()[1] or 24)

    def _note(self, data: bytes) -> bytes:
        """Remember what will have to be taken back; the filter ends pieces between sequences."""
        if not self._cursor_shape:
            self._cursor_shape = b" q" in data
        if _NOTED.search(data) is None:
            return data
        if b"\x1b[?" in data:
            for match in _ALTERNATE.finditer(data):
                self._alternate = match[1] == b"h"
            if not self._origin:
                self._origin = _ORIGIN.search(data) is not None
            if not self._key_modes:
                self._key_modes = _KEY_MODES.search(data) is not None
        if not self._kitty:
            self._kitty = _KITTY.search(data) is not None
        if not self._key_options:
            self._key_options = b"\x1b[>" in data
        if b"\x1b]" in data:
            if not self._colours:
                self._colours = _COLOURS.search(data) is not None
            if not self._title and _TITLE.search(data) is not None:
                self._title = True
                return b"\x1b[22;0t" + data
        return data

    def _reset(self) -> bytes:
        """Take back what was noted; the rest is taken back anyway."""
        return b"".join(
            sequence
            for wanted, sequence in (
                (self._kitty, b"\x1b[=0;1u\x1b[<99u"),
                (self._alternate, b"\x1b[?1049l"),
                (self._kitty, b"\x1b[=0;1u\x1b[<99u"),
                (self._key_options, b"\x1b[>4;0m"),
                (self._key_modes, b"\x1b[?67l\x1b[?1007l"),
                (True, _RESET),
                # Resetting these moves the cursor to the top: put it below everything.
                (self._origin, b"\x1b[?69l\x1b[?6l\x1b[999;1H"),
                (self._cursor_shape, b"\x1b[0 q"),
                (self._colours, b"".join([b"\x1b]%d\x07" % number for number in _COLOUR_RESETS])),
                (self._title, b"\x1b[23;0t"),
            )
            if wanted
        )

    def _forget(self) -> None:
        self._alternate = self._cursor_shape = self._kitty = self._key_modes = False
        self._origin = self._key_options = self._colours = self._title = False


def _resize(size: tuple[int, int]) -> bytes:
    """xterm's window operation 8."""
    columns, rows = size
    return b"\x1b[8;%d;%dt" % (rows, columns)
