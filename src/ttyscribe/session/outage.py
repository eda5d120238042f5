# SPDX-License-Identifier: Apache-2.0
"""What happens when no more can be recorded: the terminal waits, or the session ends."""

from __future__ import annotations

import os

from ttyscribe.errors import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ttyscribe.session.pump import Log


class Outage:
    """Called by the pump with whether it is frozen now.

    end is called instead of freezing where the admin wants that (on_outage), None
    where they don't. The line goes to the user's terminal, or without one (-1),
    and only for an end, to standard error (fd error, -1 for none).
    """

    def __init__(
        self, recording: Log, terminal: int, error: int, end: Callable[[], None] | None
    ) -> None:
        self._recording = recording
        self._terminal = terminal
        self._error = error
        self._end = end
        self._told = False

    def __call__(self, frozen: bool) -> None:
        why = self._recording.error
        if frozen and why is None:
            # A writer that is only busy, or delays on purpose, slows the terminal down in silence.
            return
        if frozen and self._end is not None:
            self._tell(f"the session ends, because it can't be recorded any longer: {why}")
            self._end()
            return
        if not (frozen or self._told):
            return
        self._told = frozen
        if frozen:
            self._tell(f"the terminal waits, because the recording can't be written: {why}")
        else:
            self._tell("the recording goes on")

    def _tell(self, line: str) -> None:
        fd, end = (self._terminal, "\r\n") if self._terminal >= 0 else (self._error, "\n")
        try:
            os.write(fd, f"{end}ttyscribe: {printable(line)}{end}".encode("utf-8", "replace"))
        except OSError:
            pass
