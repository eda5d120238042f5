# SPDX-License-Identifier: Apache-2.0
"""The folder of spool files: whose it is, and what in it no recorder holds any more."""

from __future__ import annotations

import errno
import fcntl
import os

from ttyscribe.errors import SpoolError, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# Where the recorder service keeps its spools.
SERVICE_FOLDER = "/var/spool/ttyscribe"
SUFFIX = ".spool"
# The header of a file whose recording was sent and may not have arrived.
SENT = ".sent"


def cut(fd: int, folder: int, name: str, start: int) -> None:
    """Make a spool file, whose frames begin at start, a note of what was sent."""
    os.ftruncate(fd, start)
    os.rename(name, name.removesuffix(SUFFIX) + SENT, src_dir_fd=folder, dst_dir_fd=folder)


def open_folder(path: str, *, make: bool = True) -> int:
    """Open a folder for spool files, which is ours alone to write in; make it if need be.

    Raises SpoolError.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        try:
            fd = os.open(path, flags)
        except FileNotFoundError:
            if not make:
                raise
            os.makedirs(path, 0o700, exist_ok=True)
            fd = os.open(path, flags)
    except OSError as error:
        why = reason(error)
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            why = "it is a symbolic link, or no folder"
        raise SpoolError(f"{path}: can't use the spool folder: {why}") from None
    status = os.fstat(fd)
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        os.close(fd)
        what = "belongs to" if status.st_uid != os.geteuid() else "can be written by"
        raise SpoolError(
            f"{path}: can't use the spool folder: it {what} others; make it yours, with mode 0700"
        )
    return fd


def abandoned(path: str) -> bool:
    """Whether a folder holds a spool file that no recorder holds any more."""
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return any(
            name.endswith(SUFFIX) and not _locked(folder, name) for name in os.listdir(folder)
        )
    finally:
        os.close(folder)


def _locked(folder: int, name: str) -> bool:
    """Whether a recorder, or another recovery, holds a file; one that has no header yet counts."""
    try:
        fd = os.open(
            name, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder
        )
    except OSError:
        return True
    try:
        if not os.fstat(fd).st_size:
            return True
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def user_folder(environ: Mapping[bytes, bytes]) -> str:
    """The user's own spool folder: ttyscribe/spool in $XDG_STATE_HOME or ~/.local/state.

    The environment may be another user's (su -m): what this one may not write to is not meant.
    """
    state = environ.get(b"XDG_STATE_HOME", b"")
    if not state.startswith(b"/"):
        state = environ.get(b"HOME", b"") + b"/.local/state"
    folder = os.fsdecode(state) + "/ttyscribe/spool"
    is_given = state.startswith(b"/") and state != b"/.local/state"
    if is_given and _may_write(folder):
        return folder
    from ttyscribe.session.identity import home_of

    return os.fsdecode(home_of(os.getuid())) + "/.local/state/ttyscribe/spool"


def _may_write(folder: str) -> bool:
    """Whether we may write into folder, or may make it."""
    while not os.path.lexists(folder):
        folder = os.path.dirname(folder)
    return os.access(folder, os.W_OK | os.X_OK)
