# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C, Ctrl-\\ and Ctrl-Z at a terminal whose keys are not for the session alone."""

from __future__ import annotations

import fcntl
import os
import termios

from ttyscribe.terminal.raw import keys_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
else:
    import _signal as signal

# A program may change what its keys do and show nothing of it: it is looked again so soon, and
# then twice as late, up to so late, in nanoseconds.
_SOON, _LATE = 5_000_000, 200_000_000
# Has a pty send a signal as for a key (linux/tty_driver.h); Python has no name for it.
_TIOCSIG = 0x40045436
_CC = 6
_KEYS: dict[int, int] = {
    signal.SIGINT: termios.VINTR,
    signal.SIGQUIT: termios.VQUIT,
    signal.SIGTSTP: termios.VSUSP,
}


class SignalKeys:
    """Which keys of the user's terminal send signals, while a session has it.

    As long as the shell's pty is where the job is that the shell was started in, they are left
    to the user's terminal. What that sends is for all of the job there, some of it not ours:
    su or sudo, which started us, the script that they stand in, another program of a pipeline.
    We are told as well, where we are one of the job, and type the key at the pty (typed). When
    a shell has given the pty to a job of its own, the keys are bytes like all others, and
    the pty makes signals of them.

    pty is its master. Where it is to control the shell, the keys are followed once begin
    has told in which group of processes the shell is; else nobody has it. use is called with
    other keys, as keys_of gives them, and later again if it tells that they did not come
    through. ask is called when something was read from the user's terminal: whether all is
    typed that was to be before it; else that is told later.
    """

    def __init__(
        self,
        pty: int,
        controlled: bool,
        use: Callable[[bytes], bool],
        ask: Callable[[], bool],
    ) -> None:
        self._group = None if controlled else 0
        self._pty = pty
        self._ask = ask if controlled else None
        self._use = use
        self._used: bytes | None = None
        self._again: int | None = None
        self._wait = _SOON

    def begin(self, group: int) -> None:
        """The shell is in this group; 0 if it can't be told whether that has the pty for itself."""
        self._group = group or -1

    def follow(self, now: int, busy: bool) -> None:
        """Look at the pty; busy is whether something has come from it, or for it."""
        if self._group is None:
            return
        here = self._is_here()
        keys = self._keys() if here else b""
        if keys != self._used and self._use(keys):
            self._used = keys
        if busy:
            self._wait = _SOON
        elif self._again is not None and now < self._again:
            return
        elif self._wait < _LATE:
            self._wait *= 2
        elif not here and self._used == b"":
            # Another job gives the pty back with something to tell.
            self._again = None
            return
        self._again = now + self._wait

    def typed_before(self) -> bool:
        """Whether the keys that were pressed before what was read just now are typed.

        Their signals are sent when they are pressed, but they are told by another way.
        """
        return self._ask is None or self._used == b"" or self._ask()

    def due(self) -> int | None:
        """When to look again, if nothing comes before."""
        return self._again

    def typed(self, number: int) -> bytes:
        """The key of the pty that sends this signal; b"" for none, or a signal of no key."""
        try:
            key: bytes = termios.tcgetattr(self._pty)[_CC][_KEYS[number]]
        except (KeyError, termios.error):
            return b""
        return key.replace(b"\0", b"")

    def signal_job(self, number: int) -> None:
        """Send INT or QUIT to the shell's job, unless the pty is another job's."""
        try:
            if self._is_here():
                fcntl.ioctl(self._pty, _TIOCSIG, number)
        except OSError:
            pass  # it has hung up, or this is another signal

    def _is_here(self) -> bool:
        """Whether the pty is where the job is that the shell was started in."""
        try:
            return os.tcgetpgrp(self._pty) == self._group
        except OSError:
            return False  # it has hung up

    def _keys(self) -> bytes:
        try:
            return keys_of(self._pty)
        except termios.error:
            return b""  # it has hung up
