# SPDX-License-Identifier: Apache-2.0
"""Standard input that others read after the session: what the shell leaves in it stays theirs.

So it is in a script that is itself read from there (ssh root@host <script), or loops over its
lines, and has one user or the other run a command. A command reads no more of it than it needs.
We hand all on before it is known how much that is, and leave what it has not read by its end.
"""

from __future__ import annotations

import _socket
import fcntl
import os
import select
import stat
import sys
import termios

from ttyscribe.events import INPUT
from ttyscribe.session.relay import Relay
from ttyscribe.terminal.libc import call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ttyscribe.terminal import Sink

# So much is handed on at once.
_AHEAD = 65536
_ENDS = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_CHANGES = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET


def shared(source: int, sink: Sink, held: int) -> Relay | None:
    """From the user's descriptor source to the shell's end; None where the rest can't be left.

    held is another descriptor of that end, which is closed when the shell is gone.
    """
    mode = os.fstat(source).st_mode
    if stat.S_ISSOCK(mode):
        return SharedSocket(source, sink, held)
    if not stat.S_ISFIFO(mode):
        return SharedFile(source, sink, held)
    try:
        return SharedPipe(source, sink, held)
    except OSError:
        return None  # no pipe may be as large


class SharedFile(Relay):
    """From a file, whose place is set back to what the shell has not read."""

    __slots__ = ("_held", "_source")

    def __init__(self, source: int, sink: Sink, held: int) -> None:
        super().__init__(os.dup(source), sink, INPUT)
        self._source: int = fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, 3)
        self._held = held

    def leave_unread(self) -> bool:
        if self._held >= 0:
            self._give_back()
            os.close(self._source)
            os.close(self._held)
            self._held = -1
        return True

    def _give_back(self) -> None:
        try:
            os.lseek(self._source, -self._unread(), os.SEEK_CUR)
        except OSError:
            pass  # another has set its place to where not so much is before it

    def _unread(self) -> int:
        """How many of the bytes that were handed on the shell has not read."""
        there = fcntl.ioctl(self._held, termios.FIONREAD, bytes(4))
        waiting = len(self.sink.pending) + len(self.withheld)
        return int.from_bytes(there, sys.byteorder) + waiting


class SharedStream(SharedFile):
    """From what has no place to go back to, of which as much is taken as the shell has read.

    Until then it is only looked at, so that it stays readable: what fd reports are changes,
    of what is there and of how much the shell has read.
    """

    __slots__ = ("_changes", "_ended", "_given")

    def __init__(self, source: int, sink: Sink, held: int) -> None:
        super().__init__(source, sink, held)
        os.close(self.fd)
        self._changes = select.epoll()
        self._changes.register(self._source, _CHANGES)
        # It has room again: where the shell waits for more, it has read all.
        self._changes.register(sink.fd, select.EPOLLOUT | select.EPOLLET)
        self.fd = self._changes.fileno()
        # How much was handed on, and is not taken.
        self._given = 0
        self._ended = False

    def read(self) -> bytes | None:
        changes = dict(self._changes.poll(0))
        if changes and self.sink.pending and self._source not in changes:
            return None  # it is read on, and there is more of it
        self._ended = self._ended or bool(changes.get(self._source, 0) & _ENDS)
        self._give_back()
        if self._source not in changes:
            return None
        try:
            data = self._look(self._given + _AHEAD)
        except BlockingIOError:
            return None
        except OSError:
            data = b""  # the other end is gone, with what it did not read itself
        data = data[self._given :]
        self._given += len(data)
        if len(data) == _AHEAD or (data and self._ended):
            # What is there already is no change.
            self._changes.modify(self._source, _CHANGES)
        if not data and not self._ended:
            return None
        if not self._given:
            # Nothing is left; held, the shell's end would hide from us that it is closed.
            self.leave_unread()
        return data

    def stop(self) -> None:
        self._changes.close()

    def _give_back(self) -> None:
        """Take what the shell has read, and leave the rest."""
        left = self._unread()
        try:
            while self._given > left:
                self._given -= self._take(self._given - left)
        except OSError:
            self._given = left  # somebody else was first

    def _look(self, size: int) -> bytes:
        """What is there, up to this much. Raises OSError."""
        raise NotImplementedError

    def _take(self, size: int) -> int:
        """Read up to this much of what is there away; how much that was."""
        raise NotImplementedError


class SharedSocket(SharedStream):
    """From a stream socket."""

    __slots__ = ("_socket",)

    def __init__(self, source: int, sink: Sink, held: int) -> None:
        super().__init__(source, sink, held)
        self._socket = _socket.socket(fileno=self._source)

    def leave_unread(self) -> bool:
        left = super().leave_unread()
        self._socket.detach()
        return left

    def _look(self, size: int) -> bytes:
        return self._socket.recv(size, _socket.MSG_PEEK | _socket.MSG_DONTWAIT)

    def _take(self, size: int) -> int:
        return len(self._socket.recv(size, _socket.MSG_DONTWAIT))


class SharedPipe(SharedStream):
    """From a pipe, through one of ours that gets the same as long as nothing is taken.

    Raises OSError where ours can't be as large.
    """

    __slots__ = ("_read", "_write")

    def __init__(self, source: int, sink: Sink, held: int) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.fcntl(self._write, fcntl.F_SETPIPE_SZ, fcntl.fcntl(source, fcntl.F_GETPIPE_SZ))
        except OSError:
            os.close(self._read)
            os.close(self._write)
            raise
        # That a pipe has room again is told of one that was full, as one of a single page is
        # whenever there is something in it.
        fcntl.fcntl(sink.fd, fcntl.F_SETPIPE_SZ, 1)
        super().__init__(source, sink, held)

    def leave_unread(self) -> bool:
        if self._held >= 0:
            super().leave_unread()
            os.close(self._read)
            os.close(self._write)
        return True

    def _look(self, size: int) -> bytes:
        seen = call("tee", self._source, self._write, size, os.SPLICE_F_NONBLOCK)
        return os.read(self._read, seen) if seen > 0 else b""

    def _take(self, size: int) -> int:
        taken = os.splice(self._source, self._write, size, flags=os.SPLICE_F_NONBLOCK)
        return len(os.read(self._read, taken)) or size
