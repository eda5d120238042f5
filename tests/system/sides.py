# SPDX-License-Identifier: Apache-2.0
"""The same login twice: with bash as the shell in passwd, and with the recording login shell."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import re
import resource
import shutil
import socket
import subprocess
import termios
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from tests.driving import Terminal, wait_until
from tests.system.ownmachine import LAUNCHER, NOTICE, SERVICE_USER, USER, OwnMachine

from ttyscribe.tlog import parse
from ttyscribe.tlog.decode import ParsedMessage

BASH = "/bin/bash"
TIMEOUT = 60
NO_LIMITS: Mapping[int, int] = {}
PATH = "/usr/local/bin:/usr/bin:/bin"


class Result(NamedTuple):
    """What a program wrote, and its exit status or minus the signal that ended it."""

    out: bytes
    err: bytes
    status: int


class Sshd:
    """A real sshd on 127.0.0.1 that lets USER in with a key."""

    def __init__(self, folder: Path, *, pam: bool) -> None:
        folder.mkdir()
        self.folder = folder
        self.key = folder / "key"
        for key in (self.key, folder / "host_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        keys = Path(f"/home/{USER}/.ssh")
        keys.mkdir(mode=0o700, exist_ok=True)
        with open(keys / "authorized_keys", "ab") as file:
            file.write(key_line(self.key))
        for path in (keys, keys / "authorized_keys"):
            shutil.chown(path, USER, USER)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        (folder / "sshd_config").write_text(
            f"ListenAddress 127.0.0.1\nPort {self.port}\nHostKey {folder}/host_key\n"
            f"PidFile none\nUsePAM {'yes' if pam else 'no'}\nPasswordAuthentication no\n"
            "KbdInteractiveAuthentication no\nPrintMotd no\nPrintLastLog no\nMaxSessions 100\n"
            "MaxStartups 100\nStrictModes no\nLogLevel ERROR\n"
            "Subsystem sftp /usr/lib/openssh/sftp-server\n"
        )
        (folder / "ssh_config").write_text(
            f"Host *\nHostName 127.0.0.1\nPort {self.port}\nUser {USER}\nIdentityFile {self.key}\n"
            "IdentitiesOnly yes\nStrictHostKeyChecking no\nUserKnownHostsFile /dev/null\n"
            "LogLevel ERROR\nBatchMode yes\n"
        )
        self._server = subprocess.Popen(
            ["/usr/sbin/sshd", "-D", "-e", "-f", folder / "sshd_config"],
            stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        wait_until(self._answers, "sshd does not listen")

    def client(self, *words: str) -> list[str]:
        """The command line of a client, up to the host's name excluded."""
        return ["ssh", "-F", str(self.folder / "ssh_config"), *words]

    def stop(self) -> None:
        self._server.terminate()
        self._server.wait(10)

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


class Side:
    """One way to log USER in: shell stands in passwd, config counts, recordings go to log."""

    def __init__(
        self,
        machine: OwnMachine,
        sshd: Sshd,
        name: str,
        shell: str | Path,
        values: dict[str, object] | None,
        log: Path | None,
    ) -> None:
        self.machine = machine
        self.sshd = sshd
        self.name = name
        self.shell = str(shell)
        self.values = values
        self.log = log
        self._master: subprocess.Popen[bytes] | None = None
        self._socket = str(sshd.folder / name)

    @property
    def recorded(self) -> bool:
        return self.log is not None

    def enter(self) -> None:
        """From here on a login is one of this side."""
        self.machine.set_shell(USER, self.shell)
        if self.values is not None:
            self.machine.configure(self.values)

    # Ways in.

    def ssh(
        self,
        *words: str,
        options: Sequence[str] = (),
        data: bytes | None = b"",
        stdin: IO[bytes] | int | None = None,
        out: IO[bytes] | int = subprocess.PIPE,
    ) -> Result:
        """`ssh OPTIONS host WORDS`, through this side's one connection; data is the input."""
        self._connect()
        argv = self.sshd.client("-S", self._socket, *options, "host", *words)
        return self.run(argv, data=data, stdin=stdin, out=out)

    def ssh_terminal(self, *words: str, options: Sequence[str] = ("-t",)) -> Terminal:
        """The same on a terminal, and with a connection of its own."""
        env = {"PATH": os.environ["PATH"], "TERM": "xterm", "HOME": "/root"}
        return Terminal(self.sshd.client(*options, "host", *words), env=env)

    def run(
        self,
        argv: Sequence[str],
        *,
        data: bytes | None = None,
        stdin: IO[bytes] | int | None = None,
        out: IO[bytes] | int = subprocess.PIPE,
    ) -> Result:
        """Run a program as root, with data as its input, or with a file as stdin."""
        done = subprocess.run(
            argv, input=data if stdin is None else None, stdin=stdin, stdout=out,
            stderr=subprocess.PIPE, check=False, timeout=TIMEOUT, cwd="/",
            env={"PATH": PATH + ":/usr/sbin:/sbin", "TERM": "xterm", "HOME": "/root"},
            start_new_session=True,
        )  # fmt: skip
        return Result(done.stdout or b"", done.stderr, done.returncode)

    def start(
        self,
        *arguments: str,
        login: bool = False,
        env: dict[str, str] | None = None,
        closed: Sequence[int] = (),
        user: str = USER,
        limits: Mapping[int, int] = NO_LIMITS,
        **how: object,
    ) -> subprocess.Popen[bytes]:
        """Start the shell in passwd just as sshd does, its argv[0] included.

        A terminal as stdin becomes the controlling one. closed are descriptors to
        close, limits soft limits by resource.
        """
        account = pwd.getpwnam(user)
        base = ("-" if login else "") + self.shell.rpartition("/")[2]
        if env is None:
            env = {"HOME": account.pw_dir, "LOGNAME": user, "USER": user, "PATH": PATH}
            env["SHELL"] = self.shell

        def prepare() -> None:
            if os.isatty(0):
                fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            for what, soft in limits.items():
                resource.setrlimit(what, (soft, resource.getrlimit(what)[1]))
            for fd in closed:
                os.close(fd)

        options = {
            "stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE,
            "cwd": account.pw_dir, "start_new_session": True, **how,
        }  # fmt: skip
        return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
            [base, *arguments], executable=self.shell, user=user, group=account.pw_gid,
            extra_groups=[account.pw_gid], env=env, preexec_fn=prepare, **options,
        )  # fmt: skip

    def started(self, *arguments: str, **how: object) -> Result:
        """Start the shell so, and wait for it and for all its output."""
        with self.start(*arguments, **how) as process:  # type: ignore[arg-type]
            out, err = process.communicate(timeout=TIMEOUT)
        return Result(out or b"", err or b"", process.returncode)

    def on_terminal(self, *arguments: str, user: str = USER, **how: object) -> Result:
        """Start the shell on a terminal of its own, and wait for it; out is what was shown."""
        master, slave = os.openpty()
        try:
            os.fchown(slave, pwd.getpwnam(user).pw_uid, -1)
            fds = dict.fromkeys(("stdin", "stdout", "stderr"), slave)
            process = self.start(*arguments, user=user, **{**fds, **how})  # type: ignore[arg-type]
            os.close(slave)
            shown = b""
            with contextlib.suppress(OSError):
                while data := os.read(master, 65536):
                    shown += data
            return Result(shown, b"", process.wait(TIMEOUT))
        finally:
            os.close(master)

    # What is left of it.

    def recordings(self) -> dict[str, list[ParsedMessage]]:
        """What the log holds, by recording."""
        found: dict[str, list[ParsedMessage]] = {}
        if self.log is not None and self.log.exists():
            for number, line in enumerate(self.log.read_bytes().splitlines(), 1):
                message = parse(line, f"{self.log}:{number}")
                found.setdefault(message.rec, []).append(message)
        return found

    def log_size(self) -> int:
        return self.log.stat().st_size if self.log is not None and self.log.exists() else 0

    def disconnect(self) -> None:
        if self._master is not None:
            # A signal that comes before it waits for the next thing to do is forgotten.
            leave = self.sshd.client("-S", self._socket, "-O", "exit", "host")
            subprocess.run(leave, capture_output=True, check=False)
            self._master.terminate()
            self._master.wait(10)
            self._master = None

    def _connect(self) -> None:
        if self._master is not None and self._master.poll() is None:
            return
        self.enter()
        self._master = subprocess.Popen(
            self.sshd.client("-M", "-N", "-S", self._socket, "host"),
            stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        wait_until(Path(self._socket).exists, "no connection")


def plain_bash(machine: OwnMachine, sshd: Sshd) -> Side:
    return Side(machine, sshd, "bash", BASH, None, None)


@contextlib.contextmanager
def recording(machine: OwnMachine, sshd: Sshd, mode: str, **more: object) -> Iterator[Side]:
    """The recording login shell: mode is "direct", or "service" with the service running."""
    owner = USER if mode == "direct" else SERVICE_USER
    folder = Path(f"/var/log/recorded-{mode}")
    folder.mkdir(mode=0o700, exist_ok=True)
    log = folder / "log"
    # Root's session may be the first.
    log.touch(mode=0o600)
    for path in (folder, log):
        shutil.chown(path, owner, owner)
    values = {
        "shell": BASH,
        "notice": NOTICE,
        "writer": "file",
        "file": {"path": str(log)},
        "service": "off" if mode == "direct" else "required",
        "latency": 1,
        **more,
    }
    side = Side(machine, sshd, mode, LAUNCHER, values, log)
    if mode == "service":
        machine.start_recorder()
    try:
        yield side
    finally:
        side.disconnect()
        machine.stop_recorder()


def without_notice(result: Result) -> tuple[Result, int]:
    """result without the notice, and how often it was there."""
    notice = NOTICE.rstrip("\n").encode()
    line = re.compile(re.escape(notice) + rb"\r*\n")
    out, count = line.subn(b"", result.out)
    return Result(out, result.err, result.status), count + result.err.count(notice)


def masked(result: Result) -> Result:
    """result without what differs from one login to the next."""
    out, err = result.out, result.err
    for pattern, word in _DIFFERS:
        out, err = re.sub(pattern, word, out), re.sub(pattern, word, err)
    return Result(out, err, result.status)


def key_line(key: Path) -> bytes:
    return key.with_suffix(".pub").read_bytes()


_DIFFERS = (
    (rb"/dev/pts/\d+", b"/dev/pts/N"),
    (rb" pts/\d+ +[A-Z][a-z]{2} \d\d \d\d:\d\d ", b" pts/N DATE "),
    (rb"(SSH_CLIENT|SSH_CONNECTION)=127\.0\.0\.1 \d+", rb"\1=127.0.0.1 P"),
    # sudo tells which shell it started.
    (rb"SUDO_COMMAND=(/bin/bash|%b)" % re.escape(os.fsencode(LAUNCHER)), b"SUDO_COMMAND=SHELL"),
    (rb"(pipe|socket):\[\d+\]", rb"\1:[N]"),
)
