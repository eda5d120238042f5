# SPDX-License-Identifier: Apache-2.0
"""What /proc tells of other processes: their ancestors, and the terminals that they have."""

from __future__ import annotations

import _stat as stat
import os
import termios

from ttyscribe.terminal.job import Job

_LFLAG = 3
# The majors of Unix98 pty slaves, Documentation/admin-guide/devices.txt.
_PTS_MAJORS = range(136, 144)


def process_of(pid: int) -> Job | None:
    """None if there is no such process, or it is not to be seen."""
    try:
        return Job(pid)
    except OSError:
        return None


def parent_of(process: Job) -> Job | None:
    """None if it has none that is to be seen."""
    if process.parent <= 1:
        return None
    parent = process_of(process.parent)
    # A younger parent is another process that got its number.
    return parent if parent is not None and parent.start <= process.start else None


def is_ancestor(holder: int, pid: int) -> bool:
    """Whether holder is the process pid, or one that it descends from."""
    process = process_of(pid)
    while process is not None:
        if pid == holder:
            return True
        pid = process.parent
        process = parent_of(process)
    return False


def owner_of(pid: int) -> int:
    """The uid of the process pid, -1 if there is none."""
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return -1


def controlling_terminal(pid: int, process: Job) -> tuple[int, int] | None:
    """(device of its devpts, device number); there may be several devpts with equal numbers."""
    if os.major(process.device) not in _PTS_MAJORS:
        return None
    paths = [f"/proc/{pid}/fd/{fd}" for fd in range(3)]
    for path in [*paths, _pts(process.device)]:
        try:
            status = os.stat(path)
        except OSError:
            continue
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == process.device:
            return status.st_dev, status.st_rdev
    return None


def handed_terminals(pid: int) -> list[tuple[int, int]]:
    """The ptys that a process has open beyond its standard descriptors."""
    terminals = []
    try:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            if int(fd) <= 2:
                continue
            try:
                status = os.stat(f"/proc/{pid}/fd/{fd}")
            except OSError:
                continue
            if stat.S_ISCHR(status.st_mode) and os.major(status.st_rdev) in _PTS_MAJORS:
                terminals.append((status.st_dev, status.st_rdev))
    except OSError:
        pass  # another user's
    return terminals


def is_raw(pid: int, process: Job) -> bool:
    """Whether the process's terminal hands on keys one by one, as under one that relays them."""
    terminal = controlling_terminal(pid, process)
    if terminal is None:
        return False
    try:
        fd = os.open(
            _pts(process.device),
            os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC,
        )
    except OSError:
        return False
    try:
        status = os.fstat(fd)
        mode: int = termios.tcgetattr(fd)[_LFLAG]
    except (OSError, termios.error):
        return False
    finally:
        os.close(fd)
    return (status.st_dev, status.st_rdev) == terminal and not mode & termios.ICANON


def _pts(device: int) -> str:
    return f"/dev/pts/{(os.major(device) - _PTS_MAJORS[0]) * 256 + os.minor(device)}"
