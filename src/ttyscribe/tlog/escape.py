# SPDX-License-Identifier: Apache-2.0
"""JSON strings with only what JSON requires escaped, in one call into C.

orjson is several times faster than the standard library, but importing it
takes longer than a whole login. So short sessions use the standard library's
encoder, and the encoder switches over once a session has written enough to
pay for the import. Both give the same bytes; a property test holds them to it.
"""

from __future__ import annotations

import sys
from _json import encode_basestring

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


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


def fast() -> Callable[[str], bytes]:
    """The same by orjson where it is installed."""
    try:
        from orjson import dumps
    except ImportError:
        return light
    return dumps


def cheapest() -> Callable[[str], bytes]:
    """The fast one if its import is already paid for (as in the service), else the light one."""
    return fast() if "orjson" in sys.modules else light
