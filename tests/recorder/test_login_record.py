# SPDX-License-Identifier: Apache-2.0
"""The service's login record, read back by who(1) from a file of the test's own."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ttyscribe.recorder.loginrecord import DEAD_PROCESS, RECORD, LoginRecord


@pytest.fixture
def utmp(tmp_path: Path) -> Path:
    path = tmp_path / "utmp"
    path.touch()
    return path


@contextlib.contextmanager
def locked(utmp: Path, seconds: float = 60) -> Iterator[None]:
    """Another process's lock on the file, which needs no more than to read it."""
    ready, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        with utmp.open("rb") as file:
            fcntl.lockf(file, fcntl.LOCK_SH)
            os.write(write, b"x")
            time.sleep(seconds)
        os._exit(0)
    os.read(ready, 1)
    yield
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    os.close(ready)
    os.close(write)


def who(path: Path, *words: str) -> list[list[str]]:
    done = subprocess.run(
        ["who", *words, str(path)], capture_output=True, text=True, check=True,
        env={"LC_ALL": "C.UTF-8", "PATH": os.environ["PATH"]},
    )  # fmt: skip
    return [line.split() for line in done.stdout.splitlines()]


def record(utmp: Path, terminal: str = "/dev/pts/7", user: str = "alice") -> LoginRecord:
    return LoginRecord(terminal, user, "192.0.2.7", os.getpid(), str(utmp))


def test_record_tells_user_terminal_time_and_host(utmp: Path) -> None:
    record(utmp).add()
    ((user, line, day, _, host),) = who(utmp)
    assert (user, line, host) == ("alice", "pts/7", "(192.0.2.7)")
    assert day == time.strftime("%Y-%m-%d")
    assert utmp.stat().st_size == RECORD.size


def test_session_that_is_over_is_shown_as_such(utmp: Path) -> None:
    session = record(utmp)
    session.add()
    session.remove()
    assert who(utmp) == []
    ((line, *rest),) = who(utmp, "--dead")
    assert line == "pts/7"
    assert str(os.getpid()) in rest


def test_terminals_old_record_is_replaced_and_others_are_kept(utmp: Path) -> None:
    for number in range(40):
        record(utmp, f"/dev/pts/{number}", f"user{number}").add()
    record(utmp, "/dev/pts/3", "bob").add()
    assert [words[0] for words in who(utmp)] == [
        "bob" if number == 3 else f"user{number}" for number in range(40)
    ]


def test_half_a_record_at_the_end_is_written_over(utmp: Path) -> None:
    record(utmp).add()
    with utmp.open("ab") as file:
        file.write(b"x" * 100)
    record(utmp, "/dev/pts/8", "bob").add()
    assert [words[:2] for words in who(utmp)] == [["alice", "pts/7"], ["bob", "pts/8"]]


def test_lock_that_somebody_holds_costs_the_record_and_little_time(utmp: Path) -> None:
    session = record(utmp)
    with locked(utmp):
        began = time.monotonic()
        session.add()
        session.remove()
        assert time.monotonic() - began < 0.5
    assert utmp.stat().st_size == 0


def test_record_that_could_not_be_ended_at_once_is_ended_later(utmp: Path) -> None:
    session = record(utmp)
    session.add()
    with locked(utmp, 0.2):
        session.remove()
        assert who(utmp)
        session.remove(10)
    assert not who(utmp)


def test_terminal_that_has_become_another_sessions_keeps_that_ones_record(utmp: Path) -> None:
    session = record(utmp)
    session.add()
    LoginRecord("/dev/pts/7", "bob", "", os.getppid(), str(utmp)).add()
    session.remove()
    assert [words[0] for words in who(utmp)] == ["bob"]


def test_the_outer_terminals_record_is_moved_for_as_long_as_the_session(utmp: Path) -> None:
    """As of su: it is still the one who logged in."""
    LoginRecord("/dev/pts/6", "root", "192.0.2.9", os.getpid(), str(utmp)).add()
    before = utmp.read_bytes()
    session = LoginRecord(
        "/dev/pts/7", "alice", "", os.getpid(), str(utmp), outer="/dev/pts/6"
    )
    session.add()
    ((user, line, *_, host),) = who(utmp)
    assert (user, line, host) == ("root", "pts/7", "(192.0.2.9)")
    # Another one from there finds none.
    other = LoginRecord("/dev/pts/8", "bob", "", os.getpid(), str(utmp), outer="/dev/pts/6")
    other.add()
    assert [words[:2] for words in who(utmp)] == [["root", "pts/7"], ["bob", "pts/8"]]
    other.remove()
    session.remove()
    assert utmp.read_bytes()[: len(before)] == before
    assert [words[:2] for words in who(utmp)] == [["root", "pts/6"]]


def test_a_record_that_could_not_be_moved_back_is_not_written_over(utmp: Path) -> None:
    LoginRecord("/dev/pts/6", "root", "", os.getppid(), str(utmp)).add()
    LoginRecord("/dev/pts/7", "root", "", os.getpid(), str(utmp), outer="/dev/pts/6").add()
    later = record(utmp)
    later.add()
    assert [words[:2] for words in who(utmp)] == [["root", "pts/7"], ["alice", "pts/7"]]
    later.remove()
    assert [words[:2] for words in who(utmp)] == [["root", "pts/7"]]


def test_a_moved_record_that_its_login_has_ended_stays_ended(utmp: Path) -> None:
    LoginRecord("/dev/pts/6", "root", "", os.getpid(), str(utmp)).add()
    session = LoginRecord("/dev/pts/7", "root", "", os.getpid(), str(utmp), outer="/dev/pts/6")
    session.add()
    # sshd finds it by its id.
    ended = bytearray(utmp.read_bytes())
    ended[:2] = DEAD_PROCESS.to_bytes(2, sys.byteorder)
    utmp.write_bytes(ended)
    session.remove()
    assert utmp.read_bytes() == ended


def test_missing_file_is_no_error_and_none_is_made(tmp_path: Path) -> None:
    session = record(tmp_path / "none")
    session.add()
    session.remove()
    assert list(tmp_path.iterdir()) == []


def test_host_that_is_no_name_is_left_out(utmp: Path) -> None:
    LoginRecord("/dev/pts/7", "alice", "\x1b[2J", os.getpid(), str(utmp)).add()
    ((user, *rest),) = who(utmp)
    assert user == "alice" and not any("(" in word for word in rest)
