# SPDX-License-Identifier: Apache-2.0
"""Messages sent to the systemd journal.

sd_journal_sendv(3), which systemd-python calls, reports success when journald's
socket is missing and blocks when journald is stuck: the one would lose a
recording in silence, the other would freeze the terminal. So this speaks
journald's documented native protocol over its own socket. Reading the journal
is systemd-python's.
"""

from __future__ import annotations

import time

from ttyscribe.errors import WriterError
from ttyscribe.writers.journald import PATH, Budget, namespace, rate_limit
from ttyscribe.writers.socket import DatagramSocket
from ttyscribe.writers.syslog import IDENT, priority_code

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ttyscribe.events import Message

# Messages that a budget is asked for at once; and how long they count as sent just now, in
# nanoseconds.
_AT_ONCE = 64
_GRANTED_FOR = 1_000_000_000


class JournalWriter:
    """Sends each message as one journal entry; with augment, with the fields to match by.

    With a folder it stays below journald's rate limit, together with all who name the same
    one, and is busy instead. Raises WriterError if journald does not listen, or for an
    unknown priority.
    """

    def __init__(self, priority: str, *, augment: bool, path: str = PATH, folder: str = "") -> None:
        self._augment = augment
        self._head = b"PRIORITY=%d\nSYSLOG_IDENTIFIER=%b\n" % (
            priority_code(priority),
            IDENT.encode(),
        )
        # What the entries of one recording have in common, made once for all of them.
        self._common = b""
        self._common_of: tuple[str, str, int] | None = None
        self._path = path
        self._folder = folder
        self._budget: Budget | None = None
        # What the budget allowed and a busy journald has not taken yet, and since when.
        self._granted = 0
        self._granted_at = 0
        self._socket = DatagramSocket(path, "journald")

    def write(self, messages: Sequence[Message]) -> int:
        if self._folder:
            limit = rate_limit(namespace(self._path))
            self._budget = Budget(self._folder, limit) if limit is not None else None
            self._folder = ""
        budget = self._budget
        if budget is None:
            return self._socket.send(map(self._entry, messages))
        allowed = self._allowed(budget, min(len(messages), _AT_ONCE))
        if not allowed:
            return 0
        try:
            sent = self._socket.send(map(self._entry, messages[:allowed]))
        except WriterError:
            budget.give_back(self._granted)
            self._granted = 0
            raise
        self._granted -= sent
        return sent

    def fileno(self) -> int:
        # While the rate limit makes us wait, the socket would not.
        if self._budget is not None and self._budget.exhausted:
            return -1
        return self._socket.fileno()

    def stored_in(self) -> int:
        return -1

    def close(self) -> None:
        self._socket.close()
        if self._budget is not None:
            self._budget.give_back(self._granted)
            self._budget.close()

    def _allowed(self, budget: Budget, wanted: int) -> int:
        """How many of the messages wanted the budget allows now."""
        now = time.monotonic_ns()
        if now - self._granted_at > _GRANTED_FOR:
            self._granted = 0
        if self._granted < wanted:
            self._granted += budget.take(wanted - self._granted)
            self._granted_at = now
        return min(self._granted, wanted)

    def _entry(self, message: Message) -> bytes:
        # The JSON is one line by its own rules, so it needs no length.
        if not self._augment:
            return b"%bMESSAGE=%b\n" % (self._head, message.data)
        of = (message.rec, message.user, message.session)
        if of != self._common_of:
            self._common = b"%b%b%bTLOG_SESSION=%d\nTLOG_ID=" % (
                self._head,
                field(b"TLOG_REC", message.rec),
                field(b"TLOG_USER", message.user),
                message.session,
            )
            self._common_of = of
        return b"%b%d\nMESSAGE=%b\n" % (self._common, message.id, message.data)


def field(name: bytes, value: str) -> bytes:
    """One field of the native protocol; a value with a line end in it goes by length."""
    data = value.encode("utf-8", "replace")
    if b"\n" in data:
        return b"%b\n%b%b\n" % (name, len(data).to_bytes(8, "little"), data)
    return b"%b=%b\n" % (name, data)
