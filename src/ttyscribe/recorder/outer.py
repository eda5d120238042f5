# SPDX-License-Identifier: Apache-2.0
"""The outer terminal: out of the recorded user's reach for the time of a session.

What a process writes to the user's own terminal past the recorder would be seen
and not recorded. So the terminal belongs to the service while a session lasts,
with nobody else let in, and goes back when it ends. A note in a folder of the
service's lets whoever finds it give the terminal back after a crash.
"""

from __future__ import annotations

import contextlib
import os
import stat

from ttyscribe.errors import TtyscribeError, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container

FOLDER = "/run/ttyscribe/outer"
_MODE = 0o600


class Outer:
    """A terminal that is ours until give_back. note is the path of the note about it."""

    __slots__ = ("_fd", "_note", "_was")

    def __init__(self, fd: int, was: os.stat_result, note: str) -> None:
        self._fd = fd
        self._was = was
        self._note = note

    def give_back(self) -> None:
        """Let the terminal be as it was.

        Where that fails, it is left to whoever finds the note; a note may be gone itself.
        """
        with contextlib.suppress(OSError):
            _restore(self._fd, self._was.st_uid, self._was.st_gid, self._was.st_mode)
            os.unlink(self._note)


def take(fd: int, uid: int, client: str, folder: str = FOLDER) -> Outer | None:
    """Make the terminal fd ours if it belongs to the user uid; None if it is not theirs to give.

    client is the process that waits at the terminal, as client_of names it.

    A descriptor proves no more than that it was once opened: another user's
    terminal, open for messages, is not to be taken from them. Raises TtyscribeError.
    """
    was = os.fstat(fd)
    if not stat.S_ISCHR(was.st_mode) or not os.isatty(fd) or was.st_uid != uid or uid == 0:
        return None
    name = os.ttyname(fd)
    note = os.path.join(folder, str(os.getpid()))
    text = f"{name}\n{client}\n{was.st_rdev} {was.st_ino} {was.st_uid} {was.st_gid} {was.st_mode}\n"
    try:
        note_fd = os.open(note, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, _MODE)
        with open(note_fd, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
    except OSError as error:
        raise TtyscribeError(
            f"{folder}: can't note there that the terminal is taken: {reason(error)};"
            f" make it with: install -d -o ttyscribe -g ttyscribe -m 700 {folder}"
        ) from None
    try:
        os.fchown(fd, os.geteuid(), -1)
        os.fchmod(fd, _MODE)
    except OSError as error:
        os.unlink(note)
        raise TtyscribeError(f"{name}: can't take the terminal: {reason(error)}") from None
    return Outer(fd, was, note)


def client_of(pid: int) -> str:
    """A process's number and start time, "" if it is gone; what the note keeps of a client."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return ""
    # One that has ended and is not reaped does nothing more.
    return "" if fields[0] in b"ZX" else f"{pid} {int(fields[19])}"


def is_there(client: str) -> bool:
    """Whether the process that client_of named so is there."""
    return client_of(int(client.split()[0])) == client


def give_back_left_over(living: Container[int] = (), folder: str = FOLDER) -> bool:
    """Give back the terminals of sessions that died with them; whether some have to wait.

    living are the recorders that need not be looked at. A terminal waits for its client to
    end, which first ends the session: what that still shows would not be recorded.
    """
    waits = False
    try:
        names = os.listdir(folder)
    except OSError:
        # Logins are told of it, as long as it is so.
        return False
    for name in names:
        if not name.isdigit() or int(name) in living or client_of(int(name)):
            continue
        try:
            waits = not _give_back(os.path.join(folder, name)) or waits
        except (OSError, ValueError):
            continue
    return waits


def _give_back(note: str) -> bool:
    """Give the terminal of a note back, unless its client is there."""
    fd = os.open(note, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(fd, encoding="utf-8", errors="surrogateescape") as file:
        name, client, numbers = file.read(8192).split("\n")[:3]
    if client and is_there(client):
        return False
    rdev, inode, uid, gid, mode = (int(word) for word in numbers.split())
    try:
        terminal = os.open(
            name, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        )
        try:
            now = os.fstat(terminal)
            # The name may be another terminal's by now.
            if (now.st_rdev, now.st_ino, now.st_uid) == (rdev, inode, os.geteuid()):
                _restore(terminal, uid, gid, mode)
        finally:
            os.close(terminal)
    finally:
        os.unlink(note)
    return True


def _restore(fd: int, uid: int, gid: int, mode: int) -> None:
    os.fchmod(fd, stat.S_IMODE(mode))
    os.fchown(fd, uid, gid)
