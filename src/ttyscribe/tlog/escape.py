# SPDX-License-Identifier: Apache-2.0
"""JSON strings with only what JSON requires escaped.

fit is what the bytes of a session go through, unescape and valid those of a replay. They are
compiled from _text.c; where that was not done, the same in Python stands in, which gives
the same result several times slower: property tests hold them to it.
"""

from __future__ import annotations

from _codecs import utf_8_decode
from _json import encode_basestring

# What a character takes at the most: \u00XX.
_ESCAPE_MAX = 6


def light(text: str) -> bytes:
    """The JSON string of text in UTF-8, quotes included."""
    return encode_basestring(text).encode()


def value(item: object) -> bytes:
    """The JSON of text, numbers, booleans, None, and lists and mappings of these.

    The json module takes milliseconds to import, and a login needs one such value.
    """
    if isinstance(item, str):
        return light(item)
    if item is None:
        return b"null"
    if isinstance(item, bool):
        return b"true" if item else b"false"
    if isinstance(item, (int, float)):
        return repr(item).encode()
    if isinstance(item, dict):
        return b"{%b}" % b",".join([light(k) + b":" + value(v) for k, v in item.items()])
    if isinstance(item, (list, tuple)):
        return b"[%b]" % b",".join([value(part) for part in item])
    raise TypeError(f"no JSON for {type(item).__name__}")


def portable_fit(data: bytes, at: int, room: int) -> tuple[bytes, int, int, bool]:
    """(text, count, end, full): the characters that the UTF-8 data holds from at on.

    They are as many as take at most room bytes as the text of a JSON string: that text,
    their count, where in data they end, and whether it was room that ended them, and not
    the end of data, invalid bytes or a cut-off character.
    """
    room = max(room, 0)
    # No character takes less than its own bytes, and none has more than four.
    piece = data[at : at + room + 4]
    try:
        text = utf_8_decode(piece, "strict", False)[0]
    except UnicodeDecodeError as error:
        text = utf_8_decode(piece[: error.start], "strict", True)[0]
    encoded = light(text)[1:-1]
    count, size = len(text), len(encoded)
    while size > room:
        # Never more characters than have to go.
        drop = max((size - room) // _ESCAPE_MAX, 1)
        size -= len(light(text[count - drop : count])) - 2
        count -= drop
    return encoded[:size], count, at + len(text[:count].encode()), count < len(text)


def portable_unescape(data: bytes, begin: int, end: int) -> tuple[bytes, int] | None:
    """(text, count): what the text of a JSON string stands for, which is data from begin to end.

    In UTF-8, and its count of characters; None if it is no such text.
    """
    from orjson import JSONDecodeError, loads

    try:
        text = loads(b'"%b"' % data[begin:end])
    except JSONDecodeError:
        return None
    return text.encode(), len(text)


def portable_valid(data: bytes) -> int:
    """Where the whole characters of UTF-8 that data begins with end."""
    try:
        return utf_8_decode(data, "strict", False)[1]
    except UnicodeDecodeError as error:
        return error.start


try:
    from ttyscribe.tlog._text import fit, unescape, valid
except ImportError:
    fit, unescape, valid = portable_fit, portable_unescape, portable_valid

__all__ = [
    "fit", "light", "portable_fit", "portable_unescape", "portable_valid", "unescape", "valid",
    "value",
]  # fmt: skip
