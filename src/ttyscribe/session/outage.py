# SPDX-License-Identifier: Apache-2.0
"""What happens when no more can be recorded: the terminal waits, or the session ends."""

from __future__ import annotations

import select
import time

from ttyscribe.errors import printable
from ttyscribe.terminal import Sink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ttyscribe.session.pump import Log

# How long a terminal that nobody reads is waited for with the last line, in seconds.
_PATIENCE = 1.0


class Outage:
    """Called by the pump with whether it is frozen now.

    end is called instead of freezing where the admin wants that (on_outage), None
    where they don't. The line goes to the user's terminal, or without one (-1) to
    standard error (fd error, -1 for none). show puts it behind what the terminal is still
    to show, so that it is the last thing there while the terminal waits. Nothing here
    waits for a user who reads neither: the session would go on for as long.
    """

    def __init__(
        self,
        recording: Log,
        terminal: int,
        error: int,
        end: Callable[[], None] | None,
        show: Callable[[bytes], None],
    ) -> None:
        self._recording = recording
        self._terminal = terminal
        self._error = error
        self._end = end
        self._show = show
        self._told = False

    def __call__(self, frozen: bool) -> None:
        why = self._recording.error
        if frozen and why is None:
            # A writer that is only busy, or delays on purpose, slows the terminal down in silence.
            return
        if frozen and self._end is not None:
            self._end()
            self._tell_last(f"the session ends, because it can't be recorded any longer: {why}")
            return
        if not (frozen or self._told):
            return
        self._told = frozen
        if frozen:
            self._tell(f"the terminal waits, because the recording can't be written: {why}")
        else:
            self._tell("the recording goes on")

    def _tell(self, line: str) -> None:
        if self._terminal >= 0:
            self._show(self._framed(line))
        else:
            self._write(self._error, self._framed(line), 0)

    def _tell_last(self, line: str) -> None:
        """The session is over, and with it what the terminal was still to show."""
        fd = self._terminal if self._terminal >= 0 else self._error
        self._write(fd, self._framed(line), _PATIENCE)

    def _framed(self, line: str) -> bytes:
        end = "\r\n" if self._terminal >= 0 else "\n"
        return f"{end}ttyscribe: {printable(line)}{end}".encode("utf-8", "replace")

    @staticmethod
    def _write(fd: int, data: bytes, patience: float) -> None:
        try:
            sink = Sink(fd)
        except OSError:
            return  # it is closed, or no descriptor is left
        deadline = time.monotonic() + patience
        sink.write(data)
        while sink.pending and (left := deadline - time.monotonic()) > 0:
            poll = select.poll()
            poll.register(sink.fd, select.POLLOUT)
            poll.poll(left * 1000)
            sink.drain()
        sink.close()
