# SPDX-License-Identifier: Apache-2.0
"""A name service that never answers, really in the C library: a login waits for it once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.driving import messages
from tests.system.ownmachine import CONFIG, LAUNCHER, SERVICE_USER, OwnMachine, own_machine
from tests.system.test_faults import SystemLog

from ttyscribe.policy import LOOKUP_TIMEOUT

pytestmark = pytest.mark.system

# Asked for what the files don't have. A user's id that they don't have either.
MODULE = """\
#include <unistd.h>
static int hang(void) { for (;;) pause(); }
int _nss_hang_getpwuid_r(void) { return hang(); }
int _nss_hang_getpwnam_r(void) { return hang(); }
int _nss_hang_getgrgid_r(void) { return hang(); }
"""
UID = 47912
# A login takes less; the rest is for a loaded machine.
SOON = 4.0


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnMachine]:
    with own_machine(tmp_path_factory.mktemp("machine")) as machine:
        # Where every user finds it.
        library = Path("/etc/hang/libnss_hang.so.2")
        library.parent.mkdir()
        command = ["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(library)]
        subprocess.run(command, input=MODULE.encode(), check=True)
        Path("/etc/ld.so.conf.d/test.conf").write_text(f"{library.parent}\n")
        subprocess.run(["ldconfig", "-X"], check=True)
        Path("/etc/nsswitch.conf").write_text("passwd: files hang\ngroup: files hang\n")
        yield machine


@pytest.fixture
def log(machine: OwnMachine) -> Iterator[SystemLog]:
    log = SystemLog()
    yield log
    log.close()


def logged_in(*, home: bool = True) -> tuple[subprocess.CompletedProcess[bytes], float]:
    """A login of the user, and the seconds that it took."""
    env = {"PATH": "/usr/bin:/bin", "SHELL": str(LAUNCHER), "LOGNAME": "ghost"}
    if home:
        env["HOME"] = "/home/ghost"
    begin = time.monotonic()
    done = subprocess.run(
        ["ttyscribe-rec-session", "-c", "echo in; exit 7"], executable=LAUNCHER, env=env, cwd="/",
        user=UID, group=UID, extra_groups=[], stdin=subprocess.DEVNULL, capture_output=True,
        timeout=60, check=False,
    )  # fmt: skip
    return done, time.monotonic() - begin


@pytest.mark.parametrize("mode", ["direct", "service"])
def test_login_that_the_name_service_leaves_hanging_is_recorded_in_time(
    machine: OwnMachine, log: SystemLog, mode: str
) -> None:
    folder = Path(f"/var/log/hanging-{mode}")
    folder.mkdir(exist_ok=True)
    owner = SERVICE_USER if mode == "service" else UID
    shutil.chown(folder, owner)
    Path("/home/ghost").mkdir(exist_ok=True)
    os.chown("/home/ghost", UID, UID)
    values = {"writer": "file", "file": {"path": f"{folder}/log"}, "shell": "/bin/sh"}
    machine.configure({**values, "service": "off" if mode == "direct" else "required"})
    if mode == "service":
        machine.start_recorder()
    try:
        done, seconds = logged_in()
        assert (done.stdout, done.stderr, done.returncode) == (b"in\n", b"", 7)
        assert LOOKUP_TIMEOUT <= seconds < LOOKUP_TIMEOUT + SOON
        assert any(b"no answer within 5 s" in line for line in log.read())
    finally:
        machine.stop_recorder()
    assert {message.user for message in messages(folder / "log")} == {str(UID)}


def test_home_that_is_not_told_is_a_failure_in_time(machine: OwnMachine, log: SystemLog) -> None:
    CONFIG.write_text(json.dumps({"writer": "syslog", "service": "off", "shell": "/bin/sh"}))
    done, seconds = logged_in(home=False)
    assert (done.stdout, done.returncode) == (b"", 1)
    assert b"HOME names none" in done.stderr
    assert b"no answer within 5 s" in done.stderr
    assert done.stderr.count(b"\n") == 1
    assert seconds < 2 * LOOKUP_TIMEOUT + SOON
    (alert,) = log.alerts()
    assert b"HOME names none" in alert


def test_group_that_is_not_told_is_taken_for_the_users_in_time(
    machine: OwnMachine, log: SystemLog
) -> None:
    CONFIG.write_text("{}")
    os.chown(CONFIG, 0, 47913)
    CONFIG.chmod(0o664)
    try:
        done, seconds = logged_in()
    finally:
        CONFIG.chmod(0o644)
    assert (done.stdout, done.returncode) == (b"", 1)
    assert b"group 47913 can write to it, which uid 47912 may be in" in done.stderr
    assert b"no answer within 5 s" in done.stderr
    # Once for the configuration, and once for what it says of the failure.
    assert seconds < 2 * LOOKUP_TIMEOUT + SOON
