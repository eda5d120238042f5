# SPDX-License-Identifier: Apache-2.0
"""Where a playback is: recording time against the monotonic clock."""

from __future__ import annotations

import time

# The position after every event, whatever a recording claims.
END = 1 << 128
SPEED_MAX = 16.0
SPEED_MIN = 1 / 16


class Clock:
    """Runs through recording time, in nanoseconds, at speed times real time.

    A speed of 0 stands still, as a pause does.
    """

    def __init__(self, speed: float = 1.0, paused: bool = False) -> None:
        self.original = speed
        self.speed = speed
        self.paused = paused
        self._position = 0
        self._since = time.monotonic_ns()

    def position(self) -> int:
        """The recording time now."""
        if self.paused:
            return self._position
        return self._position + int((time.monotonic_ns() - self._since) * self.speed)

    def until(self, moment: int) -> float | None:
        """Seconds until recording time moment, at most an hour; None if time stands still."""
        ahead = moment - self.position()
        if ahead <= 0:
            return 0.0
        if self.paused or self.speed == 0:
            return None
        # A recording may claim any distance: it must not overflow a float or a wait.
        return min(min(ahead, 1 << 62) / 1e9 / self.speed, 3600.0)

    def jump(self, moment: int) -> None:
        """Be at recording time moment now."""
        self._position = moment
        self._since = time.monotonic_ns()

    def toggle_pause(self) -> None:
        self.jump(self.position())
        self.paused = not self.paused

    def set_speed(self, speed: float) -> None:
        """Go on from here at speed; the keys' limits are SPEED_MIN and SPEED_MAX."""
        self.jump(self.position())
        self.speed = speed

    def faster(self) -> None:
        self.set_speed(max(self.speed, min(self.speed * 2, SPEED_MAX)))

    def slower(self) -> None:
        self.set_speed(min(self.speed, max(self.speed / 2, SPEED_MIN)))


def parse_position(text: str) -> float:
    """Seconds of [[HH:]MM:]SS[.sss]; any part may be empty. Raises ValueError."""
    parts = text.split(":")
    if not text or len(parts) > 3:
        raise ValueError(text)
    total = 0.0
    for at, part in enumerate(parts):
        last = at == len(parts) - 1
        digits = part.replace(".", "", 1) if last else part
        if (digits or "0").isascii() and (digits or "0").isdecimal() and len(part) <= 15:
            total = total * 60 + (float(part) if digits else 0)
        else:
            raise ValueError(text)
    return total


def format_position(nanoseconds: int) -> str:
    """HH:MM:SS of recording time."""
    seconds = nanoseconds // 1_000_000_000
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
