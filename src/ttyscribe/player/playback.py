# SPDX-License-Identifier: Apache-2.0
"""Playing a recording on a terminal, at its own pace, under the keys' control."""

from __future__ import annotations

import os
import select
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NoReturn

from ttyscribe.errors import TtyscribeError
from ttyscribe.events import OUTPUT, WINDOW, window_size
from ttyscribe.player.clock import END, Clock, format_position
from ttyscribe.player.keys import Command, Keys

if TYPE_CHECKING:
    from ttyscribe.events import Event
    from ttyscribe.player.screen import Screen
    from ttyscribe.player.stream import Stream

_BATCH = 1 << 17
# Seconds between looks at a followed file, and redraws of the status line.
_INTERVAL = 0.2
_STATUS_SECONDS = 1.0
_SECOND = 1_000_000_000


class Quit(Exception):
    """The player is asked to end."""


class Rewind(Exception):
    """Play from the start up to where the playback shall be."""


class Playback:
    """Plays stream on screen.

    goto is the position in nanoseconds up to which nothing waits (END for all). idle_limit is
    the longest time, in seconds, that nothing happens. With persist, q is ignored.
    """

    def __init__(
        self,
        stream: Stream,
        screen: Screen,
        clock: Clock,
        goto: int = 0,
        idle_limit: float | None = None,
        persist: bool = False,
    ) -> None:
        self.stream = stream
        self.screen = screen
        self.clock = clock
        self.idle_limit = idle_limit
        self.persist = persist
        self._keys = Keys()
        # Events up to here are written without waiting.
        self._ahead = goto if goto > 0 else -1
        self._last = 0  # the event played last
        self._step = False
        self._status = False
        self._redraw = False
        self._window: tuple[int, int] | None = None
        self._advised = False
        # What is left to say, once the terminal is given back.
        self.advice = ""
        self._length: int | None = None
        self._out: list[bytes] = []
        self._size = 0

    def run(self) -> None:
        """Play to the end, or until q. Raises OSError, FormatError and ReaderError.

        What comes before an error in the recording is played.
        """
        while True:
            try:
                for events in self.stream.batches():
                    if events is None:
                        self._idle()
                    else:
                        self._play(events)
                self._flush()
                self._settle()
                return
            except Rewind:
                self._out = []
                self._size = 0
                self._last = 0
                self.screen.clear()
            except Quit:
                return
            except TtyscribeError:
                self._write()
                raise

    def redraw_soon(self) -> None:
        """Draw the screen anew at the next look at the keys: something else wrote on it."""
        self._redraw = True

    def _play(self, events: list[Event]) -> None:
        for time, kind, data in events:
            if time > self._ahead:
                self._wait_until(time)
            self._last = time
            if kind == OUTPUT:
                self._out.append(data)
                self._size += len(data)
                if self._size >= _BATCH:
                    self._flush()
            elif kind == WINDOW:
                self._write()
                self._resize(data, time <= self._ahead)

    def _wait_until(self, time: int) -> None:
        """Let the time pass until an event is due; keys may make it pass faster."""
        if self._ahead >= 0:
            self.clock.jump(min(self._ahead, time))
            self._ahead = -1
        clock = self.clock
        due = time
        limit = self.stream.idle_time_limit if self.idle_limit is None else self.idle_limit
        if limit:
            due = min(due, self._last + int(min(limit, 1e9) * _SECOND))
        if clock.until(due) == 0.0:
            self._catch_up(time)
            return
        self._flush()
        while (delay := clock.until(due)) != 0.0 and time > self._ahead:
            if self._step:
                self._step = False
                break
            self._wait_for_keys(delay)
            if 0 <= self._ahead < time:
                # Sought within this pause.
                clock.jump(self._ahead)
                self._ahead = -1
                due = time
        if time > self._ahead:
            self._catch_up(time)

    def _catch_up(self, time: int) -> None:
        """Be at time where the wait was cut short."""
        if self.clock.position() < time:
            self.clock.jump(time)

    def _idle(self) -> None:
        """Nothing more is there yet."""
        self._write()
        if self._ahead == END:
            # The end that is there now was asked for; what comes next has its own pace.
            self._ahead = -1
            self.clock.jump(self._last)
        self._wait_for_keys(_INTERVAL, self.stream.reader.descriptor())

    def _flush(self) -> None:
        """Write what is collected, and look at the keys."""
        self._write()
        self._wait_for_keys(0.0)

    def _write(self) -> None:
        if self._out:
            out = b"".join(self._out)
            self._out = []
            self._size = 0
            self.screen.write(out, hurry=self._ahead >= 0, text=not self.stream.has_bytes)
        if self._status:
            self.screen.show_status(self._status_text())

    def _resize(self, data: bytes, hurry: bool) -> None:
        self._window = window_size(data)
        if not self.screen.resize(*self._window, wait=not hurry):
            self._advise()

    def _settle(self) -> None:
        """At the end, see whether a size was taken that was asked for in a hurry."""
        if self._window is None or self._advised:
            return
        if not self.screen.resize(*self._window, wait=True):
            self.advice = _size_advice(self._window, self.screen.size())

    def _advise(self) -> None:
        """Say once which size the recording needs."""
        if self._advised or self._window is None:
            return
        self._advised = True
        print(_size_advice(self._window, self.screen.size()), end="\r\n", file=sys.stderr)
        sys.stderr.flush()

    def _wait_for_keys(self, seconds: float | None, source: int | None = None) -> None:
        """Wait until a key is pressed or time has passed, and do what the key asks for."""
        keys = self.screen.keys
        poll = select.poll()
        if keys is not None:
            poll.register(keys, select.POLLIN)
        if source is not None:
            poll.register(source, select.POLLIN)
        # The output's reader may go away while nothing is written.
        poll.register(self.screen.output, 0 if self.screen.output != keys else select.POLLIN)
        if self._status:
            seconds = _STATUS_SECONDS if seconds is None else min(seconds, _STATUS_SECONDS)
        timeout = None if seconds is None else int(seconds * 1000 + 0.999)
        for fd, happened in poll.poll(timeout):
            if fd == source and fd != keys:
                continue
            if fd == keys and happened & select.POLLIN:
                try:
                    typed = os.read(fd, 4096)
                except BlockingIOError:
                    continue
                except OSError:
                    typed = b""
                if not typed:
                    raise Quit  # the terminal is gone
                for command in self._keys.feed(typed):
                    self._do(command)
            elif happened & (select.POLLHUP | select.POLLERR):
                raise Quit
        if self._redraw:
            self._redraw = False
            self._seek_anew(self._position())
        if self._status and seconds:
            self.screen.show_status(self._status_text())

    def _do(self, command: Command) -> None:
        clock = self.clock
        match command.action:
            case "pause":
                clock.toggle_pause()
            case "faster":
                clock.faster()
            case "slower":
                clock.slower()
            case "normal":
                clock.set_speed(clock.original)
            case "step":
                self._step = True
            case "end":
                self._ahead = END
            case "goto":
                self._seek(int(command.seconds * _SECOND))
            case "move":
                self._seek(self._position() + int(command.seconds * _SECOND))
            case "status":
                self._status = not self._status
                if not self._status:
                    self._seek_anew(self._position())
                self._length = self.stream.length()
                self.screen.show_status(self._status_text())
            case "quit" if not self.persist:
                raise Quit

    def _position(self) -> int:
        # While events are skipped over, the clock stands where it was.
        return self._last if self._ahead >= 0 else self.clock.position()

    def _seek(self, target: int) -> None:
        target = max(target, 0)
        if target >= self._position():
            self._ahead = target
            return
        self._seek_anew(target)

    def _seek_anew(self, target: int) -> NoReturn:
        self._ahead = target
        raise Rewind

    def _status_text(self) -> str:
        position = self._position()
        text = f" {format_position(position)}"
        if self._length is not None:
            text += f" / {format_position(max(self._length, position))}"
        if self.stream.start is not None:
            try:
                started = datetime.fromtimestamp(self.stream.start, UTC)
                text += f"  started {started:%Y-%m-%d %H:%M:%S} UTC"
            except (OverflowError, ValueError, OSError):
                pass
        text += f"  {self.clock.speed:g}x"
        if self.clock.paused:
            text += "  paused"
        return text + " "


def _size_advice(needed: tuple[int, int], now: tuple[int, int]) -> str:
    return (
        f"ttyscribe play: the recording needs a terminal of {needed[0]}x{needed[1]}; this one is"
        f" {now[0]}x{now[1]} and does not let itself be resized"
    )
