# SPDX-License-Identifier: Apache-2.0
"""What of a recording is not sent on to the auditor's terminal.

A terminal answers queries as if they were typed, and some sequences reach
further: the clipboard, files, printers, programmed keys. All of these are taken
out; each is replaced by CAN, which does nothing but end a sequence in progress, so that
what is left can't join into a new one:

- ENQ (answerback), which simply vanishes
- CSI: device attributes (c, >c, =c), status reports (n, ?n), parameters (x),
  mode reports ($p), kitty keyboard query (?u), version (>q), checksums (*y, #y is kept), tests
  (y), presentation and terminal state ($w, $u, &u), locator ('w 'z '{ '|), "v, graphics
  (?S), title position and stacks (#S #R #|), key options (?m ?g), media copy (i, ?i),
  macro call (*z), and window operations (t) other than pushing and popping the title
- CSI 2 h (locks the keyboard)
- ESC Z (identify), ESC % (another encoding), ESC SP (keys' sequences in 8-bit form)
- OSC: clipboard (52, 5522), log and dump files (46, 55), programs' own extensions that
  notify, run or store (9, 99, 777, 1337), and queries of colours, fonts,
  pointers and properties (a "?" in 3-5, 10-19, 21, 22, 50, 60-69, 70x)
- DCS: settings and termcap queries ($q, +q, +p), programmed keys and replies (|),
  macros (!z), ReGIS (p)
- APC: all (kitty graphics reads files and replies)
- the C1 controls that introduce sequences, where encoded as UTF-8, and bytes from 80 to 9F
  that belong to no UTF-8 character: some terminals take them for C1 controls

References: XTerm Control Sequences (ctlseqs), the DEC VT510 manual, the kitty protocols.
"""

from __future__ import annotations

import re

from ttyscribe.tlog.escape import valid

# No sequence of a real program is longer, where it has to be seen whole.
LIMIT = 4096

_CAN = b"\x18"
# Controls within a sequence are carried out, or ignored, without ending it. CAN,
# SUB and ESC do end it.
_J = rb"[\x00-\x17\x19\x1c-\x1f\x7f]*+"
_ESC = rb"\x1b" + _J
_PARAMS = rb"[\x00-\x17\x19\x1c-\x3f\x7f]"
# What comes between an escape and the end of a sequence that is no CSI.
_BETWEEN = rb"[\x00-\x17\x19\x1c-\x2f\x7f]"
# Bodies of strings, without and with BEL; the UTF-8 form of the terminator ST ends them too.
# Not "(...)*+", behind which CPython 3.11 may lose the group that matched the terminator.
_OSC_BODY = (
    rb"[^\x07\x18\x1a\x1b\xc2]*+(?>(?:\xc2(?!\x9c|\Z)[^\x07\x18\x1a\x1b\xc2]*+)*)"
)
_BODY = rb"[^\x18\x1a\x1b\xc2]*+(?>(?:\xc2(?!\x9c|\Z)[^\x18\x1a\x1b\xc2]*+)*)"
_ST = rb"\x1b\\|\xc2\x9c|(?=[\x18\x1a])|(?=\x1b[^\\])"
_OSC_END = rb"(?P<osc_end>\x07|" + _ST + rb")?"
_END = rb"(?P<end>" + _ST + rb")?"
_SUSPECT = re.compile(
    _ESC
    + rb"(?:"
    + rb"\[(?:(?P<csi>"
    + (_J + rb"[?#]" + _PARAMS + rb"*+[cnmguSR|p]|")
    + (_PARAMS + rb"*+[cnxtpuqywvizR|{]|[\x00-\x17\x19\x1c-\x3b\x7f]*+h")
    + rb")|(?P<long>"
    + _PARAMS
    + rb"{%d,}+))" % LIMIT
    + rb"|\](?P<osc>(?=["
    + rb"0-9\x00-\x06\x08-\x17\x19\x1c-\x1f\x7f])"
    + _OSC_BODY
    + rb")"
    + _OSC_END
    + rb"|P(?P<dcs>"
    + _PARAMS
    + rb"*+[|pqz])"
    + _BODY
    + _END
    + rb"|P"
    + _PARAMS
    + rb"{%d,}+" % LIMIT
    + rb"|(?P<apc>_)"
    + _BODY
    + _END.replace(b"end", b"apc_end")
    + rb"|Z|[ %]"
    + _BETWEEN
    + rb"*+(?:[\x30-\x7e]|(?=[\x80-\xff]))|[ %]"
    + _BETWEEN
    + rb"{%d,}+)" % LIMIT
    + rb"|\x1b[\x00-\x17\x19\x1c-\x1f\x7f]{%d,}+" % LIMIT
)
# A sequence that has begun and may be one of these once the rest comes.
_INCOMPLETE = re.compile(
    rb"(?:"
    + _ESC
    + rb"(?:|\["
    + _PARAMS
    + rb"*+|P"
    + _PARAMS
    + rb"*+|[ %]"
    + _BETWEEN
    + rb"*+|\]"
    + _J
    + rb"(?:[0-9]"
    + _OSC_BODY
    + rb")?(?:\x1b|\xc2)?))\Z"
)
# A character of UTF-8, or a byte of none that is a C1 control in an 8-bit encoding.
_CHARACTER = re.compile(
    rb"[\xc2-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]|[\xe1-\xec\xee\xef][\x80-\xbf]{2}"
    rb"|\xed[\x80-\x9f][\x80-\xbf]|\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf3][\x80-\xbf]{3}"
    rb"|\xf4[\x80-\x8f][\x80-\xbf]{2}|(?P<lone>[\x80-\x9f])"
)
# A character that has begun.
_BEGUN = re.compile(
    rb"(?:[\xc2-\xdf]|\xe0[\xa0-\xbf]?|[\xe1-\xec\xee\xef][\x80-\xbf]?|\xed[\x80-\x9f]?"
    rb"|\xf0(?:[\x90-\xbf][\x80-\xbf]?)?|[\xf1-\xf3][\x80-\xbf]{0,2}"
    rb"|\xf4(?:[\x80-\x8f][\x80-\xbf]?)?)\Z"
)
_C1 = re.compile(rb"\xc2[\x90\x98\x9a\x9b\x9d-\x9f]")
_OSC_SKIP = re.compile(_OSC_BODY + _OSC_END)
_SKIP = re.compile(_BODY + _END)
_IGNORED = bytes([*range(0x18), 0x19, *range(0x1C, 0x20), 0x7F])

_CSI = {
    b"c", b">c", b"=c", b"n", b"?n", b"x", b"$p", b"?$p", b"?u", b">q", b"*y", b"y", b"$w", b"$u",
    b"&u", b"'w", b"'z", b"'{", b"'|", b'"v', b"?S", b"#S", b"#R", b"#|", b"?m", b"?g", b"i",
    b"?i", b"*z",
}  # fmt: skip
_TITLE_STACK = (b"22", b"23")
_DCS = {b"$q", b"+q", b"+p", b"!z", b"p"}
_OSC_NEVER = {9, 46, 52, 55, 99, 777, 1337, 5522}
_OSC_QUERIED = {3, 4, 5, *range(10, 20), 21, 22, 50, *range(60, 70), *range(700, 710)}


class TerminalFilter:
    """Takes queries and harmful sequences out of a stream of output.

    The pieces may be split anywhere: only an incomplete sequence is held back, and
    no more than LIMIT bytes. What comes out ends between two sequences, or in one
    that the next escape breaks off.
    """

    def __init__(self) -> None:
        self._pending = b""
        # The first bytes of a character.
        self._begun = b""
        # Within a string that is left out: the pattern of its rest.
        self._skipping: re.Pattern[bytes] | None = None

    def feed(self, data: bytes, text: bool = False) -> bytes:
        """The part of the stream so far that may be sent on; text tells that all is UTF-8."""
        if not text and (self._begun or not data.isascii()):
            data = self._without_lone_c1(data)
        if self._pending:
            data = self._pending + data
            self._pending = b""
        if b"\x05" in data:
            data = data.replace(b"\x05", b"")
        if self._skipping is not None:
            data = self._skip(data, self._skipping)
            if self._skipping is not None:
                return b""
        if b"\x1b" in data:
            data = _SUSPECT.sub(self._judge, data)
            if self._skipping is not None:
                # The unfinished string was the end, but for a byte of its terminator.
                cut = data.rfind(_CAN) + 1
            else:
                # None begins before the last escape, but for one that is the last byte.
                last = data.rfind(b"\x1b", max(0, len(data) - LIMIT), -1)
                found = _INCOMPLETE.search(data, last if last >= 0 else max(0, len(data) - 1))
                cut = len(data) if found is None else found.start()
            self._pending = data[cut:]
            data = data[:cut]
        if b"\xc2" in data:
            data = _C1.sub(_CAN, data)
        return data

    def finish(self) -> bytes:
        """What was held back, at the end; a sequence that never ended is left out."""
        rest = self._pending + _CHARACTER.sub(_without_lone, self._begun)
        self._pending = self._begun = b""
        return b"" if self._skipping is not None or b"\x1b" in rest else rest

    def _without_lone_c1(self, data: bytes) -> bytes:
        """data up to its last whole character, without what is a C1 control by itself."""
        data = self._begun + data
        self._begun = b""
        end = valid(data)
        if end == len(data):
            return data
        begun = _BEGUN.search(data, max(0, len(data) - 3))
        if begun is not None:
            self._begun = begun[0]
            data = data[: begun.start()]
        return data if end == len(data) else _CHARACTER.sub(_without_lone, data)

    def _skip(self, data: bytes, pattern: re.Pattern[bytes]) -> bytes:
        """Pass over the rest of a string; what follows it."""
        match = pattern.match(data)
        assert match is not None  # it matches nothing, too
        if match.lastgroup is None:
            self._pending = data[match.end() :]
            return b""
        self._skipping = None
        return data[match.end() :]

    def _judge(self, match: re.Match[bytes]) -> bytes:
        if match["csi"] is not None:
            return _CAN if _is_harmful_csi(match["csi"]) else match[0]
        if match["osc"] is not None:
            return self._judge_osc(match)
        if match["dcs"] is not None:
            head = match["dcs"].translate(None, _IGNORED).lstrip(b"0123456789:;<=>?")
            if head not in _DCS and not head.endswith(b"|"):
                return match[0]
            if match["end"] is None:
                self._skipping = _SKIP
        elif match["apc"] is not None and match["apc_end"] is None:
            self._skipping = _SKIP
        return _CAN

    def _judge_osc(self, match: re.Match[bytes]) -> bytes:
        body = match["osc"].translate(None, _IGNORED)
        digits = body[: len(body) - len(body.lstrip(b"0123456789"))]
        # More digits than any number has, which int() would be slow to read.
        number = int(digits) if 0 < len(digits) <= 9 else -1
        ended = match["osc_end"] is not None
        if len(digits) == len(body) and not ended:
            # Which one it is comes later; not that late.
            harmful = len(match[0]) > LIMIT
        elif number in _OSC_QUERIED:
            harmful = len(match[0]) > LIMIT or b"?" in body
        else:
            harmful = number in _OSC_NEVER or len(digits) > 9
        if not harmful:
            return match[0]
        if not ended:
            self._skipping = _OSC_SKIP
        return _CAN


def _without_lone(match: re.Match[bytes]) -> bytes:
    return match[0] if match["lone"] is None else _CAN


def _is_harmful_csi(sequence: bytes) -> bool:
    plain = sequence.translate(None, _IGNORED)
    params = plain.rstrip(
        b" !\"#$%&'()*+,-./@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~"
    )
    kind = plain[len(params) :]
    if kind == b"t":
        return params.split(b";")[0].lstrip(b"0") not in _TITLE_STACK and params[:1] != b">"
    if kind == b"h":
        return any(number.lstrip(b"0") == b"2" for number in re.split(b"[;:]", params))
    mark = next((bytes([byte]) for byte in params if byte in b"<=>?"), b"")
    return mark + kind in _CSI
