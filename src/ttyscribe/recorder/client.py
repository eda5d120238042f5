# SPDX-License-Identifier: Apache-2.0
"""The login shell's side of a session that the recorder service records.

Runs as the user, in a few milliseconds and little memory: the service has been given
its terminal (recorder/reach.py), it starts the shell on what it got back, and waits.
Where the installation has the native waiter, that takes this process over once the
shell runs, and does the waiting in a few kilobytes.
"""

from __future__ import annotations

import _socket
import os
import select

from ttyscribe.errors import SpawnError
from ttyscribe.recorder import wire
from ttyscribe.terminal.ends import is_whole, keep_only
from ttyscribe.terminal.job import (
    gives_control,
    has_terminal,
    is_in_foreground,
    shares_keys,
)
from ttyscribe.terminal.signals import ENDING, HANG_UPS, KEYBOARD, KeySignals, forget
from ttyscribe.terminal.spawn import (
    Child,
    end_shell,
    is_undone,
    is_watched,
    kill_session,
    name_terminal,
    spawn,
    stands_apart,
    stop_by,
    stop_too,
)
from ttyscribe.terminal.stops import Stops

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal

    from ttyscribe.recorder.reach import Answer
    from ttyscribe.terminal.raw import RawMode
else:
    import _signal as signal

# How often is looked whether the terminal can be had, in milliseconds.
_LOOK_EVERY = 1000
_NEVER_IGNORED = (signal.SIGCHLD, signal.SIGPIPE)


def run_recorded(
    sock: _socket.socket, answer: Answer, shell: Child, fds: tuple[int, int, int], waiter: str
) -> tuple[int, int]:
    """Start the shell on the descriptors of a RECORD answer and wait; (status, signal).

    fds are the user's own. waiter is the native waiter's path, "" if there is
    none; with it this does not return. Raises SpawnError.
    """
    layout = answer.fields[2]
    terminal = next((fd for fd in fds if fd >= 0 and os.isatty(fd)), -1)
    childs, slave = _childs(answer, layout, fds, terminal)
    session = _Session(sock, terminal, shell)
    try:
        if terminal >= 0:
            session.take_first(slave, is_whole(fds))
            if shell.is_interactive:
                forget(shell.held)
        if session.keys is None:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, shell.held)
        name_terminal(shell, terminal, slave)
        if session.keys is not None:
            shell.blocked = session.keys.before
        session.pid = spawn(
            shell, childs, slave, controlled=session.controlled, leave_terminal=True
        )
        if session.controlled:
            session.send(wire.pack(wire.JOB, b"%d" % shell.group))
        for fd in answer.fds:
            os.close(fd)
        if layout[:1] == bytes([wire.OWN]) and not os.isatty(0):
            # Who writes there is to see that the shell has closed it.
            keep_only(set(), [0])
        if waiter:
            session.hand_over(waiter)
        return session.wait()
    except SpawnError as error:
        session.send(wire.pack(wire.FAILED_START, b"%d" % error.status))
        session.wait_done()
        raise
    finally:
        if session.raw is not None:
            session.raw.leave()


class _Session:
    """The shell and the connection to its recorder, waited for in this process."""

    def __init__(self, sock: _socket.socket, terminal: int, shell: Child) -> None:
        self.pid = 0
        self.raw: RawMode | None = None
        self._socket = sock
        self._terminal = terminal
        # With none of our own the shell gets none either, and who means it sends us signals.
        self.controlled = terminal >= 0 and gives_control(os.getpid())
        self._shares_keys = terminal >= 0 and shares_keys(terminal, os.getpid())
        shares = self._shares_keys and self.controlled
        self.keys = KeySignals(shell.held) if shares else None
        self._status: int | None = None
        self._ended_by = 0
        self._stopping = False
        self._stops = Stops()
        sock.settimeout(None)
        self._wake, write = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        watched = (*ENDING, signal.SIGPIPE, signal.SIGCHLD, signal.SIGWINCH, signal.SIGCONT)
        # Python ignores PIPE at its start; whether our caller did, ignored tells.
        self._watched = {
            number
            for number in watched
            if number not in shell.ignored
            and (signal.getsignal(number) != signal.SIG_IGN or number in _NEVER_IGNORED)
        }
        for number in self._watched:
            signal.signal(number, _noted)

    def send(self, packet: bytes) -> None:
        try:
            self._socket.send(packet, _socket.MSG_NOSIGNAL)
        except OSError:
            pass  # the end of the socket is seen by whoever reads it

    def take_first(self, slave: int, whole: bool) -> None:
        """Take the terminal before the shell is started on slave, if it is ours to take."""
        from ttyscribe.terminal.raw import RawMode, leave_output, use_lines

        self.raw = RawMode(self._terminal, whole, None if self._shares_keys else b"")
        self.raw.enter()
        taken = self._take()
        if slave >= 0 and not self.raw.took_output:
            leave_output(slave)
        if slave >= 0 and not taken:
            use_lines(slave)

    def hand_over(self, waiter: str) -> None:
        """Become the native waiter. Returns if that can't be."""
        # Blocked, signals wait for the program that comes; what came before is acted on here.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, self._watched)
        try:
            self._on_signals(os.read(self._wake, 512))
        except BlockingIOError:
            pass
        self._reap()
        if self._status is None and not self._ended_by:
            fd = self._socket.fileno()
            os.set_inheritable(fd, True)
            cooked = self.raw.cooked.hex() if self.raw is not None else ""
            words = [waiter, str(fd), str(self.pid), str(self._terminal), cooked]
            try:
                os.execve(waiter, words, {})
            except OSError:
                os.set_inheritable(fd, False)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def wait(self) -> tuple[int, int]:
        """Wait for the shell and for its recorder to be done; (status, signal)."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        poll.register(self._socket.fileno(), select.POLLIN)
        if self.keys is not None:
            poll.register(self.keys.fd, select.POLLIN)
        self._reap()
        while True:
            # Nobody tells us of a key that stops or ends whoever started us, and not the shell.
            looks = self.raw is not None and (self._shares_keys or not self.raw.taken)
            for fd, _ in poll.poll(_LOOK_EVERY if looks else None):
                if fd == self._wake:
                    self._on_signals(os.read(self._wake, 512))
                elif self.keys is not None and fd == self.keys.fd:
                    self._on_key_signals()
                elif self._done():
                    return self._outcome()
            if looks and self._status is None:
                self._look()

    def wait_done(self) -> None:
        """Wait until the recorder has delivered and written all."""
        while not self._done():
            pass

    def _done(self) -> bool:
        """Read one packet; whether the session is over."""
        try:
            packet = self._socket.recv(wire.PACKET_MAX)
        except OSError:
            packet = b""
        if packet[:1] == wire.MODE and self.raw is not None:
            self.raw.keep(packet[1:])
        if packet[:1] == wire.LEAVE:
            keep_only(set(), [fd for fd in range(3) if b"%d" % fd in packet])
        if packet[:1] == wire.HELD:
            self._stop()
        if packet[:1] == wire.KEYS and self.raw is not None and self._status is None:
            self.raw.use_keys(packet[1:])
        if packet[:1] == wire.SYNC:
            self._on_key_signals()
            self.send(wire.SYNC)
        if packet[:1] == wire.END and self.pid:
            if self._status is None:
                self._set_ended(end_shell(self.pid))
            elif self._hung_up():
                self._kill_session()
        if packet[:1] == wire.DONE:
            if packet[1:]:
                _complain(packet[1:])
                # The shell saw its output taken, which then was lost.
                if self._status == 0:
                    self._status = 1 << 8
            return True
        if packet:
            return False
        if self._status is None and self.pid:
            # Nothing may go on without its recorder.
            _complain(b"ttyscribe: the recorder is gone; the session ends")
            end_shell(self.pid)
        elif self._hung_up():
            _complain(b"ttyscribe: the recorder is gone; the session ends")
            self._kill_session()
            self._status = None
        return True

    def _hung_up(self) -> bool:
        """Whether the pty went by its recorder's doing and the shell with it, seen first."""
        return self._status == signal.SIGHUP and not self._ended_by

    def _kill_session(self) -> None:
        uncontrolled = self.raw is not None and not self.controlled
        kill_session(os.getpid() if uncontrolled else self.pid)

    def _on_signals(self, numbers: bytes) -> None:
        for number in set(numbers):
            if number == signal.SIGCHLD:
                self._reap()
            elif number == signal.SIGWINCH and self.raw is not None:
                self.send(wire.WINDOW)
            elif number == signal.SIGCONT and self.raw is not None:
                self._stopping = False
                self._stops.woken()
                self._go_on()
                if self._status is None:
                    os.kill(self.pid, number)
            elif not self.controlled or (number not in HANG_UPS and self._status is None):
                self._pass_on(number)
            else:
                self._ended_by = number
                self.send(wire.pack(wire.SIGNAL, b"%d" % number))

    def _on_key_signals(self) -> None:
        """INT, QUIT and TSTP, where the terminal's keys send them."""
        if self.keys is not None:
            self.keys.act(self._status is None, self._typed, self._to_job, self._to_us)

    def _typed(self, number: int) -> None:
        if number == signal.SIGTSTP:
            self._stops.typed()
        self.send(wire.pack(wire.TYPED, b"%d" % number))

    def _to_job(self, number: int) -> None:
        self.send(wire.pack(wire.TO_JOB, b"%d" % number))

    def _to_us(self, number: int) -> None:
        if number == signal.SIGTSTP:
            stop_by(number, self._is_woken)
        else:
            self._on_signals(bytes([number]))

    def _pass_on(self, number: int) -> None:
        """It is meant for the shell, which we stand for."""
        if self._status is not None:
            return
        apart = stands_apart(self.pid)
        if apart and number in (*KEYBOARD, signal.SIGWINCH) and has_terminal():
            # The terminal's, as a rule, which the shell has left.
            os.killpg(self.pid, number)
        elif apart or number not in KEYBOARD:
            os.kill(self.pid, number)

    def _reap(self) -> None:
        if self._status is not None:
            return
        pid, status = os.waitpid(self.pid, os.WNOHANG | os.WUNTRACED)
        if pid and os.WIFSTOPPED(status):
            self._shell_stopped(os.WSTOPSIG(status))
        elif pid:
            self._set_ended(status)

    def _shell_stopped(self, number: int) -> None:
        if self._stops.is_overtaken:
            self._stops.over()
            os.kill(self.pid, signal.SIGCONT)
        elif self.raw is None or is_undone(number, self.pid, self.controlled):
            pass
        # Else it stays so until it is sent a CONT, or we are, as it would alone.
        elif is_watched(self.controlled):
            self._stopping = True
            self.send(wire.STOPPED)

    def _is_woken(self) -> bool:
        """Whether we are sent a CONT that is not acted on yet; it is from then on."""
        try:
            noted = os.read(self._wake, 512)
        except BlockingIOError:
            return False
        self._on_signals(noted)
        return signal.SIGCONT in noted

    def _stop(self) -> None:
        """Stop as the shell did: whoever started us has the terminal until we go on."""
        # What wakes us meanwhile has woken the shell.
        self._is_woken()
        if self._status is None and self.raw is not None and self._stopping:
            self._stopping = False
            self.raw.leave()
            if not self._stops.is_of_key or is_in_foreground(self._terminal):
                stop_too(self._is_woken)
                self._go_on()
                os.kill(self.pid, signal.SIGCONT)
            # Else nobody waits for us to stop as well; we are woken with our job.
            self._stops.over()

    def _go_on(self) -> None:
        self._take()
        self.send(wire.WINDOW)

    def _look(self) -> None:
        assert self.raw is not None
        if is_in_foreground(self._terminal) != self.raw.taken:
            self._go_on()

    def _take(self) -> bool:
        """Take the terminal, or leave it alone while it is another job's; whether it is taken."""
        assert self.raw is not None
        taken = self.raw.enter_again()
        output = b"1" if self.raw.took_output else b"0"
        self.send(wire.pack(wire.RESUMED, output) if taken else wire.BEHIND)
        return taken

    def _set_ended(self, status: int) -> None:
        self._status = status
        self.send(wire.pack(wire.ENDED, b"%d" % status))

    def _outcome(self) -> tuple[int, int]:
        if self._ended_by:
            return 0, self._ended_by
        if self._status is None:
            return 1, 0
        if os.WIFSIGNALED(self._status):
            return 0, os.WTERMSIG(self._status)
        return os.WEXITSTATUS(self._status), 0


def _childs(
    answer: Answer, layout: bytes, fds: tuple[int, int, int], terminal: int
) -> tuple[tuple[int, int, int], int]:
    """The shell's three descriptors, and which of them is the pty's slave (-1: none)."""
    passed = iter(answer.fds)
    childs = []
    slave = -1
    for number, what in enumerate(layout[:3]):
        if what == wire.PASSED:
            fd = next(passed)
            childs.append(fd)
            if slave < 0 and terminal >= 0 and os.isatty(fd):
                slave = fd
        else:
            childs.append(fds[number] if what == wire.OWN else -1)
    return (childs[0], childs[1], childs[2]), slave


def _complain(line: bytes) -> None:
    try:
        os.write(2, line + b"\r\n")
    except OSError:
        pass


def _noted(number: int, frame: object) -> None:
    """The wakeup descriptor has told the loop already."""
