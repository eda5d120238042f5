# SPDX-License-Identifier: Apache-2.0
"""Recordings in files: our own and tlog's, syslog text files, and standard input.

A file's first line that is not blank decides what it is. If it starts with "{",
the file is a recording: every line must be a message. If it starts as syslog
lines do (a priority, or a date), the file is a log of many programs: the
message in a line is what starts at {"ver":, and lines without one are passed
over. Anything else is no recording.
"""

from __future__ import annotations

import errno
import os
import re
import stat

import orjson

from ttyscribe.errors import FormatError, ReaderError, printable, reason
from ttyscribe.readers.reader import SeveralRecordings, summarize

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

    from ttyscribe.readers.reader import Entry

# A line longer than this is refused, so that no file can take all memory. tlog's
# largest payloads are far below it.
LINE_MAX = 64 << 20
_CHUNK = 1 << 18
# Where the last message is looked for, from the end.
_TAIL = 1 << 20
# tlog writes the id within this, after the version and the host name.
_HEAD = 1024

_SYSLOG = re.compile(
    rb"(?:<\d{1,3}>)?(?:\d )?(?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d|\d{4}-\d\d-\d\d[T ]\d\d:\d\d)"
)
_MESSAGE = re.compile(rb'\{\s*"ver"\s*:')


class FileReader:
    """Reads one recording from the file at path; "-" is standard input.

    match chooses a recording by its id. rewindable keeps what came from a pipe
    in an unnamed temporary file, so that entries() can be called again, as check()
    does itself. Raises ReaderError if the file can't be opened or is a directory.
    """

    partial = False

    def __init__(self, path: str, match: str | None = None, rewindable: bool = False) -> None:
        self.name = "standard input" if path == "-" else path
        self.match = match
        self._fd = self._open(path)
        self._start = 0
        self._spool: IO[bytes] | None = None
        self._spooled = 0
        self._regular = stat.S_ISREG(os.fstat(self._fd).st_mode)
        if self._regular:
            self._start = os.lseek(self._fd, 0, os.SEEK_CUR)
        elif rewindable:
            import tempfile

            self._spool = tempfile.TemporaryFile(prefix="ttyscribe-", buffering=0)  # noqa: SIM115
        self._recording = True
        self._needle = b"" if match is None else b'"rec":' + orjson.dumps(match)

    def check(self, follow: bool = False) -> None:
        if self._spool is None and not self._regular:
            return  # it can't be read twice
        if (self._is_single() if self._regular else follow):
            return
        recordings = summarize(data for data in self._candidates())
        if self.match is not None:
            if not any(found.rec == self.match for found in recordings):
                raise ReaderError(
                    f"{self.name} holds no recording '{self.match}'; without -m its recordings"
                    " are listed"
                )
        elif len(recordings) > 1:
            raise SeveralRecordings(self.name, recordings, "-m REC")

    def entries(self, follow: bool = False) -> Iterator[Entry | None]:
        offset = self._start
        number = 0
        pick = self._pick
        name = self.name
        parts: list[bytes] = []
        held = 0
        found = decided = False
        while True:
            chunk = self._read(offset)
            if not chunk:
                if chunk is None or (follow and self._regular):
                    self._check_not_cut(offset)
                    yield None
                    continue
                break
            offset += len(chunk)
            lines = chunk.split(b"\n")
            parts.append(lines[0])
            held += len(lines[0])
            if held > LINE_MAX:
                raise FormatError(
                    f"{name}:{number + 1}: the line is longer than {LINE_MAX >> 20} MiB;"
                    " no recording has such lines"
                )
            if len(lines) == 1:
                continue
            lines[0] = b"".join(parts)
            rest = lines.pop()
            parts = [rest]
            held = len(rest)
            for line in lines:
                number += 1
                if not decided and line.strip():
                    self._decide(line, number)
                    decided = True
                data = pick(line)
                if data is not None:
                    found = True
                    yield data, f"{name}:{number}"
        last = b"".join(parts)
        if last.strip():
            number += 1
            if not decided:
                self._decide(last, number)
            data = pick(last)
            if data is not None:
                self._check_whole(data, number)
                found = True
                yield data, f"{name}:{number}"
        if not found:
            raise self._nothing()

    def descriptor(self) -> int | None:
        return None if self._regular else self._fd

    def last(self) -> Entry | None:
        if not self._regular:
            return None
        size = os.fstat(self._fd).st_size
        begin = max(self._start, size - _TAIL)
        for line in reversed(os.pread(self._fd, size - begin, begin).split(b"\n")[:-1]):
            data = self._pick(line)
            if data is not None:
                return data, self.name
        return None

    def close(self) -> None:
        if self._spool is not None:
            self._spool.close()
        if self._fd > 2:
            os.close(self._fd)

    def _open(self, path: str) -> int:
        if path == "-":
            fd = 0
        else:
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
            except OSError as error:
                raise ReaderError(f"cannot read {path}: {reason(error)}") from None
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise ReaderError(f"cannot read {self.name}: it is a directory, not a recording")
        return fd

    def _read(self, offset: int) -> bytes | None:
        """Up to _CHUNK bytes at offset; b"" at the end; None if nothing is there yet."""
        try:
            if self._regular:
                return os.pread(self._fd, _CHUNK, offset)
            if self._spool is not None and offset < self._spooled:
                return os.pread(self._spool.fileno(), _CHUNK, offset)
            chunk = self._read_stream()
        except OSError as error:
            raise ReaderError(f"cannot read {self.name}: {reason(error)}") from None
        if chunk and self._spool is not None:
            try:
                self._spool.write(chunk)
            except OSError as error:
                raise ReaderError(
                    f"cannot keep {self.name} in a temporary file: {reason(error)}"
                ) from None
            self._spooled += len(chunk)
        return chunk

    def _read_stream(self) -> bytes | None:
        """Read from a pipe, socket or terminal without ever blocking on it."""
        import select

        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        if not poll.poll(0):
            return None
        try:
            return os.read(self._fd, _CHUNK)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno == errno.EIO:  # the terminal it came from is gone
                return b""
            raise

    def _await_more(self) -> None:
        """Wait until the stream has more, or ends."""
        import select

        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        poll.poll()

    def _check_not_cut(self, offset: int) -> None:
        if self._regular and os.fstat(self._fd).st_size < offset:
            raise ReaderError(f"{self.name} became shorter while it was followed")

    def _decide(self, line: bytes, number: int) -> None:
        """Tell from the first line what the file is."""
        start = line.lstrip()
        self._recording = start.startswith(b"{")
        if not self._recording and not _SYSLOG.match(start):
            raise FormatError(
                f"{self.name}:{number}: '{printable(line[:40])}' is neither a tlog message"
                " nor a syslog line"
            )

    def _pick(self, line: bytes) -> bytes | None:
        """The message in a line, if it is one of ours."""
        needle = self._needle
        if not self._recording:
            found = _MESSAGE.search(line)
            if found is None:
                return None
            line = line[found.start() :].rstrip()
        elif not line or line.isspace():
            return None
        elif line.startswith(b"\0"):
            # What a power cut leaves in place of the last lines; their ids will show the gap.
            line = line.lstrip(b"\0")
            if not line:
                return None
        if not needle or needle in line:
            return line
        # Written with other white space or escapes than tlog's, or another recording's.
        if b'"rec":"' in line:
            return None
        try:
            fields = orjson.loads(line)
        except orjson.JSONDecodeError:
            return None  # perhaps another recording's; if ours, the ids will show the gap
        ours = isinstance(fields, dict) and fields.get("rec", "") == self.match
        return line if ours else None

    def _check_whole(self, data: bytes, number: int) -> None:
        """Refuse a last line that was cut off; only its line end may be missing."""
        try:
            orjson.loads(data)
        except orjson.JSONDecodeError:
            raise FormatError(
                f"{self.name}:{number}: the last line is cut off; what comes before it is complete"
            ) from None

    def _nothing(self) -> ReaderError:
        if self.match is not None:
            return ReaderError(f"{self.name} holds no recording '{self.match}'")
        return ReaderError(f"{self.name} holds no recording")

    def _is_single(self) -> bool:
        """Whether all lines have the first line's recording id (or the chosen one): fast.

        Looks for it in C instead of parsing. A quote within a JSON string is escaped,
        so that "rec":"..." can't come from recorded text.
        """
        first = next(self._chunks(), b"").split(b"\n", 1)[0]
        try:
            rec = orjson.loads(first)["rec"]
            needle = b'"rec":' + orjson.dumps(rec)
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return False
        if self.match is not None and rec != self.match:
            return False
        rest = b""
        for chunk in self._chunks():
            if len(rest) > _TAIL:
                return False
            at = 0
            if rest:
                chunk = rest + chunk
            while (end := chunk.find(b"\n", at)) >= 0:
                if chunk.find(needle, at, min(at + _HEAD, end)) < 0:
                    return False
                at = end + 1
            rest = chunk[at:]
        return not rest or needle in rest

    def _chunks(self) -> Iterator[bytes]:
        offset = self._start
        while chunk := os.pread(self._fd, _CHUNK, offset):
            offset += len(chunk)
            yield chunk

    def _candidates(self) -> Iterator[bytes]:
        """Every recording's messages."""
        chosen = self._needle, self.match
        self._needle, self.match = b"", None
        try:
            for entry in self.entries():
                if entry is not None:
                    yield entry[0]
                else:
                    self._await_more()
        except FormatError:
            return  # whoever plays it comes to the same line, and says so
        finally:
            self._needle, self.match = chosen
