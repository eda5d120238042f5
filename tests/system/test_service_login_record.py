# SPDX-License-Identifier: Apache-2.0
"""`who am i` inside a session that the recorder service records."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.driving import wait_until
from tests.system.machine import LAUNCHER, Login, User
from tests.system.ownmachine import OwnMachine, own_machine

UTMP = Path("/run/utmp")
LOG = Path("/var/log/ttyscribe/recordings.tlog")


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[OwnMachine]:
    with own_machine(tmp_path) as machine:
        machine.add_user("ttyrecorded")
        machine.set_shell("ttyrecorded", LAUNCHER)
        machine.configure(
            {"shell": "/bin/bash", "notice": "", "writer": "file", "file": {"path": str(LOG)}}
        )
        machine.start_recorder()
        yield machine


def test_who_am_i_shows_the_user_until_the_session_is_over(machine: OwnMachine) -> None:
    with Login(User("ttyrecorded"), env={"SSH_CONNECTION": "192.0.2.7 1 192.0.2.1 22"}) as login:
        line = login.run("tty").strip().removeprefix("/dev/")
        words = login.run("who am i").split()
        assert words[:2] == ["ttyrecorded", line]
        assert words[-1] == "(192.0.2.7)"
        assert login.run(f"who | grep -c '{line} '") == "1\n"
        login.exit()
    assert b"ttyrecorded" not in UTMP.read_bytes()
    assert line.encode() in UTMP.read_bytes()


def test_record_ends_with_a_session_that_is_hung_up(machine: OwnMachine) -> None:
    with Login(User("ttyrecorded")) as login:
        assert login.run("who am i").split()[0] == "ttyrecorded"
        os.kill(login.pid, signal.SIGKILL)
        wait_until(lambda: b"ttyrecorded" not in UTMP.read_bytes(), "the record stays")


def test_no_utmp_is_no_error(machine: OwnMachine) -> None:
    UTMP.unlink()
    with Login(User("ttyrecorded")) as login:
        assert login.run("who am i") == ""
        login.exit()
        assert b"ttyscribe" not in login.seen
    assert not UTMP.exists()
