# SPDX-License-Identifier: Apache-2.0
"""What journald lets through: its namespace, its rate limit, and our share of it.

journald drops what one service sends beyond RateLimitBurst= messages within
RateLimitIntervalSec=, and tells nobody who sent them (journald.conf(5)). A
namespace has a journald of its own with a configuration of its own. All
recordings of a user count together, for they may run in one service; so what was
sent lately is in a file that their processes share.
"""

from __future__ import annotations

import fcntl
import os
import time
from _struct import Struct

PATH = "/run/systemd/journal/socket"
# Where journald.conf and its drop-ins are, the first folder with a name wins.
FOLDERS = (
    "/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd", "/lib/systemd",
)  # fmt: skip
# journald's own, in nanoseconds and messages.
DEFAULT = (30_000_000_000, 10_000)
# The rest is for others of the service, and for what journald reads later than it was sent.
SHARE = 0.8

# systemd.time(7)
_UNITS = {
    "us": 1_000, "usec": 1_000, "µs": 1_000, "ms": 1_000_000, "msec": 1_000_000,
    "": 1_000_000_000, "s": 1_000_000_000, "sec": 1_000_000_000, "second": 1_000_000_000,
    "seconds": 1_000_000_000, "m": 60_000_000_000, "min": 60_000_000_000,
    "minute": 60_000_000_000, "minutes": 60_000_000_000, "h": 3_600_000_000_000,
    "hr": 3_600_000_000_000, "hour": 3_600_000_000_000, "hours": 3_600_000_000_000,
    "d": 86_400_000_000_000, "day": 86_400_000_000_000, "days": 86_400_000_000_000,
}  # fmt: skip

# What was sent in each of the last parts of an interval: the part's number, and how many. One
# part more than an interval has, because the newest has only begun.
_PARTS = 16
_STATE = Struct("=" + "QI" * _PARTS)
# In the folder of the spool.
_FILE = "journal.sent"


def namespace(path: str = PATH) -> str:
    """The name of the journal namespace whose socket is at path; "" for the machine's own journal.

    A service with LogNamespace=NAME sees /run/systemd/journal.NAME in the place of
    /run/systemd/journal.
    """
    folder = os.path.dirname(path)
    above, name = os.path.split(folder)
    if name != "journal":
        return name.removeprefix("journal.") if name.startswith("journal.") else ""
    try:
        here = os.stat(folder)
        for other in os.listdir(above):
            if other.startswith("journal."):
                there = os.stat(f"{above}/{other}")
                if (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino):
                    return other.removeprefix("journal.")
    except OSError:
        pass
    return ""


def socket_of(name: str) -> str:
    """Where the journald of a namespace listens, as seen from here."""
    return f"/run/systemd/journal.{name}/socket" if name and name != namespace() else PATH


def rate_limit(name: str, folders: tuple[str, ...] = FOLDERS) -> tuple[int, int] | None:
    """Nanoseconds, and messages within them, as configured for a namespace; None if unlimited."""
    base = f"journald@{name}.conf" if name else "journald.conf"
    interval, burst = DEFAULT
    for path in _configuration(base, folders):
        for key, value in _settings(path):
            if key in ("RateLimitIntervalSec", "RateLimitInterval"):
                span = _span(value)
                interval = interval if span is None else span
            elif key == "RateLimitBurst" and value.isdecimal():
                burst = int(value)
    return (interval, burst) if interval and burst else None


class Budget:
    """How many messages may be sent now, for all processes that name the same folder.

    limit is rate_limit's. In no interval are more than SHARE of it sent.
    """

    def __init__(self, folder: str, limit: tuple[int, int]) -> None:
        interval, burst = limit
        self._most = max(1, int(burst * SHARE))
        self._part = max(1, interval // (_PARTS - 1))
        self._until = 0
        self._state = bytes(_STATE.size)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._fd = os.open(f"{folder}/{_FILE}", flags, 0o600)
        except OSError:
            self._fd = -1  # this process counts for itself

    @property
    def exhausted(self) -> bool:
        """Whether take was refused, and would be again."""
        return time.monotonic_ns() < self._until

    def take(self, wanted: int) -> int:
        """How many of the messages wanted may be sent; they count as sent."""
        if self.exhausted:
            return 0
        return self._change(wanted)

    def give_back(self, count: int) -> None:
        """So many of those taken were not sent."""
        if count:
            self._change(-count)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _change(self, wanted: int) -> int:
        if self._fd < 0:
            return self._count(wanted)
        # Freed by the kernel if its holder dies.
        fcntl.lockf(self._fd, fcntl.LOCK_EX)
        try:
            self._state = os.pread(self._fd, _STATE.size, 0).ljust(_STATE.size, b"\0")
            taken = self._count(wanted)
            os.pwrite(self._fd, self._state, 0)
        except OSError:
            # A full disk is no reason to lose count.
            self.close()
            return self._count(wanted)
        fcntl.lockf(self._fd, fcntl.LOCK_UN)
        return taken

    def _count(self, wanted: int) -> int:
        part = time.monotonic_ns() // self._part
        state = list(_STATE.unpack(self._state))
        # Numbers of another boot are out of bounds, or count for nothing worse than a pause.
        live = [
            (state[at], state[at + 1])
            for at in range(0, len(state), 2)
            if part - _PARTS < state[at] <= part and state[at + 1]
        ]
        taken: int = min(wanted, self._most - sum([count for _, count in live]))
        if taken <= 0 < wanted:
            oldest = min(live)[0] if live else part
            self._until = (oldest + _PARTS) * self._part
            return 0
        at = part % _PARTS * 2
        before = state[at + 1] if state[at] == part else 0
        state[at : at + 2] = part, max(0, before + taken)
        self._state = _STATE.pack(*state)
        return taken


def _configuration(base: str, folders: tuple[str, ...]) -> list[str]:
    """The files that make up journald's configuration, the later ones win."""
    paths = [path for folder in folders if os.path.exists(path := f"{folder}/{base}")][:1]
    drop_ins: dict[str, str] = {}
    for folder in folders:
        try:
            names = os.listdir(f"{folder}/{base}.d")
        except OSError:
            continue
        for name in names:
            if name.endswith(".conf"):
                drop_ins.setdefault(name, f"{folder}/{base}.d/{name}")
    return paths + [drop_ins[name] for name in sorted(drop_ins)]


def _settings(path: str) -> list[tuple[str, str]]:
    """The settings of the section [Journal]; none of a file that can't be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read(1 << 20).splitlines()
    except OSError:
        return []
    found = []
    section = ""
    for line in map(str.strip, lines):
        if line.startswith("["):
            section = line
        elif section == "[Journal]" and not line.startswith(("#", ";")):
            key, equals, value = line.partition("=")
            if equals:
                found.append((key.rstrip(), value.lstrip()))
    return found


def _span(text: str) -> int | None:
    """A time span such as "1min 30s", in nanoseconds; None if it is none."""
    total = 0
    rest = text.replace(" ", "")
    if not rest:
        return None
    while rest:
        digits = len(rest) - len(rest.lstrip("0123456789."))
        unit = digits
        while unit < len(rest) and rest[unit] not in "0123456789.":
            unit += 1
        try:
            total += int(float(rest[:digits]) * _UNITS[rest[digits:unit]])
        except (KeyError, ValueError):
            return None
        rest = rest[unit:]
    return total
