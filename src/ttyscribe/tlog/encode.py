# SPDX-License-Identifier: Apache-2.0
"""Events into tlog messages.

The work for an event, and for each message that it fills, is a constant number
of calls into C; bytes that are not UTF-8 take a slower path. On the login path:
nothing heavy is imported.
"""

from __future__ import annotations

from _codecs import utf_8_decode

from ttyscribe.events import INPUT, OUTPUT, Message
from ttyscribe.tlog import escape
from ttyscribe.tlog.escape import fit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    # The next id, the window's record, cut-off input and output.
    State = tuple[int, bytes, bytes, bytes]

VERSION = "2.3"
PAYLOAD_MIN = 32
# What has more runs of text and of invalid bytes by turns than this in its first so
# many bytes is no text.
_SAMPLE = 1024
_BINARY_RUNS = 128
_OCTETS = [b"%d," % octet for octet in range(256)]


class Identity:
    """What every message of a recording says about it.

    host, rec, user and term are text, session the audit session id, start the
    wall clock of the recording's beginning in milliseconds since the epoch.
    """

    __slots__ = ("host", "rec", "session", "start", "term", "user")

    def __init__(
        self, host: str, rec: str, user: str, term: str, session: int, start: int
    ) -> None:
        self.host = host
        self.rec = rec
        self.user = user
        self.term = term
        self.session = session
        self.start = start


class Encoder:
    """Turns the events of one recording, in order of time, into messages.

    payload bounds the encoded timing, text and bytes of a message, in bytes.
    A character whose bytes are not all there yet waits for the rest, across
    events and messages. next_id continues a recording that was cut off.
    """

    def __init__(self, identity: Identity, payload: int, next_id: int = 1) -> None:
        if payload < PAYLOAD_MIN:
            raise ValueError(f"payload must be at least {PAYLOAD_MIN}, not {payload}")
        self.identity = identity
        self.payload = payload
        self.next_id = next_id
        # Nanoseconds of the pending message's first event; None if nothing is pending.
        self.pending_since: int | None = None
        self._member = b""
        self._window = b""
        self._out = _Stream(b">", b"]", b'"in_txt":"","in_bin":[],"out_txt":"%b","out_bin":[]')
        self._in = _Stream(b"<", b"[", b'"in_txt":"%b","in_bin":[],"out_txt":"","out_bin":[]')
        self._timing: list[bytes] = []
        self._used = 0
        self._pos = 0  # ms of the pending message's first event
        self._now = 0  # ms of its last record
        # The last record is kept open, for events of the same kind and millisecond.
        self._mark = b""
        self._count = 0
        self._bytes = 0
        self._done: list[Message] = []
        # The most digits that a count within a message can have.
        self._digits = len(str(payload))
        text = escape.light
        self._head = b'{"ver":"%b","host":%b,"rec":%b,"user":%b,"term":%b,"session":%d,"id":' % (
            VERSION.encode(),
            text(identity.host),
            text(identity.rec),
            text(identity.user),
            text(identity.term),
            identity.session,
        )

    def add(self, time: int, kind: str, data: bytes) -> list[Message]:
        """Add one event; return the messages that became full, in order.

        time is in nanoseconds since the recording began and never goes back.
        """
        now = time // 1_000_000
        if kind == OUTPUT:
            self._add_bytes(now, self._out, data)
        elif kind == INPUT:
            self._add_bytes(now, self._in, data)
        else:
            self._add_window(now, data)
        if not self._done:
            return _NONE
        done = self._done
        self._done = []
        return done

    def flush(self) -> list[Message]:
        """End the pending message; return it, or nothing if nothing is pending."""
        if self.pending_since is not None:
            self._end_message()
        done = self._done
        self._done = []
        return done

    def finish(
        self, time: int, member: Mapping[str, object] | bytes | None = None
    ) -> list[Message]:
        """End the recording: cut-off characters as bytes, and member in the last message.

        member may be JSON already.
        """
        now = time // 1_000_000
        for stream in (self._in, self._out):
            if stream.tail:
                tail, stream.tail = stream.tail, b""
                self._add_invalid(now, stream, tail)
        if member is not None:
            self._begin(now)
            self._member = _member(member)
        return self.flush()

    def note(self, time: int, member: Mapping[str, object] | bytes) -> list[Message]:
        """End the pending message, or an empty one, with the extra member "ttyscribe" in it.

        member may be JSON already.
        """
        self._begin(time // 1_000_000)
        self._member = _member(member)
        return self.flush()

    def state(self) -> State:
        """All that the messages to come depend on, besides their events, while nothing is pending.

        An encoder of the same identity and payload that restores it makes the same bytes
        of the same calls.
        """
        if self.pending_since is not None:
            raise ValueError("a message is pending")
        return self.next_id, self._window, self._in.tail, self._out.tail

    def restore(self, state: State) -> None:
        """Go on from a state of another encoder."""
        self.next_id, self._window, self._in.tail, self._out.tail = state

    # The pending message.

    def _begin(self, now: int) -> None:
        """Start a message if none is pending."""
        if self.pending_since is None:
            self.pending_since = now * 1_000_000
            self._pos = self._now = now
            if self._window:
                self._timing.append(self._window)
                self._used = len(self._window)

    def _advance(self, now: int) -> None:
        """Account for the time since the last record."""
        if now > self._now:
            self._close_record()
            step = b"+%d" % (now - self._now)
            self._timing.append(step)
            self._used += len(step)
            self._now = now

    def _close_record(self) -> None:
        """Write the open record out."""
        if self._mark:
            if self._mark in b"[]":
                record = b"%b%d/%d" % (self._mark, self._count, self._bytes)
            else:
                record = b"%b%d" % (self._mark, self._count)
            self._timing.append(record)
            self._used += len(record)
            self._mark = b""
            self._count = self._bytes = 0

    def _room(self, now: int, mark: bytes) -> int:
        """Bytes left for text or bytes under mark at now, their record's own size set aside.

        May be negative. Starts a message if none is pending.
        """
        self._begin(now)
        record = (1 + self._digits) if mark in b"<>" else (2 + 2 * self._digits)
        used = self._used
        if now > self._now:
            used += 1 + len(str(now - self._now))
        elif mark == self._mark:
            return self.payload - used - record
        if self._mark:
            # The open record will be closed: at its worst it takes this much.
            used += (1 + self._digits) if self._mark in b"<>" else (2 + 2 * self._digits)
        return self.payload - used - record

    def _open_record(self, now: int, mark: bytes) -> None:
        self._advance(now)
        if mark != self._mark:
            self._close_record()
            self._mark = mark

    def _end_message(self) -> None:
        self._close_record()
        identity = self.identity
        out, in_ = self._out, self._in
        wall = identity.start + self._pos
        data = (
            b'%b%d,"pos":%d,"time":%d.%03d,"timing":"%b",'
            b'"in_txt":"%b","in_bin":[%b],"out_txt":"%b","out_bin":[%b]%b}'
        ) % (
            self._head,
            self.next_id,
            self._pos,
            wall // 1000,
            wall % 1000,
            b"".join(self._timing),
            b"".join(in_.text),
            b",".join(in_.binary),
            b"".join(out.text),
            b",".join(out.binary),
            self._member,
        )
        self._done.append(
            Message(data, identity.rec, identity.user, identity.session, self.next_id)
        )
        self.next_id += 1
        self.pending_since = None
        self._member = b""
        self._timing = []
        self._used = 0
        for stream in (in_, out):
            stream.text = []
            stream.binary = []

    # The three kinds of events.

    def _add_window(self, now: int, data: bytes) -> None:
        record = b"=" + data
        if self.pending_since is None:
            self._window = record
            self._begin(now)
            return
        step = 1 + len(str(now - self._now))
        still_open = (2 + 2 * self._digits) if self._mark else 0
        if self._used + still_open + step + len(record) > self.payload:
            self._end_message()
            self._window = record
            self._begin(now)
            return
        self._window = record
        self._advance(now)
        self._close_record()
        self._timing.append(record)
        self._used += len(record)

    def _add_bytes(self, now: int, stream: _Stream, data: bytes) -> None:
        if stream.tail:
            data = stream.tail + data
            stream.tail = b""
        if is_cut_off(data):
            # No reason yet to begin a message.
            stream.tail = data
            return
        end = self._add_text(now, stream, data)
        if end < len(data):
            rest = data[end:]
            if is_cut_off(rest):
                stream.tail = rest
            else:
                self._add_mixed(now, stream, rest)

    def _add_mixed(self, now: int, stream: _Stream, data: bytes) -> None:
        """Bytes with invalid sequences among them: text and bytes by turns."""
        if len(data) > _SAMPLE and len(_runs(data[:_SAMPLE])[0]) > _BINARY_RUNS:
            # A character that the last bytes begin still waits for its rest.
            end = data[-4:]
            stream.tail = end[_runs(end)[1] :]
            self._add_binary(now, stream, data[: len(data) - len(stream.tail)])
            return
        runs, used = _runs(data)
        stream.tail = data[used:]
        for run in runs:
            part = run.encode("utf-8", "surrogateescape")
            if "\udc80" <= run[0] <= "\udcff":
                self._add_invalid(now, stream, part)
            else:
                self._add_text(now, stream, part)

    def _add_text(self, now: int, stream: _Stream, data: bytes) -> int:
        """The characters that data begins with; return where they end."""
        mark = stream.text_mark
        at = 0
        while True:
            text, count, at, full = fit(data, at, self._room(now, mark))
            if count:
                self._open_record(now, mark)
                self._count += count
                self._used += len(text)
                stream.text.append(text)
            if not full:
                return at
            self._end_message()
            at = self._add_full(now, stream, data, at)

    def _add_full(self, now: int, stream: _Stream, data: bytes, at: int) -> int:
        """Messages that data from at on fills alone, with nothing pending; return where they end.

        This is the whole work for bulk output, so it builds such messages at once.
        """
        # The last message always leaves something over.
        last = len(data) - self.payload
        if at > last:
            return at
        identity = self.identity
        rec, user, session = identity.rec, identity.user, identity.session
        wall = identity.start + now
        middle = b',"pos":%d,"time":%d.%03d,"timing":"%b%b' % (
            now, wall // 1000, wall % 1000, self._window, stream.text_mark,
        )  # fmt: skip
        room = self.payload - len(self._window) - 1 - self._digits
        head, line, done = self._head, stream.full, self._done
        id = self.next_id
        while at <= last:
            text, count, end, full = fit(data, at, room)
            if not full:
                break
            at = end
            done.append(Message(line % (head, id, middle, count, text), rec, user, session, id))
            id += 1
        self.next_id = id
        return at

    def _add_invalid(self, now: int, stream: _Stream, data: bytes) -> None:
        """Bytes that are no UTF-8: each invalid sequence is one replacement character."""
        mark = stream.bytes_mark
        start = 0
        for end in _sequence_ends(data):
            sequence = b",".join([b"%d" % byte for byte in data[start:end]])
            size = len(_REPLACEMENT) + len(sequence) + 1
            if self._room(now, mark) < size:
                self._end_message()
                self._room(now, mark)
            self._open_record(now, mark)
            self._count += 1
            self._bytes += end - start
            self._used += size
            stream.text.append(_REPLACEMENT)
            stream.binary.append(sequence)
            start = end

    def _add_binary(self, now: int, stream: _Stream, data: bytes) -> None:
        """Bytes that are no text at all: as many of them as fit stand for one character.

        There is nothing in them to read or to search for, and taking them apart
        into what happens to be UTF-8 would cost a hundred times as much.
        """
        mark = stream.bytes_mark
        at = 0
        while at < len(data):
            # A byte takes three digits and a comma at the most.
            room = (self._room(now, mark) - len(_REPLACEMENT)) // 4
            if room < 1:
                self._end_message()
                continue
            piece = data[at : at + room]
            binary = b"".join(map(_OCTETS.__getitem__, piece))[:-1]
            self._open_record(now, mark)
            self._count += 1
            self._bytes += len(piece)
            self._used += len(_REPLACEMENT) + len(binary) + 1
            stream.text.append(_REPLACEMENT)
            stream.binary.append(binary)
            at += room


class _Stream:
    """One direction of the pending message, and the character that is not complete yet."""

    __slots__ = ("binary", "bytes_mark", "full", "tail", "text", "text_mark")

    def __init__(self, text_mark: bytes, bytes_mark: bytes, texts: bytes) -> None:
        # A message of nothing but one text: head, id, pos to mark, count, the text.
        self.full = b'%b%d%b%d",' + texts + b"}"
        self.text_mark = text_mark
        self.bytes_mark = bytes_mark
        self.text: list[bytes] = []
        self.binary: list[bytes] = []
        self.tail = b""


_NONE: list[Message] = []
_REPLACEMENT = "\ufffd".encode()


def _runs(data: bytes) -> tuple[list[str], int]:
    """Runs of text and of invalid bytes by turns, and where a cut-off character begins.

    An invalid byte is a lone surrogate, which valid UTF-8 can't hold.
    """
    import re

    text, used = utf_8_decode(data, "surrogateescape", False)
    return re.findall("[\udc80-\udcff]+|[^\udc80-\udcff]+", text), used


def is_cut_off(data: bytes) -> bool:
    """Whether data is the beginning of a character, or nothing at all, and no more than that."""
    try:
        return len(data) < 4 and utf_8_decode(data, "strict", False)[1] == 0
    except UnicodeDecodeError:
        return False


def _sequence_ends(data: bytes) -> list[int]:
    """Where each invalid sequence of data (which holds nothing valid) ends."""
    ends = []
    start = 0
    while start < len(data):
        try:
            # No sequence is longer than four bytes.
            data[start : start + 4].decode()
        except UnicodeDecodeError as error:
            start += error.end
            ends.append(start)
    return ends


def _member(member: Mapping[str, object] | bytes) -> bytes:
    data = member if isinstance(member, bytes) else escape.value(member)
    return b',"ttyscribe":' + data
