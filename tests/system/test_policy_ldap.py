# SPDX-License-Identifier: Apache-2.0
"""Group rules through a real directory: slapd on loopback, and SSSD between it and NSS.

SSSD's state, /var/lib/sss, and /etc/nsswitch.conf are this machine's only ones;
they are put aside for the time of the test, and put back.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ttyscribe import policy

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

NSSWITCH = Path("/etc/nsswitch.conf")
STATE = Path("/var/lib/sss")
ASIDE = ".ttyscribe-test"
SSSD_PID = Path("/run/sssd.pid")

SLAPD_CONF = """\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/nis.schema
modulepath /usr/lib/ldap
moduleload back_mdb
database mdb
directory {folder}/db
suffix "dc=example,dc=com"
"""
# lena is in outer only by way of inner; mona is in no group but her primary one.
LDIF = (
    """\
dn: dc=example,dc=com
objectClass: dcObject
objectClass: organization
dc: example
o: example

"""
    + "".join(
        f"""\
dn: uid={name},dc=example,dc=com
objectClass: account
objectClass: posixAccount
uid: {name}
cn: {name}
uidNumber: {uid}
gidNumber: 60100
homeDirectory: /
loginShell: /bin/sh

"""
        for name, uid in (("lena", 60001), ("mona", 60002), ("nils", 60003))
    )
    + "".join(
        f"""\
dn: cn={name},dc=example,dc=com
objectClass: groupOfNames
objectClass: extensibleObject
cn: {name}
gidNumber: {gid}
member: {member},dc=example,dc=com

"""
        for name, gid, member in (
            ("people", 60100, "uid=lena"),
            ("inner", 60101, "uid=lena"),
            ("outer", 60102, "cn=inner"),
        )
    )
)
SSSD_CONF = """\
[sssd]
config_file_version = 2
services = nss
domains = test

[domain/test]
id_provider = ldap
auth_provider = none
access_provider = permit
ldap_uri = ldap://127.0.0.1:{port}
ldap_search_base = dc=example,dc=com
ldap_schema = rfc2307bis
ldap_group_object_class = groupOfNames

[session_recording]
scope = some
groups = outer
"""


class Directory:
    """A running slapd, and an SSSD that can be stopped and started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.conf = folder / "sssd.conf"
        self.sssd: subprocess.Popen[bytes] | None = None

    def start_sssd(self) -> None:
        log = open(self.folder / "sssd.log", "ab")  # noqa: SIM115
        self.sssd = subprocess.Popen(
            ["sssd", "-i", "-c", self.conf], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        log.close()
        wait_for(lambda: self.knows("lena"), self.sssd, self.folder / "sssd.log")

    def stop_sssd(self) -> None:
        if self.sssd is not None:
            self.sssd.terminate()
            self.sssd.wait(30)
            self.sssd = None

    def knows(self, user: str) -> bool:
        return subprocess.run(["getent", "passwd", user], capture_output=True).returncode == 0

    def responder(self) -> int:
        """The pid of the process that answers NSS."""
        assert self.sssd is not None
        children = Path(f"/proc/{self.sssd.pid}/task/{self.sssd.pid}/children").read_text().split()
        [pid] = [p for p in children if Path(f"/proc/{p}/comm").read_text() == "sssd_nss\n"]
        return int(pid)

    def policy(self, user: str, **rules: object) -> tuple[int, dict[str, object]]:
        """What `ttyscribe policy USER --json` says: its exit status and its object."""
        conf = self.folder / "rec-session.conf"
        conf.write_text(json.dumps({"session_recording": rules}))
        run = subprocess.run(
            [sys.executable, "-I", "-m", "ttyscribe", "policy", user, "--json", "--config", conf],
            stdout=subprocess.PIPE,
            timeout=60,
        )
        return run.returncode, json.loads(run.stdout)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Directory]:
    folder = tmp_path_factory.mktemp("ldap")
    with open("/run/ttyscribe-test-sssd.gate", "w") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        put_back()  # what a test run that was killed has left
        assert not SSSD_PID.exists(), f"an SSSD of this machine runs ({SSSD_PID}): stop it first"
        set_aside()
        slapd, port = start_slapd(folder)
        directory = Directory(folder)
        directory.conf.write_text(SSSD_CONF.format(port=port))
        directory.conf.chmod(0o600)
        try:
            directory.start_sssd()
            yield directory
        finally:
            directory.stop_sssd()
            slapd.terminate()
            slapd.wait(30)
            put_back()


def set_aside() -> None:
    """Give the test an empty SSSD state, and a name service that asks SSSD last."""
    subprocess.run(["cp", "-a", STATE, f"{STATE}{ASIDE}"], check=True)
    for cached in (*STATE.glob("db/*"), *STATE.glob("mc/*")):
        cached.unlink()
    text = NSSWITCH.read_text()
    for database in ("passwd", "group"):
        if not re.search(rf"^{database}:.*\bsss\b", text, re.MULTILINE):
            text = re.sub(rf"^({database}:.*)$", r"\1 sss", text, flags=re.MULTILINE)
    if text != NSSWITCH.read_text():
        shutil.copy2(NSSWITCH, f"{NSSWITCH}{ASIDE}")
        changed = Path(f"{NSSWITCH}{ASIDE}.new")
        changed.write_text(text)
        changed.chmod(0o644)
        changed.rename(NSSWITCH)


def put_back() -> None:
    """Undo set_aside(), if it was done."""
    state, nsswitch = Path(f"{STATE}{ASIDE}"), Path(f"{NSSWITCH}{ASIDE}")
    if state.exists():
        shutil.rmtree(STATE, ignore_errors=True)
        state.rename(STATE)
    if nsswitch.exists():
        nsswitch.rename(NSSWITCH)


def start_slapd(folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    """A slapd on a free port of the loopback that serves LDIF."""
    (folder / "db").mkdir()
    conf, ldif = folder / "slapd.conf", folder / "base.ldif"
    conf.write_text(SLAPD_CONF.format(folder=folder))
    ldif.write_text(LDIF)
    subprocess.run(["slapadd", "-f", conf, "-l", ldif], check=True, capture_output=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    with open(folder / "slapd.log", "wb") as log:
        slapd = subprocess.Popen(
            ["slapd", "-d", "0", "-f", conf, "-h", f"ldap://127.0.0.1:{port}/"],
            stdout=log,
            stderr=log,
        )

    def serves() -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", port)) == 0

    wait_for(serves, slapd, folder / "slapd.log")
    return slapd, port


def wait_for(ready: Callable[[], bool], server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while not ready():
        assert server.poll() is None, f"{server.args!r} ended: {log.read_text()}"
        assert time.monotonic() < deadline, f"{server.args!r} is not ready: {log.read_text()}"
        time.sleep(0.05)


RULES: dict[str, tuple[str, dict[str, object], int, str]] = {
    "the primary group from LDAP counts": (
        "lena", {"scope": "some", "groups": ["people"]}, 0, "group 'people'",
    ),
    "a group from LDAP counts": (
        "lena", {"scope": "some", "groups": "wheel, inner"}, 0, "group 'inner'",
    ),
    "a group that contains the user's group counts": (
        "lena", {"scope": "some", "groups": ["outer"]}, 0, "group 'outer'",
    ),
    "a group that the user is not in does not count": (
        "mona", {"scope": "some", "groups": ["inner", "outer"]}, 1, "neither user 'mona'",
    ),
    "a group that no one knows does not count": (
        "mona", {"scope": "some", "groups": ["no such group"]}, 1, "neither user 'mona'",
    ),
    "a nested group from LDAP excludes": (
        "lena", {"scope": "all", "exclude_groups": ["outer"]}, 1, "listed in exclude_groups",
    ),
    "an exclusion leaves the others recorded": (
        "mona", {"scope": "all", "exclude_groups": ["outer"]}, 0, "no exclusion",
    ),
    "a user from LDAP counts by name": (
        "mona", {"scope": "some", "users": ["mona"]}, 0, "user 'mona' is listed in users",
    ),
    "a local user is in no group of LDAP": (
        "root", {"scope": "some", "groups": ["people"]}, 1, "neither user 'root'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", RULES.values(), ids=RULES.keys())
def test_rules_with_users_and_groups_from_ldap(
    directory: Directory, case: tuple[str, dict[str, object], int, str]
) -> None:
    user, rules, expected, rule = case
    status, answer = directory.policy(user, **rules)
    assert status == expected
    assert answer["recorded"] is (expected == 0)
    assert rule in str(answer["rule"])
    assert answer["warnings"] == []


def test_all_groups_of_an_ldap_user_are_told(directory: Directory) -> None:
    _, answer = directory.policy("lena", scope="some", groups=["people"])
    assert sorted(answer["groups"]) == ["inner", "outer", "people"]  # type: ignore[call-overload]


def test_a_user_who_is_in_no_directory_cannot_be_told_about(directory: Directory) -> None:
    status, answer = directory.policy("nobody-at-all", scope="some", groups=["people"])
    assert status == 2
    assert answer["recorded"] is None
    assert "unknown to the name service" in str(answer["error"])


@pytest.mark.parametrize(("user", "uid"), [("lena", 60001), ("mona", 60002), ("root", 0)])
def test_with_sssds_rules_we_record_whom_sssd_records(
    directory: Directory, user: str, uid: int
) -> None:
    """SSSD itself shows whom it records: it gives them tlog-rec-session as their shell."""
    entry = subprocess.run(["getent", "passwd", user], stdout=subprocess.PIPE, check=True)
    recorded = entry.stdout.strip().endswith(b":/usr/bin/tlog-rec-session")
    assert recorded == (user == "lena")
    values = {"session_recording": {"source": "sssd"}}
    decision = policy.for_login(
        values, str, uid, sssd_conf=str(directory.conf), sssd_snippets="/nonexistent"
    )
    assert decision.recorded == recorded
    assert decision.user == user
    assert decision.warnings == ()


def test_a_name_service_that_hangs_means_recorded_in_time(directory: Directory) -> None:
    """SSSD is stopped like a process in a debugger: it takes requests and never answers."""
    values = {
        "session_recording": {
            "scope": "some", "users": [], "groups": ["people"], "exclude_users": [],
            "exclude_groups": [], "source": "config",
        }
    }  # fmt: skip
    responder = directory.responder()
    os.kill(responder, signal.SIGSTOP)
    try:
        began = time.monotonic()
        local = policy.for_login(values, str, 0, timeout=1)
        unseen = policy.for_login(values, str, 60003, timeout=1)
        took = time.monotonic() - began
    finally:
        os.kill(responder, signal.SIGCONT)
    assert took < 10
    assert (local.recorded, local.user) == (True, "root")
    assert "their groups could not be looked up: no answer within 1 s" in local.warnings[0]
    assert (unseen.recorded, unseen.user) == (True, "")
    assert "no answer within 1 s" in unseen.warnings[0]


def test_a_name_service_that_is_down_means_recorded(directory: Directory) -> None:
    """Without SSSD a local user seems to be in no group of LDAP; that must not count."""
    assert directory.policy("root", scope="some", groups=["outer"])[0] == 1
    directory.stop_sssd()
    try:
        for cached in STATE.glob("mc/*"):
            cached.unlink()
        status, answer = directory.policy("root", scope="some", groups=["outer"])
        _, excluded = directory.policy("root", scope="all", exclude_groups=["outer"])
    finally:
        directory.start_sssd()
    assert status == 0
    assert "recorded to be safe" in str(answer["rule"])
    for told in (answer, excluded):
        assert told["recorded"] is True
        assert "is down: asked for group 'outer'" in str(told["warnings"])
