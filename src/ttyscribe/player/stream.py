# SPDX-License-Identifier: Apache-2.0
"""One recording's events, from a reader and the decoder."""

from __future__ import annotations

from ttyscribe.errors import FormatError, ReaderError, printable
from ttyscribe.tlog import Decoder, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ttyscribe.events import Event
    from ttyscribe.readers import Entry, Reader
    from ttyscribe.tlog import ParsedMessage


class Stream:
    """The events of the one recording that reader has, message by message.

    start is the wall clock of the recording's beginning in seconds since the epoch,
    and idle_time_limit the recording's own wish in seconds; both None until the
    first message was read, and where it does not say. With lax, missing and broken
    messages are passed over; warning then tells of the broken ones.
    """

    def __init__(self, reader: Reader, follow: bool = False, lax: bool = False) -> None:
        self.reader = reader
        self.follow = follow
        self.lax = lax
        self.start: float | None = None
        self._decoder = Decoder()
        self.idle_time_limit: float | None = None
        # The first error that was passed over, and how many were.
        self._broken: FormatError | None = None
        self._count = 0

    @property
    def warning(self) -> str:
        """One line on what was passed over since the start; "" if nothing was."""
        if self._broken is None:
            return ""
        more = f", and {self._count - 1} more like it" if self._count > 1 else ""
        return f"{self._broken}; passed over{more}"

    @property
    def has_bytes(self) -> bool:
        """Whether any output so far was bytes: without, all of it is UTF-8."""
        return self._decoder.has_bytes

    def batches(self) -> Iterator[list[Event] | None]:
        """Each message's events; None where nothing is there yet, as Reader.entries.

        Each call starts anew. Raises FormatError and ReaderError.
        """
        self._decoder = Decoder(self.lax, self.reader.partial)
        decode = self._decoder.decode
        rec: str | None = None
        self._broken = None
        self._count = 0
        for entry in self.reader.entries(self.follow):
            if entry is None:
                yield None
                continue
            try:
                message = parse(*entry)
                if message.rec != rec:
                    if rec is not None:
                        raise _foreign(entry, rec, message.rec)
                    rec = message.rec
                    self._begin(message)
                events = decode(message)
            except FormatError as error:
                if not self.lax:
                    raise
                self._broken = self._broken or error
                self._count += 1
                continue
            yield events
        if rec is None and self._broken is not None:
            raise self._broken

    def length(self) -> int | None:
        """Nanoseconds from the start to the last event that is there now, where that is cheap."""
        last = self.reader.last()
        if last is None:
            return None
        try:
            message = parse(*last)
            events = Decoder(lax=True).decode(message)
        except FormatError:
            return None
        return events[-1][0] if events else message.pos * 1_000_000

    def _begin(self, message: ParsedMessage) -> None:
        if message.time is not None:
            self.start = message.time - message.pos / 1000
        limit = (message.extra or {}).get("idle_time_limit")
        if isinstance(limit, (int, float)) and not isinstance(limit, bool) and limit > 0:
            self.idle_time_limit = float(limit)


def _foreign(entry: Entry, rec: str, other: str) -> ReaderError:
    return ReaderError(
        f"{entry[1]}: a message of another recording, {printable(other)}; choose"
        f" {printable(rec)} or that one with -m REC (a file) or -M TLOG_REC=REC (the journal)"
    )
