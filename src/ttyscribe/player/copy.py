# SPDX-License-Identifier: Apache-2.0
"""A recording's exact output bytes, at once: for pipes and files."""

from __future__ import annotations

import select

from ttyscribe.events import OUTPUT
from ttyscribe.player.output import write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ttyscribe.player.stream import Stream

_BATCH = 1 << 18
# Milliseconds between looks at a followed file.
_INTERVAL = 200


def copy_output(stream: Stream, fd: int) -> None:
    """Write the output of stream to fd. Raises OSError, FormatError and ReaderError.

    What comes before an error in the recording is written first. Follows where
    stream does, until the reader of fd goes away (BrokenPipeError).
    """
    parts: list[bytes] = []
    size = 0
    try:
        for events in stream.batches():
            if events is None:
                write_all(fd, b"".join(parts))
                parts = []
                size = 0
                _wait(fd, stream.reader.descriptor())
                continue
            for _, kind, data in events:
                if kind == OUTPUT:
                    parts.append(data)
                    size += len(data)
            if size >= _BATCH:
                write_all(fd, b"".join(parts))
                parts = []
                size = 0
    finally:
        write_all(fd, b"".join(parts))


def _wait(fd: int, source: int | None) -> None:
    """Wait for more to read; notice that fd's reader has gone meanwhile."""
    poll = select.poll()
    poll.register(fd, 0)
    if source is not None:
        poll.register(source, select.POLLIN)
    for ready, happened in poll.poll(_INTERVAL):
        if ready == fd and happened & (select.POLLERR | select.POLLHUP):
            raise BrokenPipeError
