# SPDX-License-Identifier: Apache-2.0
"""A local datagram socket that never blocks and finds its service again after a restart."""

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
    """Sends datagrams to the service at path. Raises WriterError if nobody listens there."""

    def __init__(self, path: str, service: str) -> None:
        self._path = path
        self._service = service
        self._socket: _socket.socket | None = None
        self._connect()

    def send(self, datagrams: Iterable[bytes]) -> int:
        """Send in order until the service is busy; return how many it took.

        Those behind the first one that it does not take are not asked for, and so not made.
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

    def _connect(self) -> None:
        sock = _socket.socket(
            _socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK
        )
        try:
            sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDBUF, _SEND_BUFFER)
            sock.connect(self._path)
        except OSError as error:
            sock.close()
            why = reason(error)
            if error.errno in (errno.ENOENT, errno.ECONNREFUSED):
                why += f"; is {self._service} running?"
            raise WriterError(f"can't reach {self._service} at {self._path}: {why}") from None
        self._socket = sock

    def _send_one(self, datagram: bytes) -> None:
        if self._socket is None:
            self._connect()
        assert self._socket is not None
        try:
            self._socket.send(datagram)
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                self._send_large(datagram)
            elif error.errno in _GONE:
                # The service was restarted: its socket has the same name and is another.
                self.close()
                self._connect()
                self._socket.send(datagram)
            else:
                raise

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
