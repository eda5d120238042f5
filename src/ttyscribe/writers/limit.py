# SPDX-License-Identifier: Apache-2.0
"""The limit on how fast messages are logged: a bucket of tokens, a token a byte."""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ttyscribe.events import Message
    from ttyscribe.writers import Writer


class LimitedWriter:
    """Lets rate bytes/s through to writer, and burst bytes more for a moment.

    action "delay" takes no more until there is room, so that the session slows
    down to the rate; "drop" throws messages away, which leaves a gap in the ids.
    A message larger than burst passes when the bucket is full.
    """

    def __init__(self, writer: Writer, rate: int, burst: int, action: str) -> None:
        self._writer = writer
        self._rate = rate
        self._burst = burst
        self._drop = action == "drop"
        self._tokens = float(burst)
        self._filled = time.monotonic()

    def write(self, messages: Sequence[Message]) -> int:
        now = time.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._filled) * self._rate)
        self._filled = now
        passed: list[Message] = []
        counts: list[int] = []  # how many of messages are done with once each passed one is
        first = 0
        tokens = self._tokens
        for number, message in enumerate(messages, 1):
            size = len(message.data)
            if size <= tokens or tokens >= self._burst:
                tokens -= size
                first = first if passed else number - 1
                passed.append(message)
                counts.append(number)
            elif not self._drop:
                break
            elif counts:
                counts[-1] = number
        if not passed:
            return len(messages) if self._drop else 0
        taken = self._writer.write(passed)
        self._tokens -= sum(len(message.data) for message in passed[:taken])
        # What was thrown away before the first that passes stays so: that is the first to be
        # asked for again, as the writer may have begun with it.
        return counts[taken - 1] if taken else first

    def fileno(self) -> int:
        return -1

    def stored_in(self) -> int:
        return self._writer.stored_in()

    def close(self) -> None:
        self._writer.close()
