# SPDX-License-Identifier: Apache-2.0
"""The mode of a session's pty, and what of it the user's terminal is to keep.

Who sets the mode of the terminal that they have (stty) sets that of the pty. Where the
terminal outlasts the session - su, sudo, a script - whoever has it next finds it so.
"""

from __future__ import annotations

import sys
import termios

from ttyscribe.terminal.raw import reading_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_OFLAG, _CFLAG, _CC = 1, 2, 6
_WORDS, _SIZE = 4, 4
# A pty has no speed.
_SPEED = termios.CBAUD | termios.CIBAUD


class PtyMode:
    """The mode of the pty whose master this is, as long as it has not hung up."""

    __slots__ = ("_begun", "_changed", "_known", "_opost", "_processes", "_pty")

    def __init__(self, pty: int) -> None:
        """For a pty that has the mode of the user's terminal. Raises termios.error."""
        self._pty = pty
        self._known = termios.tcgetattr(pty)
        self._changed = self._known
        self._begun = False
        self._processes = True
        self._opost = self._known[_OFLAG] & termios.OPOST

    def shown(self, *, taken: bool, processes: bool) -> None:
        """How it is shown: on a terminal that is taken or not, with its own line ends or with those
        that the terminal makes.

        Called first before the shell is there. A pty whose terminal is not taken then has been
        set to read by the line by who starts the shell.
        """
        if not self._begun and not taken:
            self._known = reading_lines(self._known)
        if processes != self._processes:
            mode = termios.tcgetattr(self._pty)
            before = mode[_OFLAG]
            if not processes and self._begun:
                self._opost = before & termios.OPOST
            mode[_OFLAG] = before & ~termios.OPOST | (self._opost if processes else 0)
            # The first time whoever starts the shell has done it.
            if mode[_OFLAG] != before:
                termios.tcsetattr(self._pty, termios.TCSANOW, mode)
        self._processes = processes
        self._begun = True

    def change(self) -> bytes:
        """What was set since the start, or since forget(): b"" for nothing.

        Else the changed bits of the four words of flags, then these words, as the machine
        stores them, and for each changed special character its number (VINTR, ...) and itself.
        """
        self._changed = termios.tcgetattr(self._pty)
        before, after = self._known, self._changed
        flags = [old ^ new for old, new in zip(before[:_WORDS], after[:_WORDS], strict=True)]
        flags[_CFLAG] &= ~_SPEED
        if not self._processes:
            flags[_OFLAG] &= ~termios.OPOST
        characters = b""
        for number, (old, new) in enumerate(zip(before[_CC], after[_CC], strict=True)):
            if _byte(old) != _byte(new):
                characters += bytes([number]) + _byte(new)
        if not any(flags) and not characters:
            return b""
        words = [*flags, *after[:_WORDS]]
        return b"".join([word.to_bytes(_SIZE, sys.byteorder) for word in words]) + characters

    def forget(self) -> None:
        """The user's terminal has what change() gave last."""
        self._known = self._changed


def apply(change: bytes, mode: list[Any]) -> None:
    """Change a mode, as termios.tcgetattr gives it, as PtyMode.change tells."""
    size = 2 * _WORDS * _SIZE
    if len(change) < size:
        return
    parts = [change[at : at + _SIZE] for at in range(0, size, _SIZE)]
    words = [int.from_bytes(part, sys.byteorder) for part in parts]
    for number, (bits, value) in enumerate(zip(words[:_WORDS], words[_WORDS:], strict=True)):
        mode[number] = mode[number] & ~bits | value & bits
    characters = change[size:]
    for number, byte in zip(characters[::2], characters[1::2], strict=False):
        if number < len(mode[_CC]):
            mode[_CC][number] = bytes([byte])


def _byte(character: bytes | int) -> bytes:
    """A special character, which is given as a number where it is VMIN or VTIME."""
    return bytes([character]) if isinstance(character, int) else character
