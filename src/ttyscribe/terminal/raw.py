# SPDX-License-Identifier: Apache-2.0
"""A terminal's raw mode and window size."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import sys
import termios

from ttyscribe.events import window
from ttyscribe.terminal.job import is_in_foreground

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from typing import Any
else:
    import _signal as signal

_IFLAG, _OFLAG, _CFLAG, _LFLAG, _CC = 0, 1, 2, 3, 6
# A terminal with none of these is raw.
_COOKED = termios.ICANON | termios.ECHO | termios.ISIG
# What raw mode takes away; of the local modes all but the signals of keys.
_INPUT_MODES = (
    termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP | termios.INLCR
    | termios.IGNCR | termios.ICRNL | termios.IXON
)  # fmt: skip
_SIGNAL_KEYS = (termios.VINTR, termios.VQUIT, termios.VSUSP)
# Of the special characters, those of lines, of signals and of the flow.
_ACTED_ON = (
    *_SIGNAL_KEYS, termios.VEOF, termios.VEOL, termios.VEOL2, termios.VERASE, termios.VKILL,
    termios.VLNEXT, termios.VREPRINT, termios.VSTART, termios.VSTOP, termios.VWERASE,
)  # fmt: skip
_ECHO = termios.ECHO | termios.ECHONL
# The longest line that a terminal has (N_TTY_BUF_SIZE).
LINE = 4096
_LOCAL_MODES = termios.ECHO | termios.ECHONL | termios.ICANON | termios.IEXTEN


class RawMode:
    """The user's terminal fd, which is raw while it is taken, and is always given back.

    It is taken only while our job is in its foreground: else it is another's, and who
    touches it is stopped. Output processing is off as well, for the recorded terminal has
    done it already; but not where whole is false: then not all of the user's descriptors
    are the terminal, and what another program of a pipeline writes to it needs that. One
    that is raw when we come is another session's, which gives it back itself.
    A terminal that is gone is not an error on the way out.

    keys are those of its keys that send signals meanwhile, as keys_of gives them: b"" for
    none, None for those that it has of itself.
    """

    __slots__ = (
        "_cooked", "_cooked_bytes", "_fd", "_given", "_keys", "_shared", "_whole", "taken"
    )  # fmt: skip

    def __init__(self, fd: int, whole: bool, keys: bytes | None = b"") -> None:
        self._fd = fd
        self._whole = whole
        self._keys = keys
        self._shared = False
        # The mode that we gave it.
        self._given: list[Any] = []
        self._cooked: list[Any] = []
        self._cooked_bytes = b""
        self.taken = False

    def enter(self) -> bool:
        """Take the terminal, if our job is in its foreground; whether it is taken."""
        while is_in_foreground(self._fd):
            if not self.taken:
                self._find_cooked()
            # TCSANOW keeps what was typed ahead.
            if self._shared or self._set(termios.TCSANOW, self._raw()):
                self.taken = True
                return True
        self.leave()
        return False

    @property
    def took_output(self) -> bool:
        """Whether output processing is the recorded terminal's now."""
        return self.taken and self._whole and not self._shared

    @property
    def cooked(self) -> bytes:
        """The mode that it is given back, as TCGETS gives it; b"" where there is none to give."""
        return self._cooked_bytes if self.taken and not self._shared else b""

    def enter_again(self) -> bool:
        """The same while the session goes on, where a terminal that is gone is no error."""
        try:
            return self.enter()
        except termios.error:
            return self.taken

    def use_keys(self, keys: bytes) -> None:
        """Have these keys send signals from now on; a terminal that is gone is no error."""
        self._keys = keys
        try:
            if self.taken and not self._shared and is_in_foreground(self._fd):
                self._set(termios.TCSANOW, self._raw())
        except termios.error:
            pass

    def keep(self, change: bytes) -> bool:
        """Have the terminal's own mode changed when it is given back, as terminal/mode.py tells.

        False if it is not ours to give back now.
        """
        kept = self.taken and not self._shared
        if kept and change:
            from ttyscribe.terminal.mode import apply

            apply(change, self._cooked)
        return kept

    def leave(self) -> None:
        """Give the terminal its own mode back, after what is still to be shown."""
        try:
            while self.taken and not self._shared and is_in_foreground(self._fd):
                if self._set(termios.TCSADRAIN, self._cooked):
                    break
            else:
                if self.taken and not self._shared and self._is_left():
                    self._set_from_behind(self._cooked)
        except termios.error:
            pass
        self.taken = False

    def _find_cooked(self) -> None:
        """Find out what the terminal's own mode is."""
        mode = termios.tcgetattr(self._fd)
        raw = not mode[_LFLAG] & _COOKED or _is_raw(mode)
        # A shell may give back to a job that goes on what that had when it stopped: our mode,
        # or a raw one that the job had set itself.
        if not self._cooked or (mode != self._given and not raw):
            self._cooked = mode
            self._shared = raw
            self._cooked_bytes = fcntl.ioctl(self._fd, termios.TCGETS, bytes(60))

    def _is_left(self) -> bool:
        """Whether the terminal has our mode still, though another job has the terminal.

        So it is where a key ended or stopped the script that we are a part of, before us.
        """
        return termios.tcgetattr(self._fd) == self._given

    def _set_from_behind(self, mode: list[Any]) -> None:
        """Set the mode while another job has the terminal, which stops who does so by chance."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTTOU])
        termios.tcsetattr(self._fd, termios.TCSANOW, mode)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

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
        raw[_IFLAG] &= ~_INPUT_MODES
        if self._whole:
            raw[_OFLAG] &= ~termios.OPOST
        raw[_LFLAG] &= ~_LOCAL_MODES
        raw[_CFLAG] = raw[_CFLAG] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
        raw[_CC][termios.VMIN] = 1
        raw[_CC][termios.VTIME] = 0
        if self._keys is not None:
            raw[_LFLAG] &= ~(termios.ISIG | termios.NOFLSH)
        if self._keys:
            raw[_LFLAG] |= termios.ISIG | (termios.NOFLSH if self._keys[0] else 0)
            for which, key in zip(_SIGNAL_KEYS, self._keys[1:], strict=True):
                raw[_CC][which] = bytes([key])
        self._given = raw
        return raw


def _is_raw(mode: list[Any]) -> bool:
    """Whether it is raw but for the keys that send signals."""
    return not (mode[_IFLAG] & _INPUT_MODES or mode[_LFLAG] & _LOCAL_MODES)


def keys_of(terminal: int) -> bytes:
    """The keys that send signals: b"" for none; else whether NOFLSH is set, INTR, QUIT and SUSP.

    One that is switched off is a NUL. Raises termios.error.
    """
    mode = termios.tcgetattr(terminal)
    if not mode[_LFLAG] & termios.ISIG:
        return b""
    keys = b"".join([mode[_CC][which] for which in _SIGNAL_KEYS])
    return bytes([bool(mode[_LFLAG] & termios.NOFLSH)]) + keys


def unread(fd: int) -> int:
    """How many bytes can be read from a terminal, pipe or socket. Raises OSError."""
    return int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), sys.byteorder)


def is_emptied(terminal: int) -> bool:
    """Whether no byte is to be read from a terminal."""
    try:
        return not unread(terminal)
    except OSError:
        return False  # it has hung up, which is read


def reads_lines(terminal: int) -> bool:
    """Whether a terminal reads by the line, as none does that is taken."""
    try:
        return bool(termios.tcgetattr(terminal)[_LFLAG] & termios.ICANON)
    except termios.error:
        return False


def leave_output(pty: int) -> None:
    """Let the pty make no line ends of its output, as the terminal that shows it does."""
    mode = termios.tcgetattr(pty)
    if mode[_OFLAG] & termios.OPOST:
        mode[_OFLAG] &= ~termios.OPOST
        termios.tcsetattr(pty, termios.TCSANOW, mode)


def use_lines(pty: int) -> None:
    """Let the pty read by the line. It has the mode of a terminal that is another job's now,
    as a rule a line editor's, and not what that job will leave to the next."""
    termios.tcsetattr(pty, termios.TCSANOW, reading_lines(termios.tcgetattr(pty)))


def reading_lines(mode: list[Any]) -> list[Any]:
    """The same mode, but of a terminal that reads by the line."""
    lines = [*mode]
    lines[_IFLAG] |= termios.ICRNL
    lines[_LFLAG] |= termios.ECHO | termios.ICANON | termios.ISIG | termios.IEXTEN
    return lines


def set_echo(pty: int, echo: int) -> int:
    """Set which of ECHO and ECHONL the pty has; those that it had."""
    mode = termios.tcgetattr(pty)
    before: int = mode[_LFLAG] & _ECHO
    mode[_LFLAG] = mode[_LFLAG] & ~_ECHO | echo
    termios.tcsetattr(pty, termios.TCSANOW, mode)
    return before


def as_typed(line: bytes, mode: list[Any]) -> bytes:
    """What was typed at a terminal of this mode to be read as line: a character that the
    terminal acts on is in it only where it was quoted."""
    quote = mode[_CC][termios.VLNEXT]
    if not mode[_LFLAG] & termios.IEXTEN or quote == b"\0":
        return line
    acted_on = {mode[_CC][which] for which in _ACTED_ON} - {b"\0"}
    if mode[_IFLAG] & (termios.ICRNL | termios.IGNCR):
        acted_on.add(b"\r")
    bytes_ = [line[at : at + 1] for at in range(len(line))]
    return b"".join([quote + byte if byte in acted_on else byte for byte in bytes_])


def unfinished_line(terminal: int, mode: list[Any]) -> bytes:
    """What is typed of a line that has no end yet, at a terminal of this mode, which reads by
    the line."""
    by_byte = [*mode[:_CC], list(mode[_CC])]
    by_byte[_LFLAG] &= ~termios.ICANON
    # Nothing is waited for.
    by_byte[_CC][termios.VMIN] = by_byte[_CC][termios.VTIME] = 0
    termios.tcsetattr(terminal, termios.TCSANOW, by_byte)
    try:
        return os.read(terminal, LINE)
    except OSError:
        return b""  # somebody else was first, or the terminal is gone
    finally:
        termios.tcsetattr(terminal, termios.TCSANOW, mode)


def take_input(terminal: int) -> None:
    """Have the kernel bring a pty all that was written at its other end, which it does in its
    own time; whoever asks for what is there makes it do so (n_tty_poll in Linux's n_tty.c)."""
    poll = select.poll()
    poll.register(terminal, select.POLLIN)
    poll.poll(0)


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
