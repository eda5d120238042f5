# SPDX-License-Identifier: Apache-2.0
"""Who asks for a session, as the kernel knows it; and what it says for a greeting."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import stat
import struct
import sys

from ttyscribe.errors import TtyscribeError
from ttyscribe.recorder import privileges, wire

_SO_PEERPIDFD = 77


class GoneError(TtyscribeError):
    """The login shell ended or gave up, and has told so itself, if there was something to tell."""


class Peer:
    """The process at the other end, as the kernel knows it."""

    def __init__(self, connection: socket.socket) -> None:
        creds = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        self.pid, self.uid, self.gid = struct.unpack("iII", creds)
        self.pidfd = self._open_pidfd(connection)
        self._connection = connection

    def check(self) -> None:
        """Raise GoneError if the process is gone, and TtyscribeError if in another's hands."""
        try:
            with open(f"/proc/{self.pid}/status", "rb") as file:
                status = file.read()
        except OSError:
            if not privileges.sees_processes():
                raise TtyscribeError(privileges.BLIND) from None
            raise GoneError("the login shell is gone") from None
        for line in status.splitlines():
            if line.startswith(b"TracerPid:") and int(line.split()[1]):
                raise TtyscribeError("the login shell is being traced")
        # What was read belongs to the peer if the peer is alive after it was.
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        poll.register(self._connection, 0)  # its end is told all the same
        if poll.poll(0):
            raise GoneError("the login shell is gone")

    def _open_pidfd(self, connection: socket.socket) -> int:
        try:
            data = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD, 4)
            return int.from_bytes(data, sys.byteorder)
        except OSError:
            # Before Linux 6.5. check() runs after this, on the same pid.
            return os.pidfd_open(self.pid)


def receive_hello(connection: socket.socket) -> tuple[wire.Hello | None, list[int]]:
    """The client's HELLO and its descriptors; None if it was answered or is not worth it.

    Raises TtyscribeError for what is no HELLO.
    """
    try:
        packet, ancillary, flags, _ = connection.recvmsg(
            wire.PACKET_MAX, socket.CMSG_SPACE(3 * 4), socket.MSG_CMSG_CLOEXEC
        )
    except TimeoutError:
        return None, []
    fds = [
        fd
        for level, kind, data in ancillary
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
        for (fd,) in struct.iter_unpack("i", data[: len(data) // 4 * 4])
    ]
    if not packet:
        return None, fds
    kind, fields = wire.unpack(packet)
    try:
        if kind != wire.HELLO:
            raise ValueError("not a HELLO")
        if int(fields[0]) != wire.VERSION:
            connection.send(wire.pack(wire.OTHER_VERSION, b"%d" % wire.VERSION))
            return None, fds
        hello = wire.Hello.unpacked(fields[1:])
    except (ValueError, IndexError):
        raise TtyscribeError("the login shell said something that is no greeting") from None
    if flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC) or len(fds) != len(hello.names):
        raise TtyscribeError("the login shell passed other descriptors than it named")
    # Such a one can be had of a terminal that its holder may not open, while we may.
    if any(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_PATH for fd in fds):
        raise TtyscribeError("the login shell passed a descriptor that is only a path")
    # The kernel tells whoever gets a datagram that it is from us: journald would vouch for it.
    if any(sends_datagrams(fd) for fd in fds):
        raise TtyscribeError("the login shell passed a socket that is no stream")
    return hello, fds


def sends_datagrams(fd: int) -> bool:
    """Whether a descriptor is a socket of another kind than a stream."""
    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
        return False
    # Not a socket object, which would close the descriptor.
    with socket.socket(fileno=os.dup(fd)) as sock:
        return sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) != socket.SOCK_STREAM


def three(names: bytes, fds: list[int]) -> tuple[int, int, int]:
    """The user's standard descriptors, -1 for each that is closed."""
    given = iter(fds)
    found = [next(given) if b"%d" % number in names else -1 for number in range(3)]
    return found[0], found[1], found[2]
