# SPDX-License-Identifier: Apache-2.0
"""The user's keyboard: whether it is read now, and that what is typed goes on in its order."""

from __future__ import annotations

import os
import select
import termios

from ttyscribe.terminal.raw import (
    LINE,
    as_typed,
    is_emptied,
    reads_lines,
    set_echo,
    take_input,
    unfinished_line,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ttyscribe.session.keys import SignalKeys
    from ttyscribe.session.relay import Relay

# How often is looked whether the user's terminal can be had, in nanoseconds.
_LOOK_EVERY = 1_000_000_000

_LFLAG, _CC = 3, 6


def _nothing() -> None:
    """There is nothing to do."""


def _always() -> bool:
    return True


class Keyboard:
    """What relay carries: from the user's terminal to the shell's pty.

    clock tells the time in nanoseconds. listen is called when it is to be read again, or no
    more (held), and pass_on with what is not read in its turn.
    """

    def __init__(
        self,
        relay: Relay,
        clock: Callable[[], int],
        listen: Callable[[], None],
        pass_on: Callable[[bytes], None],
    ) -> None:
        self.relay = relay
        # Whether nothing that is typed is taken, for it could not be recorded.
        self.frozen = False
        # Whether what is passed on has been shown, though the pty does not show it.
        self.is_shown = False
        # Where others have the terminal's keys too.
        self.keys: SignalKeys | None = None
        # Asked before what is typed is read, whether it is for the session: else it is left.
        self.is_ours: Callable[[], bool] = _always
        # Called when it is not.
        self.on_lost: Callable[[], None] = self._lose
        self._clock = clock
        self._listen = listen
        self._pass_on = pass_on
        self._left = False
        self._look: Callable[[], None] = _nothing
        self._look_at = 0
        # Read, and not known to be what comes next.
        self._typed = b""

    @property
    def held(self) -> bool:
        """Whether it is not to be read now."""
        return self._left or bool(self._typed)

    def leave(self, look: Callable[[], None] = _nothing) -> None:
        """Leave what is typed to whoever has the user's terminal meanwhile.

        look is called once a second until it is taken again.
        """
        self._leave(True, look)

    def take(self) -> None:
        """Read what is typed again."""
        self._leave(False, _nothing)

    def read_ahead(self, slave: int) -> None:
        """Pass on what was typed before the terminal is raw: lines, the beginning of one, and
        ends of file.

        Those are no bytes, and would be lost when the mode changes. The terminal has shown
        all of it: the pty, whose other end is slave, does not show it again.
        """
        fd = self.relay.fd
        mode = termios.tcgetattr(fd)
        if not mode[_LFLAG] & termios.ICANON:
            return
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        typed = b""
        while poll.poll(0) == [(fd, select.POLLIN)]:
            try:
                data = os.read(fd, LINE)
            except OSError:
                break  # somebody else was first, or the terminal is gone
            ends = data.endswith(b"\n") or len(data) == LINE
            typed += as_typed(data, mode) + (b"" if ends else mode[_CC][termios.VEOF])
        typed += as_typed(unfinished_line(fd, mode), mode)
        if not typed:
            return
        echo = set_echo(slave, 0)
        self.is_shown = bool(echo)
        self._pass_on(typed)
        take_input(slave)
        set_echo(slave, echo)
        self.is_shown = False

    def read(self) -> bytes | None:
        """What is typed and comes next: b"" at the end, None if there is nothing now."""
        # A key that sends a signal may have dropped what was reported, and a read would wait.
        emptied = self.keys is not None and is_emptied(self.relay.fd)
        if not self.is_ours() or (emptied and reads_lines(self.relay.fd)):
            self.on_lost()
            return None
        data = None if emptied else self.relay.read()
        if data and self.keys is not None and not self.keys.typed_before():
            self._typed = data
            self._listen()
            return None
        return data

    def keys_typed(self) -> None:
        """All is typed that was pressed before what was read last."""
        data, self._typed = self._typed, b""
        if data and not self.relay.closed:
            self._listen()
            self._pass_on(data)

    def type_key(self, number: int) -> None:
        """Type the key that sends this signal: it did so at the user's terminal."""
        # As a terminal that has no room left: what is not read takes no more.
        if self.keys is None or self.relay.closed or self.relay.paused or self.frozen:
            return
        key = self.keys.typed(number)
        if key:
            self._pass_on(key)

    def signal_job(self, number: int) -> None:
        """Send the shell's job what was sent to all of ours."""
        if self.keys is not None and not self.relay.closed:
            self.keys.signal_job(number)

    def follow(self, busy: bool) -> None:
        """Once in each turn of the pump: busy is whether something has come."""
        if self.keys is not None and not self._left:
            self.keys.follow(self._clock(), busy)
            # What its keys stop need not be us.
            if not busy and not self.is_ours():
                self.on_lost()
        if self._look is not _nothing and self._clock() >= self._look_at:
            self._look_at = self._clock() + _LOOK_EVERY
            self._look()

    def due(self) -> int | None:
        """When the next turn is to come at the latest."""
        if self._look is not _nothing:
            return self._look_at
        return self.keys.due() if self.keys is not None and not self._left else None

    def _leave(self, left: bool, look: Callable[[], None]) -> None:
        self._left = left
        self._look = look
        self._look_at = self._clock() + _LOOK_EVERY
        self._listen()

    def _lose(self) -> None:
        self.leave(self._look_for_it)

    def _look_for_it(self) -> None:
        if self.is_ours():
            self.take()
