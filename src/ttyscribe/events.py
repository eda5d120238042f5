# SPDX-License-Identifier: Apache-2.0
"""The two small types that cross every boundary: Event and Message.

Plain tuples and slots, no dataclasses or typing at run time: this module is on
the login path.
"""

from __future__ import annotations

# (time, kind, data): nanoseconds since the recording began; one of OUTPUT,
# INPUT and WINDOW; the bytes that passed, or for a window b"COLUMNSxROWS".
Event = tuple[int, str, bytes]

# The kinds are asciicast's event codes, so that the names are the field's own.
OUTPUT = "o"
INPUT = "i"
WINDOW = "r"


class Message:
    """One tlog JSON object and its exact bytes, with the fields a writer tags by.

    data is one JSON object in UTF-8 without a line end. user is as in the
    message; session is the audit session id; id counts from 1 in a recording.
    """

    __slots__ = ("data", "id", "rec", "session", "user")

    def __init__(self, data: bytes, rec: str, user: str, session: int, id: int) -> None:
        self.data = data
        self.rec = rec
        self.user = user
        self.session = session
        self.id = id


def window(columns: int, rows: int) -> bytes:
    """The data of a WINDOW event: b"80x24"."""
    return b"%dx%d" % (columns, rows)


def window_size(data: bytes) -> tuple[int, int]:
    """(columns, rows) of a WINDOW event's data. Raises ValueError if it is not one."""
    columns, _, rows = data.partition(b"x")
    return int(columns), int(rows)
