# SPDX-License-Identifier: Apache-2.0
"""The leader of a session in which the shell is a job (launcher/leader.h has the same).

What leads a session is not stopped by its terminal, for nobody in the session would wake
it: so is a shell that sshd starts, and what it becomes. One that sudo or su starts is in a
job of the shell that they were typed at, which is stopped and woken. So that it is here, the
session that the recorded shell gets has a leader that does nothing but stop when the shell
stops, hand on what wakes it, and end as it does.

The shell's group of processes is not named after the shell, just as where su or sudo starts
it. So one that has made a group of its own, to give the terminal to one job and the other, is
told from one that leaves that to whoever started it.
"""

from __future__ import annotations

import os

from ttyscribe.errors import NOT_EXECUTABLE
from ttyscribe.terminal.job import is_forked
from ttyscribe.terminal.libc import call
from ttyscribe.terminal.signals import ENDING, die_by

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from typing import NoReturn
else:
    import _signal as signal

# More are not looked for, as it takes long where the kernel has no close_range(2).
_DESCRIPTORS = 1 << 16
_PR_SET_PDEATHSIG = 1
_AWAITED = {*ENDING, signal.SIGCONT, signal.SIGCHLD}


def become_job(terminal: int) -> int:
    """Return in a process that is the foreground job of this session, which terminal controls.

    The job's group is returned. This process leads the session from then on. Where no more
    processes are allowed it returns in this one, and 0.
    """
    blocked = _AWAITED | {signal.SIGTTOU}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    group = 0
    try:
        group = _new_group()
        job = os.fork()
    except OSError:
        if group:
            os.waitpid(group, 0)
            group = 0
    else:
        if job:
            try:
                _join(job, group)
                # Not waited for: a shell gives the pty back to the group that it came from.
                _lead(job, group, terminal)
            finally:
                os._exit(NOT_EXECUTABLE)  # nothing of ours may go on here
        # Without its leader the shell would go on where nobody can reach it.
        call("prctl", _PR_SET_PDEATHSIG, signal.SIGHUP, 0, 0, 0)
        _join(0, group)
        os.tcsetpgrp(terminal, group)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return group


def _new_group() -> int:
    """A group of this session for another process; it is there until it is waited for."""
    named = os.fork()
    if named == 0:
        os._exit(0)
    os.setpgid(named, named)
    return named


def _join(pid: int, group: int) -> None:
    try:
        os.setpgid(pid, group)
    except OSError:
        pass  # it is there already: the job and its leader both see to it, as neither waits


def _lead(job: int, group: int, terminal: int) -> NoReturn:
    # Its starter waits for the end of what is ours, and whoever reads for the shell's.
    os.closerange(0, terminal)
    os.closerange(terminal + 1, _DESCRIPTORS)
    awaited = {number for number in _AWAITED if signal.getsignal(number) != signal.SIG_IGN}
    while True:
        ended, status = os.waitpid(job, os.WNOHANG | os.WUNTRACED)
        if ended and not os.WIFSTOPPED(status):
            break
        if ended and is_forked(job):
            # Our starter waits for it to become the shell, and would not see us stopped.
            _hand_on(job, signal.SIGCONT)
        elif ended:
            os.kill(os.getpid(), signal.SIGSTOP)
        number = signal.sigwait(awaited)
        if number != signal.SIGCHLD:
            _hand_on(job, number)
    try:
        # What it leaves in the background goes on, as it does where no session ends with it.
        if os.tcgetpgrp(terminal) in (job, group):
            os.tcsetpgrp(terminal, os.getpid())
    except OSError:
        pass  # it has hung up
    if os.WIFSIGNALED(status):
        die_by(os.WTERMSIG(status))
    os._exit(os.WEXITSTATUS(status))


def _hand_on(job: int, number: int) -> None:
    """Hand a hang-up, or what wakes from a stop, on to the job; and all else to the shell."""
    try:
        if number in (signal.SIGHUP, signal.SIGCONT):
            group = os.getpgid(job)
            os.killpg(group, number)
            os.killpg(group, signal.SIGCONT)
        else:
            os.kill(job, number)
    except (ProcessLookupError, PermissionError):
        pass  # it is no more, or another user's by now
