# SPDX-License-Identifier: Apache-2.0
"""The login record of the shell's terminal, so that `who am i` inside it shows the user.

/run/utmp is not writable to users. Where libutempter is installed, its setgid
helper writes the record; where it or /run/utmp is missing there is none, which is
no error. The helper records the user that runs it, and only for a pty that this
user owns; and its parent, which must outlive it, as the session's process.
"""

from __future__ import annotations

import os
import select
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
else:
    import _signal as signal

# At the end of a session the helper may take this long, in milliseconds.
_PATIENCE = 500


class LoginRecord:
    """The record of one session's pty in utmp."""

    def __init__(self, helpers: tuple[str, ...] | None = None) -> None:
        """helpers: where to look for libutempter's helper."""
        self._helpers = _helpers() if helpers is None else helpers
        self._pid = 0

    def add(self, master: int, host: str) -> None:
        """Start to record the user on the pty whose master is open as master.

        host is where the user comes from, "" if unknown. Returns at once: the
        helper is a child of this process until reap or remove.
        """
        # An argument that begins with a dash, or is no name at all, is no host.
        named = host and host.isprintable() and not host.startswith("-")
        self._start(master, ["add", host] if named else ["add"])

    def reap(self) -> None:
        """Take the helper's end, if it has ended: to be called on SIGCHLD."""
        if self._pid and _wait(self._pid, os.WNOHANG):
            self._pid = 0

    def remove(self, master: int) -> None:
        """Remove the record, while master is still open. Waits for it, but not for long."""
        if not self._helpers:
            return
        self._finish()
        self._start(master, ["del"])
        self._finish()

    def _start(self, master: int, words: list[str]) -> None:
        for path in self._helpers:
            try:
                self._pid = os.posix_spawn(
                    path,
                    ["utempter", *words],
                    {},
                    file_actions=[
                        (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
                        (os.POSIX_SPAWN_DUP2, master, 0),
                        (os.POSIX_SPAWN_DUP2, master, 1),
                    ],
                    # A key that stops our job, and with it the helper before its exec, would keep
                    # us waiting for ever: no shell sees us stopped meanwhile, and none wakes it.
                    setsigmask=[signal.SIGTSTP],
                    setsigdef=[signal.SIGPIPE, signal.SIGCHLD, signal.SIGTERM],
                )
                self._helpers = (path,)
                return
            except OSError:
                continue
        self._helpers = ()

    def _finish(self) -> None:
        if not self._pid:
            return
        try:
            process = os.pidfd_open(self._pid)
        except OSError:
            pass  # reaped by someone else, or no descriptor left
        else:
            poll = select.poll()
            poll.register(process, select.POLLIN)
            if not poll.poll(_PATIENCE):
                # A setgid helper is still our own user's.
                os.kill(self._pid, signal.SIGKILL)
            os.close(process)
        _wait(self._pid, 0)
        self._pid = 0


def _helpers() -> tuple[str, ...]:
    """Where distributions put the helper: Debian, Fedora, Arch and SUSE."""
    triplet = getattr(sys.implementation, "_multiarch", f"{os.uname().machine}-linux-gnu")
    folders = (f"/usr/lib/{triplet}", "/usr/libexec", "/usr/lib")
    return tuple([f"{folder}/utempter/utempter" for folder in folders])


def _wait(pid: int, options: int) -> bool:
    """Whether the child is gone."""
    try:
        return os.waitpid(pid, options)[0] == pid
    except ChildProcessError:
        return True
