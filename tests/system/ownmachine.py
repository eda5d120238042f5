# SPDX-License-Identifier: Apache-2.0
"""A machine of the test's own: users, configuration, /dev, /run and logs that nobody else sees.

A mount namespace in which /etc and /var/log are overlays and /dev, /run, /home and
/var/spool are new. What a test adds there, breaks or fills up is gone when it leaves,
even if it is killed; and other tests can run at the same time.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.driving import wait_until

CHECKOUT = Path(__file__).parents[2]
LAUNCHER = CHECKOUT / ".venv/bin/ttyscribe-rec-session"
CONFIG = Path("/etc/ttyscribe/rec-session.conf")
USER = "ttytester"
# Processes are not our own namespace's alone: nobody else's users are to have these ids.
UID = "47911"
SERVICE_USER = "ttyscribe"
SERVICE_UID = "47901"
SOCKET = Path("/run/ttyscribe/recorder.sock")
JOURNALD = "/lib/systemd/systemd-journald"
NOTICE = "== this session is recorded ==\n"
# As an installation makes them for the service's user.
FOLDERS = (
    ("/run/ttyscribe", 0o755),
    ("/run/ttyscribe/outer", 0o700),
    ("/run/ttyscribe/lock", 0o1777),
    ("/run/ttyscribe/service-lock", 0o755),
    ("/var/spool/ttyscribe", 0o700),
    ("/var/log/ttyscribe", 0o700),
    ("/home/ttyscribe", 0o700),
)

_CLONE_NEWNS = 0x00020000
_MS_REC_PRIVATE = 0x4000 | 1 << 18
_PTYS = 200
# What programs expect in /dev; names, then (major, minor).
_DEVICES = {
    "null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9),
    "tty": (5, 0), "ptmx": (5, 2),
}  # fmt: skip


class OwnMachine:
    """The namespace, as long as this process is in it: see own_machine."""

    def __init__(self) -> None:
        self.namespace = os.stat("/proc/self/ns/mnt").st_ino
        self._recorder: subprocess.Popen[bytes] | None = None

    # Users and configuration.

    def add_user(self, name: str) -> None:
        """A user with a home and /bin/bash, who can log in with a key alone."""
        subprocess.run(
            ["useradd", "-m", "-u", UID, "-s", "/bin/bash", name], check=True, capture_output=True
        )
        # "!" in shadow is a locked account to sshd and PAM; this is a password nobody has.
        subprocess.run(["usermod", "-p", "*", name], check=True, capture_output=True)
        home = Path("/home") / name
        (home / ".hushlogin").touch()
        (home / ".bash_profile").write_text("PS1='ready$ '\nunset MAILCHECK\n")
        (home / ".bashrc").write_text("PS1='ready$ '\n")

    def set_shell(self, name: str, shell: str | Path) -> None:
        """What passwd says is the user's login shell."""
        lines = Path("/etc/passwd").read_text().splitlines()
        for number, line in enumerate(lines):
            if line.startswith(f"{name}:"):
                lines[number] = f"{line.rpartition(':')[0]}:{shell}"
        fresh = Path("/etc/passwd.fresh")
        fresh.write_text("\n".join(lines) + "\n")
        fresh.replace("/etc/passwd")

    def configure(self, values: Mapping[str, object]) -> None:
        """Write the login shell's configuration."""
        CONFIG.write_text(json.dumps(values))

    # Servers.

    def start_recorder(self, *options: str) -> None:
        """The recorder service, as systemd would start it."""
        self._recorder = subprocess.Popen(
            [sys.executable, "-I", "-m", "ttyscribe", "recorder", *options], cwd="/",
            stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        wait_until(SOCKET.exists, "the recorder does not listen")

    def stop_recorder(self) -> None:
        """End the service, if it runs."""
        if self._recorder is not None:
            self._recorder.terminate()
            self._recorder.wait(10)
            self._recorder = None

    @contextlib.contextmanager
    def journald(self) -> Iterator[subprocess.Popen[bytes]]:
        """journald, with its /dev/log."""
        folder = Path("/etc/systemd/journald.conf.d")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "test.conf").write_text(
            "[Journal]\nStorage=volatile\nRateLimitIntervalSec=0\nReadKMsg=no\nAudit=no\n"
        )
        server = subprocess.Popen(
            [JOURNALD], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        log = Path("/dev/log")
        try:
            wait_until(lambda: answers("/run/systemd/journal/dev-log"), "journald does not listen")
            wait_until(lambda: answers("/run/systemd/journal/socket"), "journald does not listen")
            if not log.exists():
                log.symlink_to("/run/systemd/journal/dev-log")
            yield server
        finally:
            server.terminate()
            server.wait(10)
            log.unlink(missing_ok=True)
            for used in ("/run/systemd/journal", "/run/log/journal"):
                shutil.rmtree(used, ignore_errors=True)
            Path("/run/systemd/journal").mkdir(parents=True)

    # Processes.

    def processes(self) -> list[int]:
        """All processes on this machine but our own."""
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit() and int(entry) != os.getpid():
                with contextlib.suppress(OSError):
                    if os.stat(f"/proc/{entry}/ns/mnt").st_ino == self.namespace:
                        found.append(int(entry))
        return found

    def running(self, *words: str, whole: bool = False) -> list[int]:
        """Processes with exactly these words in a row in their command line, or as all of it."""
        wanted = b"\0" + b"\0".join(word.encode() for word in words) + b"\0"
        found = []
        for pid in self.processes():
            with contextlib.suppress(OSError):
                line = b"\0" + Path(f"/proc/{pid}/cmdline").read_bytes()
                if line == wanted if whole else wanted in line:
                    found.append(pid)
        return found

    def end_all(self) -> None:
        """Kill all that still runs here."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in self.processes():
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


@contextlib.contextmanager
def own_machine(folder: Path) -> Iterator[OwnMachine]:
    """Be on a machine of our own. folder is an empty one to build it in."""
    libc = ctypes.CDLL(None, use_errno=True)
    where = Path.cwd()
    outside = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _checked(libc.unshare(_CLONE_NEWNS), "unshare")
        try:
            _checked(libc.mount(b"none", b"/", None, _MS_REC_PRIVATE, None), "mount /")
            _furnish(folder)
            machine = OwnMachine()
            try:
                yield machine
            finally:
                machine.end_all()
        finally:
            _checked(libc.setns(outside, _CLONE_NEWNS), "setns")
            os.chdir(where)
    finally:
        os.close(outside)


def mount(kind: str, target: str | Path, options: str) -> None:
    """mount(8) a file system of this kind."""
    subprocess.run(["mount", "-t", kind, "-o", options, kind, str(target)], check=True)


def answers(path: str) -> bool:
    """Whether a datagram service reads at path."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        return probe.connect_ex(path) == 0


def _furnish(folder: Path) -> None:
    # An overlay can't lie on another one, as a container's root may be.
    mount("tmpfs", folder, "mode=755")
    for target in ("/etc", "/var/log"):
        upper, work = (folder / f"{part}{target.replace('/', '-')}" for part in ("upper", "work"))
        upper.mkdir()
        work.mkdir()
        mount("overlay", target, f"lowerdir={target},upperdir={upper},workdir={work}")
    _make_dev(folder)
    for target in ("/run", "/home", "/var/spool"):
        mount("tmpfs", target, "mode=755")
    if not CHECKOUT.is_relative_to("/root"):
        mount("tmpfs", "/root", "mode=700")
    for name in ("/run/lock", "/run/sshd", "/run/systemd/journal", "/var/spool/mail"):
        Path(name).mkdir(parents=True)
    Path("/run/utmp").touch()
    Path("/run/utmp").chmod(0o664)
    shutil.chown("/run/utmp", group="utmp")
    Path("/etc/motd").write_text("")
    for old in ("/etc/update-motd.d", str(CONFIG.parent), "/var/log/ttyscribe", "/var/log/journal"):
        shutil.rmtree(old, ignore_errors=True)
    CONFIG.parent.mkdir()
    with open("/etc/shells", "a") as shells:
        shells.write(f"{LAUNCHER}\n")
    _make_service_user()
    for name, mode in FOLDERS:
        Path(name).mkdir(exist_ok=True)
        Path(name).chmod(mode)
        shutil.chown(name, SERVICE_USER, SERVICE_USER)


def _make_service_user() -> None:
    for name in ("passwd", "shadow", "group", "gshadow"):
        # One that another test has the whole machine have has an id that we can't use.
        file = Path("/etc", name)
        lines = file.read_text().splitlines(keepends=True)
        others = [line for line in lines if not line.startswith(f"{SERVICE_USER}:")]
        file.write_text("".join(others))
    command = ["useradd", "--system", "-u", SERVICE_UID, "-U", "--shell", "/usr/sbin/nologin"]
    subprocess.run([*command, SERVICE_USER], check=True, capture_output=True)


def _make_dev(folder: Path) -> None:
    fresh = folder / "dev"
    fresh.mkdir()
    mount("tmpfs", fresh, "mode=755")
    before = os.umask(0)
    try:
        for name, (major, minor) in _DEVICES.items():
            os.mknod(fresh / name, 0o666 | stat.S_IFCHR, os.makedev(major, minor))
    finally:
        os.umask(before)
    for name, target in (("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        (fresh / name).symlink_to(f"/proc/self/{target}")
    for name in ("pts", "shm"):
        (fresh / name).mkdir()
    mount("devpts", fresh / "pts", f"newinstance,max={_PTYS},ptmxmode=0666,mode=0620,gid=5")
    mount("tmpfs", fresh / "shm", "mode=1777")
    subprocess.run(["mount", "--move", str(fresh), "/dev"], check=True)


def _checked(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
