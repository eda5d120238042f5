# SPDX-License-Identifier: Apache-2.0
"""Which of the service's children are recording, in memory that it shares with them.

A child that is killed can't tell any more, and its parent has to know what was lost.
"""

from __future__ import annotations

import mmap


class Marks:
    """One mark for each child; count is how many children there may be at once."""

    def __init__(self, count: int) -> None:
        self._memory = mmap.mmap(-1, max(count, 1))
        self._free = list(range(len(self._memory)))
        self._places: dict[int, int] = {}

    def next_place(self) -> int:
        """Where the next child's mark is, for the child to set."""
        return self._free[-1]

    def set(self, place: int, recording: bool) -> None:
        """Tell the parent whether what is recorded here depends on this process."""
        self._memory[place] = recording

    def add(self, pid: int) -> None:
        """A child was started, which has what next_place told."""
        self._places[pid] = self._free.pop()

    def remove(self, pid: int) -> bool:
        """A process has ended; whether it was a child that was still recording."""
        place = self._places.pop(pid, None)
        if place is None:
            return False
        was = bool(self._memory[place])
        self._memory[place] = False
        self._free.append(place)
        return was
