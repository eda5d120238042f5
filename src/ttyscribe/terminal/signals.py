# SPDX-License-Identifier: Apache-2.0
"""Which signals to the process that stands for a shell concern the shell.

The native waiter has the same list (launcher/waiting.h).
"""

from __future__ import annotations

import os
from _struct import Struct

from ttyscribe.errors import NO_DESCRIPTOR, TerminalError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Iterator, Sequence
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
# And one that stops it.
KEYS = (*KEYBOARD, signal.SIGTSTP)

# signalfd(2): what a read gives of each signal, and where in it are its number, code and sender.
_INFO_SIZE = 128
_INFO = Struct("@IiiI")
# Of a C library's sigset_t.
_SET_SIZE = 128
_SFD_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK
# Of a signal that the kernel sends, as it does for a terminal's key: sigaction(2).
_SI_KERNEL = 0x80


def forget(held: Sequence[int]) -> list[int]:
    """Take those of these signals, which are blocked, that came before there was a shell."""
    came = []
    while held and (info := signal.sigtimedwait(held, 0)):
        came.append(info.si_signo)
    return came


class Sender:
    """Who sent a signal: a key of our terminal, one that signals all of our job, or another."""

    KEY = "key"
    JOB = "job"
    OTHER = "other"


class KeySignals:
    """The signals KEYS, told apart by who sends them; blocked while this is there.

    fd can be read when there are some, and before is what was blocked, but for held: what we
    had blocked ourselves. Raises TerminalError if no descriptor is left.
    """

    def __init__(self, held: Sequence[int] = ()) -> None:
        import sys

        from ttyscribe.terminal.libc import call

        bits = sum(1 << number - 1 for number in KEYS).to_bytes(8, sys.byteorder)
        # Blocked, they come even where our starter has us ignore them, as our job's programs
        # do that do not handle them.
        self.before = signal.pthread_sigmask(signal.SIG_BLOCK, KEYS) - set(held)
        self.fd = call("signalfd", -1, bits.ljust(_SET_SIZE, b"\0"), _SFD_FLAGS)
        if self.fd < 0:
            self._unblock()
            raise TerminalError(NO_DESCRIPTOR)

    def act(
        self,
        running: bool,
        typed: Callable[[int], None],
        to_job: Callable[[int], None],
        to_us: Callable[[int], None],
    ) -> None:
        """Tell of what came: of a key while the shell is running, of what is for all of its
        job, and of the rest but for what we are to ignore."""
        for number, sender in self._read():
            if running and sender == Sender.KEY:
                typed(number)
            elif running and sender == Sender.JOB and number in KEYBOARD:
                to_job(number)
            elif signal.getsignal(number) != signal.SIG_IGN:
                to_us(number)

    def _read(self) -> Iterator[tuple[int, str]]:
        try:
            while info := os.read(self.fd, _INFO_SIZE):
                number, _, code, pid = _INFO.unpack_from(info)
                yield number, Sender.KEY if code == _SI_KERNEL else _sender(pid)
        except BlockingIOError:
            return

    def close(self) -> None:
        os.close(self.fd)
        self._unblock()

    def _unblock(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self.before)


def _sender(pid: int) -> str:
    # What is sent to us alone is not told from what is sent to all of the job: as a rule by
    # another process of it (timeout), or by who started it (sudo, a shell's kill %1).
    try:
        job = pid and (pid == os.getppid() or os.getpgid(pid) == os.getpgrp())
    except ProcessLookupError:
        job = False
    return Sender.JOB if job else Sender.OTHER


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
