# SPDX-License-Identifier: Apache-2.0
"""The pump: moves bytes between the user's side and the shell's, recording them on the way.

The order is always capture, log, deliver: what the user saw is in the log. What the
recording could not keep on disk is withheld, and nothing more is read until it is kept.
Five things can happen: a source has data, a sink takes data again, something
that is watched reports (signals, the shell's end), the recording has something
due, and the shell is gone and all it wrote is delivered.
"""

from __future__ import annotations

import _socket
import os
import select
import stat
import termios

from ttyscribe.events import INPUT, OUTPUT, WINDOW
from ttyscribe.session.keyboard import Keyboard
from ttyscribe.session.relay import Relay
from ttyscribe.terminal import Sink, shut_down
from ttyscribe.terminal.raw import copy_window, leave_output, window_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Protocol

    from ttyscribe.errors import WriterError
    from ttyscribe.terminal import Ends

    class Log(Protocol):
        """What is recorded into: a Recording, or another form of one."""

        log_input: bool

        @property
        def error(self) -> WriterError | None: ...
        @property
        def full(self) -> bool: ...
        @property
        def holds(self) -> bool: ...
        @property
        def paused_until(self) -> int: ...
        @property
        def waiting(self) -> int: ...
        def now(self) -> int: ...
        def start(self, member: Mapping[str, object], window: bytes | None) -> None: ...
        def log(self, kind: str, data: bytes) -> None: ...
        def tick(self) -> None: ...
        def due(self) -> int | None: ...
        def forked(self) -> None: ...
        def finish(
            self, member: Mapping[str, object], stop: Callable[[], bool] | None = None
        ) -> None: ...


# Once as much was allocated and freed, malloc keeps what a batch needs instead of giving
# it back to the kernel after each one (mallopt(3), M_MMAP_THRESHOLD).
_KEPT = 1 << 20
# After a hang-up the shell has this long to end.
_HANGUP_GRACE = 5_000_000_000
# When the shell has ended, a recording that can't be written is waited for no longer.
_FROZEN_GRACE = 60_000_000_000
# An output that ends so long before the shell has been closed by it, and did not end with it.
_CLOSED_BEFORE = 100_000_000
_LFLAG = 3
_PROMPT = termios.ECHO | termios.ICANON
# A hidden password: a star for each character, its further bytes dropped, Enter kept.
_STARS = bytes(byte if byte in b"\r\n" else ord("*") for byte in range(256))
_FURTHER = bytes(range(0x80, 0xC0))

_END = select.POLLHUP | select.POLLERR
_IN = select.POLLIN | _END


def _ignore(frozen: bool) -> None:
    """No one is told."""


def _nothing() -> None:
    """There is nothing to do."""


class Pump:
    """Runs one session between ends, logging into recording.

    With hide_passwords, input that is typed while the shell's terminal has ECHO
    off and ICANON on is recorded as stars.
    """

    def __init__(self, ends: Ends, recording: Log, *, hide_passwords: bool) -> None:
        self._ends = ends
        self._recording = recording
        self._hide_passwords = hide_passwords and recording.log_input and ends.master >= 0
        self._poll = select.poll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._outputs: list[Relay] = []
        self._inputs: list[Relay] = []
        self._ended = False
        self._withheld: list[Relay] = []
        self._hung_up_at: int | None = None
        self._frozen = False
        self._rest_of_pty = False
        self._frozen_at = 0
        # Output, while it shows the recording itself faster than that may grow.
        self._paused = False
        self.on_freeze: Callable[[bool], None] = _ignore
        # Called while the pty is still there.
        self.on_hang_up: Callable[[], None] = _nothing
        # Called when the shell and its jobs have closed an output, or its reader has, and the
        # shell goes on.
        self.on_output_end: Callable[[], None] = _nothing
        self._output_ended_at: int | None = None
        self.keyboard: Keyboard | None = None
        if ends.master >= 0:
            screen = Sink(ends.terminal)
            self._add(Relay(ends.master, screen, OUTPUT), self._outputs)
            to_shell = Sink(os.dup(ends.master), ours=True)
            # Not the user's descriptor, which may be open for writing alone.
            relay = Relay(os.dup(screen.fd), to_shell, INPUT)
            self._add(relay, self._inputs)
            self.keyboard = Keyboard(
                relay,
                recording.now,
                lambda: self._listen(relay),
                lambda data: self._pass_on(relay, data),
            )
        for ours, theirs in ends.outputs:
            self._add(Relay(ours, Sink(theirs), OUTPUT), self._outputs)
        if ends.input is not None:
            theirs, ours = ends.input
            self._add(_input_relay(theirs, Sink(ours, ours=True), ends.held), self._inputs)

    # What whoever runs the session tells the pump.

    def watch(self, fd: int, report: Callable[[], None]) -> None:
        """Call report when fd can be read."""
        self._handlers[fd] = lambda _: report()
        self._poll.register(fd, _IN)

    def unwatch(self, fd: int) -> None:
        """Stop watching fd."""
        del self._handlers[fd]
        self._poll.unregister(fd)

    def resize(self) -> None:
        """The user's terminal, if there is one, has another size: record it and pass it on."""
        if self._ends.terminal >= 0 and self._ends.master >= 0:
            size = window_of(self._ends.terminal)
            if size is not None:
                self._recording.log(WINDOW, size)
            copy_window(self._ends.terminal, self._ends.master)

    def show(self, data: bytes) -> None:
        """Put a line of ours on the user's terminal, behind what is still to be delivered there."""
        for relay in self._outputs[:1]:
            if relay.fd == self._ends.master and not relay.closed:
                relay.sink.write(data)
                self._after_write(relay)

    def shell_ended(self) -> None:
        """The shell is gone; what it wrote is still to be delivered."""
        self._ended = True
        self._leave_inputs()

    def hang_up(self) -> None:
        """The user is gone: the shell and its job get SIGHUP, as from a real terminal."""
        if self._hung_up_at is not None:
            return
        self.on_hang_up()
        self._hung_up_at = self._recording.now()
        for relay in self._inputs + self._outputs:
            self._close(relay)
        for fd in {self._ends.slave} - {-1}:
            os.close(fd)
        self._ends.master = self._ends.slave = -1

    def in_use(self) -> set[int]:
        """The user's descriptors that are still read from or written to."""
        used = {relay.sink.user_fd for relay in self._outputs if not relay.closed}
        if self._ends.terminal >= 0:
            used.add(self._ends.terminal)
        if self._ends.input is not None and not all(relay.closed for relay in self._inputs):
            used.add(self._ends.input[0])
        return used

    @property
    def hung_up(self) -> bool:
        return self._hung_up_at is not None

    # The loop.

    def run(self) -> None:
        """Pump until the shell has ended and all that it wrote is delivered."""
        bytes(_KEPT)
        while not (self._ended and self._settled()) and not self._given_up():
            self._step()

    def left_over(self, *, keep_pty: bool) -> bool:
        """Whether jobs that outlive the shell hold pipes whose output is still recorded.

        The pty counts if keep_pty, and if nobody else here has its slave: the user's
        terminal stays, and what they write is still shown on it.
        """
        if keep_pty and self._ends.master >= 0:
            if self._ends.slave >= 0:
                os.close(self._ends.slave)
                self._ends.slave = -1
            poll = select.poll()
            poll.register(self._ends.master, 0)
            self._rest_of_pty = not poll.poll(0)
        return any(relay.open and self._is_kept(relay) for relay in self._outputs)

    def delivering(self) -> set[int]:
        """The user's descriptors that those jobs' output goes to."""
        return {
            relay.sink.user_fd
            for relay in self._outputs
            if (relay.open or relay.waiting) and self._is_kept(relay)
        }

    def run_rest(self, release: Callable[[set[int]], object] | None = None) -> None:
        """Pump until the jobs that outlived the shell have closed their pipes, and the pty.

        release is told the user's descriptors that are still in use, at first and when
        one of them no longer is.
        """
        for relay in [*self._inputs, *self._outputs]:
            if relay.kind == INPUT or not self._is_kept(relay):
                self._close(relay)
        if self._rest_of_pty:
            gone = os.dup(self._ends.terminal)
            self._handlers[gone] = lambda _: self.hang_up()
            self._poll.register(gone, 0)
            leave_output(self._ends.master)
        used: set[int] | None = None
        while any(relay.open or relay.waiting for relay in self._outputs):
            if release is not None and used != self.delivering():
                used = self.delivering()
                release(used)
            self._step()

    def _is_kept(self, relay: Relay) -> bool:
        return relay.fd != self._ends.master or self._rest_of_pty

    @property
    def complaint(self) -> str:
        """What the user is to be told of output that could not be delivered, or ""."""
        for relay in self._outputs:
            if relay.sink.lost:
                return f"ttyscribe: output was lost: {relay.sink.lost}"
        return ""

    def close(self) -> None:
        """Close what the pump opened and the pty."""
        self._leave_inputs()
        for relay in self._inputs + self._outputs:
            self._close(relay)

    def _step(self) -> None:
        events = self._poll.poll(self._timeout())
        if self.keyboard is not None and self._ends.master >= 0:
            # Before what a program shows, which has set its keys by then.
            self.keyboard.follow(bool(events))
        for fd, ready in events:
            handler = self._handlers.get(fd)
            if handler is not None:
                handler(ready)
        self._recording.tick()
        closed = self._closed_at()
        if closed is not None and self._recording.now() >= closed:
            self._output_ended_at = None
            self.on_output_end()
        if self._withheld and not self._recording.holds:
            self._release()
        if self._recording.full != self._frozen:
            self._freeze(not self._frozen)
        if self._recording.paused_until and self._is_paused() != self._paused:
            self._pause(not self._paused)

    def _timeout(self) -> int | None:
        due = self._recording.due()
        if self._paused:
            left = self._recording.paused_until - self._recording.now()
            left = max(0, left // 1_000_000 + 1)
            due = left if due is None else min(due, left)
        look = self.keyboard.due() if self.keyboard is not None and self._ends.master >= 0 else None
        for until in (self._until(), self._closed_at(), look):
            if until is not None:
                left = max(0, (until - self._recording.now()) // 1_000_000 + 1)
                due = left if due is None else min(due, left)
        return due

    def _closed_at(self) -> int | None:
        """When an output that has ended is known to have been closed, while the shell goes on."""
        if self._output_ended_at is None or self._ended or self._hung_up_at is not None:
            return None
        return self._output_ended_at + _CLOSED_BEFORE

    def _given_up(self) -> bool:
        until = self._until()
        return until is not None and self._recording.now() > until

    def _until(self) -> int | None:
        """When what is left to deliver is given up."""
        if self._hung_up_at is not None:
            return self._hung_up_at + _HANGUP_GRACE
        if self._ended and self._frozen and self._recording.error is not None:
            return self._frozen_at + _FROZEN_GRACE
        return None

    def _settled(self) -> bool:
        """Nothing is left to deliver that was written before the shell ended."""
        if any(relay.waiting for relay in self._outputs):
            return False
        poll = select.poll()
        for relay in self._outputs:
            if relay.open:
                poll.register(relay.fd, select.POLLIN)
        # An ended pipe reports POLLHUP until it is read to its end.
        return not any(ready & _IN for _, ready in poll.poll(0))

    # Relays.

    def _add(self, relay: Relay, family: list[Relay]) -> None:
        family.append(relay)
        self._handlers[relay.fd] = lambda _: self._carry(relay)
        self._handlers[relay.sink.fd] = lambda ready: self._drain(relay, ready)
        self._poll.register(relay.fd, _IN)
        if relay.kind == OUTPUT and relay.sink.tells_end:
            self._poll.register(relay.sink.fd, 0)

    def _carry(self, relay: Relay) -> None:
        """Capture, log, deliver."""
        keyboard = self._keyboard_of(relay)
        data = relay.read() if keyboard is None else keyboard.read()
        if data is None:
            return
        if not data:
            self._source_ended(relay)
            return
        self._pass_on(relay, data)

    def _pass_on(self, relay: Relay, data: bytes) -> None:
        if relay.kind == INPUT and self._hide_passwords and self._at_prompt():
            self._recording.log(INPUT, data.translate(_STARS, _FURTHER))
        else:
            self._recording.log(relay.kind, data)
        if self._recording.holds:
            self._withhold(relay, data)
            return
        if relay.terminal and len(data) >= relay.batch and not relay.sink.gone:
            # There is more: this is delivered while the kernel brings it (Relay.read).
            relay.sink.pending += data
        else:
            relay.sink.write(data)
        self._after_write(relay)

    def _withhold(self, relay: Relay, data: bytes) -> None:
        relay.withheld += data
        if relay not in self._withheld:
            self._withheld.append(relay)

    def _release(self) -> None:
        """Deliver what was withheld: the recording has it now."""
        relays, self._withheld = self._withheld, []
        for relay in relays:
            data, relay.withheld = relay.withheld, b""
            if not relay.closed:
                relay.sink.write(data)
                self._after_write(relay)

    def _drain(self, relay: Relay, ready: int) -> None:
        if not relay.sink.pending and ready & _END:
            # Nobody reads any more: who waits for that (tail -f) is to see it, too.
            relay.sink.gone = True
        relay.sink.drain()
        relay.delivered()
        self._after_write(relay)

    def _after_write(self, relay: Relay) -> None:
        sink = relay.sink
        if sink.gone:
            self._sink_gone(relay)
            return
        pending = len(sink.pending)
        if bool(pending) != relay.draining:
            relay.draining = bool(pending)
            if pending:
                self._poll.register(sink.fd, select.POLLOUT)
            elif relay.kind == OUTPUT and sink.tells_end:
                self._poll.register(sink.fd, 0)
            else:
                self._poll.unregister(sink.fd)
        if (pending > relay.lag) != relay.paused:
            relay.paused = pending > relay.lag
            self._listen(relay)
        if not pending and not relay.open:
            self._close(relay)

    def _listen(self, relay: Relay) -> None:
        """Poll the source, or not while it has to wait."""
        if not relay.open:
            return
        held = self._paused if relay.kind == OUTPUT else False
        keyboard = self._keyboard_of(relay)
        if keyboard is not None:
            held = keyboard.held
        if relay.paused or self._frozen or held:
            try:
                self._poll.unregister(relay.fd)
            except KeyError:
                pass
        else:
            self._poll.register(relay.fd, _IN)

    def _freeze(self, frozen: bool) -> None:
        self._frozen = frozen
        self._frozen_at = self._recording.now()
        if self.keyboard is not None:
            self.keyboard.frozen = frozen
        for relay in self._inputs + self._outputs:
            self._listen(relay)
        self.on_freeze(frozen)

    def _is_paused(self) -> bool:
        return self._recording.now() < self._recording.paused_until

    def _pause(self, paused: bool) -> None:
        """Leave output with its source for now, but listen to the keyboard."""
        self._paused = paused
        for relay in self._outputs:
            self._listen(relay)

    def _at_prompt(self) -> bool:
        if self.keyboard is not None and self.keyboard.is_shown:
            return False
        try:
            mode: int = termios.tcgetattr(self._ends.master)[_LFLAG]
        except termios.error:
            return False
        return mode & _PROMPT == termios.ICANON

    def _source_ended(self, relay: Relay) -> None:
        if self._keyboard_of(relay) is not None:
            self.hang_up()
            return
        self._stop_reading(relay)
        if not relay.waiting:
            # The end of the user's input is the end of the shell's, and the other way round.
            self._close(relay)

    def _sink_gone(self, relay: Relay) -> None:
        if relay.fd == self._ends.master:
            self.hang_up()
        else:
            # Nobody reads: the shell's next write gets SIGPIPE, as it would have.
            self._close(relay)

    def _keyboard_of(self, relay: Relay) -> Keyboard | None:
        """The user's keyboard, if it is relay's source."""
        keyboard = self.keyboard if self._ends.master >= 0 else None
        return keyboard if keyboard is not None and keyboard.relay is relay else None

    def _stop_reading(self, relay: Relay) -> None:
        if not relay.open:
            return
        relay.open = False
        self._handlers.pop(relay.fd, None)
        try:
            self._poll.unregister(relay.fd)
        except KeyError:
            pass
        if relay.kind == OUTPUT:
            # Who still writes to a socket whose other way stays open is told so.
            shut_down(relay.fd, _socket.SHUT_RD)
        relay.stop()

    def _leave_inputs(self) -> None:
        for relay in self._inputs:
            if relay.leave_unread():
                self._close(relay)

    def _close(self, relay: Relay) -> None:
        self._stop_reading(relay)
        if relay.closed:
            return
        relay.closed = True
        self._handlers.pop(relay.sink.fd, None)
        try:
            self._poll.unregister(relay.sink.fd)
        except KeyError:
            pass
        relay.drop()
        relay.sink.pending = relay.withheld = b""
        relay.sink.close()
        if relay.kind == OUTPUT:
            self._output_ended_at = self._recording.now()


def _input_relay(source: int, sink: Sink, held: int) -> Relay:
    """From the user's standard input, which is no terminal, to the shell's."""
    if held < 0:
        return Relay(os.dup(source), sink, INPUT)
    from ttyscribe.session.shared import SharedFile, SharedSocket

    is_file = stat.S_ISREG(os.fstat(source).st_mode)
    return (SharedFile if is_file else SharedSocket)(source, sink, held)
