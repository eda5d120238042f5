# SPDX-License-Identifier: Apache-2.0
"""A raw recording: the output's bytes alone, as `script -q` writes them."""

from __future__ import annotations

import os
import time

from ttyscribe.errors import WriterError, reason
from ttyscribe.events import OUTPUT
from ttyscribe.session.recording import GRACE, QUEUE_LIMIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_RETRY_MS = 500


class RawLog:
    """Takes a Recording's place where only the output's bytes are wanted.

    fd is the open file they are appended to, path its name for errors.
    """

    def __init__(self, fd: int, path: str) -> None:
        self.error: WriterError | None = None
        self.log_input = False
        self.paused_until = 0
        self._fd = fd
        self._path = path
        self._pending = b""
        self._began = time.monotonic_ns()

    @property
    def full(self) -> bool:
        """No more can wait for the file to take it."""
        return len(self._pending) > QUEUE_LIMIT

    @property
    def holds(self) -> bool:
        """Output is delivered even if it could not be written yet."""
        return False

    @property
    def waiting(self) -> int:
        """How many bytes the file has not taken yet."""
        return len(self._pending)

    def now(self) -> int:
        """Nanoseconds since the recording began."""
        return time.monotonic_ns() - self._began

    def start(self, member: Mapping[str, object], window: bytes | None) -> None:
        """A raw recording has no beginning of its own."""

    def log(self, kind: str, data: bytes) -> None:
        """Write output; nothing else is kept."""
        if kind == OUTPUT:
            self._pending += data
            self.tick()

    def tick(self) -> None:
        """Write what waits, as far as the file takes it."""
        try:
            while self._pending:
                written = os.write(self._fd, self._pending)
                self._pending = self._pending[written:]
            self.error = None
        except OSError as error:
            self.error = WriterError(f"{self._path}: can't write: {reason(error)}")

    def due(self) -> int | None:
        """Milliseconds until the file should be tried again."""
        return _RETRY_MS if self._pending else None

    def forked(self) -> None:
        """A fork goes on just as we would."""

    def finish(
        self, member: Mapping[str, object], stop: Callable[[], bool] | None = None
    ) -> None:
        """Write the rest. Raises WriterError if the file does not take it."""
        deadline = time.monotonic() + GRACE
        self.tick()
        while self._pending and time.monotonic() < deadline and not (stop and stop()):
            time.sleep(0.05)
            self.tick()
        if self._pending:
            raise WriterError(f"{self.error}; {len(self._pending)} bytes could not be written")
