# SPDX-License-Identifier: Apache-2.0
"""Where messages come from: file, journal.

A reader gives (data, where) pairs: the bytes of one JSON object, and its place
as text for errors. It never looks inside beyond the fields it matches by; what
it gives is hostile input until the tlog room has parsed it.
"""

from __future__ import annotations

from ttyscribe.readers.reader import Recording, SeveralRecordings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ttyscribe.readers.reader import Entry, Reader

__all__ = ["Entry", "Reader", "Recording", "SeveralRecordings"]
