# SPDX-License-Identifier: Apache-2.0
"""Where messages go: file, syslog, journal; and the rate limit in front of them.

A writer never blocks on a service that does not answer: it says how many
messages it took and raises WriterError when it took none and knows why. The
recording keeps the rest in order and tries again. Writers carry bytes and look
only at the fields they tag by.
"""

from __future__ import annotations

from ttyscribe.errors import WriterError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    from ttyscribe.config.views import Rec, RecSession
    from ttyscribe.events import Message

    class Writer(Protocol):
        """One family, one interface."""

        def write(self, messages: Sequence[Message]) -> int:
            """Write messages in order, at most all of them; return how many were taken.

            Fewer than all: the store is busy, try again soon. Raises WriterError
            when none could be written and waiting alone won't help.
            """

        def fileno(self) -> int:
            """The descriptor to wait on until the store takes more; -1 if there is none."""

        def stored_in(self) -> int:
            """The descriptor of the file that we write ourselves; -1 if a service has one."""

        def close(self) -> None:
            """Let go of the store."""


def open_writer(values: Rec | RecSession, folder: str = "", namespace: str = "") -> Writer:
    """The writer that a configuration's values ask for, with its rate limit.

    In folder the recorders of one user share what they know of a store. namespace
    is the journal's, where it is not the one that this process sees anyway. Raises
    WriterError if the store can't be opened.
    """
    limit = values["limit"]
    if limit["action"] == "delay" and not limit["rate"]:
        raise WriterError(
            'a limit.rate of 0 with the limit.action "delay" would let nothing be recorded; set a'
            ' rate, or another action'
        )
    writer: Writer
    if values["writer"] == "file":
        from ttyscribe.writers.file import FileWriter

        writer = FileWriter(values["file"]["path"])
    elif values["writer"] == "syslog":
        from ttyscribe.writers.syslog import SyslogWriter

        writer = SyslogWriter(values["syslog"]["facility"], values["syslog"]["priority"])
    else:
        from ttyscribe.writers.journal import JournalWriter
        from ttyscribe.writers.journald import socket_of

        journal = values["journal"]
        writer = JournalWriter(
            journal["priority"],
            augment=journal["augment"],
            path=socket_of(namespace),
            folder=folder,
        )
    if limit["action"] != "pass":
        from ttyscribe.writers.limit import LimitedWriter

        writer = LimitedWriter(writer, limit["rate"], limit["burst"], limit["action"])
    return writer
