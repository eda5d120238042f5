# SPDX-License-Identifier: Apache-2.0
"""Writing to the user's side without ever waiting in a write."""

from __future__ import annotations

import _socket
import fcntl
import os
import stat
import sys

from ttyscribe.terminal.ends import shut_down

# A pipe that poll(2) calls writable takes this much without blocking (pipe(7), PIPE_BUF).
_PIPE_CHUNK = 4096


# Asks a terminal for its device number (ioctl_tty(2)); Python has no name for it.
_TIOCGDEV = 0x80045432


def open_nonblocking(fd: int) -> int:
    """A new descriptor of the terminal that fd is open on, with O_NONBLOCK; -1 if none can be had.

    O_NONBLOCK on fd itself would reach every process that shares its open file
    description, such as the shell that the user came from.
    """
    flags = os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        return os.open(f"/proc/self/fd/{fd}", flags)
    except OSError:
        pass
    # After su(1) the terminal's file belongs to somebody else; our own terminal by
    # this name may be opened by everybody.
    try:
        own = os.open("/dev/tty", flags)
    except OSError:
        return -1
    try:
        number = int.from_bytes(fcntl.ioctl(own, _TIOCGDEV, bytes(4)), sys.byteorder)
        # The kernel's encoding of a device number in 32 bits, as os.makedev makes it.
        if number == os.fstat(fd).st_rdev:
            return own
    except OSError:
        pass
    os.close(own)
    return -1


class Sink:
    """A descriptor of the user's side to deliver to.

    write takes what can be taken now and keeps the rest in pending, in order;
    the pump polls fd for output while something is pending. gone is True once the
    reader went away: what comes then is dropped.
    """

    __slots__ = ("_chunk", "_own", "_socket", "fd", "gone", "pending", "user_fd")

    def __init__(self, fd: int, *, ours: bool = False) -> None:
        """fd is the user's; or ours, which then does not block, and is closed by close."""
        self.fd = fd
        self.user_fd = fd
        self.pending = b""
        self.gone = False
        self._own = ours
        self._chunk = 0
        self._socket: _socket.socket | None = None
        if ours:
            return
        mode = os.fstat(fd).st_mode
        if stat.S_ISSOCK(mode):
            self._socket = _socket.socket(fileno=os.dup(fd))
        elif stat.S_ISCHR(mode) or stat.S_ISFIFO(mode):
            own = -1
            if os.isatty(fd) or stat.S_ISFIFO(mode):
                own = _reopen(fd, mode)
            if own >= 0:
                self.fd = own
                self._own = True
            elif stat.S_ISFIFO(mode):
                self._chunk = _PIPE_CHUNK

    def write(self, data: bytes) -> None:
        """Deliver data behind what is pending."""
        if self.gone:
            return
        if self.pending:
            self.pending += data
            return
        self.pending = data
        self.drain()

    def drain(self) -> None:
        """Deliver what is pending, as far as it can be delivered now."""
        data = self.pending
        try:
            while data:
                if self._socket is not None:
                    sent = self._socket.send(data, _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL)
                elif self._chunk:
                    # One write a poll: a second one could block.
                    sent = os.write(self.fd, data[: self._chunk])
                    data = data[sent:]
                    break
                else:
                    sent = os.write(self.fd, data)
                data = data[sent:] if sent < len(data) else b""
        except BlockingIOError:
            pass
        except OSError:
            # EPIPE, or EIO of a terminal that hung up: nobody is there to deliver to.
            self.gone = True
            data = b""
        self.pending = data

    def close(self) -> None:
        """Close what this sink opened itself; the user's descriptor stays."""
        if self._own:
            # Its other way may still be read.
            shut_down(self.fd, _socket.SHUT_WR)
            os.close(self.fd)
        if self._socket is not None:
            self._socket.close()


def _reopen(fd: int, mode: int) -> int:
    if stat.S_ISFIFO(mode):
        try:
            return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return -1
    return open_nonblocking(fd)
