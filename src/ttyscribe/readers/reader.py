# SPDX-License-Identifier: Apache-2.0
"""What every reader is, and the list of recordings that a store holds."""

from __future__ import annotations

import orjson

from ttyscribe.errors import ReaderError, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Protocol, TypeAlias

    # (the bytes of one JSON object, its place: "FILE:LINE" or "journal cursor ...")
    Entry: TypeAlias = tuple[bytes, str]

    class Reader(Protocol):
        """A store of messages, opened for one recording."""

        # The store's name in errors and lists.
        name: str
        # Whether a later part of the recording was asked for than its beginning.
        partial: bool

        def check(self, follow: bool = False) -> None:
            """Make sure that the store holds exactly one recording, as far as can be told now.

            What comes by a pipe is awaited to its end, but with follow. Raises
            SeveralRecordings, or ReaderError if it holds none.
            """

        def entries(self, follow: bool = False) -> Iterator[Entry | None]:
            """The entries from the first on; each call starts anew.

            None means that nothing is there yet: wait on descriptor(), or a moment,
            and go on. With follow, the end is such a None, and the iterator never ends.
            Raises ReaderError and FormatError.
            """

        def descriptor(self) -> int | None:
            """A file descriptor that becomes readable when there may be more, if there is one."""

        def last(self) -> Entry | None:
            """The newest entry that is there now, where that is cheap to find."""

        def close(self) -> None:
            """Give back what the reader holds."""


class Recording:
    """One recording in a store: start is in seconds since the epoch, None if unknown."""

    __slots__ = ("host", "messages", "rec", "start", "user")

    def __init__(self, rec: str, user: str, host: str, start: float | None) -> None:
        self.rec = rec
        self.user = user
        self.host = host
        self.start = start
        self.messages = 0

    def __str__(self) -> str:
        start = "start unknown"
        if self.start is not None:
            from datetime import UTC, datetime

            try:
                start = f"{datetime.fromtimestamp(self.start, UTC):%Y-%m-%d %H:%M:%S} UTC"
            except (OverflowError, ValueError, OSError):
                pass
        count = "1 message" if self.messages == 1 else f"{self.messages} messages"
        who = printable(f"{self.user}@{self.host}")
        return f"{printable(self.rec) or '(no id)'}  {who}  {start}  {count}"


class SeveralRecordings(ReaderError):
    """A store holds several recordings, and none of them was chosen."""

    def __init__(self, name: str, recordings: list[Recording], choose: str) -> None:
        super().__init__(f"{name} holds {len(recordings)} recordings; choose one with {choose}")
        self.recordings = recordings


def summarize(messages: Iterable[bytes]) -> list[Recording]:
    """The recordings that messages belong to, in order of appearance.

    What is no message is passed over: whoever plays it will be told.
    """
    found: dict[str, Recording] = {}
    for data in messages:
        try:
            fields = orjson.loads(data)
        except orjson.JSONDecodeError:
            continue
        if not isinstance(fields, dict) or "ver" not in fields:
            continue
        rec = _text(fields.get("rec"))
        if rec not in found:
            user, host = _text(fields.get("user")), _text(fields.get("host"))
            found[rec] = Recording(rec, user, host, _start(fields))
        found[rec].messages += 1
    return list(found.values())


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _start(fields: dict[str, object]) -> float | None:
    time, pos = fields.get("time"), fields.get("pos")
    if isinstance(time, (int, float)) and isinstance(pos, (int, float)):
        return time - pos / 1000
    return None
