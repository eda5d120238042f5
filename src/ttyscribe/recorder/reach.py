# SPDX-License-Identifier: Apache-2.0
"""Reaching the recorder service: what a login shell asks it, and what it answers.

Runs as the user. It can't be traced or read by the user's other processes, so that
they can't reach the outer terminal through it.
"""

from __future__ import annotations

import _socket
import os
import select
from _struct import Struct

from ttyscribe.errors import ServiceError, reason
from ttyscribe.recorder import wire
from ttyscribe.terminal.libc import call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_PR_SET_DUMPABLE = 4
# 5 seconds as a struct timeval of two longs, socket(7).
_CONNECT_TIMEOUT = Struct("@ll").pack(5, 0)
# The service says at once that it is there, however much it has to do. It is given so many
# turns of so many milliseconds each, and not a time: on a machine that is so busy that the
# service has to wait for its own, we have to wait for ours as well.
_TURN = 50
_TURNS = 14
# The same while it is being started.
_TURNS_OF_START = 200
# Its answer takes milliseconds, or some seconds where it is looking a user's groups up at a
# slow directory.
_ANSWER_TIMEOUT = 30.0


class Answer:
    """What the service said: kind is a wire.py letter; fds are the shell's descriptors."""

    __slots__ = ("fds", "fields", "kind")

    def __init__(self, kind: bytes, fields: list[bytes], fds: list[int]) -> None:
        self.kind = kind
        self.fields = fields
        self.fds = fds


def connect(path: str = wire.SOCKET) -> _socket.socket | None:
    """A connection to the recorder service; None if there is no service.

    Raises ServiceError if there is one that can't be reached: whoever keeps it
    busy must not thereby switch it off.
    """
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    try:
        # Not settimeout: a socket that does not block is turned away while the queue is full.
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, _CONNECT_TIMEOUT)
        sock.connect(path)
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, bytes(len(_CONNECT_TIMEOUT)))
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        sock.close()
        return None
    except OSError as error:
        sock.close()
        why = "it is too busy" if isinstance(error, BlockingIOError) else reason(error)
        raise ServiceError(f"the recorder service at {path} can't be reached: {why}") from None
    return sock


def ask(
    sock: _socket.socket,
    argv0: str,
    arguments: Sequence[str],
    environ: dict[bytes, bytes],
    fds: tuple[int, int, int],
    is_plain_git: bool = False,
) -> Answer | None:
    """Say HELLO with the user's descriptors; the answer, None if none came.

    is_plain_git is what skip.asks_git said. Raises ServiceError if the service has no
    room for a session.
    """
    not_dumpable()
    given = [fd for fd in fds if fd >= 0]
    names = b"".join([b"%d" % number for number, fd in enumerate(fds) if fd >= 0])
    hello = wire.Hello(
        os.fsencode(argv0),
        names,
        False,
        environ,
        [os.fsencode(word) for word in arguments],
        list(environ),
        is_plain_git,
    )
    rights = b"".join([_native(fd) for fd in given])
    if not _shows_life(sock):
        return None
    packet, ancillary = _receive(sock)
    if packet == wire.ACCEPTED:
        try:
            sock.sendmsg([hello.packed()], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])
        except OSError:
            pass  # a full service turns clients away without hearing them
        sock.settimeout(_ANSWER_TIMEOUT)
        packet, ancillary = _receive(sock)
    if not packet:
        return None
    passed = []
    for level, kind, data in ancillary:
        if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
            passed += [_from_native(data[at : at + 4]) for at in range(0, len(data) - 3, 4)]
    kind_of, fields = wire.unpack(packet)
    if kind_of == wire.FULL:
        raise ServiceError(os.fsdecode(fields[0]))
    return Answer(kind_of, fields, passed)


def _shows_life(sock: _socket.socket) -> bool:
    """Whether the service says something while it has its turns."""
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    turns = _TURNS_OF_START if _is_starting(sock) else _TURNS
    return any(poll.poll(_TURN) for _ in range(turns))


def _is_starting(sock: _socket.socket) -> bool:
    """Whether nobody serves the socket yet, or no more: who listens is systemd, or is gone."""
    # The service listens anew, even at systemd's socket, once it is there.
    creds = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
    pid = _from_native(creds[:4])
    try:
        if pid > 1:
            os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return pid <= 1


def _receive(sock: _socket.socket) -> tuple[bytes, list[tuple[int, int, bytes]]]:
    """One packet, empty if none comes, and what came along with it."""
    room = (wire.PACKET_MAX, _socket.CMSG_SPACE(12), _socket.MSG_CMSG_CLOEXEC)
    try:
        try:
            packet, ancillary, flags, _ = sock.recvmsg(*room)
        except ConnectionResetError:
            # That it closed on our HELLO is told before what it said.
            packet, ancillary, flags, _ = sock.recvmsg(*room)
    except OSError:
        return b"", []
    if flags & _socket.MSG_CTRUNC:
        raise ServiceError(
            "no file descriptor is left for what the recorder service gives;"
            " raise the limit of open files (ulimit -n)"
        )
    return packet, ancillary


def not_dumpable() -> None:
    """Keep other processes of the user from tracing and reading this one."""
    call("prctl", _PR_SET_DUMPABLE, 0, 0, 0, 0)


def _native(fd: int) -> bytes:
    import sys

    return fd.to_bytes(4, sys.byteorder)


def _from_native(data: bytes) -> int:
    import sys

    return int.from_bytes(data, sys.byteorder)
