# SPDX-License-Identifier: Apache-2.0
"""What journald drops of a recording by the service is noticed and reported."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from zlib import crc32

import pytest
from tests.driving import MAIN, clean_environment, run, wait_until
from tests.system.machine import LAUNCHER, Login, User, children
from tests.system.ownmachine import SERVICE_USER, OwnMachine, own_machine

from ttyscribe.events import Message
from ttyscribe.session import arrival, spoolfile
from ttyscribe.session.identity import recording_id
from ttyscribe.session.recovery import Left
from ttyscribe.session.stores import last_written
from ttyscribe.tlog import Identity
from ttyscribe.writers.journal import JournalWriter

USER = "ttyrecorded"
SPOOL = Path("/var/spool/ttyscribe")
DROP_IN = Path("/etc/systemd/journald.conf.d/zz-limit.conf")
# journald looks at the hierarchy that systemd would use; which one differs.
HIERARCHIES = [Path("/sys/fs/cgroup") / name for name in ("systemd", "unified", "")]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[OwnMachine]:
    with own_machine(tmp_path) as machine:
        machine.add_user(USER)
        machine.set_shell(USER, LAUNCHER)
        machine.configure({"shell": "/bin/bash", "notice": "", "writer": "journal", "latency": 1})
        # As systemd-tmpfiles does at boot.
        journals = Path("/run/log/journal") / Path("/etc/machine-id").read_text().strip()
        journals.mkdir(parents=True)
        shutil.chown(journals, "root", "systemd-journal")
        journals.chmod(0o2750)
        yield machine


@contextlib.contextmanager
def in_a_service(pid: int) -> Iterator[None]:
    """Have a process, and its later children, be a service in journald's eyes."""
    made = []
    for hierarchy in HIERARCHIES:
        folder = hierarchy / f"ttyscribe-test-{pid}.service"
        if (hierarchy / "cgroup.procs").exists():
            folder.mkdir()
            made.append(folder)
            (folder / "cgroup.procs").write_text(str(pid))
    assert made, "there are no control groups"
    try:
        yield
    finally:
        for folder in made:
            for left in (folder / "cgroup.procs").read_text().split():
                (folder.parent / "cgroup.procs").write_text(left)
            folder.rmdir()


def notes(ending: str) -> list[Path]:
    return sorted(SPOOL.glob(f"*{ending}"))


def entries(*words: str) -> list[dict[str, str]]:
    subprocess.run(["journalctl", "--sync"], check=True, timeout=30)
    done = subprocess.run(
        ["journalctl", "-q", "-a", "-o", "json", *words], capture_output=True, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def recover(*words: str) -> subprocess.CompletedProcess[bytes]:
    return run([*MAIN, "recover", *words], env=clean_environment(XDG_STATE_HOME="/run/state"))


def record_hello(machine: OwnMachine) -> None:
    """Start the recorder, and have it record a session whose note is still to be looked at."""
    machine.start_recorder()
    with Login(User(USER)) as login:
        assert login.run("echo hello") == "hello\n"
        login.exit()
    wait_until(lambda: bool(notes(".sent")), "no note is left")


def test_recording_that_arrived_leaves_nothing_behind(machine: OwnMachine) -> None:
    with machine.journald():
        record_hello(machine)
        os.utime(notes(".sent")[0], (time.time() - 10,) * 2)
        wait_until(lambda: not notes(".sent"), "the note stays")
        assert notes(".missing") == []
        assert entries("-p", "alert") == []
        assert recover().stdout == b"nothing to recover\n"


def test_clock_set_back_during_a_recording_makes_nothing_missing(machine: OwnMachine) -> None:
    with machine.journald():
        record_hello(machine)
        machine.stop_recorder()
        (note,) = notes(".sent")
        begin_an_hour_later(note)
        os.utime(note, (time.time() - 60,) * 2)
        assert entries("TLOG_ID=1")
        with note.open("rb") as file, pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "geteuid", lambda: pwd.getpwnam(SERVICE_USER).pw_uid)
            left = Left(file.fileno())
            last, _ = last_written(left.writer, left.identity, file.fileno(), "", 1)
        assert last == left.delivered
        machine.start_recorder()
        wait_until(lambda: not notes(".sent"), "the note stays")
        assert notes(".missing") == []
        assert entries("-p", "alert") == []


def begin_an_hour_later(note: Path) -> None:
    """Make a note say so of its recording, as if the clock was an hour ahead then."""
    data = bytearray(note.read_bytes())
    magic, version, frames, length, _ = spoolfile.HEAD.unpack_from(data)
    about = json.loads(data[spoolfile.JSON_AT : spoolfile.JSON_AT + length])
    about["identity"]["start"] += 3600_000
    packed = json.dumps(about).encode()
    spoolfile.HEAD.pack_into(data, 0, magic, version, frames, len(packed), crc32(packed))
    data[spoolfile.JSON_AT : spoolfile.JSON_AT + len(packed)] = packed
    note.write_bytes(data)


def test_messages_that_journald_drops_are_reported(machine: OwnMachine) -> None:
    DROP_IN.parent.mkdir(parents=True, exist_ok=True)
    DROP_IN.write_text("[Journal]\nRateLimitIntervalSec=60s\nRateLimitBurst=50\n")
    with machine.journald():
        # The recorder thinks that there is no limit.
        DROP_IN.unlink()
        machine.start_recorder()
        assert machine._recorder is not None
        with in_a_service(machine._recorder.pid):
            with Login(User(USER)) as login:
                login.expect(rb"\$ ")
                login.line("seq -w 200000 | tail -n 180000; exit")
                assert login.finish() == 0
            wait_until(lambda: bool(notes(".sent")), "no note is left")
            (note,) = notes(".sent")
            rec = note.name.removesuffix(".sent")
            # Where the clock is set back, the journal is waited for from then on.
            os.utime(note, (time.time() + 3600,) * 2)
            wait_until(lambda: note.stat().st_mtime <= time.time(), "the note stays ahead")
            assert not notes(".missing")
            os.utime(note, (time.time() - 60,) * 2)
            wait_until(lambda: bool(notes(".missing")), "the gap is not noticed")
        there = {int(entry["TLOG_ID"]) for entry in entries(f"TLOG_REC={rec}")}
        alerts = [entry["MESSAGE"] for entry in entries("-p", "alert")]
        assert len(alerts) == 1
        assert rec in alerts[0] and USER in alerts[0]
        assert "messages are not in the journal (ids " in alerts[0]
        done = recover("--json")
        (told,) = map(json.loads, done.stdout.splitlines())
        assert (done.returncode, told["state"], told["rec"]) == (1, "missing", rec)
        count, total = int(told["problem"].split()[0]), int(told["problem"].split()[2])
        assert count == total - len(there) > 0
        notes(".missing")[0].unlink()
        assert recover().stdout == b"nothing to recover\n"


def test_a_message_that_no_recorder_sent_keeps_none_from_recovery(machine: OwnMachine) -> None:
    machine.configure({"shell": "/bin/bash", "notice": "", "writer": "journal", "latency": 600})
    with machine.journald():
        machine.start_recorder()
        assert machine._recorder is not None
        with Login(User(USER)) as login:
            login.run("echo evidence-$((40+2))")
            rec = recording_id(login.pid)
            as_recorder(lambda: send_message(rec, 1_000_000))
            os.kill(children(machine._recorder.pid)[-1], signal.SIGKILL)
            login.finish()
        wait_until(lambda: not list(SPOOL.glob("*.spool")), "nothing is recovered")
        there = entries(f"TLOG_REC={rec}")
    assert "evidence-42" in "".join(entry["MESSAGE"] for entry in there)


def test_that_a_users_logins_are_turned_away_is_told_once_by_the_service(
    machine: OwnMachine,
) -> None:
    with machine.journald():
        machine.start_recorder("--max-sessions-per-user", "1")
        with Login(User(USER)) as login:
            login.run("true")
            for _ in range(3):
                with Login(User(USER), ["-c", "echo in"]) as second:
                    assert second.finish() == 1
            login.exit()
        service = pwd.getpwnam(SERVICE_USER).pw_uid
        wait_until(lambda: bool(entries("-p", "alert", f"_UID={service}")), "it is not told")
        (told,) = entries("-p", "alert", f"_UID={service}")
    assert "this user has 1 recorded sessions already" in told["MESSAGE"]


def test_what_comes_by_journalds_stream_is_no_recorders_message(machine: OwnMachine) -> None:
    with machine.journald():
        send_line()
        assert entries("SYSLOG_IDENTIFIER=ttyscribe", "_TRANSPORT=stdout")
        began = int(time.time() - 60) * 1000
        assert arrival._ids(Identity("h", "forged", "u", "t", 1, began), "") == set()


def as_recorder(do: Callable[[], None]) -> None:
    """Do something in a process of the service's user."""
    pid = os.fork()
    if pid == 0:
        try:
            account = pwd.getpwnam(SERVICE_USER)
            os.setgroups([])
            os.setgid(account.pw_gid)
            os.setuid(account.pw_uid)
            do()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def message(rec: str, id: int) -> bytes:
    member = {"ver": "2.3", "host": "h", "rec": rec, "user": USER, "term": "", "session": 1,
              "id": id, "pos": 0, "time": 1.0, "timing": "", "in_txt": "", "in_bin": [],
              "out_txt": "", "out_bin": []}  # fmt: skip
    return json.dumps(member, separators=(",", ":")).encode()


def send_message(rec: str, id: int) -> None:
    writer = JournalWriter("info", augment=True)
    writer.write([Message(message(rec, id), rec, USER, 1, id)])
    writer.close()


def send_line() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        stream.connect("/run/systemd/journal/stdout")
        stream.sendall(b"ttyscribe\n\n6\n0\n0\n0\n0\n" + message("forged", 1) + b"\n")
        stream.shutdown(socket.SHUT_WR)
        time.sleep(0.5)


def test_a_user_who_may_not_read_the_journal_is_not_told_that_all_is_missing(
    machine: OwnMachine,
) -> None:
    with machine.journald():
        account = pwd.getpwnam(USER)
        pid = os.fork()
        if pid == 0:
            os.setgroups([])
            os.setgid(account.pw_gid)
            os.setuid(account.pw_uid)
            os._exit(arrival.may_read(""))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert arrival.may_read("")
