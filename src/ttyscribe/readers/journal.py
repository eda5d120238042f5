# SPDX-License-Identifier: Apache-2.0
"""Recordings in the systemd journal, by systemd-python.

Every user of the machine can send entries with any field that does not start
with an underscore. Where that matters, match by a trusted field as well
(-M _UID=0), which journald itself sets.
"""

from __future__ import annotations

import errno
import re

from systemd import journal

from ttyscribe.errors import ReaderError, UsageError, reason
from ttyscribe.readers.reader import SeveralRecordings, summarize

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ttyscribe.readers.reader import Entry

# SD_JOURNAL_ALL_NAMESPACES of sd_journal_open(3), which the binding has no name for.
_ALL_NAMESPACES = 1 << 5
_MESSAGE = re.compile(rb'\s*\{\s*"ver"\s*:')


class JournalReader:
    """Reads one recording from the journal.

    matches are symbols as journalctl and tlog-play take them: FIELD=VALUE, of
    which the same field twice means either and different fields mean both; "OR" or "+"
    between groups; "AND". since and until are in seconds since the epoch.
    Without a namespace all of the machine's are read, its own journal and the recorder
    service's; directory chooses another machine's journal.
    Raises ReaderError if it can't be opened, UsageError for a wrong match.
    """

    def __init__(
        self,
        matches: list[str] | None = None,
        since: float | None = None,
        until: float | None = None,
        namespace: str | None = None,
        directory: str | None = None,
    ) -> None:
        self.name = "the journal"
        if namespace is not None:
            self.name += f"'s namespace {namespace}"
        elif directory is not None:
            self.name = f"the journal in {directory}"
        self._matches = matches or []
        self._since = since
        self.partial = since is not None
        self._until = until
        try:
            self._journal = _open(namespace, directory)
        except OSError as error:
            raise ReaderError(f"cannot open {self.name}: {reason(error)}") from None
        # 0 lifts the limit of 64 KiB a field.
        self._journal.data_threshold = 0
        self._add_matches()

    def check(self, follow: bool = False) -> None:
        """Look through the matching entries for other recordings."""
        named = [match for match in self._matches if match.startswith("TLOG_REC=")]
        if len(named) == 1 and not {"OR", "+"} & set(self._matches):
            return
        recordings = summarize(entry[0] for entry in self.entries() if entry is not None)
        if len(recordings) > 1:
            raise SeveralRecordings(self.name, recordings, "-M TLOG_REC=REC")

    def entries(self, follow: bool = False) -> Iterator[Entry | None]:
        reader = self._journal
        found = False
        try:
            if follow:
                reader.fileno()  # from here on changes are noticed
            if self._since is not None:
                reader.seek_realtime(float(self._since))
            else:
                reader.seek_head()
            while True:
                fields = reader.get_next()
                if not fields:
                    if not follow:
                        break
                    yield None
                    reader.process()
                    continue
                if self._until is not None:
                    stamp = fields["__REALTIME_TIMESTAMP"].timestamp()
                    if stamp > self._until:
                        break
                entry = _entry(fields)
                if entry is not None:
                    found = True
                    yield entry
        except OSError as error:
            raise ReaderError(f"cannot read {self.name}: {reason(error)}") from None
        if not found:
            raise ReaderError(
                f"{self.name} holds no recording that matches; only root and the group"
                " systemd-journal can read all of it"
            )

    def descriptor(self) -> int | None:
        fd: int = self._journal.fileno()
        return fd

    def last(self) -> Entry | None:
        # A reader of its own: this one stands where entries() reads.
        return None

    def close(self) -> None:
        self._journal.close()

    def _add_matches(self) -> None:
        for symbol in self._matches:
            if symbol in ("OR", "+"):
                self._journal.add_disjunction()
            elif symbol == "AND":
                self._journal.add_conjunction()
            else:
                try:
                    self._journal.add_match(symbol)
                except (OSError, ValueError):
                    raise UsageError(
                        f"'{symbol}' is no journal match; write FIELD=VALUE"
                        " (such as TLOG_REC=...), OR, or AND"
                    ) from None


def _open(namespace: str | None, directory: str | None) -> journal.Reader:
    # The conversions of the binding are for people; only these fields are looked at.
    converters = {"MESSAGE": bytes}
    if namespace is None and directory is None:
        flags = journal.LOCAL_ONLY | _ALL_NAMESPACES
        try:
            return journal.Reader(flags=flags, converters=converters)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # A systemd that has no namespaces.
    return journal.Reader(path=directory, namespace=namespace, converters=converters)


def _entry(fields: dict[str, object]) -> Entry | None:
    message = fields.get("MESSAGE")
    if isinstance(message, list):
        message = message[0]
    if not isinstance(message, bytes):
        return None
    # What calls itself a message of a recording must be one; other entries just match as well.
    if "TLOG_REC" not in fields and not _MESSAGE.match(message):
        return None
    return message, f"journal cursor {fields['__CURSOR']}"
