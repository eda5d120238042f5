# SPDX-License-Identifier: Apache-2.0
"""The login record of a recorded shell's terminal, so that `who am i` inside it shows the user.

It is written into utmp(5) by the recorder itself, whose user may if it is in the
file's group. Where the user's terminal has a record, as sshd and login make it, that is the
recorded terminal's for the time of the session: two would have each login counted twice, and
each message to all users (wall) shown twice, once past the recorder.

pututxline(3) would wait for up to ten seconds for a lock that any
user can hold, as the file is theirs to read; so this takes the same lock, or else
leaves the record out. A login never depends on it. To end a record, there is time.
"""

from __future__ import annotations

import fcntl
import os
import struct
import sys
import time
from collections.abc import Iterator

# That of the login programs; a machine without it wants no such records.
UTMP = "/run/utmp"
USER_PROCESS = 7
DEAD_PROCESS = 8
# Type, process, line, id, user, host, exit, session, seconds, microseconds, address. Most
# 64-bit machines keep the widths of their 32-bit forerunners; these have none.
_WIDE = os.uname().machine in ("aarch64", "loongarch64", "alpha", "ia64")
RECORD = struct.Struct("@hi32s4s32s256s2hqqq16s20x4x" if _WIDE else "@hi32s4s32s256s2hiii16s20x")
_PROCESS = slice(4, 8)
_LINE_AT, _LINE_SIZE = 8, 32
_ID = slice(40, 44)
_USER = USER_PROCESS.to_bytes(2, sys.byteorder)
_LONGEST = 1 << 24
# Seconds for which a lock is asked for where somebody waits.
_BRIEFLY = 0.0025
# And at least between two times; with more patience seldom, as a thousand may ask.
_PAUSE = 0.0005


class LoginRecord:
    """The record that user is logged in from host on terminal, from add to remove.

    terminal is its path, and outer that of the user's own terminal, "" for none that may have
    a record; process is the one by whose life `who` knows that the record
    is true. Where it can't be written there is none, which is no error.
    """

    def __init__(
        self,
        terminal: str,
        user: str,
        host: str,
        process: int,
        path: str = UTMP,
        *,
        outer: str = "",
    ) -> None:
        self._line = os.fsencode(terminal).removeprefix(b"/dev/")
        self._outer = os.fsencode(outer).removeprefix(b"/dev/")
        # The id and process of the record that is moved.
        self._moved = b""
        self._user = user.encode()
        self._host = host.encode("utf-8", "replace") if host.isprintable() else b""
        self._process = process
        self._path = path
        self._added = False

    def add(self) -> None:
        """Move the outer terminal's record here; or write one, in the place of an earlier one
        of the same terminal."""
        self._added = self._put(USER_PROCESS, self._user, self._host, _BRIEFLY)

    def remove(self, patience: float = _BRIEFLY) -> None:
        """Move the record back, or have it say that the session is over, if there is one.

        patience is how many seconds others may hold the file's lock. Where they do for
        longer the record stays, until this is called again.
        """
        if self._added:
            self._added = not self._put(DEAD_PROCESS, b"", b"", patience)

    def _put(self, kind: int, user: bytes, host: bytes, patience: float) -> bool:
        now = time.time_ns()
        zero = bytes(16)
        record = RECORD.pack(
            kind, self._process, self._line, self._line[-4:], user, host,
            0, 0, 0, now // 10**9, now // 1000 % 10**6, zero,
        )  # fmt: skip
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            if not _locked(fd, patience):
                return False
            if kind == USER_PROCESS and self._outer:
                self._moved = _move(fd, self._outer, self._line)
            if self._moved:
                if kind == DEAD_PROCESS:
                    _move(fd, self._line, self._outer, self._moved)
                return True
            return _write(fd, self._line, record, kind)
        except OSError:
            return False
        finally:
            os.close(fd)


def _locked(fd: int, patience: float) -> bool:
    """Take the lock of utmp's writers, which closing the file gives back."""
    deadline = time.monotonic() + patience
    pause = max(_PAUSE, patience / 100)
    while True:
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(pause)


def _on(data: bytes, line: bytes) -> Iterator[tuple[int, bytes]]:
    """The records of a line, each with its place in the file's data."""
    wanted = line.ljust(_LINE_SIZE, b"\0")
    for at in range(0, len(data) - RECORD.size + 1, RECORD.size):
        record = data[at : at + RECORD.size]
        if record.startswith(wanted, _LINE_AT):
            yield at, record


def _move(fd: int, line: bytes, to: bytes, moved: bytes = b"") -> bytes:
    """Have the record of a user on line be one on another, to; its process and id, b"" if there
    is none, or it is not the one that moved tells in the same way."""
    data = os.pread(fd, _LONGEST, 0)
    for at, record in _on(data, line):
        found = record[_PROCESS] + record[_ID]
        if record.startswith(_USER) and moved in (b"", found):
            os.pwrite(fd, to.ljust(_LINE_SIZE, b"\0"), at + _LINE_AT)
            return found
    return b""


def _is_left(record: bytes, ours: bytes) -> bool:
    """Whether a record of our line is one that was moved there, and could not be moved back:
    of a login that goes on, and has its id from another line. That login's end finds it."""
    if record[_ID] == ours[_ID] or not record.startswith(_USER):
        return False
    try:
        os.kill(int.from_bytes(record[_PROCESS], sys.byteorder), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _write(fd: int, line: bytes, record: bytes, kind: int) -> bool:
    data = os.pread(fd, _LONGEST, 0)
    end = len(data) - len(data) % RECORD.size
    at = next((at for at, there in _on(data, line) if not _is_left(there, record)), end)
    if kind == DEAD_PROCESS and data[at:][_PROCESS] != record[_PROCESS]:
        return True  # the terminal is another session's by now
    if os.pwrite(fd, record, at) == RECORD.size:
        return True
    # No room: half a record would shift all that follow.
    os.ftruncate(fd, end)
    return False
