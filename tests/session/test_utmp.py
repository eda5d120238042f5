# SPDX-License-Identifier: Apache-2.0
"""The login record: what `who` and `who am i` say of a pty, and what its helper can't break."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ttyscribe.session.utmp import LoginRecord


@pytest.fixture
def pty() -> Iterator[tuple[int, int]]:
    master, slave = os.openpty()
    os.set_blocking(master, False)
    yield master, slave
    os.close(master)
    os.close(slave)


def line_of(slave: int) -> str:
    return os.ttyname(slave).removeprefix("/dev/")


def who(*words: str, stdin: int = subprocess.DEVNULL) -> str:
    environ = {"LC_ALL": "C.UTF-8", "PATH": os.environ["PATH"]}
    return subprocess.run(
        ["who", *words], stdin=stdin, env=environ, capture_output=True, text=True, check=True
    ).stdout


def wait_for_helper(record: LoginRecord) -> None:
    deadline = time.monotonic() + 10
    while record._pid:
        assert time.monotonic() < deadline
        record.reap()
        time.sleep(0.001)


def children() -> str:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text()


@pytest.mark.usefixtures("utmp")
def test_who_am_i_shows_the_user_and_where_they_come_from(pty: tuple[int, int]) -> None:
    master, slave = pty
    record = LoginRecord()
    record.add(master, "192.0.2.7")
    wait_for_helper(record)
    user = pwd.getpwuid(os.getuid()).pw_name
    words = who("am", "i", stdin=slave).split()
    assert words[:2] == [user, line_of(slave)]
    assert words[-1] == "(192.0.2.7)"
    assert [user, line_of(slave)] in [line.split()[:2] for line in who().splitlines()]
    record.remove(master)
    assert who("am", "i", stdin=slave) == ""
    assert line_of(slave) not in who().split()


@pytest.mark.usefixtures("utmp")
def test_an_unprivileged_user_is_recorded_by_the_helper(pty: tuple[int, int]) -> None:
    master, slave = pty
    user = pwd.getpwnam("daemon")
    os.fchown(slave, user.pw_uid, -1)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setgroups([])
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
        record = LoginRecord()
        record.add(master, "")
        wait_for_helper(record)
        os.write(write, who("am", "i", stdin=slave).encode() or b"-")
        record.remove(master)
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(read, 1000).split()[:2] == [b"daemon", line_of(slave).encode()]
    assert line_of(slave) not in who().split()
    os.close(read)
    os.close(write)


@pytest.mark.usefixtures("utmp")
def test_a_host_that_is_no_name_is_left_out(pty: tuple[int, int]) -> None:
    master, slave = pty
    record = LoginRecord()
    record.add(master, "-\x1b[2J")
    wait_for_helper(record)
    assert who("am", "i", stdin=slave).split()[1] == line_of(slave)
    assert "(" not in who("am", "i", stdin=slave)
    record.remove(master)


def test_a_missing_helper_is_no_error(pty: tuple[int, int]) -> None:
    record = LoginRecord(("/nonexistent/utempter",))
    record.add(pty[0], "host")
    record.reap()
    record.remove(pty[0])


def test_a_pty_that_is_none_is_no_error() -> None:
    """The helper fails then, just as where /run/utmp is missing."""
    before = children()
    master = os.open(os.devnull, os.O_RDWR)
    record = LoginRecord()
    record.add(master, "")
    record.remove(master)
    os.close(master)
    assert children() == before


def test_a_helper_that_hangs_delays_neither_the_start_nor_the_end_for_long(
    pty: tuple[int, int], tmp_path: Path
) -> None:
    before = children()
    helper = tmp_path / "utempter"
    helper.write_text("#!/bin/sh\nexec sleep 60\n")
    helper.chmod(0o755)
    record = LoginRecord((str(helper),))
    began = time.monotonic()
    record.add(pty[0], "")
    assert time.monotonic() - began < 0.2
    record.reap()
    record.remove(pty[0])
    assert time.monotonic() - began < 5
    assert children() == before


def test_no_key_stops_a_helper_that_its_starter_waits_for(
    tmp_path: Path, pty: tuple[int, int]
) -> None:
    helper, told = tmp_path / "utempter", tmp_path / "told"
    helper.write_text(f"#!/bin/bash\nexec /bin/grep SigBlk /proc/self/status >{told}\n")
    helper.chmod(0o755)
    record = LoginRecord((str(helper),))
    record.add(pty[0], "")
    wait_for_helper(record)
    assert int(told.read_text().split()[1], 16) & 1 << signal.SIGTSTP - 1
