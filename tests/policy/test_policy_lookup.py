# SPDX-License-Identifier: Apache-2.0
"""Names and groups from the real name service, with files and faults of our choice in it.

nss_wrapper (Debian: libnss-wrapper) puts them into the C library's functions;
hence each decision is made in a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
alice:x:2000:2000::/home/alice:/bin/sh
toor:x:0:0::/root:/bin/sh
alicia:x:2000:2000::/home/alice:/bin/sh
jürgen:x:2001:2000::/home/j:/bin/sh
lost:x:2002:4242::/home/lost:/bin/sh
"""
GROUP = """\
root:x:0:
people:x:2000:
staff:x:3000:bob,alice
domain users:x:3001:alice
müllers:x:3002:jürgen
"""
RULES: dict[str, object] = {
    "scope": "some",
    "users": [],
    "groups": [],
    "exclude_users": [],
    "exclude_groups": [],
    "source": "config",
}
# What the login path does, and nothing else.
PROGRAM = """\
import json, sys
from ttyscribe import policy
rules, uid, login, timeout = json.loads(sys.argv[1])
d = policy.for_login({"session_recording": rules}, lambda key: key, uid, login, timeout)
print(json.dumps([d.recorded, d.rule, d.origin, d.user, d.groups, d.warnings]))
"""

Answer = tuple[bool, str, str, str, list[str] | None, list[str]]


@pytest.fixture
def accounts(tmp_path: Path) -> dict[str, str]:
    """The environment in which the name service knows PASSWD and GROUP and nothing else."""
    passwd, group = tmp_path / "passwd", tmp_path / "group"
    passwd.write_text(PASSWD)
    group.write_text(GROUP)
    return {
        "LD_PRELOAD": "libnss_wrapper.so",
        "NSS_WRAPPER_PASSWD": str(passwd),
        "NSS_WRAPPER_GROUP": str(group),
        "PATH": os.environ["PATH"],
        "HOME": "/",  # without it, Python itself asks the name service as it starts
    }


def latin_1(folder: Path) -> dict[str, str]:
    """The environment of a Latin-1 locale, made in this folder."""
    locale = folder / "en_US.ISO-8859-1"
    subprocess.run(
        ["localedef", "-i", "en_US", "-f", "ISO-8859-1", locale], check=True, capture_output=True
    )
    environment = {"LC_ALL": locale.name, "LOCPATH": str(folder)}
    encoding = subprocess.run(
        [sys.executable, "-I", "-c", "import sys; print(sys.getfilesystemencoding())"],
        env=environment,
        capture_output=True,
        check=True,
    )
    assert encoding.stdout == b"iso8859-1\n"
    return environment


def fault(folder: Path, source: str) -> dict[str, str]:
    """The environment in which the C library's functions behave as source says."""
    (folder / "fault.c").write_text(source)
    library = folder / "fault.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, folder / "fault.c"], check=True)
    return {"LD_PRELOAD": f"{library}:libnss_wrapper.so"}


def decide(
    environment: Mapping[str, str],
    uid: int,
    login: str = "",
    timeout: float = 20,
    **rules: object,
) -> Answer:
    """What for_login() decides in a process with this environment."""
    arguments = json.dumps([RULES | rules, uid, login, timeout])
    run = subprocess.run(
        [sys.executable, "-I", "-c", PROGRAM, arguments],
        env=dict(environment),
        stdout=subprocess.PIPE,
        timeout=60,
        check=True,
    )
    recorded, rule, origin, user, groups, warnings = json.loads(run.stdout)
    return recorded, rule, origin, user, groups, warnings


def test_a_uid_is_judged_by_its_name(accounts: dict[str, str]) -> None:
    recorded, _, origin, user, groups, warnings = decide(accounts, 2000, users=["alice"])
    assert (recorded, origin, user) == (True, "session_recording.users[0]", "alice")
    assert groups is None
    assert warnings == []


def test_of_two_names_with_one_uid_the_login_name_is_judged(accounts: dict[str, str]) -> None:
    recorded, _, _, user, _, _ = decide(accounts, 2000, login="alicia", users=["alicia"])
    assert (recorded, user) == (True, "alicia")


def test_a_login_name_of_another_uid_does_not_count(accounts: dict[str, str]) -> None:
    recorded, _, _, user, _, _ = decide(accounts, 2000, login="toor", users=["toor"])
    assert (recorded, user) == (False, "alice")


def test_a_login_name_that_does_not_exist_does_not_count(accounts: dict[str, str]) -> None:
    recorded, _, _, user, _, _ = decide(accounts, 2000, login="ghost", users=["ghost"])
    assert (recorded, user) == (False, "alice")


def test_the_primary_group_counts(accounts: dict[str, str]) -> None:
    recorded, rule, _, _, groups, warnings = decide(accounts, 2000, groups=["people"])
    assert recorded
    assert "group 'people'" in rule
    assert groups is not None
    assert set(groups) == {"people", "staff", "domain users"}
    assert warnings == []


def test_a_supplementary_group_counts(accounts: dict[str, str]) -> None:
    recorded, rule, origin, _, _, _ = decide(accounts, 2000, groups=["staff"])
    assert (recorded, origin) == (True, "session_recording.groups[0]")
    assert "group 'staff'" in rule


def test_a_group_with_a_space_in_its_name_counts(accounts: dict[str, str]) -> None:
    assert decide(accounts, 2000, groups=["domain users"])[0]


def test_a_group_excludes_from_scope_all(accounts: dict[str, str]) -> None:
    recorded, _, origin, _, _, _ = decide(accounts, 2000, scope="all", exclude_groups=["staff"])
    assert (recorded, origin) == (False, "session_recording.exclude_groups[0]")


def test_a_member_of_no_listed_group_is_not_recorded(accounts: dict[str, str]) -> None:
    recorded, _, _, _, _, warnings = decide(accounts, 0, groups=["staff", "domain users"])
    assert not recorded
    assert warnings == []


@pytest.mark.parametrize("scope", ["some", "all"])
def test_an_unknown_uid_is_recorded_with_a_warning(accounts: dict[str, str], scope: str) -> None:
    recorded, rule, _, user, _, warnings = decide(accounts, 77777, login="alice", scope=scope)
    assert (recorded, user) == (True, "")
    assert "recorded to be safe" in rule
    [warning] = warnings
    assert "uid 77777" in warning
    assert "unknown to the name service" in warning


def test_an_unknown_uid_is_not_recorded_with_scope_none(accounts: dict[str, str]) -> None:
    assert not decide(accounts, 77777, scope="none")[0]


def test_a_group_without_a_name_is_a_failed_look_up(accounts: dict[str, str]) -> None:
    recorded, _, _, _, groups, warnings = decide(accounts, 2002, groups=["staff"])
    assert recorded
    assert groups == []
    [warning] = warnings
    assert "gid 4242 has no name" in warning


def test_names_match_whatever_locale_the_user_brings(
    accounts: dict[str, str], tmp_path: Path
) -> None:
    """A login under a Latin-1 locale decodes names otherwise; ssh lets users choose it."""
    latin = latin_1(tmp_path)
    for environment in ({}, {"LC_ALL": "C"}, {"LC_ALL": "C.UTF-8"}, latin):
        by_user = decide(accounts | environment, 2001, users=["jürgen"])
        assert (by_user[0], by_user[3]) == (True, "jürgen"), environment
        by_group = decide(accounts | environment, 2001, groups=["müllers"])
        assert by_group[0], environment
        assert by_group[4] == ["people", "müllers"]
        by_login = decide(accounts | environment, 2001, login="jürgen", users=["jürgen"])
        assert by_login[3] == "jürgen", environment


def test_the_command_finds_a_name_that_the_locale_cannot_write(
    accounts: dict[str, str], tmp_path: Path
) -> None:
    Path(accounts["NSS_WRAPPER_PASSWD"]).write_text("иван:x:2003:2000::/:/bin/sh\n")
    conf = tmp_path / "rec-session.conf"
    conf.write_text('{"session_recording": {"scope": "some", "users": ["иван"]}}')
    run = subprocess.run(
        [sys.executable, "-I", "-m", "ttyscribe", "policy", "иван", "--config", conf],
        env=accounts | latin_1(tmp_path),
        capture_output=True,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith(rb"\u0438\u0432\u0430\u043d: recorded")


def test_the_command_reads_the_files_that_the_users_login_shell_reads(
    accounts: dict[str, str], tmp_path: Path
) -> None:
    Path(accounts["NSS_WRAPPER_PASSWD"]).write_text(
        "alice:x:2000:2000::/:/usr/bin/ttyscribe-rec-session\n"
        "bob:x:2001:2000::/:/usr/bin/tlog-rec-session\n"
        "carol:x:2002:2000::/:/usr/bin/tlog-rec-session-shell-bin-zsh\n"
    )
    for file, users in (("rec-session.conf", "alice"), ("tlog-rec-session.conf", "bob, carol")):
        rules = {"session_recording": {"scope": "some", "users": users}}
        (tmp_path / file).write_text(json.dumps(rules))
    program = (
        "import sys\nfrom ttyscribe.config import loader\n"
        "loader.FOLDER = loader.TLOG_FOLDER = sys.argv[1]\n"
        "from ttyscribe.cli import policy\nsys.exit(policy.main([sys.argv[2]]))\n"
    )
    for user, file in (
        ("alice", "rec-session.conf"),
        ("bob", "tlog-rec-session.conf"),
        ("carol", "tlog-rec-session.conf"),
    ):
        run = subprocess.run(
            [sys.executable, "-I", "-c", program, tmp_path, user],
            env=accounts,
            capture_output=True,
            text=True,
        )
        assert (run.returncode, run.stderr) == (0, "")
        assert f"{tmp_path}/{file}:1:" in run.stdout


def test_a_group_look_up_that_hangs_is_recorded_in_time(
    accounts: dict[str, str], tmp_path: Path
) -> None:
    """The groups are read from a fifo to which nobody ever writes."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    began = time.monotonic()
    recorded, rule, _, user, _, warnings = decide(
        accounts | {"NSS_WRAPPER_GROUP": str(fifo)}, 2000, timeout=0.5, groups=["nobody's"]
    )
    assert time.monotonic() - began < 10
    assert (recorded, user) == (True, "alice")
    assert "recorded to be safe" in rule
    [warning] = warnings
    assert "no answer within 0.5 s" in warning


def test_a_user_look_up_that_hangs_is_recorded_in_time(
    accounts: dict[str, str], tmp_path: Path
) -> None:
    broken = fault(tmp_path, "#include <unistd.h>\nint getpwuid_r(void) { for (;;) pause(); }\n")
    recorded, _, _, user, _, warnings = decide(accounts | broken, 2000, timeout=0.5, users=["bob"])
    assert (recorded, user) == (True, "")
    [warning] = warnings
    assert "no answer within 0.5 s" in warning


def test_a_hanging_group_service_does_not_matter_where_no_rule_asks(
    accounts: dict[str, str], tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    recorded, _, _, _, groups, warnings = decide(
        accounts | {"NSS_WRAPPER_GROUP": str(fifo)}, 2000, users=["bob"]
    )
    assert not recorded
    assert groups is None
    assert warnings == []


def test_a_look_up_that_hangs_leaves_no_process_behind(
    accounts: dict[str, str], tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    program = PROGRAM + "import os\nos.waitpid(-1, 0)\n"
    run = subprocess.run(
        [
            sys.executable,
            "-I",
            "-c",
            program,
            json.dumps([RULES | {"groups": ["x"]}, 2000, "", 0.5]),
        ],
        env=accounts | {"NSS_WRAPPER_GROUP": str(fifo)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "ChildProcessError" in run.stderr


def test_a_name_service_that_crashes_is_recorded(accounts: dict[str, str], tmp_path: Path) -> None:
    broken = fault(tmp_path, "#include <stdlib.h>\nint getgrgid_r(void) { abort(); }\n")
    recorded, _, _, user, _, warnings = decide(accounts | broken, 2000, groups=["x"])
    assert (recorded, user) == (True, "alice")
    [warning] = warnings
    assert "broke off" in warning


@pytest.mark.parametrize(
    ("rules", "rule"),
    [
        ({"groups": ["admins"]}, "scope 'some'"),
        ({"scope": "all", "exclude_groups": ["admins"]}, "scope 'all'"),
    ],
    ids=str,
)
def test_a_name_service_that_is_down_is_told(
    accounts: dict[str, str], tmp_path: Path, rules: dict[str, Any], rule: str
) -> None:
    """As with the module of SSSD and no SSSD, for each group that no other service has."""
    broken = fault(tmp_path, "#include <errno.h>\nint getgrnam_r(void) { return ENOENT; }\n")
    recorded, why, _, user, _, warnings = decide(accounts | broken, 2000, **rules)
    assert (recorded, user) == (True, "alice")
    assert why == f"{rule}, and the user's groups are uncertain: recorded to be safe"
    [warning] = warnings
    assert "a name service of /etc/nsswitch.conf is down: asked for group 'admins'" in warning


def test_no_outage_matters_where_a_group_that_is_there_decides(
    accounts: dict[str, str], tmp_path: Path
) -> None:
    broken = fault(tmp_path, "#include <errno.h>\nint getgrnam_r(void) { return ENOENT; }\n")
    recorded, _, origin, _, _, warnings = decide(
        accounts | broken, 2000, scope="all", exclude_groups=["admins", "staff"]
    )
    assert (recorded, origin) == (False, "session_recording.exclude_groups[1]")
    assert warnings == []


def test_no_process_to_be_had_is_recorded(accounts: dict[str, str]) -> None:
    """As under a limit on the user's processes, which root is not held to."""
    program = (
        "import os, resource\n"
        "resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))\n"
        "os.setresgid(65534, 65534, 65534)\nos.setresuid(65534, 65534, 65534)\n" + PROGRAM
    )
    run = subprocess.run(
        [sys.executable, "-I", "-c", program, json.dumps([RULES, 2000, "", 5])],
        env=accounts,
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    )
    recorded, _, _, _, _, warnings = json.loads(run.stdout)
    assert recorded
    assert "Resource temporarily unavailable" in warnings[0]


def test_the_login_path_pays_for_nothing_heavy() -> None:
    program = (
        "import sys, site\nbefore = set(sys.modules)\n"
        "from ttyscribe import policy\n"
        "policy.for_login({'session_recording': %r}, str, 0)\n"
        "print(*sorted(set(sys.modules) - before))\n" % (RULES | {"groups": ["root"]})
    )
    run = subprocess.run([sys.executable, "-I", "-c", program], stdout=subprocess.PIPE, check=True)
    loaded = set(run.stdout.decode().split())
    heavy = {"typing", "dataclasses", "enum", "re", "json", "argparse", "configparser", "signal"}
    assert not loaded & (heavy | {"ctypes", "collections", "subprocess", "ttyscribe.policy.sssd"})


def test_a_local_user_is_known_without_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    from ttyscribe.policy import lookup

    def never(*_: object) -> tuple[list[str], str]:
        raise AssertionError("the name service is asked")

    monkeypatch.setattr("ttyscribe.bounded.ask", never)
    for who, login, name in ((0, "", "root"), (0, "root", "root"), (1, "root", "daemon")):
        assert lookup.look_up(who, login, lambda _: False, (), 5).name == name
    for who, login, groups in ((0, "nobody-has-this", False), (77777, "", False), (0, "", True)):
        wanted = lambda _, groups=groups: bool(groups)  # noqa: E731
        with pytest.raises(AssertionError, match="is asked"):
            lookup.look_up(who, login, wanted, (), 5)


def test_a_local_user_is_known_as_the_name_service_knows_them() -> None:
    import pwd

    from ttyscribe.policy import lookup

    for account in pwd.getpwall():
        if Path("/etc/passwd").read_text("utf-8").find(f"\n{account.pw_name}:") < 0:
            continue
        first = pwd.getpwuid(account.pw_uid).pw_name
        assert lookup._local_name(account.pw_uid, "") in (first, "")
        assert lookup._local_name(account.pw_uid, account.pw_name) in (account.pw_name, "")
        assert lookup._local_name(account.pw_uid, "root" if account.pw_uid else "daemon") in (
            first,
            "",
        )
    assert lookup._local_name(0, "nobody-has-this-name") == ""


def test_only_files_that_come_first_are_asked_without_the_name_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ttyscribe.policy import lookup

    switch = tmp_path / "nsswitch.conf"
    monkeypatch.setattr(lookup, "NSSWITCH", str(switch))
    for line, asked in {
        "passwd: files systemd": "root",
        "passwd:\tfiles": "root",
        "passwd: sss files": "",
        "passwd: files [SUCCESS=merge] sss": "",
        "passwd: compat": "",
        "group: files": "",
    }.items():
        switch.write_text(f"# passwd: files\n{line}\n")
        assert lookup._local_name(0, "") == asked, line


def test_only_lines_that_name_somebody_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ttyscribe.policy import lookup

    passwd = tmp_path / "passwd"
    monkeypatch.setattr(lookup, "PASSWD", str(passwd))
    passwd.write_text(
        "#old:x:7:7::/:/bin/sh\n+@netgroup:x:7:7::/:/bin/sh\n:x:7:7::/:/bin/sh\nshort:x:7\n"
        "twice:x:8:7::/:/bin/sh\nnew:x:7:7::/:/bin/sh\n twice:x:7:7::/:/bin/sh\n"
    )
    assert lookup._local_name(7, "") == "new"
    # Of two lines with a name the first is the account.
    assert lookup._local_name(7, "twice") == "new"
    assert lookup._local_name(8, "twice") == "twice"
    assert lookup._local_name(9, "") == ""
