# SPDX-License-Identifier: Apache-2.0
"""Starting the real shell so that it can't tell the difference."""

from __future__ import annotations

import errno
import fcntl
import os
import termios

from ttyscribe.errors import (
    NO_DESCRIPTOR,
    NOT_EXECUTABLE,
    NOT_FOUND,
    SpawnError,
    TerminalError,
    printable,
)
from ttyscribe.terminal.ends import above_standard
from ttyscribe.terminal.job import has_terminal, is_stoppable
from ttyscribe.terminal.signals import forget

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Mapping, Sequence
    from typing import NoReturn
else:
    import _signal as signal

# What Python sets to ignored at its start; a shell must not inherit that,
# but for what its starter ignores (systemd ignores SIGPIPE for services).
_PYTHON_IGNORES = (signal.SIGPIPE, signal.SIGXFSZ)
_BY_SHELL = "/bin/sh"
# A session of which something is left after so many rounds of killing starts processes faster.
_ROUNDS = 10
# The limits that the shell is to have, by resource, where ours was raised.
_limits: dict[int, tuple[int, int]] = {}


def raise_limits() -> None:
    """Let this process write files as large, and run as long, as it may.

    The user's own limits (ulimit -f, -t) are meant for the user's programs, not for the
    recording: what is executed has them as they were.
    """
    import resource

    for what in (resource.RLIMIT_FSIZE, resource.RLIMIT_CPU):
        soft, hard = resource.getrlimit(what)
        if soft != hard:
            resource.setrlimit(what, (hard, hard))
            _limits[what] = soft, hard


class Child:
    """A program to be started: the file to run (looked up in PATH if it has no slash),
    its whole argument vector including argv[0], and its environment, all in bytes or text.

    ignored are the signals of those that Python ignores that the program is to ignore too,
    blocked those that it is to block: None for those that we do, but for held: those that
    we have blocked ourselves until it is there. group is spawn's answer.
    """

    __slots__ = ("argv", "blocked", "environ", "group", "held", "ignored", "path")

    def __init__(
        self,
        path: str,
        argv: Sequence[str],
        environ: Mapping[bytes, bytes],
        ignored: Sequence[int] = (),
        held: Sequence[int] = (),
    ) -> None:
        self.path = path
        self.argv = list(argv)
        self.environ = dict(environ)
        self.ignored = ignored
        self.held = held
        self.blocked: set[int] | None = None
        self.group = 0

    @property
    def is_interactive(self) -> bool:
        """Whether it is a shell that does nothing for keys that send signals, once it is there."""
        return len(self.argv) == 1 and os.isatty(0)


def spawn(
    child: Child,
    fds: tuple[int, int, int],
    terminal: int,
    *,
    controlled: bool = True,
    leave_terminal: bool = False,
) -> int:
    """Start child on the descriptors fds; return its pid.

    fds stand for its standard input, output and error; one that is -1 is closed.
    terminal is a pty's slave that becomes the controlling terminal of the child's
    new session; or if it is not to be controlled, it stays in ours, in a group of its own.
    Where our own job can be stopped, the child is a job of that session, and the pid is its
    leader's, which stops and ends as the child does (terminal/leader.py). child.group is set to
    the group of processes that has the pty while the child leaves that to whoever started us;
    0 where that can't be told, as of a shell that may give it to its jobs.
    With -1 the child stays in our session, unless we lead one that has
    no terminal: then it leads one as well. With leave_terminal it also does where we
    have a terminal, which it could open by name and be seen on. Raises SpawnError with
    status 127 or 126 if the program is not there or may not run, TerminalError if no process
    may, and that or OSError if no descriptor is left.
    """
    report_read, report_write = os.pipe()
    # Out of the way of descriptors 0 to 2, which may be closed for us.
    report_write = above_standard(report_write)
    leads = terminal < 0 and (
        leave_terminal if has_terminal() else os.getsid(0) == os.getpid()
    )
    stoppable = terminal >= 0 and controlled and is_stoppable(os.getpid())
    try:
        pid = os.fork()
    except OSError as error:
        os.close(report_read)
        os.close(report_write)
        why = os.strerror(error.errno or errno.EIO)
        if error.errno == errno.EAGAIN:
            why = "no more processes are allowed; raise their limit (ulimit -u)"
        # That two are needed where there was one is of our making.
        raise TerminalError(f"the shell can't be started: {why}") from None
    if pid == 0:
        try:
            signal.set_wakeup_fd(-1)
            if leads:
                os.setsid()
            if terminal >= 0:
                _take_terminal(terminal, controlled, report_write if stoppable else -1)
            _become(child, fds)
        except OSError as error:
            os.write(report_write, b"%d" % (error.errno or errno.EIO))
        except BaseException:  # nothing of ours may go on in the child
            os.write(report_write, b"%d" % errno.EINVAL)
        os._exit(NOT_FOUND)
    os.close(report_write)
    with open(report_read, "rb") as file:
        group, _, failed = file.read().rpartition(b"\n")
    if failed:
        os.waitpid(pid, 0)
        raise _spawn_error(child, int(failed))
    if terminal >= 0 and controlled:
        child.group = int(group or (pid if len(child.argv) > 1 else 0))
    return pid


def name_for(path: str, argv0: str) -> str:
    """The name that the shell at path is given where we are given argv0.

    It is path's last part, as sshd and su have it; cron and others name the path. With a dash
    a login shell.
    """
    dash = "-" if argv0.startswith("-") else ""
    return dash + (path if "/" in argv0 else path.rpartition("/")[2])


def name_terminal(child: Child, outer: int, inner: int) -> None:
    """Where sshd named the terminal outer to the child, name the one that it gets, inner."""
    given = child.environ.get(b"SSH_TTY")
    if given is None or inner < 0:
        return
    try:
        if given == os.fsencode(os.ttyname(outer)):
            child.environ[b"SSH_TTY"] = os.fsencode(os.ttyname(inner))
    except OSError:
        pass  # a terminal without a name here


def exec_shell(child: Child) -> NoReturn:
    """Become child on the descriptors that we have. Raises SpawnError if that can't be."""
    if child.is_interactive:
        forget(child.held)
    try:
        _exec(child)
    except OSError as error:
        raise _spawn_error(child, error.errno or errno.EIO) from None


def _take_terminal(terminal: int, controlled: bool, report: int) -> None:
    """report is where a job's group is told; -1 for a process that is to lead the session."""
    if not controlled:
        os.setpgid(0, 0)
        return
    os.setsid()
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
    if report >= 0:
        from ttyscribe.terminal.leader import become_job

        group = become_job(terminal)
        if group:
            os.write(report, b"%d\n" % group)


def _become(child: Child, fds: tuple[int, int, int]) -> NoReturn:
    # First out of the way, then into place: a target may be another's source.
    sources = [fd if fd < 0 else fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3) for fd in fds]
    for target, source in enumerate(sources):
        if source < 0:
            try:
                os.close(target)
            except OSError:
                pass
        else:
            os.dup2(source, target, inheritable=True)
    _exec(child)


def _exec(child: Child) -> NoReturn:
    if child.blocked is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, child.blocked)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, child.held)
    for number in _PYTHON_IGNORES:
        signal.signal(number, signal.SIG_IGN if number in child.ignored else signal.SIG_DFL)
    if _limits:
        import resource

        for what, pair in _limits.items():
            resource.setrlimit(what, pair)
    try:
        if "/" in child.path:
            os.execve(child.path, child.argv, child.environ)
        os.execvpe(child.path, child.argv, child.environ)
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise
        # A script without a first line that names its interpreter, as every shell runs it.
        os.execve(_BY_SHELL, [_BY_SHELL, child.path, *child.argv[1:]], child.environ)


def stands_apart(pid: int) -> bool:
    """Whether our child pid leads a group of its own, so that no signal to ours reaches it."""
    return os.getpgid(pid) != os.getpgrp()


def is_watched(controlled: bool) -> bool:
    """Whether somebody sees us stop, and takes the terminal, and wakes us: our session, or who
    has us start a shell that is not to be controlled, as su -c does."""
    return not controlled or os.getsid(os.getppid()) == os.getsid(0)


def is_undone(number: int, pid: int, controlled: bool) -> bool:
    """Undo a stop of the shell pid by the signal number that nobody would have seen without us.

    Where it is not to be controlled, it would have led our session, and the kernel would have
    left it alone but for SIGSTOP.
    """
    undone = not controlled and number != signal.SIGSTOP
    if undone:
        os.killpg(pid, signal.SIGCONT)
    return undone


def stop_too(is_woken: Callable[[], bool]) -> bool:
    """Stop this process, whose shell has stopped, until it is continued.

    As the keyboard does where that can stop us: sudo stops as we do, and with SIGSTOP would
    stop for ever where nobody is there to wake it. False if it is not stopped, for it was
    continued before: is_woken tells whether a handler has heard of it.
    """
    own = os.getpid()
    keyboard = signal.getsignal(signal.SIGTSTP) != signal.SIG_IGN and is_stoppable(own)
    return stop_by(signal.SIGTSTP if keyboard else signal.SIGSTOP, is_woken)


def stop_by(number: int, is_woken: Callable[[], bool]) -> bool:
    """Stop this process by the signal, blocked or not, as stop_too does."""
    # What wakes us takes back a stop that is still blocked.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [number])
    os.kill(os.getpid(), number)
    stops = not is_woken()
    if not stops:
        signal.sigtimedwait([number], 0)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return stops


def end_shell(pid: int) -> int:
    """End our child pid, which may not go on, and its session; what waitpid(2) tells of it.

    SIGHUP is what a lost terminal sends; it gets a second to end in order. It is waited for
    in the end, so that its number is no other's meanwhile.
    """
    import time

    apart = stands_apart(pid)
    for number in (signal.SIGHUP, signal.SIGCONT):
        os.kill(-pid if apart else pid, number)
    for _ in range(100):
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            break
        time.sleep(0.01)
    session = os.getsid(pid)
    # Its own, or ours where there is nobody else in that.
    if apart and session in (pid, os.getpid()):
        kill_session(session)
    os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


def kill_session(session: int) -> None:
    """Kill all processes of a session but its leader: its jobs are groups of their own."""
    for _ in range(_ROUNDS):
        left = False
        for name in os.listdir("/proc"):
            try:
                if name.isdecimal() and int(name) != session and os.getsid(int(name)) == session:
                    os.kill(int(name), signal.SIGKILL)
                    left = True
            except (ProcessLookupError, PermissionError):
                continue  # ended meanwhile, or another user's by now
        if not left:
            return


def _spawn_error(child: Child, number: int) -> SpawnError | TerminalError:
    name = printable(child.path)
    if number in (errno.ENOENT, errno.ENOTDIR):
        return SpawnError(f"{name}: not found", NOT_FOUND)
    if number in (errno.EMFILE, errno.ENFILE):
        # Of our making: a program's start takes none.
        return TerminalError(NO_DESCRIPTOR)
    return SpawnError(f"{name}: can't run: {os.strerror(number)}", NOT_EXECUTABLE)


