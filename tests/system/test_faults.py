# SPDX-License-Identifier: Apache-2.0
"""Faults that are really produced: the login comes to the outcome that the admin chose."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.driving import wait_until
from tests.system import sides
from tests.system.ownmachine import (
    CONFIG,
    NOTICE,
    SOCKET,
    UID,
    USER,
    OwnMachine,
    mount,
    own_machine,
)
from tests.system.sides import Result, Side, Sshd

from ttyscribe.events import OUTPUT
from ttyscribe.recorder import outer
from ttyscribe.session import lock
from ttyscribe.tlog import Decoder, parse
from ttyscribe.writers.syslog import FACILITIES, PRIORITIES

pytestmark = pytest.mark.system

MODES = ("direct", "service")
# A login must come to its outcome in a second; the rest is for a loaded machine.
SOON = 4.0
RECORDER = [sys.executable, "-I", "-m", "ttyscribe", "recorder"]
ALERT = b"<%d>" % (FACILITIES["authpriv"] * 8 + PRIORITIES["alert"])


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnMachine]:
    with own_machine(tmp_path_factory.mktemp("machine")) as machine:
        machine.add_user(USER)
        yield machine


@pytest.fixture(scope="module", params=MODES)
def ours(machine: OwnMachine, sshd: Sshd, request: pytest.FixtureRequest) -> Iterator[Side]:
    with sides.recording(machine, sshd, request.param) as side:
        side.enter()
        yield side


class SystemLog:
    """Whatever is sent to /dev/log."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        Path("/dev/log").unlink(missing_ok=True)
        self._socket.bind("/dev/log")
        Path("/dev/log").chmod(0o666)

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> list[bytes]:
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(self._socket.recv(1 << 20))
        return found

    def alerts(self) -> list[bytes]:
        return [line for line in self.read() if line.startswith(ALERT)]

    def close(self) -> None:
        self._socket.close()
        Path("/dev/log").unlink(missing_ok=True)


@pytest.fixture
def log(machine: OwnMachine) -> Iterator[SystemLog]:
    log = SystemLog()
    yield log
    log.close()


# How each fault is produced.


@contextlib.contextmanager
def moved(path: str | Path) -> Iterator[None]:
    """path is missing."""
    aside = Path(f"{path}.aside")
    Path(path).rename(aside)
    try:
        yield
    finally:
        if Path(path).is_dir():
            shutil.rmtree(path)
        aside.rename(path)


@contextlib.contextmanager
def locked(path: str | Path) -> Iterator[None]:
    """Nobody but root may use path."""
    status = Path(path).stat()
    os.chown(path, 0, 0)
    os.chmod(path, 0o700)
    try:
        yield
    finally:
        os.chown(path, status.st_uid, status.st_gid)
        os.chmod(path, status.st_mode)


@contextlib.contextmanager
def full(path: Path) -> Iterator[None]:
    """The folder path is on a file system without a free block."""
    status = path.stat()
    mount("tmpfs", path, f"size=64k,mode=700,uid={status.st_uid},gid={status.st_gid}")
    try:
        with contextlib.suppress(OSError), open(path / "ballast", "wb", 0) as file:
            while True:
                file.write(bytes(4096))
        yield
    finally:
        subprocess.run(["umount", "-l", path], check=True)


@contextlib.contextmanager
def no_more_ptys() -> Iterator[None]:
    """The login has its terminal, and there is no other."""
    subprocess.run(["mount", "-o", "remount,max=1", "/dev/pts"], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,max=200", "/dev/pts"], check=True)


def spool_folder(side: Side) -> Path:
    if side.name == "service":
        return Path("/var/spool/ttyscribe")
    return Path(f"/home/{USER}/.local/state/ttyscribe/spool")


def lock_folder(side: Side) -> str:
    return lock.SERVICE_FOLDER if side.name == "service" else lock.FOLDER


def log_folder(side: Side) -> Path:
    assert side.log is not None
    return side.log.parent


@contextlib.contextmanager
def unmakeable(path: Path) -> Iterator[None]:
    """path is missing, and where it belongs nobody but root may write."""
    with moved(path), locked(path.parent):
        path.parent.chmod(0o755)
        yield


NO_VALUES: Mapping[str, object] = {}


class Fault(NamedTuple):
    """produce makes it for as long as its block lasts; why is told to the user and the admin."""

    produce: Callable[[Side], contextlib.AbstractContextManager[object]]
    why: bytes
    values: Mapping[str, object] = NO_VALUES
    terminal: bool = False


NOTHING: Callable[[Side], contextlib.AbstractContextManager[object]]
NOTHING = lambda side: contextlib.nullcontext()  # noqa: E731
FAULTS = {
    "configuration does not parse": Fault(NOTHING, b"rec-session.conf:1:"),
    "configuration has an unknown value": Fault(NOTHING, b"latency", {"latency": "soon"}),
    "file's folder is missing": Fault(lambda side: moved(log_folder(side)), b"log: can't open"),
    "file's folder may not be used": Fault(
        lambda side: locked(log_folder(side)), b"log: can't open"
    ),
    "file is a folder": Fault(NOTHING, b"can't open", {"file": {"path": "/run"}}),
    "file is a symbolic link": Fault(NOTHING, b"link", {"file": {"path": "/run/link"}}),
    "file is on a full disk": Fault(lambda side: full(log_folder(side)), b"full|No space"),
    "journald is missing": Fault(NOTHING, b"journald", {"writer": "journal"}),
    "spool may not be used": Fault(lambda side: locked(spool_folder(side)), b"spool"),
    "spool can't be made": Fault(lambda side: unmakeable(spool_folder(side)), b"spool"),
    "spool is on a full disk": Fault(lambda side: full(spool_folder(side)), b"spool"),
    "lock folder is missing": Fault(lambda side: moved(lock_folder(side)), b"lock"),
    "lock folder may not be used": Fault(lambda side: locked(lock_folder(side)), b"lock"),
    "no pty left": Fault(lambda side: no_more_ptys(), b"pty", terminal=True),
}
OUTCOMES = {
    "denied": (USER, {"on_failure": "deny"}, False),
    "allowed": (USER, {"on_failure": "allow"}, True),
    "root allowed": ("root", {"on_failure": "deny"}, True),
    "root denied": ("root", {"on_failure": "allow", "on_failure_root": "deny"}, False),
}


def refused_or_not(side: Side, fault: Fault, user: str, values: Mapping[str, object]) -> Result:
    """Log in with the fault produced; in how long, is checked."""
    assert side.values is not None
    configured = json.dumps({**side.values, **values, **fault.values})
    broken = fault.why.startswith(b"rec-session.conf")
    with fault.produce(side):
        CONFIG.write_text(configured + "}" if broken else configured)
        begin = time.monotonic()
        command = ("-c", "echo in; exit 7")
        if fault.terminal:
            result = side.on_terminal(*command, user=user)
            lines = result.out.replace(b"\r\n", b"\n").splitlines(keepends=True)
            own = b"".join(line for line in lines if line.startswith(b"ttyscribe"))
            others = b"".join(line for line in lines if not line.startswith(b"ttyscribe"))
            result = Result(others, own, result.status)
        else:
            result = side.started(*command, user=user)
        assert time.monotonic() - begin < SOON
    return result


# What only keeps others out, or lies in the user's own home.
FINE_FOR_ROOT = (
    "file's folder may not be used", "spool may not be used", "spool can't be made",
    "spool is on a full disk", "lock folder may not be used",
)  # fmt: skip
CASES = [
    (mode, name, outcome)
    for mode in MODES
    for name in FAULTS
    for outcome in OUTCOMES
    if not (mode == "direct" and outcome.startswith("root") and name in FINE_FOR_ROOT)
]


@pytest.mark.parametrize(("ours", "name", "outcome"), CASES, indirect=["ours"])
def test_login_comes_to_the_configured_outcome(
    ours: Side, log: SystemLog, name: str, outcome: str
) -> None:
    fault = FAULTS[name]
    user, values, allowed = OUTCOMES[outcome]
    if name.startswith("configuration does not") and outcome in ("allowed", "root denied"):
        # What nobody can read chooses nothing: the defaults count.
        allowed = not allowed
    ours.machine.configure({**(ours.values or {}), **values})
    assert ours.started("-c", "true", user=user).status == 0
    Path("/run/link").unlink(missing_ok=True)
    Path("/run/link").symlink_to("/run/elsewhere")
    log.read()
    found = refused_or_not(ours, fault, user, values)
    assert re.search(fault.why, found.err), found
    assert found.err.count(b"\n") == 1
    assert found.err.startswith(b"ttyscribe: ")
    assert (found.out, found.status) == ((b"in\n", 7) if allowed else (b"", 1))
    assert (b"refused" in found.err) == (not allowed)
    (alert,) = log.alerts()
    assert re.search(fault.why, alert)


# One of each slip of an admin's pen, and where it is told to be.
SLIPS = {
    '{"latency": 5,}': b"1:14: a comma before }",
    "{": b"1:1: this { is never closed",
    '{"latency": 5': b"1:1: this { is never closed",
    '{"latency" 5}': b"1:11: a : is missing",
    '{"latency": 5 "payload": 64}': b"1:14: a comma is missing",
    "{latency: 5}": b"1:2: a key is in quotes",
    '{"notice": "a\tb"}': b"1:14: a control character",
    '{"notice": "\\x"}': b"1:13: not an escape",
    '{"skip": {"commands": ["a" "b"]}}': b"1:27: a comma is missing",
    "[1 2]": b"1:1: this must be an object",
    "": b"1:1: there is no configuration",
}


@pytest.mark.parametrize("text", SLIPS)
def test_slip_in_the_configuration_is_told_and_keeps_only_users_out(
    ours: Side, log: SystemLog, text: str
) -> None:
    CONFIG.write_text(text)
    for user, what, out, status in (
        (USER, b"login refused", b"", 1), ("root", b"this session is not recorded", b"in\n", 7),
    ):  # fmt: skip
        log.read()
        result = ours.started("-c", "echo in; exit 7", user=user)
        assert (result.out, result.status) == (out, status), result
        (line,) = result.err.splitlines()
        assert line.startswith(b"ttyscribe: " + what)
        assert b"rec-session.conf:" + SLIPS[text] in line
        (alert,) = log.alerts()
        assert b"rec-session.conf:" + SLIPS[text] in alert
        shown = ours.started("--configuration", user=user)
        assert (shown.out, shown.status) == (b"", 1)
        assert shown.err.startswith(f"ttyscribe: {CONFIG}:".encode() + SLIPS[text])
        assert shown.err.count(b"\n") == 1


def test_log_that_works_gets_the_alert(machine: OwnMachine, ours: Side) -> None:
    assert ours.values is not None
    with machine.journald():
        Path("/dev/log").unlink()
        ours.machine.configure({**ours.values, "writer": "syslog"})
        result = ours.started("-c", "echo in")
        assert (result.out, result.status) == (b"", 1)
        assert b"/dev/log" in result.err
        subprocess.run(["journalctl", "--sync"], check=True)
        found = subprocess.run(
            ["journalctl", "-o", "json", "-p", "alert", "SYSLOG_IDENTIFIER=ttyscribe"],
            capture_output=True, check=True,
        ).stdout.splitlines()  # fmt: skip
    (entry,) = [json.loads(line) for line in found]
    assert entry["PRIORITY"] == "1"
    assert "/dev/log" in entry["MESSAGE"]


def test_no_log_at_all_changes_no_outcome(ours: Side) -> None:
    assert ours.values is not None
    for on_failure, status in (("deny", 1), ("allow", 7)):
        ours.machine.configure({**ours.values, "writer": "syslog", "on_failure": on_failure})
        assert ours.started("-c", "exit 7").status == status


def test_host_name_that_does_not_resolve_is_no_failure(ours: Side, sshd: Sshd) -> None:
    ours.enter()
    before = set(ours.recordings())
    name = "no-such-host-anywhere"
    script = f"hostname {name}; exec su {USER} -c 'echo in; exit 7'"
    begin = time.monotonic()
    if ours.name == "service":
        # The host's name is the service's.
        ours.machine.stop_recorder()
        unshared = subprocess.Popen(
            ["unshare", "-u", "sh", "-c", f'hostname {name}; exec "$@"', "-", *RECORDER], cwd="/"
        )
        wait_until(SOCKET.exists, "the recorder does not listen")
        result = ours.run(["su", USER, "-c", "echo in; exit 7"])
        unshared.terminate()
        unshared.wait()
        ours.machine.start_recorder()
    else:
        result = ours.run(["unshare", "-u", "sh", "-c", script])
    assert (result.out, result.err, result.status) == (b"in\n", b"", 7)
    assert time.monotonic() - begin < SOON
    (rec,) = set(ours.recordings()) - before
    assert {message.host for message in ours.recordings()[rec]} == {name}


@pytest.mark.parametrize("on_terminal", [False, True])
@pytest.mark.parametrize("on_failure", ["deny", "allow"])
def test_descriptor_limit_leads_to_a_recording_or_the_outcome(
    ours: Side, log: SystemLog, on_failure: str, on_terminal: bool
) -> None:
    assert ours.values is not None
    ours.machine.configure({**ours.values, "on_failure": on_failure})
    seen = []
    for limit in (*range(3, 41), 64, 256):
        size = ours.log_size()
        log.read()
        begin = time.monotonic()
        start = ours.on_terminal if on_terminal else ours.started
        result = start("-c", "echo in; exit 7", limits={resource.RLIMIT_NOFILE: limit})
        assert time.monotonic() - begin < SOON
        shown = (result.out + result.err).replace(b"\r\n", b"\n").splitlines()
        if ours.log_size() > size:
            assert shown == [NOTICE.encode().strip()] * on_terminal + [b"in"], limit
            assert (result.status, log.alerts()) == (7, []), limit
            seen.append("recorded")
            continue
        lines = [line for line in shown if line != b"in"]
        assert len(lines) == 1 and lines[0].startswith(b"ttyscribe: "), (limit, shown)
        assert b"raise the limit of open files" in lines[0], limit
        # With fewer than seven even the configuration can't be read.
        allowed = on_failure == "allow" and limit >= 7
        assert (b"in" in shown, result.status) == ((True, 7) if allowed else (False, 1)), limit
        (alert,) = log.alerts()
        assert b"raise the limit of open files" in alert
        seen.append("failed")
    assert seen == sorted(seen) and set(seen) == {"recorded", "failed"}


@pytest.mark.parametrize("on_failure", ["deny", "allow"])
def test_process_limit_leads_to_the_outcome(ours: Side, log: SystemLog, on_failure: str) -> None:
    assert ours.values is not None
    ours.machine.configure({**ours.values, "on_failure": on_failure})
    if ours.name == "direct":
        # One that the next login recovers, which takes a process too.
        assert ours.started("-c", "kill -9 $PPID").status == -signal.SIGKILL
        assert list(spool_folder(ours).glob("*.spool"))
        assert log.alerts() == []
    result = ours.started("-c", "echo in; exit 7", limits={resource.RLIMIT_NPROC: 0})
    allowed = on_failure == "allow"
    assert (result.out, result.status) == ((b"in\n", 7) if allowed else (b"", 1)), result
    (line,) = result.err.splitlines()
    assert re.match(rb"ttyscribe: .*no (more processes are allowed|process or memory is)", line)
    (alert,) = log.alerts()
    assert re.search(rb"no (more processes are allowed|process or memory is)", alert)


@pytest.mark.parametrize("ours", ["service"], indirect=True)
def test_service_that_is_stopped_is_given_up_soon_and_told_of_once(
    machine: OwnMachine, ours: Side, log: SystemLog
) -> None:
    assert ours.values is not None
    (pid, *_) = sorted(machine.running("ttyscribe", "recorder"))
    log.read()
    os.kill(pid, signal.SIGSTOP)
    try:
        for on_failure, expected in (("deny", (b"", 1)), ("allow", (b"in\n", 7))):
            machine.configure({**ours.values, "on_failure": on_failure})
            for more in ([], ["--login"]):  # the native client, and the one in Python
                begin = time.monotonic()
                result = ours.started("-c", *more, "echo in; exit 7")
                assert time.monotonic() - begin < SOON
                assert (result.out, result.status) == expected
                assert result.err.endswith(b"the recorder service gives no answer; restart it\n")
                assert result.err.count(b"\n") == 1
                (alert,) = log.alerts()
                assert b"gives no answer" in alert
    finally:
        os.kill(pid, signal.SIGCONT)
    # Those who gave up come first.
    assert ours.started("-c", "exit 7").status == 7
    wait_until(lambda: len(machine.running("ttyscribe", "recorder")) == 2, "a recorder stays")
    assert log.alerts() == []


@pytest.mark.parametrize("ours", ["service"], indirect=True)
@pytest.mark.parametrize(("on_failure", "status"), [("deny", 1), ("allow", 7)])
def test_shell_for_which_no_process_is_left_has_no_notice_that_it_is_recorded(
    machine: OwnMachine, ours: Side, log: SystemLog, on_failure: str, status: int
) -> None:
    assert ours.values is not None
    machine.configure({**ours.values, "on_failure": on_failure})
    shown = ours.on_terminal("-c", "exit 7").out
    assert NOTICE.rstrip().encode() in shown
    log.read()
    result = ours.on_terminal("-c", "exit 7", limits={resource.RLIMIT_NPROC: 0})
    what = b"login refused" if status == 1 else b"this session is not recorded"
    assert result.out.startswith(b"ttyscribe: " + what) and result.out.count(b"\n") == 1
    assert b"no process or memory is left" in result.out
    assert result.status == status
    assert len(log.alerts()) == 1


def ended(side: Side, rec: str) -> bool:
    """Whether a recording has its end."""
    last = side.recordings()[rec][-1].extra
    return last is not None and last.get("event") == "end"


@pytest.mark.parametrize("ours", ["service"], indirect=True)
@pytest.mark.parametrize("gone", ["note", "folder of notes", "spool file"])
def test_file_that_is_removed_while_a_session_runs_costs_it_nothing(
    machine: OwnMachine, ours: Side, log: SystemLog, gone: str
) -> None:
    ours.enter()
    before = set(ours.recordings())
    with contextlib.ExitStack() as later, ours.ssh_terminal() as terminal:
        terminal.expect(rb"ready\$ ")
        log.read()
        if gone == "folder of notes":
            later.enter_context(moved(outer.FOLDER))
        else:
            folder = Path(outer.FOLDER) if gone == "note" else spool_folder(ours)
            pattern = "*" if gone == "note" else "*.spool"
            # The courier may not have been where earlier logins were refused.
            wait_until(lambda: len([*folder.glob(pattern)]) == 1, "more than this session's file")
            next(folder.glob(pattern)).unlink()
        terminal.line("exit 3")
        assert terminal.finish() == 3
        (rec,) = set(ours.recordings()) - before
        wait_until(lambda: ended(ours, rec), "the recording has no end")
        wait_until(lambda: len(machine.running("ttyscribe", "recorder")) == 2, "it does not end")
        assert log.alerts() == []
        if gone == "folder of notes":
            result = ours.on_terminal("-c", "echo in")
            assert result.status == 1
            assert result.out.startswith(b"ttyscribe: login refused")
            assert outer.FOLDER.encode() in result.out and result.out.count(b"\n") == 1
            (alert,) = log.alerts()
            assert outer.FOLDER.encode() in alert
    assert ours.started("-c", "exit 7").status == 7


@pytest.mark.parametrize("ours", ["service"], indirect=True)
def test_recorder_that_is_killed_is_told_of_if_it_was_recording(
    machine: OwnMachine, ours: Side, log: SystemLog
) -> None:
    ours.enter()
    assert ours.started("-c", "exit 7").status == 7

    def recorders() -> list[int]:
        return machine.running("ttyscribe", "recorder")

    wait_until(lambda: len(recorders()) == 2, "the last session's recorder stays")
    service = set(recorders())
    # One that was said nothing to records nothing.
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as silent:
        silent.connect(str(SOCKET))
        wait_until(lambda: len(recorders()) == 3, "nobody serves the connection")
        (pid,) = set(recorders()) - service
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: len(recorders()) == 2, "it stays")
    with ours.ssh_terminal() as terminal:
        terminal.expect(rb"ready\$ ")
        assert log.alerts() == []
        (pid,) = set(recorders()) - service
        os.kill(pid, signal.SIGKILL)
        terminal.expect(b"the recorder is gone; the session ends")
        assert terminal.finish() == 1
    wait_until(lambda: select.select([log], [], [], 0)[0] != [], "the admin is not told")
    (alert,) = log.alerts()
    assert b"user " + UID.encode() + b": " in alert and b"killed by signal KILL" in alert


def test_service_that_is_required_and_missing(
    machine: OwnMachine, ours: Side, log: SystemLog
) -> None:
    assert ours.values is not None
    machine.stop_recorder()
    for on_failure, expected in (("deny", (b"", 1)), ("allow", (b"in\n", 7))):
        machine.configure({**ours.values, "service": "required", "on_failure": on_failure})
        result = ours.started("-c", "echo in; exit 7")
        assert (result.out, result.status) == expected
        assert b"recorder.sock" in result.err
        (alert,) = log.alerts()
        assert b"recorder.sock" in alert
    if ours.name == "service":
        machine.start_recorder()


# What a user does to the recording's files while it runs; all of it reached the writer.
HARMS = {
    "spool file": "rm -f ~/.local/state/ttyscribe/spool/*",
    "state folder": "rm -rf ~/.local/state",
    "spool folder's mode": "chmod 0 ~/.local/state/ttyscribe/spool",
}


@pytest.mark.parametrize("ours", ["direct"], indirect=True)
@pytest.mark.parametrize("on_failure", ["deny", "allow"])
@pytest.mark.parametrize("user", [USER, "root"])
@pytest.mark.parametrize("harm", HARMS)
def test_session_that_has_begun_is_not_begun_again(
    ours: Side, log: SystemLog, harm: str, user: str, on_failure: str
) -> None:
    assert ours.values is not None
    outcome = {"on_failure": on_failure, "on_failure_root": on_failure}
    ours.machine.configure({**ours.values, **outcome})
    home = Path(f"/home/of-{user}")
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    shutil.chown(home, user, user)
    env = {"HOME": str(home), "PATH": sides.PATH}
    script = f"echo x >> ~/runs; {HARMS[harm]}; exit 7"
    before = set(ours.recordings())
    result = ours.started("-c", script, user=user, env=env)
    assert (result.out, result.err, result.status) == (b"", b"", 7)
    shutil.rmtree(home / ".local", ignore_errors=True)
    result = ours.on_terminal("-c", script, user=user, env=env)
    assert (result.out.count(b"ttyscribe"), result.status) == (0, 7)
    assert (home / "runs").read_text() == "x\n" * 2
    assert len(set(ours.recordings()) - before) == 2
    assert log.alerts() == []


@pytest.mark.parametrize("ours", ["direct"], indirect=True)
def test_loss_at_the_end_is_one_alert_and_keeps_the_status(
    machine: OwnMachine, ours: Side, log: SystemLog
) -> None:
    assert ours.values is not None
    values = {**ours.values, "writer": "journal", "on_failure": "allow"}
    machine.configure({**values, "limit": {"action": "pass"}})
    script = "echo x >> ~/runs; rm -rf ~/.local/state; read x; echo more; exit 7"
    Path(f"/home/{USER}/runs").unlink(missing_ok=True)
    with machine.journald() as daemon:
        process = ours.start("-c", script, stdin=subprocess.PIPE)
        wait_until(Path(f"/home/{USER}/runs").exists, "the session does not begin")
        daemon.kill()
        daemon.wait()
        Path("/dev/log").unlink()
        again = SystemLog()
        try:
            out, err = process.communicate(b"go\n", timeout=30)
            alerts = again.alerts()
        finally:
            again.close()
    assert (out, process.returncode) == (b"more\n", 7)
    assert Path(f"/home/{USER}/runs").read_text() == "x\n"
    assert err.count(b"\n") == 1 and b"file was removed" in err
    (alert,) = alerts
    assert b"a recording is not complete" in alert and b"is lost" in alert


def processes_of(user: str) -> list[str]:
    """All of a user's processes, those included that nobody has waited for."""
    found = subprocess.run(["ps", "-o", "pid=", "-U", user], stdout=subprocess.PIPE, check=False)
    return found.stdout.decode().split()


# Jobs that use up all processes of their user, and write on when the shell has ended.
CROWD = (
    "echo x >> ~/runs; perl -e 'for (;;) { my $p = fork(); if (defined $p && !$p) "
    '{ $| = 1; sleep 2; print "job\\n"; exit } last if time > $^T + 1 }\' & sleep 0.5; exit 7'
)


@pytest.mark.parametrize("ours", ["direct"], indirect=True)
@pytest.mark.parametrize("on_failure", ["deny", "allow"])
def test_jobs_that_leave_no_process_to_record_them_are_recorded_nonetheless(
    ours: Side, log: SystemLog, on_failure: str
) -> None:
    assert ours.values is not None
    ours.machine.configure({**ours.values, "on_failure": on_failure})
    Path(f"/home/{USER}/runs").unlink(missing_ok=True)
    before = set(ours.recordings())
    limit = len(processes_of(USER)) + 12
    result = ours.started("-c", CROWD, limits={resource.RLIMIT_NPROC: limit})
    assert (result.err, result.status) == (b"", 7)
    assert result.out.count(b"job\n") > 2
    assert Path(f"/home/{USER}/runs").read_text() == "x\n"
    (rec,) = set(ours.recordings()) - before
    decoder = Decoder()
    messages = ours.recordings()[rec]
    held = [data for m in messages for _, kind, data in decoder.decode(m) if kind == OUTPUT]
    assert b"".join(held) == result.out
    assert log.alerts() == []


LINES = 300_000


@pytest.mark.parametrize("on_outage", ["freeze", "end"])
def test_outage_while_a_session_runs(machine: OwnMachine, ours: Side, on_outage: str) -> None:
    assert ours.values is not None
    limit = {"limit": 1 << 20, "sync": "none"}
    machine.configure({**ours.values, "writer": "journal", "on_outage": on_outage, "spool": limit})
    with contextlib.ExitStack() as daemons:
        daemon = daemons.enter_context(machine.journald())
        with ours.ssh_terminal() as terminal:
            terminal.expect(rb"ready\$ ")
            daemon.send_signal(signal.SIGKILL)
            daemon.wait()
            # What is captured waits, and the user notices nothing of it.
            for number in range(3):
                terminal.line(f"echo still $(({number} + 7))")
                terminal.expect(b"still %d\r\n.*ready\\$ " % (number + 7))
            terminal.line(f"seq {LINES}")
            if on_outage == "end":
                terminal.expect(b"ttyscribe: the session ends.*journald")
                terminal.finish()
                assert b"\n%d\r\n" % LINES not in terminal.seen
                return
            terminal.expect(b"ttyscribe: the terminal waits.*journald")
            daemons.enter_context(machine.journald())
            terminal.expect(b"ttyscribe: the recording goes on\r\n")
            terminal.expect(rb"\n%d\r\n.*ready\$ " % LINES)
            terminal.line("exit 3")
            assert terminal.finish() == 3
        seen = terminal.seen
        wait_until(lambda: b'"event":"end"' in journal(machine), "the recording has no end")
        held = output_of(journal(machine))
    for line in (NOTICE, "", "ttyscribe: the terminal waits", "ttyscribe: the recording goes on"):
        if line:
            pattern = re.escape(line.rstrip("\n").encode())
            seen = re.sub(rb"(\r\n)?" + pattern + rb"[^\r]*\r*\n", b"", seen)
    assert held in seen
    assert seen.endswith(held)
    assert b"\n%d\r\n" % LINES in held


def send_all(end: socket.socket, data: bytes) -> None:
    end.sendall(data)
    end.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("on", ["socket", "file"])
def test_input_that_others_read_on_outlasts_an_outage(
    machine: OwnMachine, ours: Side, tmp_path: Path, on: str
) -> None:
    """What the shell had not read when its terminal waited is read by it, and the rest is left."""
    assert ours.values is not None
    size = 4 << 20
    more = {"log": {"input": True}, "spool": {"limit": 1 << 20, "sync": "none"}}
    machine.configure({**ours.values, **more, "writer": "journal"})
    lines = b"".join(b"%d\n" % number for number in range(700_000))
    theirs, rest = lines[:size], lines[size:]
    gate = Path(f"/home/{USER}/gate")
    os.mkfifo(gate)
    gate.chmod(0o644)
    script = f"su {USER} -c 'echo ready; read x <{gate}; head -c {size} | sha1sum'; sha1sum"
    with contextlib.ExitStack() as undo:
        daemon = undo.enter_context(machine.journald())
        if on == "file":
            (tmp_path / "input").write_bytes(lines)
            source = undo.enter_context(open(tmp_path / "input", "rb")).fileno()
        else:
            here, there = (undo.enter_context(end) for end in socket.socketpair())
            source = there.fileno()
            threading.Thread(target=send_all, args=(here, lines)).start()
        process = subprocess.Popen(
            ["bash", "-c", script], stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == b"ready\n"
        daemon.send_signal(signal.SIGKILL)
        daemon.wait()
        gate.write_text("\n")
        gate.unlink()
        assert process.stderr.readline() == b"\n"
        assert b"the terminal waits" in process.stderr.readline()
        undo.enter_context(machine.journald())
        out, err = process.communicate(timeout=60)
    assert b"the recording goes on" in err
    found = [line.split()[0].decode() for line in out.splitlines()]
    assert found == [hashlib.sha1(part).hexdigest() for part in (theirs, rest)]


def test_outage_ends_a_shell_without_a_terminal_that_ignores_its_hangup(
    machine: OwnMachine, ours: Side
) -> None:
    assert ours.values is not None
    more = {"writer": "journal", "on_outage": "end", "spool": {"limit": 1 << 20, "sync": "none"}}
    machine.configure({**ours.values, **more})
    script = f"trap '' HUP PIPE; echo ready; read x; seq {LINES}; exec sleep 3003"
    with machine.journald() as daemon:
        process = ours.start("-c", script, stdin=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        daemon.send_signal(signal.SIGKILL)
        daemon.wait()
        _, err = process.communicate(b"go\n", timeout=30)
    assert b"ttyscribe: the session ends" in err
    assert not machine.running("-c", script) and not machine.running("sleep", "3003")


def test_outage_ends_the_jobs_of_a_shell_that_its_hangup_ends(
    machine: OwnMachine, ours: Side
) -> None:
    assert ours.values is not None
    more = {"writer": "journal", "on_outage": "end", "spool": {"limit": 1 << 20, "sync": "none"}}
    machine.configure({**ours.values, **more})
    for _ in range(4):  # which of both the waiting process sees first is chance
        with machine.journald() as daemon, ours.ssh_terminal() as terminal:
            terminal.expect(rb"ready\$ ")
            terminal.line(f"(trap '' HUP; exec sleep 3006) & read x; exec seq {LINES}")
            wait_until(lambda: machine.running("sleep", "3006"), "no job")
            daemon.send_signal(signal.SIGKILL)
            daemon.wait()
            terminal.line("go")
            terminal.expect(b"ttyscribe: the session ends.*journald")
            terminal.finish()
        assert not machine.running("sleep", "3006")


class FullJournal:
    """Stands in journald's place, and reads nothing until it is asked to."""

    def __init__(self) -> None:
        path = "/run/systemd/journal/socket"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        Path(path).unlink(missing_ok=True)
        self._socket.bind(path)
        Path(path).chmod(0o666)
        self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._sender.connect(path)
        self.ends = 0

    def fill(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                self._sender.send(b"x")

    def read(self) -> int:
        """Read all; how many recordings' ends there were until now."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.ends += b'"event":"end"' in self._socket.recv(1 << 20)
        return self.ends

    def close(self) -> None:
        self._sender.close()
        self._socket.close()
        Path("/run/systemd/journal/socket").unlink()


def test_writer_that_takes_nothing_at_the_end_keeps_nobody_and_gets_all_later(ours: Side) -> None:
    assert ours.values is not None
    ours.machine.configure({**ours.values, "writer": "journal", "notice": ""})
    journald = FullJournal()
    try:
        process = ours.start("-c", "echo ready; read x; exit 7", stdin=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        journald.fill()
        begin = time.monotonic()
        process.communicate(b"go\n", timeout=30)
        # A second for one that records itself; the rest is for a loaded machine.
        assert time.monotonic() - begin < (1.5 if ours.name == "service" else 2.5)
        assert process.returncode == 7
        # From here on it takes them.
        journald.read()
        if ours.name == "direct":
            # The next recording delivers what was left.
            assert ours.started("-c", "exit 7").status == 7
        wanted = 1 if ours.name == "service" else 2
        wait_until(lambda: journald.read() >= wanted, "the end is not delivered")
    finally:
        journald.close()


@pytest.mark.parametrize("ours", ["service"], indirect=True)
@pytest.mark.parametrize(("how", "seconds"), [("stopped", 3), ("restarted", 10)])
def test_journald_away_for_a_while_in_the_middle_costs_no_byte(
    machine: OwnMachine, ours: Side, how: str, seconds: int
) -> None:
    assert ours.values is not None
    machine.configure({**ours.values, "writer": "journal", "notice": ""})
    with contextlib.ExitStack() as daemons:
        daemon = daemons.enter_context(machine.journald())
        with ours.ssh_terminal() as terminal:
            terminal.expect(rb"ready\$ ")
            # Nothing is on its way to a journald that is to end, which would take it along.
            wait_until(lambda: output_of(newest(machine)) == terminal.seen, "not recorded")
            if how == "stopped":
                daemon.send_signal(signal.SIGSTOP)
            else:
                daemon.terminate()
                daemon.wait(10)
            back = time.monotonic() + seconds
            number = 0
            while time.monotonic() < back:
                number += 1000
                terminal.line(f"seq {number} {number + 999}; sleep 0.2; echo $(({number} / 7))-")
                terminal.expect(b"\r\n%d-\r\n.*ready\\$ " % (number // 7))
            if how == "stopped":
                daemon.send_signal(signal.SIGCONT)
            else:
                daemons.enter_context(machine.journald())
            terminal.line("echo back; exit 3")
            assert terminal.finish() == 3
        wait_until(lambda: b'"event":"end"' in newest(machine), "the recording has no end")
        assert output_of(newest(machine)) == terminal.seen
    assert len(terminal.seen) > number * 4


def newest(machine: OwnMachine) -> bytes:
    """The messages of the recording that began last, without what is recovered of others."""
    lines = journal(machine).splitlines(keepends=True)
    messages = [(parse(line, "journal"), line) for line in lines]
    began = [message.rec for message, _ in messages if message.id == 1]
    return b"".join(line for message, line in messages if message.rec in began[-1:])


def journal(machine: OwnMachine) -> bytes:
    """The messages that the machine's journal holds of the user's recordings."""
    subprocess.run(["journalctl", "--sync"], check=True)
    return subprocess.run(
        ["journalctl", "-o", "cat", "-a", "TLOG_USER=" + USER], capture_output=True, check=True
    ).stdout


def output_of(log: bytes) -> bytes:
    """The output that messages hold, their ids checked."""
    decoder = Decoder()
    held = b""
    for number, line in enumerate(log.splitlines(), 1):
        message = parse(line, f"journal:{number}")
        assert message.id == number
        held += b"".join(data for _, kind, data in decoder.decode(message) if kind == OUTPUT)
    return held
