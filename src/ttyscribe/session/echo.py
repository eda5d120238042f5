# SPDX-License-Identifier: Apache-2.0
"""The echo loop: a session that shows its own recording as it grows.

`tail -f` of the file, or `journalctl -f`, makes every message output again, which
makes a longer message. The filter stands between capture and log, and leaves out
of the log what is a message of this very recording, shown whole: byte for byte, or
escaped once as in `journalctl -o json`. As nothing else is left out, nothing can be
hidden by it: what it elides is in the recording already, under the id that the
marker gives.

Nothing is held back: all of the output is logged or elided before it is delivered.
So where a read ends within a message, its beginning has been logged as it is, and
only the rest is elided once it is there and proves to be ours. What a message costs
when shown again is then bounded by what surrounds it on the screen (a date and a
host) and by one such beginning for each read, which is less than what it was: the
loop dies down, to about a message in each latency.

Messages are remembered from when the recording's id is first seen in the output.
Sessions that never show it, nearly all, pay for one search in each read; and now and
then for one that finds it where each line is wrapped. What was written before that is
logged again if it is shown, which ends where remembering began.

A message that comes back in another form (folded, in colours, within the fields of
`journalctl -o json`) is logged as it is, and each may make more than one new message.
Such a loop can't be told from a user who prints the recording's id, so nothing is left
out: output that goes on showing the id, or what surrounds elided messages, is slowed
down to a constant rate, at which the recording then grows.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ttyscribe.events import Message

# Messages are remembered by digests of pieces of this many bytes, so that one larger
# than what is read at once is still recognised. By default a message is one piece.
_PIECE = 4096
_DIGEST = 16
# How many messages are remembered: some 40 MB of a recording with the default payload.
_REMEMBERED = 16384
# Such output is slowed down to so many bytes a second, after so many that are logged at
# full speed: one look at the own recording is no loop.
_RATE = 32768
_BURST = 524288
# So much output after the id, or after what was elided, counts as part of the loop.
_SPAN = 16384
# After so much output the id is looked for where a line is wrapped, too: a loop shows it again
# and again, so that much goes unnoticed of one.
_LOOK = 524288
# Where a line is wrapped on the screen, less and others put these into it.
_WRAPPING = b" \b\r\n"
_ID = b'"id":'
# Digits of an id, and the comma after it.
_ID_SIZE = 20


class EchoFilter:
    """Finds the messages of the recording rec in its own output.

    Every message has to pass wrote as soon as it is made, and all output filter; what is
    logged of it then slow_down. Until paused_until no more output may be captured.
    """

    def __init__(self, rec: str) -> None:
        self._rec = rec.encode()
        self._border = len(self._rec) - 1
        self._digest: Callable[[bytes], bytes] | None = None
        # How a message begins, up to its id; plain, and escaped.
        self._heads: list[bytes] = []
        self._known: dict[int, tuple[_Shape, _Shape]] = {}
        # The end of what was logged, which may be the beginning of an echo.
        self._carry = b""
        self._echo: _Echo | None = None
        self._line_end = b""
        # Output since the id was looked for where it is wrapped.
        self._unseen = 0
        self._ids: list[int] = []
        self._bytes = 0
        # Nanoseconds of the recording's time.
        self.paused_until = 0
        self._elided = False
        self._tail = b""
        self._span = 0
        self._allowed = _BURST
        self._charged_at = 0

    def wrote(self, messages: Sequence[Message]) -> None:
        """Remember messages that were made just now, before a writer can show them to anyone."""
        if not self._heads and messages:
            data = messages[0].data
            head = data[: data.index(_ID) + len(_ID)]
            self._heads = [head, _escaped(head)]
        if self._digest is None:
            return
        for message in messages:
            data = message.data
            self._known[message.id] = (
                _Shape(data, self._digest),
                _Shape(_escaped(data), self._digest),
            )
        while len(self._known) > _REMEMBERED:
            del self._known[next(iter(self._known))]

    def filter(self, data: bytes) -> bytes:
        """What of the output data is to be logged; data itself if nothing is an echo."""
        if self._digest is None:
            shown = self._rec in data or self._rec in self._carry + data[: self._border]
            if not shown and not self._shows_wrapped_id(data):
                self._carry = _end_of(self._carry, data, self._border)
                return data
            self._digest = _digest()
            self._carry = b""
            return data
        return self._elide(data)

    def slow_down(self, logged: bytes, now: int) -> None:
        """Set paused_until, when logged was what is left of the output at the time now."""
        if self._digest is None:
            return
        if self._elided or self._shows_id(logged):
            charged = len(logged)
            self._span = _SPAN
        else:
            charged = min(len(logged), self._span)
            self._span -= charged
        self._elided = False
        if not charged:
            return
        filled = (now - self._charged_at) * _RATE // 1_000_000_000
        self._allowed = min(self._allowed + filled, _BURST) - charged
        self._charged_at = now
        if self._allowed < 0:
            self.paused_until = now - self._allowed * 1_000_000_000 // _RATE

    def take(self) -> dict[str, object] | None:
        """The member for the marker of what was elided since the last call; None if nothing was.

        first and last are ids of echoed messages, messages is how often one was
        elided, wholly or its end, bytes what was left out, line ends included.
        """
        if not self._bytes:
            return None
        member: dict[str, object] = {
            "event": "elided",
            "first": min(self._ids),
            "last": max(self._ids),
            "messages": len(self._ids),
            "bytes": self._bytes,
        }
        self._ids = []
        self._bytes = 0
        return member

    def _shows_wrapped_id(self, data: bytes) -> bool:
        """Whether the id is in it where lines are wrapped; looked for now and then."""
        self._unseen += len(data)
        if self._unseen < _LOOK:
            return False
        shown = self._shows_id(data)
        # It may have ended in the next read.
        if self._unseen >= _LOOK + _SPAN:
            self._unseen = 0
            self._tail = b""
        return shown

    def _shows_id(self, logged: bytes) -> bool:
        seen = (self._tail + logged).translate(None, _WRAPPING)
        # The wrapping is between, in columns of a dozen characters or more.
        self._tail = _end_of(self._tail, logged, self._border + 4 * len(_WRAPPING))
        return self._rec in seen

    def _elide(self, data: bytes) -> bytes:
        """Walk over data, with what came before and may belong to it."""
        seen = self._carry + data
        # What is before this is logged already.
        new = len(self._carry)
        at = 0
        logged: list[bytes] = []

        def log(end: int) -> None:
            nonlocal at
            if end > new:
                logged.append(seen[max(at, new) : end])
            at = end

        while True:
            if self._line_end:
                at = self._skip_line_end(seen, at)
                if self._line_end:
                    break
            if self._echo is None:
                found = self._find(seen, at)
                if isinstance(found, int):
                    # What may go on in the next read, and the byte before it.
                    log(len(seen))
                    self._carry = seen[max(found - 1, 0) :]
                    return b"".join(logged)
                start, self._echo = found
                log(start)
            echo = self._echo
            size = echo.next_size()
            piece = seen[at : at + size]
            if len(piece) < size:
                break
            if self._digest is None or self._digest(piece) != echo.next_digest():
                self._echo = None
                log(at + 1)
                continue
            if at < new:
                # Its beginning is logged, and so is the end of that line.
                echo.whole_line = False
            self._bytes += at + size - max(at, new)
            self._elided = True
            at += size
            if echo.done == 0:
                self._ids.append(echo.id)
            echo.done += size
            if echo.done == echo.shape.size:
                self._echo = None
                # A whole line goes with its end; else the end belongs to what is logged.
                self._line_end = b"\r\n" if echo.whole_line else b""
        self._carry = seen[at:]
        log(len(seen))
        return b"".join(logged)

    def _find(self, seen: bytes, at: int) -> tuple[int, _Echo] | int:
        """The next remembered message's beginning; or from where on one may still come."""
        while True:
            places = [(seen.find(head, at), number) for number, head in enumerate(self._heads)]
            places = [place for place in places if place[0] >= 0]
            if not places:
                return max(at, len(seen) - len(self._heads[-1]) - 1) if self._heads else len(seen)
            start, number = min(places)
            after = start + len(self._heads[number])
            digits, comma, _ = seen[after : after + _ID_SIZE].partition(b",")
            if not comma and len(seen) < after + _ID_SIZE:
                return start
            shapes = self._known.get(int(digits)) if digits.isdigit() else None
            if shapes is not None:
                whole_line = start == 0 or seen[start - 1] == ord("\n")
                return start, _Echo(int(digits), shapes[number], whole_line)
            at = after

    def _skip_line_end(self, seen: bytes, at: int) -> int:
        """Elide the end of an elided line, which may come in two reads."""
        for byte in self._line_end:
            if at == len(seen):
                return at
            if seen[at] == byte:
                at += 1
                self._bytes += 1
            self._line_end = self._line_end[1:]
        return at


class _Shape:
    """A message as it may be shown: its size and the digests of its pieces, joined."""

    __slots__ = ("digests", "size")

    def __init__(self, data: bytes, digest: Callable[[bytes], bytes]) -> None:
        self.size = len(data)
        self.digests = b"".join(
            [digest(data[start : start + _PIECE]) for start in range(0, len(data), _PIECE)]
        )


class _Echo:
    """A message that is being shown, of which done bytes have proved to be ours."""

    __slots__ = ("done", "id", "shape", "whole_line")

    def __init__(self, id: int, shape: _Shape, whole_line: bool) -> None:
        self.id = id
        self.shape = shape
        self.whole_line = whole_line
        self.done = 0

    def next_size(self) -> int:
        return min(_PIECE, self.shape.size - self.done)

    def next_digest(self) -> bytes:
        start = self.done // _PIECE * _DIGEST
        return self.shape.digests[start : start + _DIGEST]


def _end_of(before: bytes, data: bytes, size: int) -> bytes:
    """The last size bytes of the output, in which the id may have begun."""
    return (data if len(data) >= size else before + data)[-size:]


def _escaped(data: bytes) -> bytes:
    """JSON text as it stands in a string of JSON; JSON text has no other character to escape."""
    return data.replace(b"\\", b"\\\\").replace(b'"', b'\\"')


def _digest() -> Callable[[bytes], bytes]:
    from hashlib import blake2b

    return lambda data: blake2b(data, digest_size=_DIGEST).digest()
