# SPDX-License-Identifier: Apache-2.0
"""tlog messages back into events. Recordings are hostile input: nothing here trusts them."""

from __future__ import annotations

import re
from operator import itemgetter

import orjson

from ttyscribe.errors import FormatError, printable
from ttyscribe.events import INPUT, OUTPUT, WINDOW
from ttyscribe.tlog.escape import unescape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from ttyscribe.events import Event

# Records of "timing". Counts are bounded so that no number is slow to read.
_RECORD = re.compile(
    r"([+<>])([0-9]{1,15})|([\[\]])([0-9]{1,15})/([0-9]{1,15})|=([0-9]{1,9}x[0-9]{1,9})"
)

# What a large message is taken apart by.
_LARGE = 512
_OUT = b',"out_txt":"'
_OUT_END = b'","out_bin":[]}'

# A message's fields and their types in the newest version.
_USUAL = itemgetter(
    "ver", "rec", "id", "host", "user", "term", "session", "pos", "time", "timing", "in_txt",
    "out_txt", "in_bin", "out_bin",
)  # fmt: skip
_USUAL_TYPES = (str, str, int, str, str, str, int, int, float, str, str, str, list, list)


class ParsedMessage:
    """One message's fields, checked for their types.

    where is its place as text, "FILE:LINE" or a journal cursor; pos is in
    milliseconds; time in seconds since the epoch, None before version 2.3; rec is
    "" before version 2.1; extra is the member "ttyscribe", None where it has none.
    """

    __slots__ = (
        "_out_txt", "extra", "host", "id", "in_bin", "in_txt", "out", "out_bin", "pos", "rec",
        "session", "term", "time", "timing", "user", "ver", "where",
    )  # fmt: skip

    def __init__(
        self, where: str, fields: dict[str, object], out: tuple[bytes, int] | None = None
    ) -> None:
        """out is out_txt in UTF-8 and its count of characters, if fields hold an empty one."""
        self.where = where
        self.out = out
        if self._take_usual(fields):
            return
        get = _Getter(where, fields)
        self.ver = _version(get)
        self.rec = get.text("rec", "" if self.ver < (2, 1) else None)
        self.id = get.whole("id")
        if self.id < 1:
            get.fail("id", "is less than 1")
        self.host = get.text("host")
        self.user = get.text("user")
        self.term = get.text("term")
        self.session = get.whole("session")
        self.pos = get.whole("pos")
        self.time = get.number("time")
        if self.time is None and self.ver >= (2, 3):
            get.fail("time", "is missing")
        self.timing = get.text("timing")
        self.in_txt = get.text("in_txt")
        self._out_txt = get.text("out_txt")
        self.in_bin = get.octets("in_bin")
        self.out_bin = get.octets("out_bin")
        extra = fields.get("ttyscribe")
        self.extra: dict[str, object] | None = extra if isinstance(extra, dict) else None

    def _take_usual(self, fields: dict[str, object]) -> bool:
        """Take the fields of a message as they mostly are; False for any other, to be checked.

        Nearly all messages of a long recording are such: text, and no odd bytes.
        """
        try:
            values = _USUAL(fields)
        except KeyError:
            return False
        if tuple(map(type, values)) != _USUAL_TYPES:
            return False
        (
            ver, self.rec, self.id, self.host, self.user, self.term, self.session, self.pos,
            self.time, self.timing, self.in_txt, self._out_txt, in_bin, out_bin,
        ) = values  # fmt: skip
        if ver != "2.3" or in_bin or out_bin or self.id < 1 or self.session < 0 or self.pos < 0:
            return False
        self.ver = (2, 3)
        self.in_bin = self.out_bin = b""
        extra = fields.get("ttyscribe")
        self.extra = extra if isinstance(extra, dict) else None
        return True

    @property
    def out_txt(self) -> str:
        return self._out_txt if self.out is None else self.out[0].decode()

    def fail(self, problem: str) -> NoReturn:
        """Raise FormatError with this message's place in front."""
        raise FormatError(_place(self.where, self.rec, self.id) + problem)


def parse(data: bytes, where: str) -> ParsedMessage:
    """Parse and check one JSON object. Raises FormatError that names where, rec and id."""
    out = None
    if len(data) >= _LARGE and data.endswith(_OUT_END):
        # The message of bulk output: its text is taken by itself, which is twice as fast. A
        # quote within a string is escaped, so this begins no other member than out_txt.
        at = data.find(_OUT)
        if at >= 0:
            out = unescape(data, at + len(_OUT), len(data) - len(_OUT_END))
            if out is not None:
                data = data[:at] + _OUT + _OUT_END
    try:
        fields = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise FormatError(f"{where}: not a tlog message: not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise FormatError(f"{where}: not a tlog message: not a JSON object")
    return ParsedMessage(where, fields, out)


class Decoder:
    """Decodes the messages of one recording, in order.

    has_bytes tells whether any output so far was bytes: without, all of it is UTF-8.
    With lax, gaps and steps in the message ids are passed over. With partial, the
    recording's beginning may be missing, but nothing behind it.
    """

    def __init__(self, lax: bool = False, partial: bool = False) -> None:
        self.lax = lax
        self.has_bytes = False
        self._id: int | None = None if partial else 0
        self._pos = 0
        self._window = ""

    def decode(self, message: ParsedMessage) -> list[Event]:
        """The events of message: (nanoseconds since the recording began, kind, data).

        A window size is an event where it changes, not where a message repeats it.
        Raises FormatError for ids or positions out of order and timing that lies.
        """
        self._check_order(message)
        timing = message.timing
        in_ = message.in_txt
        out_bin, in_bin = message.out_bin, message.in_bin
        if (
            message.out is not None
            and timing == f"={self._window}>{message.out[1]}"
            and self._window
            and not (in_ or out_bin or in_bin)
        ):
            # One piece of output, as bulk output is.
            return [(message.pos * 1_000_000, OUTPUT, message.out[0])]
        out = message.out_txt
        if out_bin:
            self.has_bytes = True
        out_at = in_at = out_bin_at = in_bin_at = at = 0
        now = message.pos
        events: list[Event] = []
        for match in _RECORD.finditer(timing):
            start, end = match.span()
            if start != at:
                break
            at = end
            mark, count, bytes_mark, replaced, size, window = match.groups()
            if mark == ">":
                till = out_at + int(count)
                piece = out[out_at:till]
                out_at = till
                if till > len(out):
                    message.fail("timing asks for more output text than there is")
                events.append((now * 1_000_000, OUTPUT, piece.encode()))
            elif mark == "+":
                now += int(count)
            elif mark == "<":
                till = in_at + int(count)
                piece = in_[in_at:till]
                in_at = till
                if till > len(in_):
                    message.fail("timing asks for more input text than there is")
                events.append((now * 1_000_000, INPUT, piece.encode()))
            elif bytes_mark == "]":
                out_at += int(replaced)
                till = out_bin_at + int(size)
                if out_at > len(out) or till > len(out_bin):
                    message.fail("timing asks for more output bytes than there are")
                events.append((now * 1_000_000, OUTPUT, out_bin[out_bin_at:till]))
                out_bin_at = till
            elif bytes_mark == "[":
                in_at += int(replaced)
                till = in_bin_at + int(size)
                if in_at > len(in_) or till > len(in_bin):
                    message.fail("timing asks for more input bytes than there are")
                events.append((now * 1_000_000, INPUT, in_bin[in_bin_at:till]))
                in_bin_at = till
            elif window != self._window:
                self._window = window
                events.append((now * 1_000_000, WINDOW, window.encode()))
        if at != len(timing):
            message.fail(f"timing does not parse at '{printable(timing[at : at + 20])}'")
        if out_at != len(out) or in_at != len(in_):
            message.fail("timing leaves text over")
        if out_bin_at != len(out_bin) or in_bin_at != len(in_bin):
            message.fail("timing leaves bytes over")
        return events

    def _check_order(self, message: ParsedMessage) -> None:
        last = self._id
        if last is not None and message.id != last + 1 and not self.lax:
            if message.id > last:
                gap = f"message {last + 1}"
                if message.id > last + 2:
                    gap = f"messages {last + 1} to {message.id - 1}"
                message.fail(f"{gap} missing before it; --lax plays what there is")
            message.fail(f"its id steps back after {last}; --lax plays what there is")
        self._id = message.id
        if message.pos < self._pos:
            message.fail(f"its pos {message.pos} ms goes back behind {self._pos} ms")
        self._pos = message.pos


def _version(get: _Getter) -> tuple[int, int]:
    version = get.fields.get("ver")
    text = version if isinstance(version, str) else repr(version)
    match = re.fullmatch(r"([0-9]{1,6})(?:\.([0-9]{1,6}))?", text)
    if match is None:
        get.fail("ver", "is missing" if version is None else "is not a version such as \"2.3\"")
    major, minor = int(match[1]), int(match[2] or 0)
    if major != 2:
        get.fail("ver", f"is {major}.{minor}; this player reads versions 2.x")
    return major, minor


class _Getter:
    """Typed access to a message's fields, with errors that name the field."""

    __slots__ = ("fields", "where")

    def __init__(self, where: str, fields: dict[str, object]) -> None:
        self.where = where
        self.fields = fields

    def fail(self, name: str, problem: str) -> NoReturn:
        rec, number = self.fields.get("rec"), self.fields.get("id")
        place = _place(
            self.where,
            rec if isinstance(rec, str) else "",
            number if isinstance(number, int) else None,
        )
        raise FormatError(f"{place}not a tlog message: '{name}' {problem}")

    def text(self, name: str, default: str | None = None) -> str:
        value = self.fields.get(name, default)
        if type(value) is str:
            return value
        self.fail(name, "is missing" if value is None else "is not text")

    def whole(self, name: str) -> int:
        value = self.fields.get(name)
        # bool is an int to Python, and not a number to JSON.
        if type(value) is int and value >= 0:
            return value
        self.fail(name, "is missing" if value is None else "is not a whole number from 0 up")

    def number(self, name: str) -> float | None:
        value = self.fields.get(name)
        if value is None or type(value) is float:
            return value
        if type(value) is int:
            return float(value)
        self.fail(name, "is not a number")

    def octets(self, name: str) -> bytes:
        value = self.fields.get(name)
        if value == []:
            return b""
        if type(value) is list and all(type(octet) is int for octet in value):
            try:
                return bytes(value)
            except ValueError:
                pass
        self.fail(name, "is missing" if value is None else "is not an array of numbers 0 to 255")


def _place(where: str, rec: str, number: int | None) -> str:
    """ "FILE:LINE: recording REC, message ID: " with what is known."""
    place = f"{where}: "
    if rec:
        place += f"recording {printable(rec)}, "
    if number is not None:
        place += f"message {number}, "
    return place[:-2] + ": "
