# SPDX-License-Identifier: Apache-2.0
"""Points in time as journalctl takes them (man systemd.time), and tlog's epoch seconds."""

from __future__ import annotations

import re
import time
from datetime import datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from ttyscribe.errors import UsageError

# Seconds by unit, from the manual page of systemd.time.
_UNITS = {
    1e-6: "usec us µs μs",
    1e-3: "msec ms",
    1.0: "seconds second sec s",
    60.0: "minutes minute min m",
    3600.0: "hours hour hr h",
    86400.0: "days day d",
    604800.0: "weeks week w",
    2629800.0: "months month M",
    31557600.0: "years year y",
}
_SECONDS = {name: seconds for seconds, names in _UNITS.items() for name in names.split()}
_SPAN = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([^\W\d_]*)")
_EPOCH = re.compile(r"[0-9]+(\.[0-9]+)?")
_DATE = re.compile(
    r"(?:(?P<weekday>[A-Za-z]{3,9}),? )?"
    r"(?:(?P<year>[0-9]{4}|[0-9]{2})-(?P<month>[0-9]{1,2})-(?P<day>[0-9]{1,2}))?"
    r"(?:(?:^|[ T])(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{1,2})"
    r"(?::(?P<second>[0-9]{1,2})(?P<fraction>\.[0-9]{1,9})?)?)?"
)
_DAYS = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]


def parse_time(text: str, now: float | None = None) -> float:
    """Seconds since the epoch that text means; local time unless it names a zone.

    Takes epoch seconds ("1567504805", "@1567504805.5"), dates and times
    ("2019-09-03", "2019-09-03 10:00:05", "10:00", "2019-09-03 10:00 UTC"), words ("now",
    "today", "yesterday", "tomorrow"), and spans ("-20min", "+1h30m", "2d 3h ago",
    "5s left"). now is for tests. Raises UsageError.
    """
    if now is None:
        now = time.time()
    try:
        result = _parse(text.strip(), now)
        datetime.fromtimestamp(result)
    except (ValueError, KeyError, OverflowError, OSError):
        raise UsageError(
            f'\'{text}\' is no time; write epoch seconds, "2019-09-03 10:00:05", "yesterday"'
            ' or "-20min"'
        ) from None
    return result


def _parse(text: str, now: float) -> float:
    if text == "now":
        return now
    if _EPOCH.fullmatch(text):
        return float(text)
    if text.startswith("@"):
        return _span(text[1:])
    if text.startswith("+"):
        return now + _span(text[1:])
    if text.startswith("-"):
        return _not_negative(now - _span(text[1:]))
    if text.endswith(" ago"):
        return _not_negative(now - _span(text[:-4]))
    if text.endswith(" left"):
        return now + _span(text[:-5])
    return _calendar(text, now)


def _not_negative(seconds: float) -> float:
    return max(seconds, 0.0)


def _span(text: str) -> float:
    """A time span such as "1h 30m" in seconds; a bare number is seconds."""
    total = 0.0
    at = 0
    while at < len(text.rstrip()):
        match = _SPAN.match(text, at)
        if match is None:
            raise ValueError(text)
        total += float(match[1]) * (_SECONDS[match[2]] if match[2] else 1.0)
        at = match.end()
    if at == 0:
        raise ValueError(text)
    return total


def _calendar(text: str, now: float) -> float:
    text, zone = _zone(text)
    today = datetime.fromtimestamp(now, zone).replace(hour=0, minute=0, second=0, microsecond=0)
    words = {"today": 0, "yesterday": -1, "tomorrow": 1}
    if text in words:
        return (today + timedelta(days=words[text])).timestamp()
    match = _DATE.fullmatch(text)
    if match is None or (match["year"] is None and match["hour"] is None):
        raise ValueError(text)
    day = today
    if match["year"] is not None:
        day = today.replace(
            year=_year(match["year"]), month=int(match["month"]), day=int(match["day"])
        )
    second = int(match["second"] or 0)
    if second > 60:  # 60 is a leap second, as for journalctl
        raise ValueError(text)
    moment = day.replace(hour=int(match["hour"] or 0), minute=int(match["minute"] or 0))
    if match["weekday"] is not None and not _is_weekday(match["weekday"], moment):
        raise ValueError(text)
    return _not_negative(moment.timestamp()) + second + float(match["fraction"] or 0)


def _zone(text: str) -> tuple[str, tzinfo | None]:
    """Take a zone off the end: "UTC", "Z", or a name such as Europe/Berlin; None is local time."""
    if text.endswith("Z") and "T" in text:
        return text[:-1], ZoneInfo("UTC")
    head, space, last = text.rpartition(" ")
    if not space or ":" in last or "-" in last[:5]:
        return text, None
    if last in time.tzname and last != "UTC":
        return head, None
    if "/" not in last and last not in ("UTC", "GMT"):
        return text, None
    return head, ZoneInfo(last)


def _year(digits: str) -> int:
    # Two digits as strptime's %y reads them.
    year = int(digits)
    if len(digits) == 2:
        year += 1900 if year >= 69 else 2000
    return year


def _is_weekday(name: str, moment: datetime) -> bool:
    day = _DAYS[moment.weekday()]
    return name.lower() in (day, day[:3])
