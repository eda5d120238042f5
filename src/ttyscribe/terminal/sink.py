# SPDX-License-Identifier: Apache-2.0
"""Writing to the user's side without ever waiting in a write."""

from __future__ import annotations

import _socket
import errno
import os
import stat

from ttyscribe.errors import reason
from ttyscribe.terminal.ends import above_standard, shut_down
from ttyscribe.terminal.job import device_of

# What a pipe of ours takes, if nobody made it smaller (pipe(7)).
_PIPE_SIZE = 65536
# Nobody is there to deliver to: of a pipe, a terminal that hung up, a socket.
_GONE = (errno.EPIPE, errno.EIO, errno.ECONNRESET, errno.ENOTCONN)


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
        if device_of(own) == os.fstat(fd).st_rdev:
            return own
    except OSError:
        pass
    os.close(own)
    return -1


class Sink:
    """A descriptor of the user's side to deliver to.

    write takes what can be taken now and keeps the rest in pending, in order;
    the pump polls fd for output while something is pending. gone is True once the
    reader went away, or can take no more, which lost then gives the reason of: what
    comes then is dropped. tells_end says that poll(2) tells when the last reader goes,
    and that no other one can come.
    """

    __slots__ = (
        "_own", "_socket", "_stage", "_staged", "fd", "gone", "lost", "pending", "tells_end",
        "user_fd",
    )  # fmt: skip

    def __init__(self, fd: int, *, ours: bool = False) -> None:
        """fd is the user's; or ours, which then does not block, and is closed by close."""
        self.fd = fd
        self.user_fd = fd
        self.pending = b""
        self.gone = False
        self.lost = ""
        self._own = ours
        # A pipe of ours on the way into one that may block, and how much of pending is in it.
        self._stage: tuple[int, int] | None = None
        self._staged = 0
        self._socket: _socket.socket | None = None
        self.tells_end = False
        if ours:
            return
        mode = os.fstat(fd).st_mode
        if stat.S_ISSOCK(mode):
            self.tells_end = True
            self._socket = _socket.socket(fileno=os.dup(fd))
        elif stat.S_ISCHR(mode) or stat.S_ISFIFO(mode):
            self.tells_end = stat.S_ISFIFO(mode) and _is_nameless(fd)
            own = -1
            if os.isatty(fd) or stat.S_ISFIFO(mode):
                own = _reopen(fd, mode)
            if own >= 0:
                self.fd = own
                self._own = True
            elif stat.S_ISFIFO(mode):
                self._stage = _open_stage()

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
        while self.pending and self.drain_once():
            pass

    def drain_once(self) -> bool:
        """Deliver the first of what is pending by one system call; False if it can't be now."""
        data = self.pending
        try:
            if self._socket is not None:
                sent = self._socket.send(data, _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL)
            elif self._stage is not None:
                sent = self._splice(self._stage, data)
            else:
                sent = os.write(self.fd, data)
        except BlockingIOError:
            return False
        except OSError as error:
            self.gone = True
            if error.errno not in _GONE:
                self.lost = reason(error)
            sent = len(data)
        self.pending = data[sent:] if sent < len(data) else b""
        return True

    def close(self) -> None:
        """Close what this sink opened itself; the user's descriptor stays."""
        if self._own:
            # Its other way may still be read.
            shut_down(self.fd, _socket.SHUT_WR)
            os.close(self.fd)
        if self._socket is not None:
            self._socket.close()
        if self._stage is not None:
            for fd in self._stage:
                os.close(fd)

    def _splice(self, stage: tuple[int, int], data: bytes) -> int:
        """Deliver the first of data, which is pending, to a pipe that may block.

        A write may wait even if poll(2) called the pipe writable: there is not room for
        all, or somebody else fills it first. splice(2) can be told not to wait, so
        what is on its way stays in a pipe of ours until there is room.
        """
        read, write = stage
        if not self._staged:
            self._staged = os.write(write, data[:_PIPE_SIZE])
        sent = os.splice(read, self.fd, self._staged, flags=os.SPLICE_F_NONBLOCK)
        self._staged -= sent
        return sent


def _is_nameless(pipe: int) -> bool:
    """Whether it is no FIFO, which others may open later."""
    ours = os.pipe()
    same = os.fstat(ours[0]).st_dev == os.fstat(pipe).st_dev
    for fd in ours:
        os.close(fd)
    return same


def _open_stage() -> tuple[int, int]:
    read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    return above_standard(read), above_standard(write)


def _reopen(fd: int, mode: int) -> int:
    if stat.S_ISFIFO(mode):
        try:
            return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return -1
    return open_nonblocking(fd)
