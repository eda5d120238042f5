# SPDX-License-Identifier: Apache-2.0
"""Messages sent to the system log's socket, /dev/log.

The standard library's syslog module loses messages in silence when nobody
listens, and blocks when the daemon is stuck; a recording may do neither. So
this speaks the protocol (RFC 3164, as syslog(3) does) over its own socket.
"""

from __future__ import annotations

import os
import time

from ttyscribe.errors import WriterError
from ttyscribe.writers.socket import DatagramSocket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ttyscribe.events import Message

PATH = "/dev/log"
IDENT = "ttyscribe"

# Codes of RFC 3164, names of syslog(3) and syslog.conf(5).
FACILITIES = {
    "kern": 0, "user": 1, "mail": 2, "daemon": 3, "auth": 4, "syslog": 5, "lpr": 6, "news": 7,
    "uucp": 8, "cron": 9, "authpriv": 10, "ftp": 11, "local0": 16, "local1": 17, "local2": 18,
    "local3": 19, "local4": 20, "local5": 21, "local6": 22, "local7": 23,
}  # fmt: skip
PRIORITIES = {
    "emerg": 0, "alert": 1, "crit": 2, "err": 3, "warning": 4, "notice": 5, "info": 6, "debug": 7,
}  # fmt: skip
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class SyslogWriter:
    """Sends each message's JSON as the text of one syslog message.

    Raises WriterError if nobody listens, or for a facility or priority that
    does not exist.
    """

    def __init__(self, facility: str, priority: str, path: str = PATH) -> None:
        self._code = code(facility, priority)
        # As syslog(3) ends them.
        self._socket = DatagramSocket(path, "syslog", b"\0")

    def write(self, messages: Sequence[Message]) -> int:
        now = time.localtime()
        # syslog(3)'s stamp: English month names whatever the locale, local time.
        head = b"<%d>%b %2d %02d:%02d:%02d %b[%d]: " % (
            self._code,
            _MONTHS[now.tm_mon - 1].encode(),
            now.tm_mday,
            now.tm_hour,
            now.tm_min,
            now.tm_sec,
            IDENT.encode(),
            os.getpid(),
        )
        # A syslog daemon rewrites control characters, and so breaks the text's count; of
        # those, JSON leaves only this one as it is.
        return self._socket.send(
            head + message.data.replace(b"\x7f", b"\\u007f") for message in messages
        )

    def fileno(self) -> int:
        return self._socket.fileno()

    def stored_in(self) -> int:
        return -1

    def close(self) -> None:
        self._socket.close()


def code(facility: str, priority: str) -> int:
    """The number of a facility and a priority by name. Raises WriterError for unknown names."""
    if facility not in FACILITIES:
        raise WriterError(
            f"no such syslog facility: '{facility}'; there are {', '.join(FACILITIES)}"
        )
    return FACILITIES[facility] * 8 + priority_code(priority)


def priority_code(priority: str) -> int:
    """The number of a priority by name. Raises WriterError for an unknown name."""
    if priority not in PRIORITIES:
        raise WriterError(f"no such priority: '{priority}'; there are {', '.join(PRIORITIES)}")
    return PRIORITIES[priority]
