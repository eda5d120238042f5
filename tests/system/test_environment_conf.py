# SPDX-License-Identifier: Apache-2.0
"""A configuration in a login's environment, where the recorder service runs."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.driving import messages
from tests.system.ownmachine import LAUNCHER, SERVICE_USER, USER, OwnMachine, own_machine
from tests.system.test_faults import SystemLog

pytestmark = pytest.mark.system

VARIABLES = ("TLOG_REC_SESSION_CONF_TEXT", "TLOG_REC_SESSION_CONF_FILE")
LOG = Path("/var/log/of-the-service/log")
HOME = Path(f"/home/{USER}")
OWN = HOME / "own.tlog"
TLOG = Path("/etc/tlog/tlog-rec-session.conf")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnMachine]:
    with own_machine(tmp_path_factory.mktemp("machine")) as machine:
        machine.add_user(USER)
        LOG.parent.mkdir()
        shutil.chown(LOG.parent, SERVICE_USER)
        machine.start_recorder()
        yield machine
        machine.stop_recorder()


@pytest.fixture
def log(machine: OwnMachine) -> Iterator[SystemLog]:
    log = SystemLog()
    for path in (LOG, OWN):
        path.unlink(missing_ok=True)
    yield log
    log.close()


def values(**more: object) -> dict[str, object]:
    return {"writer": "file", "file": {"path": str(LOG)}, "service": "preferred", **more}


def log_in(variable: str, name: str = "ttyscribe-rec-session") -> None:
    """A login of the user who has a configuration in the environment."""
    text = json.dumps({"file": {"path": str(OWN)}})
    # Nobody else may read it.
    file = HOME / "own.conf"
    file.write_text(text)
    file.chmod(0o600)
    account = pwd.getpwnam(USER)
    os.chown(file, account.pw_uid, account.pw_gid)
    done = subprocess.run(
        [name, "-c", "echo in; exit 7"], executable=LAUNCHER, cwd="/",
        env={"HOME": str(HOME), variable: text if variable.endswith("TEXT") else str(file)},
        user=account.pw_uid, group=account.pw_gid, extra_groups=[], stdin=subprocess.DEVNULL,
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr, done.returncode) == (b"in\n", b"", 7)


@pytest.mark.parametrize("variable", VARIABLES)
def test_it_is_read_with_its_users_rights_where_it_counts(
    machine: OwnMachine, log: SystemLog, variable: str
) -> None:
    machine.configure(values(env={"conf": True}))
    log_in(variable)
    assert {message.user for message in messages(OWN)} == {USER}
    assert OWN.stat().st_uid == pwd.getpwnam(USER).pw_uid
    assert (LOG.exists(), log.read()) == (False, [])


@pytest.mark.parametrize("variable", VARIABLES)
def test_it_counts_under_tlogs_name(machine: OwnMachine, log: SystemLog, variable: str) -> None:
    TLOG.write_text(json.dumps(values()))
    machine.configure(values())
    log_in(variable, "tlog-rec-session")
    assert {message.user for message in messages(OWN)} == {USER}
    assert (LOG.exists(), log.read()) == (False, [])


@pytest.mark.parametrize("variable", VARIABLES)
@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({}, b'the configuration has not "env": {"conf": true}'),
        ({"service": "required", "env": {"conf": True}}, b'"service" is "required"'),
    ],
    ids=["not honoured", "service required"],
)
def test_it_is_ignored_with_a_warning(
    machine: OwnMachine, log: SystemLog, variable: str, settings: dict[str, object], why: bytes
) -> None:
    machine.configure(values(**settings))
    log_in(variable)
    assert {message.user for message in messages(LOG)} == {USER}
    assert not OWN.exists()
    (warning,) = log.read()
    assert f"environment {variable}: ignored, because".encode() in warning
    assert why in warning


def test_its_user_is_warned_of_it_once_where_the_service_is_off(
    machine: OwnMachine, log: SystemLog
) -> None:
    machine.configure(values(service="off", session_recording={"scope": "none"}))
    log_in(VARIABLES[0])
    (warning,) = log.read()
    assert b"has not" in warning
