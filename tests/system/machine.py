# SPDX-License-Identifier: Apache-2.0
"""Real users, their logins, and the recorder service of this machine."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import ptyprocess
from tests.driving import Terminal, messages, wait_until

from ttyscribe.recorder import wire
from ttyscribe.tlog.decode import ParsedMessage

LOCK = Path("/tmp/ttyscribe-machine.lock")
LAUNCHER = Path(sys.executable).parent / "ttyscribe-rec-session"
RECORDER = [sys.executable, "-I", "-m", "ttyscribe", "recorder"]
CONFIG = Path("/etc/ttyscribe")
SOCKET = Path(wire.SOCKET)
LOG = Path("/var/log/ttyscribe")
SERVICE_USER = "ttyscribe"
# (path, mode), as packaging/files has them for the service's user.
FOLDERS = (
    (Path("/run/ttyscribe"), 0o755),
    (Path("/run/ttyscribe/outer"), 0o700),
    (Path("/run/ttyscribe/lock"), 0o1777),
    (Path("/run/ttyscribe/service-lock"), 0o755),
    (Path("/var/spool/ttyscribe"), 0o700),
    (LOG, 0o700),
)
_TIOCGPTN = 0x80045430


class User:
    """A user made for a test, with the recorder as login shell."""

    def __init__(self, name: str) -> None:
        account = pwd.getpwnam(name)
        self.name = name
        self.uid = account.pw_uid
        self.gid = account.pw_gid
        self.home = Path(account.pw_dir)


class Login(Terminal):
    """A login of a user on a terminal of their own, as login(1) or sshd makes it."""

    def __init__(
        self,
        user: User,
        arguments: Sequence[str] = (),
        *,
        env: dict[str, str] | None = None,
        shell: Path = LAUNCHER,
    ) -> None:
        def become() -> None:
            os.fchown(0, user.uid, -1)
            os.fchmod(0, 0o620)
            os.initgroups(user.name, user.gid)
            os.setgid(user.gid)
            os.setuid(user.uid)
            os.chdir(user.home)

        environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(user.home),
            "LOGNAME": user.name,
            "USER": user.name,
            "SHELL": str(shell),
            "TERM": "dumb",
            "LANG": "C.UTF-8",
            "PS1": "$ ",
            **(env or {}),
        }
        self._process = ptyprocess.PtyProcess.spawn(
            [str(shell), *arguments], env=environment, dimensions=(24, 80), preexec_fn=become
        )
        # Closing would wait that long each time for a program to notice.
        self._process.delayafterclose = 0
        self.seen = b""
        self._searched = 0
        self.user = user
        self.name = f"/dev/pts/{pts_number(self.fd)}"

    def __enter__(self) -> Self:
        return self

    def run(self, command: str) -> str:
        """Have the shell run one line; what it printed."""
        self.expect(rb"\$ ")
        self.line(f"{command}; printf '<%s>\\n' end")
        self.expect(rb"end\r\n")
        return self.expect(rb"(.*?)<end>\r\n").group(1).decode().replace("\r\n", "\n")

    def exit(self, status: int = 0) -> None:
        """Leave the shell, and see it end with this status."""
        self.expect(rb"\$ ")
        self.line(f"exit {status}")
        assert self.finish() == status


class Machine:
    """The machine's configuration, recorder service, and users."""

    def __init__(self) -> None:
        self.recorders: list[subprocess.Popen[bytes]] = []
        self.log = LOG / "recordings.tlog"
        self.recorded = 0

    def configure(self, **settings: object) -> None:
        """Write the login shell's configuration: recording to the log, and these settings."""
        values = {
            "shell": "/bin/bash",
            "notice": "",
            "writer": "file",
            "file": {"path": str(self.log)},
            "latency": 1,
            **settings,
        }
        beside = CONFIG / "rec-session.conf.new"
        beside.write_text(json.dumps(values))
        beside.rename(CONFIG / "rec-session.conf")

    def start_recorder(self, *options: str, wait: bool = True) -> subprocess.Popen[bytes]:
        """A recorder service at the default socket."""
        before = inode(SOCKET)
        process = subprocess.Popen([*RECORDER, *options], stdin=subprocess.DEVNULL)
        self.recorders.append(process)
        if wait:
            wait_until(
                lambda: process.poll() is not None or inode(SOCKET) not in (None, before),
                "the recorder does not listen",
            )
            assert process.poll() is None
            # A process that is being served has no second session: until this one's is over.
            with contextlib.closing(connect()) as probe:
                probe.shutdown(socket.SHUT_WR)
                assert [probe.recv(1) for _ in range(2)] == [wire.ACCEPTED, b""]
            wait_until(lambda: self.sessions(process) == [], "the connection's child stays")
        return process

    def sessions(self, process: subprocess.Popen[bytes]) -> list[int]:
        """The children that a recorder has for its sessions; its courier was its first."""
        return sorted(children(process.pid))[1:]

    def stop_recorder(self, process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        process.wait(timeout=20)
        self.recorders.remove(process)

    def no_recorder(self) -> None:
        for process in [*self.recorders]:
            self.stop_recorder(process)
        assert not SOCKET.exists()

    def messages(self) -> list[ParsedMessage]:
        """What is recorded since the last call."""
        found = messages(self.log) if self.log.exists() else []
        new = found[self.recorded :]
        self.recorded = len(found)
        return new


def connect() -> socket.socket:
    """A connection to the recorder service."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.settimeout(20)
    sock.connect(str(SOCKET))
    return sock


def inode(path: Path) -> int | None:
    try:
        return path.lstat().st_ino
    except FileNotFoundError:
        return None


def children(pid: int) -> list[int]:
    """The processes that a process has started and that are there."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def set_window(fd: int, rows: int, columns: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def pts_number(master: int) -> int:
    """The number of a pty's slave."""
    number: int = struct.unpack("I", fcntl.ioctl(master, _TIOCGPTN, bytes(4)))[0]
    return number


def end_processes(uid: int) -> None:
    """End what a test's user has left running: each by its pid, until there is none."""

    def none_left() -> bool:
        left = processes(uid)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not left

    wait_until(none_left, f"processes of uid {uid} do not end")


def processes(uid: int) -> list[int]:
    """The living processes of a user."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if not entry.name.isdigit():
                continue
            status = (entry / "status").read_text()
            fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
            if fields["State"][0] not in "ZX" and int(fields["Uid"].split()[0]) == uid:
                found.append(int(entry.name))
    return found


def proc_status(pid: int, field: str) -> str:
    """A field of /proc/PID/status."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return line.partition(":")[2].strip()
    raise AssertionError(f"no {field} in the status of {pid}")


def as_user(user: User, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python code as a user, on pipes, with arguments in sys.argv[1:]."""
    return subprocess.run(
        [sys.executable, "-I", "-c", code, *arguments],
        user=user.uid,
        group=user.gid,
        extra_groups=[],
        cwd=user.home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextlib.contextmanager
def make_user(name: str) -> Iterator[User]:
    with (
        tempfile.TemporaryDirectory() as nothing,
        account(name, "--create-home", "--skel", nothing, "--shell", str(LAUNCHER)),
    ):
        try:
            yield User(name)
        finally:
            end_processes(pwd.getpwnam(name).pw_uid)


@contextlib.contextmanager
def account(name: str, *options: str) -> Iterator[None]:
    known = subprocess.run(["getent", "passwd", name], stdout=subprocess.DEVNULL, check=False)
    if known.returncode == 0:
        yield
        return
    subprocess.run(["useradd", *options, name], check=True)
    try:
        yield
    finally:
        remove = ["userdel", "--remove"] if "--create-home" in options else ["userdel"]
        subprocess.run([*remove, name], stderr=subprocess.DEVNULL, check=False)
