# SPDX-License-Identifier: Apache-2.0
"""Writing all of some bytes to a descriptor that may be slow or non-blocking."""

from __future__ import annotations

import _thread
import os
import select
import signal
from _queue import Empty, SimpleQueue


def write_all(fd: int, data: bytes) -> None:
    """Write data whole, waiting where fd is non-blocking and full. Raises OSError."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            poll.poll()


class Output:
    """Writes to fd in order, whole; in the caller's time, or soon and meanwhile.

    A terminal takes its time, in which the next piece can be made ready. Not more
    than a few pieces wait. Raises OSError where fd is gone, for soon at a later call.
    """

    _PIECES = 4

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._todo: SimpleQueue[bytes] = SimpleQueue()
        # A token for each piece that may be on its way; the error in place of one that failed.
        self._tokens: SimpleQueue[OSError | None] = SimpleQueue()
        self._started = False

    def write(self, data: bytes) -> None:
        """Write data behind all that is on its way."""
        self.settle()
        write_all(self.fd, data)

    def soon(self, data: bytes) -> None:
        """Write data behind all that is on its way, without waiting for it."""
        if not self._started:
            self._started = True
            for _ in range(self._PIECES):
                self._tokens.put(None)
            _thread.start_new_thread(self._work, ())
        self._take(None)
        self._todo.put(data)

    def settle(self, seconds: float | None = None) -> bool:
        """Wait until nothing is on its way, or for so long; whether nothing is."""
        if not self._started:
            return True
        taken = 0
        try:
            for _ in range(self._PIECES):
                self._take(seconds)
                taken += 1
        except Empty:
            return False
        finally:
            for _ in range(taken):
                self._tokens.put(None)
        return True

    def _take(self, seconds: float | None) -> None:
        error = self._tokens.get(timeout=seconds)
        if error is not None:
            self._tokens.put(None)
            raise error

    def _work(self) -> None:
        # Signals are for the thread that waits for keys.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while True:
            data = self._todo.get()
            try:
                write_all(self.fd, data)
                self._tokens.put(None)
            except OSError as error:
                self._tokens.put(error)
