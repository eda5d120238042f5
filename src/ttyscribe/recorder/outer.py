# SPDX-License-Identifier: Apache-2.0
"""The outer terminal: out of the recorded user's reach for the time of a session.

What a process writes to the user's own terminal past the recorder would be seen
and not recorded. So the terminal belongs to the service while a session lasts,
with nobody else let in, and goes back when it ends. A note in a folder of the
service's lets whoever finds it give the terminal back after a crash.
"""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

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
        """Let the terminal be as it was."""
        try:
            _restore(self._fd, self._was.st_uid, self._was.st_gid, self._was.st_mode)
        finally:
            os.unlink(self._note)


def take(fd: int, uid: int, folder: str = FOLDER) -> Outer | None:
    """Make the terminal fd ours if it belongs to the user uid; None if it is not theirs to give.

    A descriptor proves no more than that it was once opened: another user's
    terminal, open for messages, is not to be taken from them. Raises OSError.
    """
    was = os.fstat(fd)
    if not stat.S_ISCHR(was.st_mode) or not os.isatty(fd) or was.st_uid != uid or uid == 0:
        return None
    name = os.ttyname(fd)
    note = os.path.join(folder, str(os.getpid()))
    text = f"{name}\n{was.st_rdev} {was.st_ino} {was.st_uid} {was.st_gid} {was.st_mode}\n"
    note_fd = os.open(note, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, _MODE)
    with open(note_fd, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
    try:
        os.fchown(fd, os.geteuid(), -1)
        os.fchmod(fd, _MODE)
    except OSError:
        os.unlink(note)
        raise
    return Outer(fd, was, note)


def give_back_left_over(pids: Iterable[int] | None = None, folder: str = FOLDER) -> None:
    """Give back the terminals of sessions that died with them: pids', or all of dead processes."""
    if pids is None:
        pids = [int(name) for name in os.listdir(folder) if name.isdigit()]
        pids = [pid for pid in pids if not os.path.exists(f"/proc/{pid}")]
    for pid in pids:
        note = os.path.join(folder, str(pid))
        try:
            _give_back(note)
        except (OSError, ValueError):
            continue


def _give_back(note: str) -> None:
    fd = os.open(note, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(fd, encoding="utf-8", errors="surrogateescape") as file:
        name, _, numbers = file.read(8192).partition("\n")
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


def _restore(fd: int, uid: int, gid: int, mode: int) -> None:
    os.fchmod(fd, stat.S_IMODE(mode))
    os.fchown(fd, uid, gid)
