# SPDX-License-Identifier: Apache-2.0
"""packaging/install and packaging/uninstall, run for real into a folder and into this machine."""

from __future__ import annotations

import fcntl
import importlib.machinery
import importlib.util
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from tests.driving import wait_until
from tests.system.machine import LOCK

ROOT = Path(__file__).resolve().parents[2]
INSTALL = ROOT / "packaging" / "install"
UNINSTALL = ROOT / "packaging" / "uninstall"
SHELL = "/usr/bin/ttyscribe-rec-session"
NAME = "ttyscribe"


def run(*command: object) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def tree(folder: Path) -> set[str]:
    """Every path below a folder, relative."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def modes(stage: Path) -> dict[str, int]:
    """Every path and its mode, but for our own modules: somebody may be editing those."""
    return {
        path: (stage / path).lstat().st_mode
        for path in tree(stage)
        if "/site-packages/ttyscribe/" not in path
    }


@pytest.fixture(scope="module", autouse=True)
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What each installation would fetch and build anew, made once."""
    folder = tmp_path_factory.mktemp("wheels")
    requirements = ROOT / "requirements" / "run.txt"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    run(*pip, "wheel", "--quiet", "--wheel-dir", folder, "-r", requirements)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_NO_INDEX", "1")
        patch.setenv("PIP_FIND_LINKS", str(folder))
        yield


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installation below a folder, made once; tests work on copies of it."""
    stage = tmp_path_factory.mktemp("staged") / "stage"
    run(INSTALL, "--destdir", stage)
    return stage


@pytest.fixture
def stage(staged: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "stage"
    shutil.copytree(staged, copy, symlinks=True)
    return copy


def test_every_line_of_the_table_is_installed_with_its_mode(staged: Path) -> None:
    expected = {
        "usr/bin/ttyscribe": 0o755,
        "usr/bin/ttyscribe-rec-session": 0o711,
        "usr/lib/ttyscribe": 0o755,
        "usr/lib/tmpfiles.d/ttyscribe.conf": 0o644,
        "etc/ttyscribe": 0o755,
        "etc/ttyscribe/prefix": 0o644,
        "etc/ttyscribe/rec-session.conf.d": 0o755,
        "etc/ttyscribe/rec.conf.d": 0o755,
        "etc/ttyscribe/play.conf.d": 0o755,
        "usr/lib/ttyscribe/bin/ttyscribe-wait": 0o711,
        "usr/lib/ttyscribe/bin/ttyscribe-confine": 0o711,
        "usr/lib/sysusers.d/ttyscribe.conf": 0o644,
        "usr/lib/systemd/journald@ttyscribe.conf.d/ttyscribe.conf": 0o644,
        "usr/lib/systemd/system/ttyscribe-recorder.service": 0o644,
        "usr/lib/systemd/system/ttyscribe-recorder.socket": 0o644,
        "var/spool/ttyscribe": 0o700,
        "var/log/ttyscribe": 0o700,
        "run/ttyscribe": 0o755,
        "run/ttyscribe/outer": 0o700,
        "run/ttyscribe/lock": 0o1777,
        "run/ttyscribe/service-lock": 0o755,
    }
    for source in (ROOT / "conf").glob("*.conf"):
        expected[f"etc/ttyscribe/{source.name}"] = 0o644
        expected[f"usr/lib/ttyscribe/conf/{source.name}"] = 0o644
    for source in (ROOT / "man").glob("*.[158]"):
        expected[f"usr/share/man/man{source.suffix[1:]}/{source.name}"] = 0o644
    modes = {path: stat.S_IMODE((staged / path).stat().st_mode) for path in expected}
    assert modes == expected
    outside = {
        path
        for path in tree(staged)
        if not path.startswith("usr/lib/ttyscribe/") and not (staged / path).is_dir()
    }
    assert outside <= set(expected)


def test_volatile_folders_are_made_at_every_boot(staged: Path) -> None:
    text = (staged / "usr/lib/tmpfiles.d/ttyscribe.conf").read_text()
    assert text.splitlines() == [
        "d /run/ttyscribe 0755 ttyscribe ttyscribe -",
        "d /run/ttyscribe/outer 0700 ttyscribe ttyscribe -",
        "d /run/ttyscribe/lock 1777 ttyscribe ttyscribe -",
        "d /run/ttyscribe/service-lock 0755 ttyscribe ttyscribe -",
    ]


def test_nothing_installed_names_the_folder_it_was_staged_in(staged: Path) -> None:
    for path in staged.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert os.fsencode(staged) not in path.read_bytes(), path
    assert b"/usr/lib/ttyscribe/bin/python3" in (staged / "usr/bin/ttyscribe").read_bytes()


def test_the_byte_code_is_there_and_current(staged: Path) -> None:
    packages = next((staged / "usr/lib/ttyscribe/lib").glob("python3*/site-packages/ttyscribe"))
    for source in packages.rglob("*.py"):
        (code,) = (source.parent / "__pycache__").glob(f"{source.stem}.*.pyc")
        assert int.from_bytes(code.read_bytes()[8:12], "little") == int(source.stat().st_mtime)


def test_doing_it_again_changes_nothing(stage: Path) -> None:
    before = modes(stage)
    run(INSTALL, "--destdir", stage)
    assert modes(stage) == before


def killed(stage: Path, tmp_path: Path) -> None:
    """Begin to install, and kill all of it as it compiles the login shell."""
    scratch, reached = tmp_path / "tmp", tmp_path / "reached"
    scratch.mkdir()
    compiler = tmp_path / "cc"
    compiler.write_text(
        "#!/bin/sh\n"
        'case "$*" in *ttyscribe-rec-session*.new*)\n'
        f'    while [ "$1" != -o ]; do shift; done; >"$2"; echo >{reached}; exec sleep 60;;\n'
        "esac\n"
        'exec cc "$@"\n'
    )
    compiler.chmod(0o755)
    install = subprocess.Popen(
        [INSTALL, "--destdir", stage],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "CC": str(compiler), "TMPDIR": str(scratch)},
        start_new_session=True,
    )
    wait_until(reached.exists, "it compiles nothing", 60)
    os.killpg(install.pid, signal.SIGKILL)
    install.wait()
    assert not any(scratch.iterdir())


def test_what_an_installation_that_was_killed_has_left_goes(staged: Path, tmp_path: Path) -> None:
    stage = tmp_path / "stage"
    (stage / "etc").mkdir(parents=True)
    killed(stage, tmp_path)
    left = {"usr/lib/ttyscribe.new", "usr/bin/ttyscribe-rec-session.ttyscribe-new.new"}
    assert left <= tree(stage)
    # As killed a moment later.
    for name in ("etc/shells", "usr/bin/ttyscribe-rec-session", "etc/ttyscribe/rec.conf"):
        left.add(f"{name}.ttyscribe-new")
        (stage / name).parent.mkdir(exist_ok=True)
        (stage / f"{name}.ttyscribe-new").touch()
    again = tmp_path / "again"
    shutil.copytree(stage, again, symlinks=True)

    out = run(UNINSTALL, "--destdir", stage)
    assert all(f"removed {stage / name}, which an interrupted" in out for name in left)
    assert [path for path in stage.rglob("*") if not path.is_dir()] == []
    assert not (stage / "usr/lib/ttyscribe.new").exists()
    run(INSTALL, "--destdir", again)
    assert modes(again) == modes(staged)


@pytest.mark.parametrize("name", ["usr", "etc"])
@pytest.mark.parametrize("program", [INSTALL, UNINSTALL])
def test_nothing_begins_on_a_read_only_file_system(stage: Path, program: Path, name: str) -> None:
    (stage / "etc/shells").write_text(f"/bin/sh\n{SHELL}\n")
    (stage / "etc/passwd").write_text(f"ann:x:1001:1001::/:{SHELL}\n")
    before = contents(stage)
    folder = stage / name
    done = read_only(folder, program, "--destdir", stage)
    verb = "installed" if program is INSTALL else "removed"
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"packaging/{program.name}: {folder}/")
    assert done.stderr.endswith(
        f": can't be changed: read-only file system; nothing was {verb};"
        " mount it writable, and run this again\n"
    )
    assert done.stderr.count("\n") == 1
    assert contents(stage) == before


def test_uninstalling_twice_is_no_error_on_a_read_only_file_system_either(stage: Path) -> None:
    run(UNINSTALL, "--destdir", stage)
    done = read_only(stage, UNINSTALL, "--destdir", stage)
    assert (done.returncode, done.stdout, done.stderr) == (0, "removed\n", "")


def read_only(folder: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command for which all below a folder is read-only."""
    mount = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", mount, folder, *command], capture_output=True, text=True
    )


def contents(stage: Path) -> dict[str, tuple[int, bytes]]:
    """Every path, its mode, and what is in it."""
    return {
        path: (mode, (stage / path).read_bytes() if stat.S_ISREG(mode) else b"")
        for path, mode in modes(stage).items()
    }


@pytest.mark.parametrize("upgrade", [False, True])
def test_an_installation_that_fails_at_its_end_leaves_all_as_it_was(
    staged: Path, tmp_path: Path, upgrade: bool
) -> None:
    stage = tmp_path / "stage"
    if upgrade:
        shutil.copytree(staged, stage, symlinks=True)
        for name in ("bin/ttyscribe", "bin/ttyscribe-rec-session", "lib/ttyscribe/conf/rec.conf"):
            (stage / "usr" / name).write_text("of before")
        (stage / "etc/ttyscribe/rec.conf").write_text("of before")
        (stage / "etc/ttyscribe/prefix").unlink()
        (stage / "usr/share/man/man1/ttyscribe.1").unlink()
        (stage / "usr/share/man/man1/ttyscribe.1").symlink_to("elsewhere")
    # What is written last, and can't be.
    blocked = stage / "etc/ttyscribe/prefix"
    blocked.mkdir(parents=True)
    shells = stage / "etc/shells"
    shells.write_text("/bin/sh\n")
    before = contents(stage)
    done = subprocess.run([INSTALL, "--destdir", stage], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == (
        f"packaging/install: {blocked}: Is a directory; nothing was installed;"
        " correct that, and run this again\n"
    )
    assert contents(stage) == before


def test_another_prefix(tmp_path: Path) -> None:
    run(INSTALL, "--destdir", tmp_path, "--prefix", "/opt/rec")
    assert (tmp_path / "opt/rec/bin/ttyscribe").exists()
    assert (
        b"/opt/rec/lib/ttyscribe" in (tmp_path / "opt/rec/bin/ttyscribe-rec-session").read_bytes()
    )
    assert not (tmp_path / "usr").exists()
    run(UNINSTALL, "--destdir", tmp_path, "--prefix", "/opt/rec")
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == []


@pytest.mark.parametrize(
    ("prefix", "why"),
    [
        ("/opt/tty scribe", "' ' can't be in this path"),
        ("/opt/50%", "'%' can't be in this path"),
        (
            "/opt/" + "x" * 90,
            "longer than 94 bytes, for which the first line of a script has no room",
        ),
    ],
)
def test_a_prefix_that_the_command_could_not_start_from_changes_nothing(
    tmp_path: Path, prefix: str, why: str
) -> None:
    done = subprocess.run(
        [INSTALL, "--destdir", tmp_path, "--prefix", prefix], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"install: --prefix {prefix}: {why}; choose a")
    assert done.stderr.count("\n") == 1
    assert tree(tmp_path) == set()


@pytest.mark.parametrize("known_by", ["what was written down", "the list of shells", "a user"])
def test_uninstalling_another_prefix_changes_nothing(stage: Path, known_by: str) -> None:
    if known_by != "what was written down":
        (stage / "etc/ttyscribe/prefix").unlink()
    if known_by == "the list of shells":
        (stage / "etc/shells").write_text(f"/bin/sh\n{SHELL}\n")
    if known_by == "a user":
        (stage / "etc/passwd").write_text(f"ann:x:1001:1001::/:{SHELL}\n")
    before = tree(stage)
    done = subprocess.run(
        [UNINSTALL, "--destdir", stage, "--prefix", "/opt/rec"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "packaging/uninstall: there is no installation at /opt/rec, but one at /usr:"
        " use --prefix /usr; nothing was removed\n"
    )
    assert tree(stage) == before


def test_what_was_interrupted_at_another_prefix_goes_and_the_installation_stays(
    stage: Path,
) -> None:
    before = contents(stage)
    left = stage / "opt/rec/lib/ttyscribe.new"
    (left / "lib").mkdir(parents=True)
    done = subprocess.run(
        [UNINSTALL, "--destdir", stage, "--prefix", "/opt/rec"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stdout == f"removed {left}, which an interrupted installation has left\n"
    assert done.stderr.endswith("but one at /usr: use --prefix /usr; nothing else was removed\n")
    left.parent.rmdir()
    (stage / "opt/rec").rmdir()
    (stage / "opt").rmdir()
    assert contents(stage) == before


def test_uninstall_leaves_no_file(stage: Path) -> None:
    run(UNINSTALL, "--destdir", stage)
    assert [path for path in stage.rglob("*") if not path.is_dir()] == []
    assert not (stage / "etc/ttyscribe").exists()
    assert not (stage / "usr/lib/ttyscribe").exists()


@pytest.mark.parametrize("name", ["etc/ttyscribe", "var/spool/ttyscribe"])
def test_a_folder_that_an_admin_put_elsewhere_is_emptied_and_its_link_stays(
    stage: Path, name: str
) -> None:
    folder, elsewhere = stage / name, stage / "srv/ttyscribe"
    elsewhere.parent.mkdir()
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)
    for _ in range(2):
        out = run(UNINSTALL, "--destdir", stage)
        assert f"kept {folder}, which is a link" in out and out.endswith("removed\n")
        assert [path for path in stage.rglob("*") if not path.is_dir()] == []
        assert folder.is_symlink() and not any(elsewhere.iterdir())
    (other,) = {"etc/ttyscribe", "var/spool/ttyscribe"} - {name}
    assert not (stage / other).exists()


def test_a_link_of_the_services_user_leads_root_nowhere(stage: Path) -> None:
    planted, elsewhere = stage / "run/ttyscribe/lock", stage / "srv/elsewhere"
    elsewhere.mkdir(parents=True, mode=0o750)
    planted.rmdir()
    planted.symlink_to(elsewhere)
    done = subprocess.run(
        [INSTALL, "--destdir", stage],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 1
    assert f"{planted}: Not a directory; nothing was installed" in done.stderr
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o750
    out = run(UNINSTALL, "--destdir", stage)
    assert str(planted) not in out
    assert not planted.is_symlink() and elsewhere.is_dir()


def test_uninstalling_twice_is_no_error(stage: Path) -> None:
    run(UNINSTALL, "--destdir", stage)
    run(UNINSTALL, "--destdir", stage)


def test_configuration_of_an_admin_stays(stage: Path) -> None:
    conf = stage / "etc/ttyscribe"
    default = conf / "rec-session.conf"
    assert default.exists(), "there is a default to change"
    pristine = default.read_bytes()
    default.write_bytes(b"// mine\n{}\n")
    (conf / "rec.conf.d" / "10-mine.conf").write_text("{}\n")

    out = run(INSTALL, "--destdir", stage)
    assert default.read_bytes() == b"// mine\n{}\n"
    assert (conf / "rec-session.conf.new").read_bytes() == pristine
    assert "kept your /etc/ttyscribe/rec-session.conf" in out

    out = run(UNINSTALL, "--destdir", stage)
    assert default.read_bytes() == b"// mine\n{}\n"
    assert not (conf / "rec-session.conf.new").exists()
    assert (conf / "rec.conf.d" / "10-mine.conf").exists()
    assert f"kept {default}" in out and f"kept {conf / 'rec.conf.d'}" in out

    run(UNINSTALL, "--destdir", stage, "--purge")
    assert not default.exists()


def test_links_of_an_admin_stay(stage: Path) -> None:
    conf, elsewhere = stage / "etc/ttyscribe", stage / "srv/adm"
    elsewhere.mkdir(parents=True)
    (conf / "rec-session.conf").unlink()
    (conf / "rec.conf").rename(elsewhere / "rec.conf")
    (elsewhere / "shells").write_text("/bin/sh\n")
    leads = {
        conf / "rec-session.conf": "/srv/nowhere/rec-session.conf",
        conf / "rec.conf": "../../srv/adm/rec.conf",
        stage / "etc/shells": "/srv/adm/../adm/shells",  # as it is when the stage is the machine
    }
    for link, target in leads.items():
        link.symlink_to(target)

    out = run(INSTALL, "--destdir", stage)
    assert {link: os.readlink(link) for link in leads} == leads
    assert "kept your /etc/ttyscribe/rec-session.conf, a link that leads nowhere" in out
    assert (elsewhere / "rec.conf").read_bytes() == (ROOT / "conf/rec.conf").read_bytes()
    assert not (conf / "rec.conf.new").exists()
    assert (elsewhere / "shells").read_text() == f"/bin/sh\n{SHELL}\n"

    run(UNINSTALL, "--destdir", stage)
    assert {link: os.readlink(link) for link in leads} == leads
    assert (elsewhere / "shells").read_text() == "/bin/sh\n"
    run(UNINSTALL, "--destdir", stage, "--purge")
    assert not conf.exists()
    assert (elsewhere / "rec.conf").exists()


@pytest.mark.parametrize("program", [INSTALL, UNINSTALL])
@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("srv/open", "leads by {}, which not only root can change; correct that"),
        ("srv/none", "leads to {}, which is not there; correct the link"),
    ],
)
def test_a_list_of_shells_that_others_could_lead_elsewhere_changes_nothing(
    stage: Path, program: Path, what: str, why: str
) -> None:
    (stage / "srv/open").mkdir(parents=True)
    (stage / "srv/open").chmod(0o777)
    (stage / "srv/open/shells").write_text("/bin/sh\n")
    (stage / "etc/shells").symlink_to(f"/{what}/shells")
    before = modes(stage)
    done = subprocess.run([program, "--destdir", stage], capture_output=True, text=True)
    told = f"{program.name}: {stage}/etc/shells: the link {why.format(stage / what)}\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", told)
    assert modes(stage) == before


def test_configuration_that_nobody_changed_follows_the_new_defaults(stage: Path) -> None:
    # An older version's default, as it was installed then.
    for folder in ("etc/ttyscribe", "usr/lib/ttyscribe/conf"):
        (stage / folder / "rec-session.conf").write_bytes(b"// old default\n{}\n")
    run(INSTALL, "--destdir", stage)
    new = (ROOT / "conf" / "rec-session.conf").read_bytes()
    assert (stage / "etc/ttyscribe/rec-session.conf").read_bytes() == new
    assert not (stage / "etc/ttyscribe/rec-session.conf.new").exists()


def test_undelivered_data_stays_and_is_named(stage: Path) -> None:
    data = stage / "var/spool/ttyscribe/session"
    data.write_bytes(b"captured")
    assert f"kept {data.parent}, which is not empty" in run(UNINSTALL, "--destdir", stage)
    assert data.read_bytes() == b"captured"


def test_shells_gets_the_login_shell_once_and_loses_it_again(stage: Path) -> None:
    shells = stage / "etc/shells"
    before = "# Schale f\xfcr alle\n/bin/sh\n/bin/bash"
    shells.write_text(before, "latin-1")
    shells.chmod(0o644)
    for _ in range(2):
        run(INSTALL, "--destdir", stage)
        assert shells.read_text("latin-1") == f"{before}\n{SHELL}\n"
    run(UNINSTALL, "--destdir", stage)
    assert shells.read_text("latin-1") == before + "\n"
    assert stat.S_IMODE(shells.stat().st_mode) == 0o644


def test_users_of_our_shell_get_a_plain_one(stage: Path) -> None:
    for shell in ("bin/bash", "bin/zsh"):
        (stage / shell).parent.mkdir(exist_ok=True)
        (stage / shell).write_text("#!\n")
        (stage / shell).chmod(0o755)
    link = f"{SHELL}-shell-bin-zsh"
    (stage / link[1:]).symlink_to("ttyscribe-rec-session")
    gone = f"{SHELL}-shell-bin-gone"
    (stage / gone[1:]).symlink_to("ttyscribe-rec-session")
    passwd = stage / "etc/passwd"
    passwd.write_text(
        "root:x:0:0::/root:/bin/sh\n"
        f"ann:x:1001:1001::/:{SHELL}\n"
        f"ben:x:1002:1002::/:{link}\n"
        f"cyd:x:1003:1003::/:{gone}\n"
    )
    out = run(UNINSTALL, "--destdir", stage)
    shells = dict(line.split(":")[::6] for line in passwd.read_text().splitlines())
    assert shells == {"root": "/bin/sh", "ann": "/bin/bash", "ben": "/bin/zsh", "cyd": "/bin/bash"}
    for line in ("ann has the shell /bin/bash now", "ben has the shell /bin/zsh now"):
        assert line in out
    assert not (stage / link[1:]).is_symlink()


def test_a_line_with_a_comment_in_the_list_of_shells_is_ours_too(stage: Path) -> None:
    shells = stage / "etc/shells"
    before = f"/bin/sh\n {SHELL}\t# recorded\n/bin/dash # {SHELL}\n"
    shells.write_text(before)
    run(INSTALL, "--destdir", stage)
    assert shells.read_text() == before
    run(UNINSTALL, "--destdir", stage)
    assert shells.read_text() == f"/bin/sh\n/bin/dash # {SHELL}\n"


def test_users_made_later_get_a_plain_shell(stage: Path) -> None:
    (stage / "bin").mkdir()
    (stage / "bin/bash").write_text("#!\n")
    (stage / "bin/bash").chmod(0o755)
    useradd, adduser = stage / "etc/default/useradd", stage / "etc/adduser.conf"
    useradd.parent.mkdir()
    useradd.write_text(f"# SHELL={SHELL}\nSHELL={SHELL}\nHOME=/home\n")
    useradd.chmod(0o640)
    adduser.write_text(f'DSHELL="{SHELL}" # all of them\nDHOME=/home\n')
    out = run(UNINSTALL, "--destdir", stage)
    assert f"new users get the shell /bin/bash now, by SHELL in {useradd}\n" in out
    assert useradd.read_text() == f"# SHELL={SHELL}\nSHELL=/bin/bash\nHOME=/home\n"
    assert stat.S_IMODE(useradd.stat().st_mode) == 0o640
    assert adduser.read_text() == 'DSHELL="/bin/bash" # all of them\nDHOME=/home\n'


@pytest.mark.parametrize(("listed", "shell"), [(True, "/bin/zsh"), (False, "/bin/bash")])
def test_users_get_the_configured_shell_if_it_is_a_valid_one(
    stage: Path, listed: bool, shell: str
) -> None:
    (stage / "bin").mkdir()
    for name in ("bash", "zsh"):
        (stage / "bin" / name).write_text("#!\n")
        (stage / "bin" / name).chmod(0o755)
    (stage / "etc/shells").write_text("/bin/sh\n/bin/zsh\n" if listed else "/bin/sh\n")
    (stage / "etc/ttyscribe/rec-session.conf").write_text('{"shell": "/bin/zsh"}\n')
    passwd = stage / "etc/passwd"
    passwd.write_text(f"ann:x:1001:1001::/:{SHELL}\n")
    run(UNINSTALL, "--destdir", stage)
    assert passwd.read_text() == f"ann:x:1001:1001::/:{shell}\n"


def test_users_get_a_shell_although_the_configuration_is_broken(stage: Path) -> None:
    (stage / "bin").mkdir()
    (stage / "bin/bash").write_text("#!\n")
    (stage / "bin/bash").chmod(0o755)
    (stage / "etc/ttyscribe/rec-session.conf").write_text('{"shell": \n')
    passwd = stage / "etc/passwd"
    passwd.write_text(f"ann:x:1001:1001::/:{SHELL}\n")
    assert "rec-session.conf is not used" in run(UNINSTALL, "--destdir", stage)
    assert passwd.read_text() == "ann:x:1001:1001::/:/bin/bash\n"


def test_the_shell_that_users_get_can_be_named(stage: Path) -> None:
    (stage / "bin").mkdir()
    (stage / "bin/dash").write_text("#!\n")
    (stage / "bin/dash").chmod(0o755)
    passwd = stage / "etc/passwd"
    passwd.write_text(f"ann:x:1001:1001::/:{SHELL}\n")

    done = subprocess.run(
        [UNINSTALL, "--destdir", stage, "--reset-shell", "/bin/fish"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "packaging/uninstall: --reset-shell /bin/fish: no such program\n"
    assert (stage / SHELL[1:]).exists()

    run(UNINSTALL, "--destdir", stage, "--reset-shell", "/bin/dash")
    assert passwd.read_text() == "ann:x:1001:1001::/:/bin/dash\n"


@pytest.mark.parametrize("program", [INSTALL, UNINSTALL])
def test_a_relative_folder_is_one_line(program: Path) -> None:
    done = subprocess.run(
        [program, "--destdir", "stage"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == f"{program.name}: --destdir stage: must be an absolute path\n"


@pytest.fixture
def booted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """packaging/install on a machine that systemd runs, whose systemctl fails."""
    loader = importlib.machinery.SourceFileLoader("install", str(INSTALL))
    spec = importlib.util.spec_from_loader("install", loader)
    assert spec is not None
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/called\nexit 1\n')
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(module, "SYSTEMD", str(tmp_path))
    return module


def test_a_service_that_does_not_start_is_told_apart_from_an_installation_that_failed(
    booted: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        booted.start_service(booted.Place("/usr", ""))
    err = capsys.readouterr().err
    assert "all is installed, but this failed: systemctl daemon-reload" in err
    assert "nothing was installed" not in err


def test_units_where_systemd_does_not_look_are_told_and_not_asked_for(
    booted: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    booted.start_service(booted.Place("/opt/rec", ""))
    assert "does not look into /opt/rec/lib/systemd/system" in capsys.readouterr().out
    assert not (tmp_path / "called").exists()


def test_an_interpreter_that_is_too_old_or_none_changes_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [INSTALL, "--destdir", tmp_path, "--python", "/bin/false"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "/bin/false: not a Python 3.11 or newer" in done.stderr
    assert tree(tmp_path) == set()


@pytest.fixture
def machine() -> Iterator[None]:
    """Guards this machine: nothing of ours before, and nothing after."""
    assert os.geteuid() == 0, "must be root"
    with open(LOCK, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield from guarded()


def guarded() -> Iterator[None]:
    if Path(SHELL).exists() or Path("/etc/ttyscribe").exists():
        pytest.fail("ttyscribe is installed on this machine; the test would remove it")
    # What a test run that was killed left of a recorder that runs no more.
    shutil.rmtree("/run/ttyscribe", ignore_errors=True)
    try:
        yield
    finally:
        subprocess.run([UNINSTALL, "--purge"], check=False)
        subprocess.run(["userdel", "-f", "ttyscribe-test"], capture_output=True, check=False)
        shutil.rmtree("/var/spool/ttyscribe", ignore_errors=True)


def listing(places: tuple[str, ...]) -> set[str]:
    """What these folders have of ours; other tests may use them at the same time."""
    return {
        f"{place}/{name}"
        for place in places
        for name in os.listdir(place)
        if NAME in name and "-test-" not in name
    }


@pytest.mark.system
@pytest.mark.xdist_group("installed")
def test_the_machine_is_as_before_after_install_and_uninstall(
    machine: None, tmp_path: Path
) -> None:
    places = ("/usr/bin", "/usr/lib", "/usr/lib/tmpfiles.d", "/etc", "/var/spool", "/run")
    before = listing(places)
    shells = Path("/etc/shells").read_bytes()

    run(INSTALL)
    account = pwd.getpwnam("ttyscribe")
    assert account.pw_uid < 1000 and account.pw_shell == "/usr/sbin/nologin"
    spool = os.stat("/var/spool/ttyscribe")
    assert (spool.st_uid, stat.S_IMODE(spool.st_mode)) == (account.pw_uid, 0o700)
    assert Path("/etc/shells").read_bytes() == shells + f"{SHELL}\n".encode()

    # From anywhere, whatever the environment brings along.
    (tmp_path / "ttyscribe.py").write_text("raise SystemExit('hostile')")
    (tmp_path / "sitecustomize.py").write_text("raise SystemExit('hostile')")
    (tmp_path / "typing.py").write_text("raise SystemExit('hostile')")
    done = subprocess.run(
        ["/usr/bin/ttyscribe", "--version"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "PYTHONHOME": str(tmp_path), "LC_ALL": "xx"},
        capture_output=True,
        check=True,
    )
    assert done.stdout.startswith(b"ttyscribe ") and done.stderr == b""

    # What a killed recorder leaves, and what a user puts beside it.
    Path("/run/ttyscribe/lock/pts-1a-8800.00000000000000000001-1").write_text("gone")
    Path("/run/ttyscribe/service-lock/pts-1a-8801.00000000000000000001-1").write_text("gone")
    Path("/run/ttyscribe/lock/planted").symlink_to(tmp_path)

    run("useradd", "-M", "--shell", SHELL, "ttyscribe-test")
    out = run(UNINSTALL)
    assert "ttyscribe-test has the shell /bin/bash now" in out
    assert pwd.getpwnam("ttyscribe-test").pw_shell == "/bin/bash"
    assert run("su", "-", "ttyscribe-test", "-c", "echo works").endswith("works\n")
    run("userdel", "ttyscribe-test")
    assert tmp_path.exists()
    assert listing(places) == before
    assert Path("/etc/shells").read_bytes() == shells
    with pytest.raises(KeyError):
        pwd.getpwnam("ttyscribe")
