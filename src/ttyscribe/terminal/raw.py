# SPDX-License-Identifier: Apache-2.0
"""A terminal's raw mode and window size."""

from __future__ import annotations

import fcntl
import sys
import termios

from ttyscribe.events import window

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

_IFLAG, _OFLAG, _CFLAG, _LFLAG, _CC = 0, 1, 2, 3, 6


class RawMode:
    """The terminal fd in raw mode for as long as the with block lasts; always given back.

    Output processing is off as well: the recorded terminal has done it already.
    A terminal that is gone is not an error on the way out.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.cooked = termios.tcgetattr(fd)

    def __enter__(self) -> RawMode:
        self.enter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.leave()

    def enter(self) -> None:
        """Make the terminal raw."""
        raw = [*self.cooked[:_CC], list(self.cooked[_CC])]
        raw[_IFLAG] &= ~(
            termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP | termios.INLCR
            | termios.IGNCR | termios.ICRNL | termios.IXON
        )  # fmt: skip
        raw[_OFLAG] &= ~termios.OPOST
        raw[_LFLAG] &= ~(
            termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN
        )
        raw[_CFLAG] = raw[_CFLAG] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
        raw[_CC][termios.VMIN] = 1
        raw[_CC][termios.VTIME] = 0
        # TCSANOW keeps what was typed ahead.
        termios.tcsetattr(self._fd, termios.TCSANOW, raw)

    def leave(self) -> None:
        """Give the terminal its own mode back, after what is still to be shown."""
        try:
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self.cooked)
        except termios.error:
            pass


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
