# SPDX-License-Identifier: Apache-2.0
"""Which signals to the process that stands for a shell concern the shell.

The native waiter has the same list (launcher/waiting.h).
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from typing import NoReturn
else:
    import _signal as signal

# Those that stop a process or that it ignores; those that tell of a fault of its own,
# which must end us at once; and PIPE, which our own writing to the user's pipe raises.
_OTHERS = {
    signal.SIGKILL, signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU,
    signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH,
    signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGSYS,
    signal.SIGTRAP, signal.SIGXFSZ, signal.SIGPIPE,
}  # fmt: skip
# By default they end a process.
ENDING = tuple(sorted(signal.valid_signals() - _OTHERS))
# What tells us of the end of a session on a terminal; all others are meant for the shell.
HANG_UPS = (signal.SIGHUP, signal.SIGTERM)
# The keyboard sends them to all of a terminal's foreground job.
KEYBOARD = (signal.SIGINT, signal.SIGQUIT)


def die_by(number: int) -> NoReturn:
    """End this process by the signal number, as the shell it stands for did; leave no core."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
    os.kill(os.getpid(), number)
    # Some signals don't end a process by default.
    os._exit(128 + number)
