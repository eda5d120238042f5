# SPDX-License-Identifier: Apache-2.0
"""The playback keys: what is typed, into commands.

Escape sequences are recognised whole, so that mouse and focus reports and late
replies of the terminal are not taken for keys. Keys that a recorded program had the
terminal encode (kitty's keyboard protocol, xterm's modifyOtherKeys) are decoded.
"""

from __future__ import annotations

import re
import time
from typing import NamedTuple

from ttyscribe.player.clock import parse_position


class Command(NamedTuple):
    """What a key asks for; seconds is for "goto" (a position) and "move" (a distance)."""

    action: str
    seconds: float = 0.0


_KEYS = {
    " ": Command("pause"),
    "p": Command("pause"),
    "}": Command("faster"),
    "{": Command("slower"),
    "\x7f": Command("normal"),
    "\x08": Command("normal"),
    ".": Command("step"),
    "?": Command("status"),
    "q": Command("quit"),
    # Only where a recorded program had Ctrl-C encoded does it come as a key.
    "\x03": Command("quit"),
}
_ARROWS = {
    "A": Command("move", 60.0),
    "B": Command("move", -60.0),
    "C": Command("move", 5.0),
    "D": Command("move", -5.0),
}
_SEQUENCE = re.compile(
    r"\x1b(?:"
    r"\[M...|"  # a mouse report of X10
    r"\[(?!M)(?P<params>[0-?]*)[ -/]*(?P<final>[@-~])|"
    r"O[0-?]*(?P<ss3>[@-~])|"
    r"[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)|"
    r"[^\[O\]PX^_\x1b])",
    re.DOTALL,
)
# An escape that stays alone this long was the Escape key.
_ESCAPE_SECONDS = 0.1
_SEQUENCE_MAX = 4096


class Keys:
    """Collects what is typed; partial times and sequences wait for the rest."""

    def __init__(self) -> None:
        self._pending = ""
        self._time = ""
        self._last = 0.0

    def feed(self, data: bytes) -> list[Command]:
        """The commands that data completes, in order."""
        now = time.monotonic()
        if now - self._last > _ESCAPE_SECONDS:
            self._pending = ""
        self._last = now
        text = self._pending + data.decode("utf-8", "replace")
        self._pending = ""
        commands = []
        at = 0
        while at < len(text):
            if text[at] != "\x1b":
                commands += self._key(text[at])
                at += 1
                continue
            match = _SEQUENCE.match(text, at)
            if match is not None:
                commands += self._sequence(match)
                at = match.end()
            elif text.startswith("\x1b\x1b", at):
                at += 1
            else:
                if len(text) - at <= _SEQUENCE_MAX:
                    self._pending = text[at:]
                break
        return commands

    def _sequence(self, match: re.Match[str]) -> list[Command]:
        params, final = match["params"] or "", match["final"] or match["ss3"]
        if final in _ARROWS and params[:1] in ("", "1"):
            self._time = ""
            return [] if params.endswith(":3") else [_ARROWS[final]]
        code = ""
        if final == "u" and not params.endswith(":3"):  # kitty; 3 is a key's release
            code = params.split(";")[0].split(":")[0]
            if _modifiers(params) & 4 and code == "99":
                code = "3"
        elif final == "~" and params.startswith("27;"):  # modifyOtherKeys
            code = params.split(";")[-1]
        if code.isdecimal() and len(code) < 7 and int(code) < 0x110000:
            return self._key(chr(int(code)))
        return []

    def _key(self, key: str) -> list[Command]:
        if key in "0123456789:":
            self._time = (self._time + key)[-15:]
            return []
        typed, self._time = self._time, ""
        if key == "G":
            if not typed:
                return [Command("end")]
            try:
                return [Command("goto", parse_position(typed))]
            except ValueError:
                return []
        command = _KEYS.get(key)
        return [] if command is None else [command]


def _modifiers(params: str) -> int:
    """kitty's modifier bits, which it sends plus one."""
    fields = params.split(";")
    bits = fields[1].split(":")[0] if len(fields) > 1 else ""
    return int(bits) - 1 if bits.isdecimal() and len(bits) < 5 else 0
