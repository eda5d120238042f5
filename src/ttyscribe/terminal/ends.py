# SPDX-License-Identifier: Apache-2.0
"""The two sides that a session is recorded between: the user's and the shell's.

Each of the user's three standard descriptors that is their terminal, the first
that is any, is a pty for the shell; each other one that is recorded is a pipe of its
own (a socket pair where it is a socket: shells look), so that stdout and stderr stay
apart; and one that is not recorded goes to the shell as it is. A socket takes what is
written to it on any descriptor: as standard input it is a pair of ours, whose both
ways are relayed. What the shell leaves of an input that is relayed is left to who reads
it next (session/shared.py).
"""

from __future__ import annotations

import _socket
import fcntl
import os
import stat
import sys
import termios

from ttyscribe.errors import TerminalError, reason
from ttyscribe.terminal.job import Job, device_of
from ttyscribe.terminal.raw import copy_window

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_NONE = -1
# The size of a struct ucred, of which the first is the process: unix(7).
_CREDENTIALS = 12
# socket(7); Python has no name for it.
_SO_PEEK_OFF = 42


class Ends:
    """The descriptors of one session; -1 where there is none.

    terminal: the user's terminal. whole: whether all of the user's open descriptors are
    that. master, slave: the pty. child: what becomes the
    shell's standard input, output and error. outputs: (our end, the user's
    descriptor) for each recorded output that is no terminal; input likewise
    (the user's descriptor, our end), or None. held: another descriptor of the shell's
    end of that, where others may read what it leaves of it.
    """

    __slots__ = ("child", "held", "input", "master", "outputs", "slave", "terminal", "whole")

    def __init__(self) -> None:
        self.terminal = _NONE
        self.whole = False
        self.master = _NONE
        self.slave = _NONE
        self.child = [_NONE, _NONE, _NONE]
        self.outputs: list[tuple[int, int]] = []
        self.input: tuple[int, int] | None = None
        self.held = _NONE

    def close_childs(self) -> None:
        """Close the shell's ends of our pipes, once the shell has them."""
        for fd in set(self.child) - {_NONE, 0, 1, 2, self.slave}:
            os.close(fd)
        self.child = [_NONE, _NONE, _NONE]


def open_ends(
    fds: tuple[int, int, int], pid: int, *, log_input: bool, log_output: bool
) -> Ends:
    """Make the shell's side for the user's descriptors fds, some of which may be closed (-1).

    pid is the process that stands for the shell. Raises TerminalError if the system has no pty
    or descriptor left.
    """
    ends = Ends()
    terminals = [fd >= 0 and os.isatty(fd) for fd in fds]
    ends.whole = is_whole(fds)
    try:
        if any(terminals):
            ends.terminal = fds[terminals.index(True)]
            ends.master, ends.slave = _open_pty(ends.terminal)
            # What goes to another terminal is to arrive there.
            terminals = [fd >= 0 and _same(fd, ends.terminal) for fd in fds]
        for number, fd in enumerate(fds):
            if fd < 0:
                continue
            if terminals[number]:
                ends.child[number] = ends.slave
            elif number == 0:
                both_ways = log_output and _is_stream(fd)
                if (log_input and not _is_folder(fd)) or both_ways:
                    theirs, ours = _pair(fd)
                    os.set_blocking(ours, False)
                    ends.child[0] = theirs
                    ends.input = (fd, ours)
                    if _is_shared(fd, pid):
                        ends.held = above_standard(_hold(theirs))
                    if both_ways:
                        ends.outputs.append((_duplicate(ours), fd))
                else:
                    ends.child[0] = fd
            elif log_output and number == 1 and ends.outputs and _same(fd, fds[0]):
                # One socket for both stays one, as programs started by inetd expect.
                ends.child[1] = ends.child[0]
            elif log_output and number == 2 and ends.outputs and _same(fd, fds[1]):
                # Both go to one place: one pipe keeps their order as the shell wrote it.
                ends.child[2] = ends.child[1]
            elif log_output:
                ours, theirs = _pair(fd)
                os.set_blocking(ours, False)
                ends.child[number] = theirs
                ends.outputs.append((ours, fd))
            else:
                ends.child[number] = fd
    except OSError as error:
        raise TerminalError(f"no pty or pipe for the shell: {reason(error)}") from None
    return ends


def is_whole(fds: tuple[int, int, int]) -> bool:
    """Whether all of fds that are open are a terminal."""
    return all(os.isatty(fd) for fd in fds if fd >= 0)


def standard_descriptors() -> tuple[int, int, int]:
    """Our standard descriptors, -1 for each that was closed when we were started.

    To be called before anything is opened: the holes are filled with /dev/null,
    so that no file of ours lands where a program writes its messages.
    """
    fds = []
    for fd in range(3):
        try:
            os.fstat(fd)
            fds.append(fd)
        except OSError:
            # The lowest free descriptor is this one.
            os.open(os.devnull, os.O_RDWR)
            fds.append(_NONE)
    return fds[0], fds[1], fds[2]


def _open_pty(terminal: int) -> tuple[int, int]:
    """A pty with the modes and the window size of terminal; the master does not block."""
    master, slave = (above_standard(fd) for fd in os.openpty())
    os.set_blocking(master, False)
    termios.tcsetattr(slave, termios.TCSANOW, termios.tcgetattr(terminal))
    copy_window(terminal, slave)
    return master, slave


def shut_down(fd: int, way: int) -> None:
    """End one way of the socket fd, for all who have it open; other files have no such ways."""
    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
        return
    sock = _socket.socket(fileno=fd)
    try:
        sock.shutdown(way)
    except OSError:
        # The other end is gone already.
        pass
    finally:
        sock.detach()


def keep_only(used: set[int], fds: Iterable[int]) -> list[int]:
    """Close those of fds that are not in used, and return them: the caller may await their end.

    /dev/null takes their places; where it can't be opened, they stay.
    """
    left: list[int] = []
    places = {(status.st_dev, status.st_ino) for status in map(os.fstat, used)}
    try:
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return left
    for fd in fds:
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) not in places:
            os.dup2(nothing, fd)
            left.append(fd)
    os.close(nothing)
    return left


def leave_inherited() -> None:
    """Close what was open when we were started but the standard descriptors: the shell has it,
    and who waits for its end waits for the shell."""
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:
        return  # no /proc: they are seen to end later
    for name in names:
        fd = int(name)
        try:
            # What we opened ourselves is not for other programs.
            if fd > 2 and os.get_inheritable(fd):
                os.close(fd)
        except OSError:
            pass  # that of the listing itself


def _same(one: int, other: int) -> bool:
    first, second = os.fstat(one), os.fstat(other)
    if (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino):
        return True
    # A terminal has other names: /dev/tty.
    return os.isatty(one) and os.isatty(other) and device_of(one) == device_of(other)


def _is_folder(fd: int) -> bool:
    """Whether fd is a folder, of which nothing can be read."""
    return stat.S_ISDIR(os.fstat(fd).st_mode)


def _is_stream(fd: int) -> bool:
    """Whether fd is a stream socket."""
    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
        return False
    sock = _socket.socket(fileno=fd)
    kind = sock.type
    sock.detach()
    return kind == _socket.SOCK_STREAM


def _is_shared(fd: int, pid: int) -> bool:
    """Whether others than the process pid may read from fd after it, and can be left the rest.

    Not where sshd made both ends of a socket, for it alone.
    """
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_WRONLY and _has_place(fd)
    if not _is_stream(fd):
        return False
    sock = _socket.socket(fileno=fd)
    try:
        maker = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _CREDENTIALS)
        # Who has it looked at from another place than its beginning does that itself.
        if sock.getsockopt(_socket.SOL_SOCKET, _SO_PEEK_OFF) >= 0:
            return False
        parent = Job(pid).parent
        return int.from_bytes(maker[:4], sys.byteorder) != parent or not _is_sshd(parent)
    except OSError:
        return True
    finally:
        sock.detach()


def _has_place(fd: int) -> bool:
    """Whether it is known how far a file has been read."""
    try:
        os.lseek(fd, 0, os.SEEK_CUR)
    except OSError:
        return False
    return True


def _is_sshd(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/comm", "rb", 0) as file:
            return file.read().startswith(b"sshd")
    except OSError:
        return False


def _hold(fd: int) -> int:
    """Another descriptor of a pipe's or socket's end, which does not block where it is a pipe."""
    if stat.S_ISSOCK(os.fstat(fd).st_mode):
        return _duplicate(fd)
    return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def _duplicate(fd: int) -> int:
    copy: int = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    return copy


def _pair(like: int) -> tuple[int, int]:
    """A pipe (read end, write end), or a socket pair if like is a socket."""
    if stat.S_ISSOCK(os.fstat(like).st_mode):
        one, other = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
        pair = (one.detach(), other.detach())
    else:
        pair = os.pipe()
    return above_standard(pair[0]), above_standard(pair[1])


def above_standard(fd: int) -> int:
    """fd moved out of the way of the standard descriptors, one of which may be closed."""
    if fd > 2:
        return fd
    moved: int = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(fd)
    return moved
