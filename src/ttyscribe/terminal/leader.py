# SPDX-License-Identifier: Apache-2.0
"""The leader of a session in which the shell is a job (launcher/leader.h has the same).

What leads a session is not stopped by its terminal, for nobody in the session would wake
it: so is a shell that sshd starts, and what it becomes. One that sudo or su starts is in a
job of the shell that they were typed at, which is stopped and woken. So that it is here, the
session that the recorded shell gets has a leader that does nothing but stop when the shell
stops, hand on what wakes it, and end as it does.
"""

from __future__ import annotations

import os

from ttyscribe.terminal.signals import ENDING, die_by

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from typing import NoReturn
else:
    import _signal as signal

_WAITED_FOR = {signal.SIGHUP, signal.SIGCONT, signal.SIGCHLD}


def become_job(terminal: int) -> None:
    """Return in a process that is the foreground job of this session, which terminal controls.

    This process leads it from then on. Where no more processes are allowed it returns in this one.
    """
    blocked = _WAITED_FOR | {signal.SIGTTOU}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    try:
        job = os.fork()
    except OSError:
        job = 0
    else:
        if job:
            _lead(job, terminal)
        os.setpgid(0, 0)
        os.tcsetpgrp(terminal, os.getpid())
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _lead(job: int, terminal: int) -> NoReturn:
    # Its starter waits for the end of what is ours, and whoever reads for the shell's.
    os.closerange(0, terminal)
    os.closerange(terminal + 1, os.sysconf("SC_OPEN_MAX"))
    ignored: set[int] = {number for number in ENDING if signal.getsignal(number) == signal.SIG_IGN}
    for number in set(ENDING) - ignored:
        signal.signal(number, signal.SIG_DFL)
    while True:
        ended, status = os.waitpid(job, os.WNOHANG | os.WUNTRACED)
        if ended and not os.WIFSTOPPED(status):
            break
        if ended:
            os.kill(os.getpid(), signal.SIGSTOP)
        told = signal.sigwait(_WAITED_FOR - ignored)
        if told != signal.SIGCHLD:
            _wake(job, told)
    try:
        # What it leaves in the background goes on, as it does where no session ends with it.
        if os.tcgetpgrp(terminal) == job:
            os.tcsetpgrp(terminal, os.getpid())
    except OSError:
        pass  # it has hung up
    if os.WIFSIGNALED(status):
        die_by(os.WTERMSIG(status))
    os._exit(os.WEXITSTATUS(status))


def _wake(job: int, number: int) -> None:
    """Hand a hang-up, or what goes on after a stop, on to the job."""
    for each in (number, signal.SIGCONT):
        try:
            os.killpg(job, each)
        except (ProcessLookupError, PermissionError):
            pass  # it is no more, or another user's by now
