# SPDX-License-Identifier: Apache-2.0
"""One of the pump's ways: a source of bytes, and the sink that they go to."""

from __future__ import annotations

import os

from ttyscribe.events import INPUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ttyscribe.terminal import Sink

# One batch: read on until the source is empty or this much is there, then one
# decode, one dump, one write. A pty gives 4 KiB at the most, and a larger buffer is
# costly to make; a pipe gives what it has. The spool's margin is for 80 KiB in all.
_READ_PTY, _BATCH_PTY = 4096, 65536
_READ_PIPE, _BATCH_PIPE = 65536, 16384
# A sink may lag behind by this much before its source has to wait.
_LAG = 131072
# A read shorter than this emptied the source most likely; asking again costs more.
_SHORT = 1024


class Relay:
    """One source, the sink it goes to, and the kind of its events.

    withheld is what was read and may not be delivered yet.
    """

    __slots__ = (
        "at_once", "batch", "closed", "draining", "fd", "kind", "lag", "open", "paused", "sink",
        "terminal", "withheld",
    )  # fmt: skip

    def __init__(self, fd: int, sink: Sink, kind: str) -> None:
        self.fd = fd
        self.terminal = os.isatty(fd)
        self.at_once = _READ_PTY if self.terminal else _READ_PIPE
        self.batch = _BATCH_PTY if self.terminal else _BATCH_PIPE
        self.sink = sink
        self.kind = kind
        self.lag = _LAG
        self.open = True
        self.closed = False
        self.paused = False
        self.draining = False
        self.withheld = b""

    @property
    def waiting(self) -> bool:
        """Whether something that was read is still to be delivered."""
        return bool(self.withheld or self.sink.pending)

    def stop(self) -> None:
        """Close the source: no more is read from it."""
        os.close(self.fd)

    def delivered(self) -> None:
        """Some of what was pending is delivered."""

    def drop(self) -> None:
        """What is still to be delivered will not be."""

    def leave_unread(self) -> bool:
        """The shell is gone: leave what it has not read to others; False where that can't be."""
        return False

    def read(self) -> bytes | None:
        """What is there now: b"" at the end, None if there is nothing after all.

        A pty has room for one piece, and after each the kernel takes a while to bring the
        next. In that time some of what is pending is delivered, and nothing is waited for.
        """
        parts: list[bytes] = []
        size = 0
        try:
            while size < self.batch:
                data = os.read(self.fd, self.at_once)
                parts.append(data)
                size += len(data)
                if self.sink.pending:
                    self.sink.drain_once()
                # The user's own descriptors may block: one read for each report of poll.
                if self.kind == INPUT or len(data) < _SHORT:
                    break
        except BlockingIOError:
            if not parts:
                return None
        except OSError:
            # EIO: the other side of the terminal is closed.
            pass
        return b"".join(parts)
