# SPDX-License-Identifier: Apache-2.0
"""A terminal's raw mode and window size."""

from __future__ import annotations

import errno
import fcntl
import sys
import termios

from ttyscribe.events import window
from ttyscribe.terminal.job import is_in_foreground

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_IFLAG, _OFLAG, _CFLAG, _LFLAG, _CC = 0, 1, 2, 3, 6
# A terminal with none of these is raw.
_COOKED = termios.ICANON | termios.ECHO | termios.ISIG


class RawMode:
    """The user's terminal fd, which is raw while it is taken, and is always given back.

    It is taken only while our job is in its foreground: else it is another's, and who
    touches it is stopped. Output processing is off as well, for the recorded terminal has
    done it already; but not where whole is false: then not all of the user's descriptors
    are the terminal, and what another program of a pipeline writes to it needs that. One
    that is raw when we come is another session's, which gives it back itself.
    A terminal that is gone is not an error on the way out.
    """

    __slots__ = ("_cooked", "_fd", "_shared", "_whole", "cooked", "taken")

    def __init__(self, fd: int, whole: bool) -> None:
        self._fd = fd
        self._whole = whole
        self._shared = False
        self._cooked: list[Any] = []
        # The same, as TCGETS gives it.
        self.cooked = b""
        self.taken = False

    def enter(self) -> bool:
        """Take the terminal, if our job is in its foreground; whether it is taken."""
        while is_in_foreground(self._fd):
            if not self.taken:
                self._cooked = termios.tcgetattr(self._fd)
                self._shared = not self._cooked[_LFLAG] & _COOKED
                if not self._shared:
                    self.cooked = fcntl.ioctl(self._fd, termios.TCGETS, bytes(60))
            # TCSANOW keeps what was typed ahead.
            if self._shared or self._set(termios.TCSANOW, self._raw()):
                self.taken = True
                return True
        self._forget()
        return False

    @property
    def took_output(self) -> bool:
        """Whether output processing was on, and is now the recorded terminal's."""
        took = self.taken and self._whole and not self._shared
        return took and bool(self._cooked[_OFLAG] & termios.OPOST)

    def enter_again(self) -> bool:
        """The same while the session goes on, where a terminal that is gone is no error."""
        try:
            return self.enter()
        except termios.error:
            return self.taken

    def leave(self) -> None:
        """Give the terminal its own mode back, after what is still to be shown."""
        try:
            while self.taken and not self._shared and is_in_foreground(self._fd):
                if self._set(termios.TCSADRAIN, self._cooked):
                    break
        except termios.error:
            pass
        self._forget()

    def _forget(self) -> None:
        self.taken = False
        self.cooked = b""

    def _set(self, when: int, mode: list[Any]) -> bool:
        """Set the mode; False if a signal came first, with which our job may have gone back."""
        try:
            termios.tcsetattr(self._fd, when, mode)
        except termios.error as error:
            if error.args[0] != errno.EINTR:
                raise
            return False
        return True

    def _raw(self) -> list[Any]:
        raw = [*self._cooked[:_CC], list(self._cooked[_CC])]
        raw[_IFLAG] &= ~(
            termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP | termios.INLCR
            | termios.IGNCR | termios.ICRNL | termios.IXON
        )  # fmt: skip
        if self._whole:
            raw[_OFLAG] &= ~termios.OPOST
        raw[_LFLAG] &= ~(
            termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN
        )
        raw[_CFLAG] = raw[_CFLAG] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
        raw[_CC][termios.VMIN] = 1
        raw[_CC][termios.VTIME] = 0
        return raw


def process_output(pty: int, processes: bool) -> None:
    """Whether the pty makes line ends of its output, or the terminal that shows it does."""
    mode = termios.tcgetattr(pty)
    before = mode[_OFLAG]
    mode[_OFLAG] = before | termios.OPOST if processes else before & ~termios.OPOST
    if mode[_OFLAG] != before:
        termios.tcsetattr(pty, termios.TCSANOW, mode)


def use_lines(pty: int) -> None:
    """Let the pty read by the line. It has the mode of a terminal that is another job's now,
    as a rule a line editor's, and not what that job will leave to the next."""
    mode = termios.tcgetattr(pty)
    mode[_IFLAG] |= termios.ICRNL
    mode[_LFLAG] |= termios.ECHO | termios.ICANON | termios.ISIG | termios.IEXTEN
    termios.tcsetattr(pty, termios.TCSANOW, mode)


def window_of(fd: int) -> bytes | None:
    """The terminal's window size as b"COLUMNSxROWS"; None if it has none, or fd is no terminal."""
    try:
        size = fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8))
    except OSError:
        return None
    rows = int.from_bytes(size[:2], sys.byteorder)
    columns = int.from_bytes(size[2:4], sys.byteorder)
    return window(columns, rows) if columns and rows else None


def copy_window(source: int, target: int) -> None:
    """Give the terminal target the window size of source, pixels included."""
    try:
        size = fcntl.ioctl(source, termios.TIOCGWINSZ, bytes(8))
        fcntl.ioctl(target, termios.TIOCSWINSZ, size)
    except OSError:
        pass
