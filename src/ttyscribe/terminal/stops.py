# SPDX-License-Identifier: Apache-2.0
"""Stops that a key has made, which nobody may wait for (launcher/waiting.h has the same)."""

from __future__ import annotations

import time

# So long after its key a stop of the shell is taken for that key's, in seconds.
_PATIENCE = 1.0


class Stops:
    """Tells a stop of the shell that is a key's from others.

    The key stops the others of our job at once, and the shell once it is typed at its pty. By
    then whoever started the job may have seen it stop, and taken the terminal; and may even
    have woken it again, and us who have not stopped yet. Nobody would wake us after that.
    """

    def __init__(self) -> None:
        self._awaited = 0.0
        self._overtaken = 0.0

    def typed(self) -> None:
        """The key is typed that stops the shell."""
        self._awaited = time.monotonic() + _PATIENCE

    def woken(self) -> None:
        """We are."""
        self._overtaken = self._awaited

    @property
    def is_of_key(self) -> bool:
        """Whether the shell, which has stopped, did so for a key."""
        return time.monotonic() < self._awaited

    @property
    def is_overtaken(self) -> bool:
        """Whether it was to be woken again by now."""
        return time.monotonic() < self._overtaken

    def over(self) -> None:
        """What that stop brought is done."""
        self._awaited = self._overtaken = 0.0
