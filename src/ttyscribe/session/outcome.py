# SPDX-License-Identifier: Apache-2.0
"""How a session ended."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
else:
    import _signal as signal


class Outcome:
    """The shell's exit status, or the signal that ended it (else 0)."""

    __slots__ = ("signal", "status")

    def __init__(self, status: int, signal: int = 0) -> None:
        self.status = status
        self.signal = signal

    @classmethod
    def of(cls, wait_status: int) -> Outcome:
        """From what waitpid(2) told."""
        if os.WIFSIGNALED(wait_status):
            return cls(0, os.WTERMSIG(wait_status))
        return cls(os.WEXITSTATUS(wait_status))

    def member(self) -> dict[str, object]:
        """The end member of the last message."""
        if self.signal:
            return {"event": "end", "signal": signal_name(self.signal)}
        return {"event": "end", "status": self.status}

    def code(self) -> int:
        """The exit status that tells a shell of it."""
        return 128 + self.signal if self.signal else self.status


def signal_name(number: int) -> str:
    """A signal's name without SIG: "HUP"; "RTMIN+1", or its number, where it has no other."""
    for name, value in vars(signal).items():
        if name.startswith("SIG") and not name.startswith("SIG_") and value == number:
            return name[3:]
    if signal.SIGRTMIN < number < signal.SIGRTMAX:
        return f"RTMIN+{number - signal.SIGRTMIN}"
    return str(number)
