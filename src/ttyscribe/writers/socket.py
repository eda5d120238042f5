# SPDX-License-Identifier: Apache-2.0
"""A local socket that never blocks and finds its service again after a restart.

It sends datagrams; to a service that listens on a stream, if that may be, each with an end.
"""

from __future__ import annotations

import _socket
import errno
import os

from ttyscribe.errors import WriterError, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# Enough for a burst of messages while the service is busy; the kernel may cap it.
_SEND_BUFFER = 8 << 20
_BUSY = (errno.EAGAIN, errno.ENOBUFS)
_GONE = (errno.ECONNREFUSED, errno.ENOTCONN, errno.ECONNRESET, errno.EPIPE, errno.ENOENT)


class DatagramSocket:
    """Sends datagrams to the service at path. Raises WriterError if nobody listens there.

    With stream_end it may be a stream that is listened on, in which that ends each.
    """

    def __init__(self, path: str, service: str, stream_end: bytes = b"") -> None:
        self._path = path
        self._service = service
        self._end = stream_end
        self._socket: _socket.socket | None = None
        self._is_stream = False
        # Of what the stream has taken a part only: that, and how much of it.
        self._begun = b""
        self._taken = 0
        try:
            self._connect()
        except BlockingIOError:
            pass  # as busy as one that takes no datagram

    def send(self, datagrams: Iterable[bytes]) -> int:
        """Send in order until the service is busy; return how many it took.

        The first that it does not take is to be the first of the next call: a stream may have
        a part of it. Those behind are not asked for, and so not made.
        Raises WriterError if the first can't be sent for another reason.
        """
        sent = 0
        for datagram in datagrams:
            try:
                self._send_one(datagram)
            except WriterError:
                if sent:
                    break
                raise
            except OSError as error:
                if error.errno in _BUSY or sent:
                    break
                raise WriterError(
                    f"can't write to {self._service} at {self._path}: {reason(error)}"
                ) from None
            sent += 1
        return sent

    def fileno(self) -> int:
        return self._socket.fileno() if self._socket is not None else -1

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        # Whoever comes next has nothing of it.
        self._begun = b""

    def _connect(self) -> None:
        """Raises WriterError, and BlockingIOError if too many wait to be let in already."""
        try:
            try:
                self._socket = self._connected(_socket.SOCK_DGRAM)
                self._is_stream = False
            except OSError as error:
                if error.errno != errno.EPROTOTYPE or not self._end:
                    raise
                self._socket = self._connected(_socket.SOCK_STREAM)
                self._is_stream = True
        except BlockingIOError:
            raise
        except OSError as error:
            why = reason(error)
            if error.errno in (errno.ENOENT, errno.ECONNREFUSED):
                why += f"; is {self._service} running?"
            raise WriterError(f"can't reach {self._service} at {self._path}: {why}") from None

    def _connected(self, kind: int) -> _socket.socket:
        sock = _socket.socket(
            _socket.AF_UNIX, kind | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK
        )
        try:
            sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDBUF, _SEND_BUFFER)
            sock.connect(self._path)
        except OSError:
            sock.close()
            raise
        return sock

    def _send_one(self, datagram: bytes) -> None:
        if self._socket is None:
            self._connect()
        try:
            self._put(datagram)
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                self._send_large(datagram)
            elif error.errno in _GONE:
                # The service was restarted: its socket has the same name and is another.
                self.close()
                self._connect()
                self._put(datagram)
            else:
                raise

    def _put(self, datagram: bytes) -> None:
        assert self._socket is not None
        if not self._is_stream:
            self._socket.send(datagram)
            return
        if not self._begun:
            self._begun, self._taken = datagram + self._end, 0
        # Else it is the same message, though the time in it may be another.
        while self._taken < len(self._begun):
            rest = memoryview(self._begun)[self._taken :]
            self._taken += self._socket.send(rest, _socket.MSG_NOSIGNAL)
        self._begun = b""

    def _send_large(self, datagram: bytes) -> None:
        """Pass a datagram that is too large as a sealed memory file (journald's way)."""
        import fcntl

        assert self._socket is not None
        fd = os.memfd_create("message", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.write(fd, datagram)
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
            rights = fd.to_bytes(4, "little")
            self._socket.sendmsg([], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])
        finally:
            os.close(fd)
