# SPDX-License-Identifier: Apache-2.0
"""Which job the user's terminal belongs to at the moment (launcher/waiting.h has the same)."""

from __future__ import annotations

import fcntl
import os
import sys

# Asks a terminal for its device number (ioctl_tty(2)); Python has no name for it.
_TIOCGDEV = 0x80045432
# Among a process's flags, until it executes a program: PF_FORKNOEXEC in Linux's sched.h, and
# the F of ps(1).
_FORKED = 0x40


class Job:
    """What a process's /proc/PID/stat tells of its job: terminal is 0 where it controls none,
    and foreground the group of processes that has that terminal now; is_forked is whether it
    has executed no program yet; start is when the process was started, in clock ticks since
    the boot, proc_pid_stat(5)."""

    __slots__ = ("foreground", "group", "is_forked", "parent", "session", "start", "terminal")

    def __init__(self, pid: int | str) -> None:
        """Raises OSError for a process that is gone, or not to be seen."""
        with open(f"/proc/{pid}/stat", "rb", 0) as file:
            # The name in parentheses may hold anything.
            fields = file.read().rpartition(b")")[2].split()
        self.parent, self.group, self.session, self.terminal, self.foreground = map(
            int, fields[1:6]
        )
        self.is_forked = bool(int(fields[6]) & _FORKED)
        self.start = int(fields[19])

    @property
    def device(self) -> int:
        """The terminal's device number as os.makedev has it, 0 for none."""
        # Bits 8 to 19 are the major, the others the minor.
        minor = (self.terminal & 0xFF) | (self.terminal >> 12 & 0xFFF00)
        return os.makedev(self.terminal >> 8 & 0xFFF, minor) if self.terminal else 0


def is_in_foreground(terminal: int, pid: int | str = "self") -> bool:
    """Whether the job of the process pid has the terminal now; true if it can't be told.

    A process that no terminal controls (su -c lets it lead a session) stands where its
    parent does.
    """
    try:
        device = device_of(terminal)
        job = _standing(pid)
    except OSError:
        return True
    return job.terminal != device or job.foreground in (job.group, 0)


def is_at(terminal: int, pid: int) -> bool:
    """Whether the terminal controls the process pid; or where none does, its parent (su -c)."""
    try:
        return _standing(pid).terminal == device_of(terminal)
    except OSError:
        return False


def _standing(pid: int | str) -> Job:
    """The job of the process pid, or of its parent where no terminal controls it."""
    job = Job(pid)
    return job if job.terminal else Job(job.parent)


def has_terminal(pid: int | str = "self") -> bool:
    """Whether a terminal controls the process pid; true if it can't be told."""
    try:
        return Job(pid).terminal != 0
    except OSError:
        return True


def gives_control(pid: int) -> bool:
    """Whether the shell that the process pid starts on a pty is to be controlled by that.

    Not where pid leads a session that no terminal controls: then the shell has none either,
    and stays in that session, for one that leads its own would get the pty by opening it.
    """
    try:
        job = Job(pid)
    except OSError:
        return True
    return job.terminal != 0 or job.session != pid


def is_stoppable(pid: int) -> bool:
    """Whether the keys that stop a job at its terminal stop that of the process pid.

    The kernel leaves a group alone that nobody in its session would wake, setpgid(2); ours
    is not told from that where the processes that started us are not to be seen.
    """
    try:
        job = own = Job(pid)
        while own.session != pid:
            job = Job(job.parent)
            if job.session != own.session:
                break
            if job.group != own.group:
                return True
    except OSError:
        pass
    return False


def is_forked(pid: int) -> bool:
    """Whether the process pid has executed no program yet; false if it can't be told."""
    try:
        return Job(pid).is_forked
    except OSError:
        return False


def shares_keys(terminal: int, pid: int) -> bool:
    """Whether the terminal's keys that send signals are for others too than the process pid.

    So they are where it leads no session: for who started it - as su, sudo, a script - and for
    the other programs of a pipeline; and where it leads one that no terminal controls, for
    them alone (su -c). False if it can't be told.
    """
    try:
        job = Job(pid)
        return job.terminal == (0 if job.session == pid else device_of(terminal))
    except OSError:
        return False


def is_outlived(terminal: int, pid: int) -> bool:
    """Whether the terminal stays when pid ends: it hangs up with who leads its session."""
    try:
        job = Job(pid)
        return job.session != pid or job.terminal != device_of(terminal)
    except OSError:
        return False


def device_of(terminal: int) -> int:
    """The terminal's device number as the kernel encodes it, os.makedev's for what fits in 32 bits.

    Raises OSError.
    """
    return int.from_bytes(fcntl.ioctl(terminal, _TIOCGDEV, bytes(4)), sys.byteorder)
