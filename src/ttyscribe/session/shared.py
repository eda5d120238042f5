# SPDX-License-Identifier: Apache-2.0
"""Standard input that others read after the session: what the shell leaves in it stays theirs.

So it is in a script that is itself read from there (ssh root@host <script), or loops over its
lines, and has one user or the other run a command. A command reads no more of it than it needs.
We hand it on before it is known how much that is, a little ahead, and what the shell has not
read by its end is given back. A pipe can't be given anything back: it is read ahead where it
is relayed, that is, where input is logged.
"""

from __future__ import annotations

import _socket
import fcntl
import os
import select

from ttyscribe.events import INPUT
from ttyscribe.session.relay import Relay
from ttyscribe.terminal.raw import unread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ttyscribe.terminal import Sink

# So far ahead of what the shell reads it is handed on: little at first, as a script may run
# many commands that read none, and then more and more.
_AHEAD, _MOST = 4096, 65536
_ENDS = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_CHANGES = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET


class Shared(Relay):
    """From source, the user's descriptor. held is one of the shell's own end, of an open file
    description of its own if that is a pipe, and closed here."""

    __slots__ = ("_ahead", "_given", "_held", "_source")

    def __init__(self, source: int, sink: Sink, held: int) -> None:
        super().__init__(os.dup(source), sink, INPUT)
        self._source: int = fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, 3)
        self._held = held
        self._ahead = _AHEAD
        # How much was handed on, and is not taken.
        self._given = 0

    def delivered(self) -> None:
        there = unread(self._held) if self._held >= 0 else 0
        left = there + self._undelivered()
        if self._given > left:
            self._take(self._given - left)
            self._given = left
            self._ahead = min(_MOST, 2 * self._ahead)

    def drop(self) -> None:
        self.delivered()
        if self._held >= 0:
            self._given -= self._undelivered()

    def leave_unread(self) -> bool:
        if self._held >= 0:
            # What is read out here no job of the shell's reads, which may outlive it.
            left = self._undelivered()
            try:
                while data := self._read_out():
                    left += len(data)
            except OSError:
                pass  # there is no more, or no other end
            self._take(max(0, self._given - left))
            self._given = 0
            self._close_source()
            os.close(self._held)
            self._held = -1
        return True

    def _undelivered(self) -> int:
        return len(self.sink.pending) + len(self.withheld)

    def _take(self, size: int) -> None:
        """So many bytes of the source are the shell's, and nobody else's."""
        raise NotImplementedError

    def _read_out(self) -> bytes:
        return os.read(self._held, _MOST)

    def _close_source(self) -> None:
        os.close(self._source)


class SharedFile(Shared):
    """From a file, whose place is others' too, and is moved by what the shell has read."""

    __slots__ = ()

    def __init__(self, source: int, sink: Sink, held: int) -> None:
        super().__init__(source, sink, held)
        self.lag = 0
        # Whether the shell reads on is seen by its having room for more.
        fcntl.fcntl(sink.fd, fcntl.F_SETPIPE_SZ, _AHEAD)

    def read(self) -> bytes | None:
        self.delivered()
        try:
            at = os.lseek(self._source, 0, os.SEEK_CUR) + self._given
            data = os.pread(self._source, _AHEAD, at)
        except OSError:
            return b""
        self._given += len(data)
        return data

    def _take(self, size: int) -> None:
        os.lseek(self._source, size, os.SEEK_CUR)


class SharedSocket(Shared):
    """From a stream socket, of which as much is taken as the shell has read.

    Until then it is only looked at, and so stays readable: what fd reports are changes, of what
    is there and of how much the shell has read.
    """

    __slots__ = ("_changes", "_ended", "_shells", "_socket")

    def __init__(self, source: int, sink: Sink, held: int) -> None:
        super().__init__(source, sink, held)
        os.close(self.fd)
        self._changes = select.epoll()
        self._changes.register(self._source, _CHANGES)
        # It has room: where the shell waits for more, it has read all.
        self._changes.register(sink.fd, select.EPOLLOUT | select.EPOLLET)
        self.fd = self._changes.fileno()
        self._socket = _socket.socket(fileno=self._source)
        self._shells = _socket.socket(fileno=held)
        self._ended = False

    def read(self) -> bytes | None:
        for fd, what in self._changes.poll(0):
            self._ended = self._ended or (fd == self._source and bool(what & _ENDS))
        self.delivered()
        if self._given >= self._ahead:
            return None
        try:
            size = self._ahead
            data = self._socket.recv(size, _socket.MSG_PEEK | _socket.MSG_DONTWAIT)[self._given :]
        except BlockingIOError:
            return None
        except OSError:
            # The other end is gone, or it is no end at all.
            self._ended = True
            data = b""
        self._given += len(data)
        if data:
            return data
        if self._given or not self._ended:
            return None
        # Nothing is left; held, the shell's end would hide from us that it is closed.
        self.leave_unread()
        return b""

    def stop(self) -> None:
        self._changes.close()

    def _take(self, size: int) -> None:
        try:
            while size > 0:
                size -= len(self._socket.recv(size, _socket.MSG_DONTWAIT)) or size
        except OSError:
            pass  # somebody else was first

    def _read_out(self) -> bytes:
        return self._shells.recv(_MOST, _socket.MSG_DONTWAIT)

    def _close_source(self) -> None:
        self._shells.detach()
        self._socket.close()
