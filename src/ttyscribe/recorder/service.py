# SPDX-License-Identifier: Apache-2.0
"""The recorder service: a small parent that accepts, forks, and reaps.

It imports all that a session needs and freezes it, so that a child shares its
memory; it reads nothing from a client. What a client may make slow or crash is
the child that serves it.
"""

from __future__ import annotations

import gc
import os
import resource
import select
import signal
import socket
import stat
import struct
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, NoReturn

from ttyscribe.errors import TtyscribeError, printable, reason
from ttyscribe.recorder import courier, outer, privileges, wire
from ttyscribe.recorder.marks import Marks
from ttyscribe.session import lock
from ttyscribe.session.alert import alert
from ttyscribe.session.outcome import signal_name
from ttyscribe.session.spoolfolder import SERVICE_FOLDER

if TYPE_CHECKING:
    from collections.abc import Callable

# (path, mode) of what packaging/files makes for the service's user; /run may be fresh.
FOLDERS = (
    ("/run/ttyscribe", 0o755),
    (outer.FOLDER, 0o700),
    (lock.FOLDER, 0o1777),
    (lock.SERVICE_FOLDER, 0o755),
    (SERVICE_FOLDER, 0o700),
)
_BACKLOG = 4096
# So many are accepted before one is served: a client that hears nothing gives up.
_BATCH = 256
# Descriptors of our own, beside the clients' that wait.
_OWN_FDS = 64
# In this many seconds a user may start as many sessions anew as they may have.
_REFILL = 8.0
# How often the parent looks for terminals that nobody gave back, in seconds; and while it
# knows of one.
_LOOK_PAUSE = 2.0
_LOOK_AGAIN = 0.1
# That a user's sessions are turned away is told the admin so often at the most, in seconds.
_ALERT_PAUSE = 60.0
# systemd's first passed descriptor, sd_listen_fds(3).
_LISTEN_FD = 3


class Limits:
    """How many sessions may be recorded at once: of one user, and in all."""

    __slots__ = ("per_user", "total")

    def __init__(self, per_user: int, total: int) -> None:
        self.per_user = per_user
        self.total = total


class Service:
    """The parent. Sessions are counted by user from what the kernel says of the peer."""

    def __init__(self, listener: socket.socket, limits: Limits) -> None:
        self._listener = listener
        self._limits = limits
        self._users: dict[int, int] = {}  # child's pid: its peer's uid
        self._counts: dict[int, int] = {}
        self._clients: dict[int, str] = {}  # child's pid: its peer, as outer.client_of
        self._marks = Marks(limits.total)
        self._recorded: set[str] = set()  # the living ones of them that were recorded
        self._alerted: dict[int, float] = {}  # uid: when the admin was told last
        self._waiting: deque[tuple[socket.socket, int, int]] = deque()  # with pid and uid
        self._room = room_for(limits.total)
        self._starts: dict[int, tuple[float, float]] = {}  # uid: (allowance, when)
        self._stopping = False
        self._courier = courier.start()
        self._courier_due = 0.0  # when another is to be started, where there is none
        self._look_due = 0.0  # when to look for terminals that nobody gave back
        self._wake, wake = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, lambda number, frame: None)

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT; sessions in progress go on in their children."""
        listener = self._listener
        listener.setblocking(False)
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        gc.disable()
        gc.collect()
        gc.freeze()
        while not self._stopping:
            pause = 0.0 if self._waiting else max(0.0, self._look_due - time.monotonic())
            for fd, _ in poll.poll(pause * 1000):
                if fd == self._wake:
                    self._on_signals()
                else:
                    self._accept()
            if self._waiting:
                self._serve(*self._waiting.popleft())
            self._look_after()
        while self._waiting:
            self._serve(*self._waiting.popleft())

    def _look_after(self) -> None:
        """What has to be done from time to time: have a courier, and give terminals back."""
        now = time.monotonic()
        if now < self._look_due:
            return
        # A former service's children have nobody else to do it for them.
        waits = outer.give_back_left_over(self._users)
        there = [client for client in self._recorded if outer.is_there(client)]
        self._recorded = set(there)
        self._look_due = now + (_LOOK_AGAIN if waits else _LOOK_PAUSE)
        if not self._courier and now >= self._courier_due:
            try:
                self._courier = courier.start()
            except OSError as error:
                why = f"the recorder can't start another process: {reason(error)}"
                print(f"ttyscribe recorder: {why}", file=sys.stderr, flush=True)

    def _on_signals(self) -> None:
        for number in set(os.read(self._wake, 4096)):
            if number in (signal.SIGTERM, signal.SIGINT):
                self._stopping = True
            elif number == signal.SIGCHLD:
                self._reap()
            # SIGHUP needs no work: each session reads the configuration that is there.

    def _accept(self) -> None:
        """Tell those who knock that we are there, before any of them is served."""
        for _ in range(_BATCH):
            if len(self._waiting) >= self._room:
                return
            try:
                connection, _ = self._listener.accept()
            except OSError:
                # There is no more, or we are out of descriptors for a moment.
                return
            try:
                connection.send(wire.ACCEPTED)
            except OSError:
                # It gave up, and has told so itself.
                connection.close()
                continue
            creds = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            pid, uid, _ = struct.unpack("iII", creds)
            why = self._full(uid)
            if why:
                self._refuse(connection, uid, why)
                continue
            self._counts[uid] = self._counts.get(uid, 0) + 1
            self._waiting.append((connection, pid, uid))

    def _serve(self, connection: socket.socket, peer: int, uid: int) -> None:
        """Start a child for a client."""
        client = outer.client_of(peer)
        try:
            pid = os.fork()
        except OSError as error:
            self._count_down(uid)
            why = f"the recorder can't start another process: {reason(error)}"
            self._refuse(connection, uid, why)
            return
        if pid == 0:
            self._be_child(connection)
        connection.close()
        self._marks.add(pid)
        self._users[pid] = uid
        self._clients[pid] = client

    def _count_down(self, uid: int) -> None:
        self._counts[uid] -= 1
        if not self._counts[uid]:
            del self._counts[uid]

    def _refuse(self, connection: socket.socket, uid: int, why: str) -> None:
        """Turn a client away without ever waiting for it, and tell the admin, not each time.

        What the admin wants then, the client reads in the configuration.
        """
        try:
            connection.setblocking(False)
            connection.send(wire.pack(wire.FULL, why.encode()))
        except OSError:
            pass
        connection.close()
        now = time.monotonic()
        if now - self._alerted.get(uid, -_ALERT_PAUSE) >= _ALERT_PAUSE:
            self._alerted[uid] = now
            # Everybody's logins would wait for a log that a user keeps busy.
            alert(f"user {uid}: sessions can't be recorded: {why}", patience=0)

    def _full(self, uid: int) -> str:
        if len(self._users) + len(self._waiting) >= self._limits.total:
            return f"{self._limits.total} sessions are recorded already, the most there may be"
        if uid and self._counts.get(uid, 0) >= self._limits.per_user:
            return f"this user has {self._limits.per_user} recorded sessions already, the most"
        if uid and not self._may_start(uid):
            return "this user starts too many sessions at once"
        return ""

    def _may_start(self, uid: int) -> bool:
        """Whether a user has a fork left: as many as their sessions, and more each second.

        Turning away costs next to nothing, so nobody keeps others waiting.
        """
        most = self._limits.per_user
        now = time.monotonic()
        allowance, when = self._starts.get(uid, (most, now))
        allowance = min(most, allowance + (now - when) * most / _REFILL)
        if allowance < 1:
            self._starts[uid] = (allowance, now)
            return False
        self._starts[uid] = (allowance - 1, now)
        return True

    def _be_child(self, connection: socket.socket) -> NoReturn:
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                # Sessions in progress outlive the service that started them.
                signal.signal(number, signal.SIG_IGN)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setsid()
            self._listener.close()
            os.close(self._wake)
            for other, _, _ in self._waiting:
                # Open here as well, it would not end with the child that will serve it.
                other.close()
            from ttyscribe.recorder.child import serve

            place = self._marks.next_place()
            others = self._recorded.union(self._clients.values())
            # Zero says that no session was recorded, which a child that is killed can't.
            recorded = serve(connection, others, lambda on: self._marks.set(place, on))
            status = 1 if recorded else 0
        finally:
            os._exit(status)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            uid = self._users.pop(pid, None)
            if uid is not None:
                self._count_down(uid)
            if self._marks.remove(pid):
                how = "ended too early"
                if os.WIFSIGNALED(status):
                    how = f"was killed by signal {signal_name(os.WTERMSIG(status))}"
                line = f"the process that recorded a session {how}, and with it the session ends"
                alert(f"user {uid}: {line}; what it captured is recovered", patience=0)
            client = self._clients.pop(pid, "")
            if client and status:
                self._recorded.add(client)
            # A child that was killed could not give its terminal back.
            self._look_due = 0.0
            if pid == self._courier:
                self._courier = 0
                self._courier_due = time.monotonic() + courier.PAUSE
                line = "ttyscribe recorder: its process for deliveries ended; another one follows"
                print(line, file=sys.stderr, flush=True)


def room_for(clients: int) -> int:
    """How many clients may wait at once, of so many; makes room for them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = clients + _OWN_FDS
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(wanted - _OWN_FDS, 1)


def preload() -> None:
    """Import what a session needs, so that children share it."""
    import grp
    import pwd

    import ttyscribe.config
    import ttyscribe.policy
    import ttyscribe.recorder.child
    import ttyscribe.session.echo
    import ttyscribe.session.skip
    import ttyscribe.writers.file
    import ttyscribe.writers.journal
    import ttyscribe.writers.limit
    import ttyscribe.writers.syslog

    # Name service modules and time zones are loaded on first use.
    pwd.getpwuid(0)
    grp.getgrgid(0)
    ttyscribe.recorder.child.terminal_group()
    ttyscribe.config.load("rec-session", files=[])
    time.localtime()


def listen(path: str) -> tuple[socket.socket, Callable[[], None]]:
    """The listening socket: systemd's, or our own at path; and what to do at the end.

    An own socket takes the place of a former service's in one step, so that no
    login finds none. Raises TtyscribeError.
    """
    if os.environ.get("LISTEN_PID") == str(os.getpid()) and os.environ.get("LISTEN_FDS"):
        sock = socket.socket(fileno=_LISTEN_FD)
        sock.set_inheritable(False)
        # From now on a client sees that it is us who listen.
        sock.listen(_BACKLOG)
        return sock, lambda: None
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    fresh = f"{path}.{os.getpid()}"
    try:
        sock.bind(fresh)
        os.chmod(fresh, 0o666)
        sock.listen(_BACKLOG)
        inode = os.stat(fresh).st_ino
        os.rename(fresh, path)
    except OSError as error:
        raise TtyscribeError(f"{path}: can't listen there: {reason(error)}") from None

    def withdraw() -> None:
        try:
            if os.lstat(path).st_ino == inode:
                os.unlink(path)
        except OSError:
            pass

    return sock, withdraw


def prepare(user: str) -> None:
    """Make the folders that the service needs, and become its user. Raises TtyscribeError."""
    if os.geteuid() != 0:
        privileges.keep(privileges.FOR_SETUP)
        privileges.hide()
    else:
        privileges_of(user)
    for folder in (outer.FOLDER, lock.FOLDER, lock.SERVICE_FOLDER, SERVICE_FOLDER):
        if not stat.S_ISDIR(os.lstat(folder).st_mode) or os.stat(folder).st_uid != os.geteuid():
            raise TtyscribeError(f"{folder}: is not a folder of user {user}'s; remove it")


def privileges_of(user: str) -> None:
    """From root: folders first, then the user."""
    import pwd

    try:
        account = pwd.getpwnam(user)
    except KeyError:
        account = None
    if account is not None:
        for folder, mode in FOLDERS:
            try:
                _make(folder, mode, account.pw_uid, account.pw_gid)
            except OSError as error:
                raise TtyscribeError(f"{folder}: {reason(error)}") from None
    privileges.become(user)


def _make(folder: str, mode: int, uid: int, gid: int) -> None:
    """Make a folder of the service's, or take over what root made for direct mode."""
    try:
        os.mkdir(folder, mode)
    except FileExistsError:
        # Only root can have put it there, and what it is is judged by whoever opens it.
        if os.lstat(folder).st_uid != 0:
            return
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchown(fd, uid, gid)
        os.fchmod(fd, mode)
    finally:
        os.close(fd)


def run(path: str, user: str, limits: Limits) -> int:
    """Run the service until it is told to end; return the exit status."""
    os.umask(0o077)
    prepare(user)
    if not privileges.sees_processes():
        print(f"ttyscribe recorder: {privileges.BLIND}", file=sys.stderr, flush=True)
    preload()
    listener, withdraw = listen(path)
    service = Service(listener, limits)
    try:
        ready()
        service.run()
    finally:
        withdraw()
        listener.close()
    return 0


def ready() -> None:
    """Tell systemd, where it wants to know, that logins can come (sd_notify(3))."""
    where = os.environ.get("NOTIFY_SOCKET", "")
    if not where:
        return
    address = "\0" + where[1:] if where.startswith("@") else where
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.sendto(b"READY=1", address)
        except OSError as error:
            print(f"ttyscribe recorder: {printable(where)}: {reason(error)}", file=sys.stderr)
