# SPDX-License-Identifier: Apache-2.0
"""One recording per terminal: whether a shell that starts is recorded already.

A recorder registers the pty that it made for its shell. A shell is within a
recorded terminal, and starts bare, if

1. its controlling terminal is a registered pty (su, `bash -l`, sudo); or
2. the program that its own terminal leads to shows it on such a pty: the parent
   of its session's leader was handed the pty (a tmux server whose client is
   attached there: it has the pty open, beyond the standard descriptors a daemon
   inherits), or is root's or the login's user's and has it as its controlling terminal, in the
   foreground and in raw mode (script, sudo and su with a pty of their own). A chain
   of these counts.

All else is recorded, so what can't be told (another user's process) is at worst
recorded twice: a pane opened while no recorded terminal is attached to its tmux
server, a login through a server that somebody started by hand in a recorded
terminal (that terminal is not in raw mode), a second terminal of a desktop.

What a registration is worth does not rest on what is written in it. The kernel
says whether the entry's file is write-locked, and by which process; that ends
with the process, so no killed recorder, reused pid or earlier boot leaves a lock
behind. And the entry must belong to root or the folder's owner; or else (a
recorder of the user's own) its holder must be an ancestor of the shell. A new
login over the network has no ancestor of the user's making; one by su has. No
environment variable is asked. The pty's number can't be given to another terminal
meanwhile, because the lock keeps the pty's slave open.

There are two folders. The recorder service's is its own, mode 0755, and it looks at
no other: what users register neither counts for it nor takes its time. Recorders of
users' own share the other, mode 1777, owned by root or the recorder's user, and look
at both.
"""

from __future__ import annotations

import _stat as stat
import errno
import fcntl
import os
import time
from _struct import Struct

from ttyscribe.errors import LockError, printable, reason
from ttyscribe.session.identity import NO_SESSION, audit_session
from ttyscribe.session.processes import (
    controlling_terminal,
    handed_terminals,
    is_ancestor,
    is_raw,
    owner_of,
    parent_of,
    process_of,
)

FOLDER = "/run/ttyscribe/lock"
SERVICE_FOLDER = "/run/ttyscribe/service-lock"

# Relays within relays: tmux in script in sudo.
_DEPTH = 8
# struct flock of fcntl(2): l_type, l_whence, l_start, l_len, l_pid.
_FLOCK = Struct("@hhqqi4x")


class Lock:
    """What one recording has registered; held until release, or the end of this process.

    It belongs to the process that called acquire, not to one forked from it.
    """

    def __init__(self, registry: _Registry | None, rec: str) -> None:
        self._registry = registry
        self._others: list[_Registry] = []
        self._rec = rec
        self._entry: _Entry | None = None
        self._slave = -1

    def hold_terminal(self, slave: int) -> None:
        """Register the pty whose slave is open as slave, before the shell starts in it.

        Keeps a copy of slave open. Does nothing where the kind of the lock asks for
        nothing. Raises LockError if the folder can't be written, and OSError if no descriptor
        is left.
        """
        if self._registry is None or self._entry is not None:
            return
        device = os.fstat(slave)
        self._entry = self._registry.add(_terminal_key(device.st_dev, device.st_rdev), self._rec)
        # A dying process closes its descriptors in ascending order: the lock must go first.
        try:
            self._slave = fcntl.fcntl(slave, fcntl.F_DUPFD_CLOEXEC, self._entry.fd + 1)
        except OSError as error:
            # A number at the limit is an invalid argument, not one too many.
            if error.errno != errno.EINVAL:
                raise
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE)) from None

    def hold_session(self, session: int) -> None:
        """Register the audit session. Raises LockError if the folder can't be written."""
        if self._registry is not None:
            self._entry = self._registry.add(f"session-{session}", self._rec)

    def is_second(self, session: int) -> bool:
        """Whether the audit session that this lock registered is recorded by another one."""
        if self._registry is None or self._entry is None:
            return False
        places = [self._registry, *self._others]
        return any(place.is_held_before(self._entry, session) for place in places)

    def is_within(self, pid: int, uid: int) -> bool:
        """Whether what uid's process pid shows on its terminal is recorded by another one."""
        places = [self._registry, *self._others] if self._registry is not None else []
        return _is_within(places, pid, uid)

    def look_into(self, folder: str) -> None:
        """Look into folder too, if there is one."""
        try:
            self._others.append(_Registry(folder, os.R_OK | os.X_OK))
        except LockError:
            pass  # no recorder service was ever here

    def release(self) -> None:
        """Give the lock back."""
        if self._registry is None:
            return
        if self._entry is not None:
            self._registry.remove(self._entry)
        if self._slave >= 0:
            os.close(self._slave)
        for registry in (self._registry, *self._others):
            registry.close()
        self._registry = None


def acquire(
    kind: str, rec: str, folder: str = FOLDER, pid: int | None = None, uid: int | None = None
) -> Lock | None:
    """The lock for a recording rec of the login pid (default: this process) of the user uid.

    None: the login is recorded already, and its shell starts bare. kind is
    "terminal"; "session", of which only one shell is recorded for each audit session
    (where there is none it is as "terminal"); or "none". Raises LockError if the
    folder is missing, can't be written, or lets users remove each other's locks.
    """
    if kind == "none":
        return Lock(None, rec)
    pid = os.getpid() if pid is None else pid
    uid = os.geteuid() if uid is None else uid
    registry = _Registry(folder)
    lock = Lock(registry, rec)
    if folder == FOLDER:
        lock.look_into(SERVICE_FOLDER)
    session = audit_session(pid) if kind == "session" else NO_SESSION
    try:
        if session == NO_SESSION:
            recorded = lock.is_within(pid, uid)
        else:
            lock.hold_session(session)
            recorded = lock.is_second(session)
    except LockError:
        lock.release()
        raise
    if not recorded:
        return lock
    lock.release()
    return None


class _Entry:
    """One file of the folder: KEY.TIME-PID, where names sort by the time of registration."""

    __slots__ = ("fd", "key", "name")

    def __init__(self, key: str, name: str, fd: int) -> None:
        self.key = key
        self.name = name
        self.fd = fd


class _Registry:
    """The lock folder."""

    def __init__(self, folder: str, access: int = os.W_OK | os.X_OK) -> None:
        self._folder = folder
        self._fd = -1
        try:
            self._fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            status = os.fstat(self._fd)
            usable = os.access(f"/proc/self/fd/{self._fd}", access, effective_ids=True)
        except OSError as error:
            raise self._unusable(reason(error)) from None
        self._owners = (0, status.st_uid)
        if status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
            self.close()
            raise self._unusable("its users can remove each other's locks")
        if not usable:
            self.close()
            raise self._unusable("not writable")

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def add(self, key: str, rec: str) -> _Entry:
        """Register key, visible only once it is locked. Raises LockError."""
        name = f"{key}.{time.monotonic_ns():020d}-{os.getpid()}"
        fd = -1
        try:
            self._clean()
            fd = os.open(
                f".{name}",
                os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC,
                0o644,
                dir_fd=self._fd,
            )
            # Whatever the umask: others must be able to look, and only we to lock.
            os.fchmod(fd, 0o644)
            os.write(fd, f"{key} {os.getpid()} {rec}\n".encode())
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.rename(f".{name}", name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        except OSError as error:
            if fd >= 0:
                os.close(fd)
                self._unlink(f".{name}")
            raise self._unusable(reason(error)) from None
        return _Entry(key, name, fd)

    def remove(self, entry: _Entry) -> None:
        """Unregister; the name goes first, so that none is seen without its lock."""
        self._unlink(entry.name)
        os.close(entry.fd)

    def is_held(self, key: str, pid: int, owner: int = -1) -> bool:
        """Whether a live recorder has registered the terminal key, in a way that pid may believe.

        owner is a user whose recorders are believed without being pid's ancestors.
        """
        for name in self._names(key):
            holder, uid = self._holder(name, key)
            if holder is None:
                continue
            if uid in self._owners or uid == owner or is_ancestor(holder, pid):
                return True
        return False

    def is_held_before(self, entry: _Entry, session: int) -> bool:
        """Whether a live recorder of the audit session was there before entry.

        Its entry is believed if it runs in that session itself, which no user can
        choose for a process.
        """
        for name in self._names(entry.key):
            if name >= entry.name:
                break
            holder, uid = self._holder(name, entry.key)
            if holder is None:
                continue
            if uid in self._owners or (holder > 0 and audit_session(holder) == session):
                return True
        return False

    def _names(self, key: str) -> list[str]:
        prefix = key + "."
        try:
            return sorted([name for name in os.listdir(self._fd) if name.startswith(prefix)])
        except OSError as error:
            raise self._unusable(reason(error)) from None

    def _holder(self, name: str, key: str) -> tuple[int | None, int]:
        """(pid, uid of the file) of an entry's live holder; pid None if there is none.

        pid is 0 where the holder is in another pid namespace.
        """
        try:
            # Anything may have been planted: a FIFO would block, a link lead elsewhere.
            fd = os.open(
                name,
                os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC,
                dir_fd=self._fd,
            )
        except OSError:
            return None, -1
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o022:
                return None, -1
            # A hard link under another name would still have its own key inside.
            if os.read(fd, 256).split(b" ")[0] != key.encode():
                return None, -1
            # What conflicts with a read lock is a write lock, which only the owner can have.
            asked = _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
            kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, asked))
            return (max(pid, 0), status.st_uid) if kind != fcntl.F_UNLCK else (None, -1)
        except OSError:
            return None, -1
        finally:
            os.close(fd)

    def _clean(self) -> None:
        """Remove what killed recorders left, as far as it is ours to remove."""
        for name in os.listdir(self._fd):
            key, _, pid = name.lstrip(".").rpartition("-")
            if not pid.isdecimal() or os.path.exists(f"/proc/{pid}/stat"):
                continue
            # Its pid may be one of another container, alive.
            if self._holder(name, key.rpartition(".")[0])[0] is None:
                self._unlink(name)

    def _unlink(self, name: str) -> None:
        try:
            os.unlink(name, dir_fd=self._fd)
        except OSError:
            pass

    def _unusable(self, why: str) -> LockError:
        how = "-o ttyscribe -g ttyscribe -m 755" if self._folder == SERVICE_FOLDER else "-m 1777"
        return LockError(
            f"{printable(self._folder)}: can't be used as lock folder: {why};"
            f" make it with: install -d {how} {printable(self._folder)}"
        )


def _is_within(registries: list[_Registry], pid: int, uid: int) -> bool:
    """Whether what uid's process pid shows on its terminal is recorded already."""
    for _ in range(_DEPTH):
        process = process_of(pid)
        if process is None:
            return False
        terminal = controlling_terminal(pid, process)
        if terminal is not None:
            key = _terminal_key(*terminal)
            if any(registry.is_held(key, pid) for registry in registries):
                return True
        leader = process if process.session == pid else process_of(process.session)
        relay = None if leader is None else parent_of(leader)
        if leader is None or relay is None:
            return False
        owner = owner_of(leader.parent)
        for handed in handed_terminals(leader.parent):
            key = _terminal_key(*handed)
            if any(registry.is_held(key, leader.parent, owner) for registry in registries):
                return True
        pid = leader.parent
        if not (relay.terminal and relay.group == relay.foreground and is_raw(pid, relay)):
            return False
        # Another user's may show it or not, however raw its terminal is.
        if owner not in (0, uid):
            return False
    return False


def _terminal_key(filesystem: int, device: int) -> str:
    return f"pts-{filesystem:x}-{device:x}"
