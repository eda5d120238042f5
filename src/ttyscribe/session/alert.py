# SPDX-License-Identifier: Apache-2.0
"""Telling the admin, through whatever log works, that a session could not be recorded."""

from __future__ import annotations

import time

from ttyscribe.errors import WriterError
from ttyscribe.events import Message
from ttyscribe.writers.journal import JournalWriter
from ttyscribe.writers.syslog import SyslogWriter

PATIENCE = 0.5
_PAUSE = 0.02


def alert(text: str, user: str = "", patience: float = PATIENCE) -> bool:
    """Log one line at alert priority to syslog, or else to the journal; return whether one took it.

    Never fails, and waits no longer than patience, in seconds, for logs that are busy: what
    it reports is trouble enough.
    """
    return _log(text, user, "alert", patience)


def warn(text: str, user: str = "") -> bool:
    """The same at warning priority."""
    return _log(text, user, "warning", PATIENCE)


def _log(text: str, user: str, priority: str, patience: float) -> bool:
    message = Message(text.encode("utf-8", "replace"), "", user, 0, 0)
    writers = (
        lambda: SyslogWriter("authpriv", priority),
        lambda: JournalWriter(priority, augment=False),
    )
    deadline = time.monotonic() + patience
    while True:
        busy = False
        for writer in writers:
            try:
                opened = writer()
                try:
                    if opened.write([message]):
                        return True
                    busy = True
                finally:
                    opened.close()
            except (WriterError, OSError):
                continue
        if not busy or time.monotonic() >= deadline:
            return False
        time.sleep(_PAUSE)
