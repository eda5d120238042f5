# SPDX-License-Identifier: Apache-2.0
"""One session of the recorder service: handshake, policy, recording.

Runs in a process of its own, as the service's user. The peer is the recorded
user's process: what it says is used for the recording's text only; who it is,
the kernel tells.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import stat
import struct
import time
from typing import TYPE_CHECKING

from ttyscribe import config, policy
from ttyscribe.config.loader import NOT_HONOURED, conf_variables, ignored
from ttyscribe.errors import TtyscribeError, WriterError, printable
from ttyscribe.recorder import outer, privileges, wire
from ttyscribe.recorder.loginrecord import LoginRecord
from ttyscribe.recorder.peer import GoneError, Peer, receive_hello, three
from ttyscribe.recorder.refusal import at_failure, refuse
from ttyscribe.recorder.terminal import KINDS, ClientsTerminal
from ttyscribe.session import lock
from ttyscribe.session.alert import alert, warn
from ttyscribe.session.identity import recording_id
from ttyscribe.session.outage import Outage
from ttyscribe.session.outcome import Outcome
from ttyscribe.session.pump import Pump
from ttyscribe.session.setup import open_recording, start_member
from ttyscribe.session.skipped import SkippedLog, skip_for, without_contents
from ttyscribe.session.spoolfolder import SERVICE_FOLDER
from ttyscribe.terminal import job, keep_only, open_ends, window_of
from ttyscribe.terminal.spawn import name_for

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator

    from ttyscribe.config.views import RecSession
    from ttyscribe.session.pump import Log
    from ttyscribe.session.skip import Skip
    from ttyscribe.terminal import Ends

# A client says HELLO at once or not at all.
HELLO_TIMEOUT = 5.0
_WAIT_FOR_CLIENT = 5.0
# How long a client waits at the end for a writer that takes nothing, in seconds.
_PATIENCE = 0.3
# How long the login record's file is waited for when nobody waits for us, in seconds. Any
# user can keep it from us for as long.
_UTMP_PATIENCE = 60.0


def serve(
    connection: socket.socket, others: Container[str], mark: Callable[[bool], None]
) -> bool:
    """Serve one client, from HELLO to the end of its session; whether it was recorded.

    others are the living processes that are served or were recorded before, as
    outer.client_of names them. mark is told when a session begins to be recorded, and
    when all of it is.
    """
    hello: wire.Hello | None = None
    fds: list[int] = []
    values: RecSession | None = None
    peer = None
    session = None
    try:
        peer = Peer(connection)
        connection.settimeout(HELLO_TIMEOUT)
        hello, fds = receive_hello(connection)
        if hello is None:
            return False
        peer.check()
        # A recording's id is made of these.
        if outer.client_of(peer.pid) in others:
            raise TtyscribeError("this process has a session already")
        session = Session(connection, peer, hello, three(hello.names, fds), mark)
        values = session.values = session.load()
        session.run()
    except GoneError:
        pass
    except TtyscribeError as error:
        refuse(connection, peer, values or at_failure(peer, hello), str(error))
    except Exception as error:  # whatever it is, the login must come to its chosen outcome
        why = f"internal error: {type(error).__name__}: {error}"
        refuse(connection, peer, values or at_failure(peer, hello), why)
    return session is not None and session.recorded


class Session:
    """A session whose client has said HELLO."""

    def __init__(
        self,
        connection: socket.socket,
        peer: Peer,
        hello: wire.Hello,
        fds: tuple[int, int, int],
        mark: Callable[[bool], None],
    ) -> None:
        self.connection = connection
        self.peer = peer
        self.hello = hello
        self.fds = fds
        self._mark = mark
        self.values: RecSession
        self.recorded = False
        self._loaded: config.Loaded[RecSession]
        self._ended: Outcome | None = None
        self._told = 0
        self._failed = ""
        self._skip: Skip | None = None
        self._login_record: LoginRecord | None = None
        self._terminal: ClientsTerminal | None = None
        self._is_outlived = False  # the user's terminal, which goes on where this login ends

    def load(self) -> RecSession:
        """The configuration for this login. Raises ConfigError."""
        environ = {os.fsdecode(k): os.fsdecode(v) for k, v in self.hello.environ.items()}
        self._loaded = config.load(
            "rec-session", environ=environ, name=os.fsdecode(self.hello.argv0), user=self.peer.uid
        )
        self._warn(self._loaded.warnings)
        return self._loaded.values

    def run(self) -> None:
        """Decide, and record or let go. Raises TtyscribeError while nothing has begun."""
        values = self.values
        if values["service"] == "off" or self._is_users_to_configure():
            self._say(wire.DIRECT)
            return
        login = os.fsdecode(self.hello.environ.get(b"LOGNAME", b""))
        decision = policy.for_login(values, self._loaded.origin, self.peer.uid, login=login)
        self._warn(decision.warnings)
        held = None
        if decision.recorded:
            self._skip = self._find_skip()
            # What is not recorded itself must not stand for a recording.
            kind = values["lock"] if self._skip is None else "none"
            rec, peer = recording_id(self.peer.pid), self.peer
            held = lock.acquire(kind, rec, lock.SERVICE_FOLDER, peer.pid, peer.uid)
        # What was needed to read the rules, and to look at the terminals that the login
        # may be shown on, is needed no more.
        privileges.keep(privileges.FOR_SESSION)
        if held is None:
            # Or the terminal's own recording has all that the shell will show on it.
            self._say(wire.BARE, os.fsencode(values["shell"]))
            return
        # A name that could not be looked up is not asked for again.
        user = decision.user or str(self.peer.uid)
        log = self._open_log(user)
        self.recorded = True
        relay_all = self._skip is not None
        ends = open_ends(
            self.fds,
            self.peer.pid,
            log_input=values["log"]["input"] or relay_all,
            log_output=values["log"]["output"] or relay_all,
        )
        if ends.slave >= 0:
            os.fchown(ends.slave, self.peer.uid, terminal_group())
            os.fchmod(ends.slave, 0o620)
            held.hold_terminal(ends.slave)
        start = self._start_member()
        self._is_outlived = ends.terminal >= 0 and job.is_outlived(ends.terminal, self.peer.pid)
        with taken(ends.terminal, self.peer):
            log.start(start, window(ends))
            with contextlib.suppress(OSError):  # no terminal, or one without a name here
                terminal, host = os.ttyname(ends.slave), str(start["remote"])
                # A terminal that they have open need not be theirs.
                own = job.is_at(ends.terminal, self.peer.pid)
                outer_name = name_of(ends.terminal) if own else ""
                self._login_record = LoginRecord(
                    terminal, user, host, self.peer.pid, outer=outer_name
                )
            self._record(log, ends)
        with contextlib.suppress(OSError):  # with this process it ends anyway
            held.release()
        try:
            self._pump_rest(keep_pty=self._is_outlived)
        except Exception as error:
            self._fail(error)
        self._finish(log)
        if self._login_record is not None:
            # Where many end at once, others may have had the file. Nobody waits any more.
            self._login_record.remove(_UTMP_PATIENCE)

    def _pump_rest(self, *, keep_pty: bool) -> None:
        """What jobs that outlive the shell still write; the client need not wait for them."""
        if self._pump.left_over(keep_pty=keep_pty):
            if self.connection.fileno() >= 0:
                self._pump.unwatch(self.connection.fileno())
            self._let_go()
            given = [fd for fd in self.fds if fd >= 0]
            self._pump.run_rest(lambda used: keep_only(used, given))
        self._pump.close()

    def _is_users_to_configure(self) -> bool:
        """Whether the environment holds a configuration that counts: with its user's rights only.

        Warns of one that does not. Only the names of such variables are known here.
        """
        held = [
            variable
            for variable in conf_variables("rec-session")
            if os.fsencode(variable) in self.hello.variables
        ]
        why = NOT_HONOURED
        if self._loaded.honours:
            if self.values["service"] != "required":
                return bool(held)
            why = 'the recorder service records, and "service" is "required"'
        self._warn([ignored(variable, why) for variable in held])
        return False

    def _environ(self) -> dict[bytes, bytes]:
        """The login's environment, as far as it is known: of most of it the names."""
        return dict.fromkeys(self.hello.variables, b"") | self.hello.environ

    def _find_skip(self) -> Skip | None:
        if self.hello.cut:
            return None
        arguments = [os.fsdecode(word) for word in self.hello.arguments]
        plain = self.hello.is_plain_git
        return skip_for(self.values, arguments, self._environ(), self.fds, plain)

    def _open_log(self, user: str) -> Log:
        """What the session is recorded into, which for a skipped command is one message."""
        values, pid, environ = self.values, self.peer.pid, self._environ()
        if self._skip is None:
            return open_recording(values, user, environ, pid, SERVICE_FOLDER)
        recording = open_recording(without_contents(values), user, environ, pid, SERVICE_FOLDER)
        return SkippedLog(recording, self._skip, os.fsdecode(self.hello.arguments[1]))

    def _record(self, recording: Log, ends: Ends) -> None:
        """Hand the shell's side to the client, and pump until the shell has ended."""
        pump = Pump(ends, recording, hide_passwords=not self.values["log"]["passwords"])
        self._pump = pump
        end = self._end_for_outage if self.values["on_outage"] == "end" else None
        pump.on_freeze = Outage(recording, ends.terminal, self.fds[2], end, pump.show)
        if pump.keyboard is not None:
            self._terminal = ClientsTerminal(
                pump.keyboard,
                ends,
                self.peer.pid,
                self._tell,
                outlived=self._is_outlived,
                command=bool(self.hello.arguments),
            )
        pump.on_output_end = self._leave_ended
        pump.watch(self.connection.fileno(), self._on_client)
        self.connection.setblocking(False)
        with logged_in(self._login_record):
            if pump.keyboard is not None and job.is_in_foreground(ends.terminal, self.peer.pid):
                pump.keyboard.read_ahead(ends.slave)
            self._hand_over(ends)
            try:
                pump.run()
            except Exception as error:  # the session has begun, so it is ended and not refused
                self._fail(error)

    def _hand_over(self, ends: Ends) -> None:
        layout = bytearray()
        passed = []
        for number, fd in enumerate(ends.child):
            if fd < 0:
                layout.append(wire.CLOSED)
            elif fd == self.fds[number]:
                layout.append(wire.OWN)
            else:
                layout.append(wire.PASSED)
                passed.append(fd)
        notice = self.values["notice"] if self._interactive() else ""
        packet = wire.pack(
            wire.RECORD,
            os.fsencode(self.values["shell"]),
            notice.encode("utf-8", "replace"),
            bytes(layout),
            *([os.fsencode(word) for word in self._program()]),
        )
        rights = struct.pack(f"{len(passed)}i", *passed)
        for fd in set(passed) - {ends.slave}:
            # Whoever owns a pipe may open it by name, as /dev/stdout: from the first on.
            if stat.S_ISFIFO(os.fstat(fd).st_mode):
                os.fchown(fd, self.peer.uid, self.peer.gid)
        gone = False
        try:
            self.connection.sendmsg([packet], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        except (BrokenPipeError, ConnectionResetError):
            gone = True
        for fd in set(passed) - {ends.slave}:
            os.close(fd)
        if layout[0] == wire.OWN:
            # Who writes there is to see that the shell has closed it.
            keep_only(set(), self.fds[:1])
        ends.child = [-1, -1, -1]
        self._mark(True)
        if gone:
            self._client_gone()

    def _leave_ended(self) -> None:
        """Who waits for the end of an output that the shell has closed is not to wait for us."""
        left = keep_only(self._pump.in_use(), [fd for fd in self.fds if fd >= 0])
        numbers = "".join(str(number) for number, fd in enumerate(self.fds) if fd in left)
        if numbers:
            self._tell(wire.pack(wire.LEAVE, numbers.encode()))

    def _program(self) -> list[str]:
        """What the client is to run in place of the shell: the program, and its arguments."""
        return [self._skip.path, *self._skip.argv] if self._skip is not None else []

    def _on_client(self) -> None:
        """One packet from the client, or its end."""
        try:
            packet = self.connection.recv(wire.PACKET_MAX)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        kind, fields = wire.unpack(packet)
        try:
            if kind == wire.WINDOW:
                self._pump.resize()
            elif kind in KINDS:
                if self._terminal is not None:
                    self._terminal.heard(kind, fields)
            elif kind == wire.ENDED:
                self._ended = Outcome.of(wire.within(0xFFFF, fields[0]))
                # One that is killed does not tell how it would have left the terminal.
                if self._terminal is not None and not self._ended.signal:
                    self._terminal.shell_ended()
                self._pump.shell_ended()
            elif kind == wire.FAILED_START:
                self._ended = Outcome(int(fields[0]) & 255)
                self._pump.shell_ended()
            elif kind == wire.SIGNAL:
                self._told = wire.within(signal.NSIG - 1, fields[0])
                self._pump.hang_up()
            else:
                self._client_gone()
        except (ValueError, IndexError):
            self._client_gone()

    def _tell(self, packet: bytes) -> bool:
        """Send the client a packet; False if it has left no room, by reading none."""
        try:
            self.connection.send(packet)
        except BlockingIOError:
            return False
        except OSError:
            pass  # its end is seen when it is read
        return True

    def _client_gone(self) -> None:
        """The client ended, or says what no client says: the shell is hung up."""
        self._pump.unwatch(self.connection.fileno())
        self._pump.hang_up()
        self._pump.shell_ended()

    def _end_for_outage(self) -> None:
        """What can't be recorded may not go on, hung up or not."""
        # First, so that the client ends the shell's jobs too, before the shell is gone.
        self._end_shell()
        self._pump.hang_up()

    def _end_shell(self) -> None:
        with contextlib.suppress(OSError):  # it is gone, or told by the connection's end
            self.connection.send(wire.END)

    def _fail(self, error: Exception) -> None:
        """A fault of ours ends the session: nothing goes on unrecorded."""
        self._failed = fault(error)
        self._end_shell()
        with contextlib.suppress(Exception):  # the fault may be the pump's own
            self._pump.hang_up()

    def _finish(self, recording: Log) -> None:
        """End the recording and tell the client that it may go.

        Where the writer is in trouble, or takes nothing for a moment, the client need not
        wait: the spool has all, and this process goes on.
        """
        # Whoever reads the user's pipes waits until nobody has them open.
        for fd in set(self.fds) - {-1}:
            os.close(fd)
        self.fds = (-1, -1, -1)
        if recording.error is not None:
            self._let_go()
        waiting, since = recording.waiting, time.monotonic()

        def look() -> bool:
            nonlocal waiting, since
            now = time.monotonic()
            if recording.waiting != waiting:
                waiting, since = recording.waiting, now
            elif now - since > _PATIENCE:
                self._let_go()
            return False

        outcome = self._ended or Outcome(0, self._told or signal.SIGHUP)
        lost = self._failed
        kept = ""
        try:
            recording.finish(outcome.member(), look)
        except WriterError as error:
            if error.kept:
                kept = str(error)
            else:
                lost = "; ".join(filter(None, [lost, str(error)]))
        except Exception as error:
            lost = lost or fault(error)
        if lost or kept:
            line = f"a recording is not complete: {lost}" if lost else kept
            alert(f"user {self.peer.uid}: {printable(line)}")
        self._mark(False)
        self._let_go()

    def _let_go(self) -> None:
        if self.connection.fileno() >= 0:
            line = f"ttyscribe: {printable(self._failed)}" if self._failed else ""
            with contextlib.suppress(OSError):
                self._say(wire.DONE, (line or self._pump.complaint).encode("utf-8", "replace"))
            self.connection.close()

    def _start_member(self) -> dict[str, object]:
        shell = self.values["shell"]
        name = name_for(shell, os.fsdecode(self.hello.argv0))
        command: list[str | bytes] = [name, *self.hello.arguments]
        return start_member(command, shell, self.hello.environ, fds=self.fds, pid=self.peer.pid)

    def _interactive(self) -> bool:
        return all(fd >= 0 and os.isatty(fd) for fd in self.fds[:2])

    def _warn(self, lines: list[str] | tuple[str, ...]) -> None:
        for line in lines:
            warn(f"user {self.peer.uid}: {printable(line)}")

    def _say(self, kind: bytes, *fields: bytes) -> None:
        self.connection.settimeout(_WAIT_FOR_CLIENT)
        self.connection.send(wire.pack(kind, *fields))


@contextlib.contextmanager
def taken(terminal: int, peer: Peer) -> Iterator[None]:
    """The outer terminal, out of the user's reach for the time of the block."""
    client = outer.client_of(peer.pid)
    held = outer.take(terminal, peer.uid, client) if terminal >= 0 else None
    try:
        yield
    finally:
        if held is not None:
            held.give_back()


@contextlib.contextmanager
def logged_in(record: LoginRecord | None) -> Iterator[None]:
    """The login record, if there is one to make, for the time of the block."""
    if record is not None:
        record.add()
    try:
        yield
    finally:
        if record is not None:
            record.remove()


def fault(error: Exception) -> str:
    """What is told of an error that nobody expected."""
    return f"the recorder failed: {type(error).__name__}: {error}"


def name_of(terminal: int) -> str:
    """The terminal's path, "" if it has none here, as that of a container."""
    try:
        return os.ttyname(terminal)
    except OSError:
        return ""


def window(ends: Ends) -> bytes | None:
    return window_of(ends.terminal) if ends.terminal >= 0 else None


@functools.cache
def terminal_group() -> int:
    """The group of terminals that mesg and write work with.

    The service asks for it at its start, so that no login waits for the name service.
    """
    import grp

    try:
        return grp.getgrnam("tty").gr_gid
    except KeyError:
        return -1
