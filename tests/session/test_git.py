# SPDX-License-Identifier: Apache-2.0
"""When a push or a fetch may be skipped; and that it then runs nothing of its user's."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ttyscribe.session import git
from ttyscribe.session.skip import environment_of

PROGRAM = "/usr/bin/git-receive-pack"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a configuration as most are, a bare repository, and one to push from."""
    run = ["git", "-c", "init.defaultBranch=main"]
    subprocess.run([*run, "init", "-q", "--bare", tmp_path / "it.git"], check=True)
    subprocess.run([*run, "init", "-q", tmp_path / "work"], check=True)
    (tmp_path / ".gitconfig").write_text(
        "# mine\n[user]\n\tname = Alice\n\temail = alice@example.com\n[core]\n\teditor = vim\n"
        '[alias]\n\tst = status\n[url "git@host:"]\n\tinsteadOf = h:\n'
    )
    commit(tmp_path, "first")
    return tmp_path


def commit(home: Path, text: str) -> None:
    (home / "work" / "file").write_text(text)
    run = ["git", "-C", str(home / "work"), "-c", "user.name=a", "-c", "user.email=a@example.com"]
    subprocess.run([*run, "add", "."], check=True)
    subprocess.run([*run, "commit", "-q", "-m", text], check=True)


def is_plain(home: Path, *words: str) -> bool:
    return git.is_plain(words, {b"HOME": os.fsencode(home)})


def is_plain_push(home: Path) -> bool:
    return is_plain(home, "git-receive-pack", f"{home}/it.git")


def skipped(home: Path, program: str = "git-receive-pack") -> list[str]:
    """What is executed for a program that serves it.git, whatever is_plain() says."""
    found = git.confined(f"/usr/bin/{program}", [program, f"{home}/it.git"])
    assert found is not None
    path, argv = found
    environ = environment_of({b"HOME": os.fsencode(home), b"PATH": b"/usr/bin:/bin"})
    variables = [f"{os.fsdecode(name)}={os.fsdecode(value)}" for name, value in environ.items()]
    return ["env", "-i", *variables, path, *argv[1:]]


def push(home: Path) -> bytes:
    """Push as a skipped command is run; what is shown, which is what it is otherwise."""
    script = home / "receive"
    script.write_text(f"#!/bin/sh\nexec {shlex.join(skipped(home))}\n")
    script.chmod(0o755)
    command: list[str | Path] = ["git", "-C", home / "work", "push", "--receive-pack", script]
    to: list[str | Path] = [home / "it.git", "HEAD:refs/heads/main"]
    copy = home / "copy.git"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(home / "it.git", copy, symlinks=True)
    (copy / "config").write_text("[core]\n\tbare = true\n")
    shutil.rmtree(copy / "hooks", ignore_errors=True)
    plainly: list[str | Path] = ["git", "-C", home / "work", "push", copy, to[1]]
    expected = subprocess.run(plainly, capture_output=True, check=True).stderr
    done = subprocess.run([*command, *to], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == expected.replace(b"copy.git", b"it.git")
    return done.stderr


def test_a_push_to_a_plain_bare_repository_is_plain(home: Path) -> None:
    assert is_plain_push(home)
    for name in ("it.git", "it.git/", "~/it.git", "it"):
        # As the names are resolved by git itself, from the login's folder.
        code = f"""if True:
            import os
            from ttyscribe.session import git
            os.chdir({str(home)!r})
            print(git.is_plain(["git-receive-pack", {name!r}], {{b"HOME": os.getcwdb()}}))
        """
        told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert told.stdout == "True\n", told.stderr


# What its user may prepare in the folder it.git, in the language of /bin/sh.
BEFORE = """
set -e
home=$PWD
command() { printf '#!/bin/sh\\ntouch %s\\n' "$home/took" >"$1"; chmod +x "$1"; }
hook() { command "it.git/hooks/$1"; }
config() { git -C it.git config "$@"; }
other() {
    git init -q --bare other.git
    echo "$home/other.git/objects" >it.git/objects/info/alternates
}
command it
"""
RUN = {
    "hook": "hook pre-receive",
    "hook after": "hook post-receive",
    "hook for each": "hook update",
    "hook for references": "hook reference-transaction",
    # Its first argument is "prepared"; it starts in git's folder.
    "hook of root's": "ln -sf /bin/sh it.git/hooks/reference-transaction; command it.git/prepared",
    "hook elsewhere": "mkdir more; command more/update; config core.hooksPath $home/more",
    "alternates": "other; config core.alternateRefsCommand $home/it",
    "alternates by a shell": "other; config core.alternateRefsCommand 'true; '$home/it",
    "certificate": "config receive.certNonceSeed x; config gpg.program $home/it",
    "what is garbage": "config gc.auto 1; config gc.recentObjectsHook $home/it; hook pre-auto-gc",
    "included": "mkdir hooks; command hooks/update;"
    " printf '[core]\\nhooksPath=%s' $home/hooks >more.conf; config include.path $home/more.conf",
}


def prepare(home: Path, how: str) -> None:
    subprocess.run(["/bin/sh", "-c", BEFORE + RUN[how]], cwd=home, check=True)


def configure(home: Path, setting: str, value: str) -> None:
    subprocess.run(["git", "-C", home / "it.git", "config", setting, value], check=True)


@pytest.mark.parametrize("how", RUN)
def test_a_push_that_might_run_something_is_not_plain(home: Path, how: str) -> None:
    prepare(home, how)
    assert not is_plain_push(home)


@pytest.mark.parametrize("how", RUN)
def test_what_comes_after_the_look_is_not_run(home: Path, how: str) -> None:
    """Nor does it keep the push from its work: it is what would have been, had it come later."""
    assert is_plain_push(home)
    prepare(home, how)
    push(home)
    assert not (home / "took").exists()
    told = subprocess.run(["git", "-C", home / "it.git", "log", "--format=%s", "main"], stdout=-1)
    assert told.stdout == b"first\n"


def test_these_commands_are_run_where_they_are_not_kept_from_it(home: Path) -> None:
    """Or the tests above would show nothing."""
    to: list[str | Path] = ["git", "-C", home / "work", "push", "-q", home / "it.git", "HEAD:main"]
    for how in ("hook", "hook after", "hook of root's", "alternates", "alternates by a shell"):
        prepare(home, how)
        commit(home, how)
        subprocess.run(to, capture_output=True, check=False)
        assert (home / "took").exists(), how
        (home / "took").unlink()


def test_the_kernel_keeps_it_to_gits_own_programs(home: Path) -> None:
    found = git.confined(PROGRAM, ["git-receive-pack", "x"])
    assert found is not None
    path, argv = found
    before = argv[: argv.index("--") + 1]
    ways = {
        "!id": "",
        "!/bin/sh -c id": "",
        "!git --version": "",
        "--exec-path": "/usr/lib/git-core\n",
    }
    for alias, shown in ways.items():
        words = [*before, "/usr/bin/git", "git", "-c", f"alias.x={alias}", "x"]
        told = subprocess.run(words, executable=path, capture_output=True, text=True)
        assert told.stdout == shown
    # A shell script among git's programs has no shell.
    words = [*before, "/usr/lib/git-core/git-submodule", "git-submodule", "status"]
    assert subprocess.run(words, executable=path, capture_output=True).returncode == 126


@pytest.mark.parametrize(
    ("version", "known"),
    [
        ("2.39.5", True), ("2.53.0.windows.1", True), ("2.54.0", False), ("2.54.0-rc1", False),
        ("3.0.0", False), ("", False), ("2", False), ("2.x", False),
    ],
)  # fmt: skip
def test_a_push_is_plain_to_a_git_that_is_known(version: str, known: bool) -> None:
    """What a newer one can be made to run nobody has read yet."""
    assert git._is_known(version) == known
    assert git._is_known(git._version())


def test_another_git_than_the_systems_is_not_replaced_by_it() -> None:
    assert git.confined("/usr/local/bin/git-receive-pack", ["git-receive-pack", "x"]) is None


def test_a_push_that_is_confined_does_all_its_work(home: Path) -> None:
    """With its objects unpacked, kept as a pack, and put in order afterwards."""
    configure(home, "receive.unpackLimit", "1")
    configure(home, "gc.auto", "1")
    configure(home, "gc.autoDetach", "false")
    configure(home, "receive.fsckObjects", "true")
    for text in "abc":
        commit(home, text)
        assert is_plain_push(home)
        push(home)
    check: list[str | Path] = ["git", "-C", home / "it.git"]
    told = subprocess.run([*check, "log", "--format=%s", "main"], stdout=-1, check=True)
    assert told.stdout == b"c\nb\na\nfirst\n"
    subprocess.run([*check, "fsck", "--strict"], check=True)


@pytest.mark.parametrize(
    "text",
    [
        "[safe]\n\tdirectory = *\n",
        "[include]\n\tpath = ~/more\n",
        '[includeIf "gitdir:/"]\n\tpath = ~/more\n',
        "[core]\n\thooksPath = /tmp\n",
        "[core] hooksPath = /tmp\n",
        '[core ""]\n\thooksPath = /tmp\n',
        "[CORE]\n\tHOOKSPATH = /tmp\n",
        "[user]\n\tname = a\\\n[core]\n",
        "[user]\n\tname\n",
        "[uploadpack]\n\tpackObjectsHook = /tmp/x\n",
        "[receive]\n\tdenyDeletes = true\n",
        "[transfer]\n\thideRefs = refs/x\n",
        "no section",
        "x" * 70000,
    ],
)
def test_a_configuration_of_the_users_that_would_matter_is_not_plain(home: Path, text: str) -> None:
    """Since what is skipped does not get it: a repository that it calls safe is refused then."""
    (home / ".gitconfig").write_text(text)
    assert not is_plain(home, "git-upload-pack", f"{home}/it.git")
    assert not is_plain_push(home)
    (home / ".gitconfig").unlink()
    (home / ".config/git").mkdir(parents=True)
    (home / ".config/git/config").write_text(text)
    assert not is_plain(home, "git-upload-pack", f"{home}/it.git")


def test_where_a_reflog_is_kept_the_users_name_matters(home: Path) -> None:
    configure(home, "core.logAllRefUpdates", "true")
    assert not is_plain_push(home)
    configure(home, "core.logAllRefUpdates", "false")
    (home / "it.git/config").write_text("[core]\n\tbare = true\n")
    assert is_plain_push(home)
    (home / "it.git/logs").mkdir()
    assert not is_plain_push(home)


def test_options_are_not_plain(home: Path) -> None:
    """--help runs the viewer that the configuration of the current folder names."""
    it = str(home / "it.git")
    for program in ("git-upload-pack", "git-receive-pack"):
        assert is_plain(home, program, it)
        for words in (["--help"], ["-h"], ["--strict", it], [it, "--help"], [], [it, it]):
            assert not is_plain(home, program, *words)


THIN = r"""
import hashlib, os, struct, sys, zlib
def line(text): return b"%04x" % (len(text) + 4) + text
delta = zlib.compress(bytes([5, 5, 0x90, 5]))
pack = b"PACK" + struct.pack(">II", 2, 1) + bytes([0x70 | 4]) + b"\x11" * 20 + delta
wanted = b"0" * 40 + b" " + b"11" * 20 + b" refs/heads/x\0report-status"
os.write(1, line(wanted) + b"0000" + pack + hashlib.sha1(pack).digest())
"""


@pytest.mark.parametrize(
    ("protocol", "more"),
    [
        ("none", []),
        ("/", []),
        ("x", ["help.autocorrect=immediate"]),
        ("", ["remote.sub/evil.vcs=", "help.autocorrect=immediate"]),
    ],
)
def test_what_a_pack_leaves_out_is_fetched_by_no_command(
    home: Path, protocol: str, more: list[str]
) -> None:
    """The configuration is another when the pack arrives, and git could get to the loader by it."""
    it = home / "it.git"
    serving = subprocess.Popen(skipped(home), stdin=-1, stdout=-1, stderr=subprocess.STDOUT)
    assert serving.stdin is not None and serving.stdout is not None
    os.read(serving.stdout.fileno(), 65536)  # the look is over, and git has begun
    (it / "sub").mkdir()
    source = home / "evil.c"
    source.write_text(
        f'#include <fcntl.h>\nint main(void) {{ return creat("{home}/took", 0600) < 0; }}\n'
    )
    subprocess.run(["cc", "-o", it / "sub/evil", source], check=True)
    for setting in (
        "core.repositoryFormatVersion=1", "extensions.partialClone=sub/evil",
        f"remote.sub/evil.url={protocol}::script", "remote.sub/evil.promisor=true",
        "alias.remote-none=!/lib64/ld-linux-x86-64.so.2",
        "alias.remote-=!/lib64/ld-linux-x86-64.so.2",
        "alias.remote-x=!/lib64/ld-linux-x86-64.so.2", *more,
    ):  # fmt: skip
        configure(home, *setting.split("=", 1))
    pack = subprocess.run([sys.executable, "-c", THIN], capture_output=True, check=True).stdout
    serving.communicate(pack, timeout=30)
    assert not (home / "took").exists()


def test_what_can_not_be_looked_at_is_not_plain(home: Path) -> None:
    it = home / "it.git"
    assert not is_plain(home, "git-receive-pack")
    assert not is_plain(home, "git-receive-pack", "--http-backend-info-refs", str(it))
    assert not is_plain(home, "git-receive-pack", str(it), "x")
    assert not is_plain(home, "git-receive-pack", f"{home}/missing.git")
    assert not is_plain(home, "git-receive-pack", f"{home}/work"), "it has a work tree"
    assert not is_plain(home, "git-receive-pack", "~root/it.git")
    assert not git.is_plain(["git-receive-pack", str(it)], {})
    (it / "config").rename(home / "config")
    for make in ("mkfifo", "mkdir", "ln -s config"):
        subprocess.run([*make.split(), it / "config"], check=True)
        assert not is_plain_push(home)
        subprocess.run(["rm", "-r", it / "config"], check=True)
    subprocess.run(
        ["git", "-C", home / "work", "worktree", "add", "-q", "--detach", home / "linked"],
        check=True,
    )
    assert not is_plain(home, "git-receive-pack", f"{home}/linked"), "a file names its folder"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a configuration of its own")
def test_the_machines_configuration_counts(home: Path) -> None:
    """Or the hooks of the admin's would not be run."""
    (home / "system").write_text("[core]\n\thooksPath = /etc/git/hooks\n")
    code = f"""if True:
        import os
        from ttyscribe.session import git
        environ = {{b"HOME": b"{home}"}}
        print(git.is_plain(["git-receive-pack", "{home}/it.git"], environ))
        print(git.is_plain(["git-upload-pack", "{home}/it.git"], environ))
    """
    script = (
        f"[ -e /etc/gitconfig ] || {{ mount -t tmpfs tmpfs /mnt && cp -a /etc/. /mnt"
        f" && touch /mnt/gitconfig && mount --bind /mnt /etc; }} &&"
        f" mount --bind {home}/system /etc/gitconfig &&"
        f" exec {sys.executable} -c {shlex.quote(code)}"
    )
    told = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True)
    assert told.stdout == "False\nFalse\n", told.stderr


NAMES = st.sampled_from(["core", "Core", "user", "a-b", "remote", "a.b", "é", "", "1"])
KEYS = st.sampled_from(["hooksPath", "name", "x", "a-b", "1a", "_", "é", "[", "bare"])
LINES = st.one_of(
    st.builds("[{}]".format, NAMES),
    st.builds('[{} "{}"]'.format, NAMES, st.sampled_from(["", "x", "a b", ']\\"', "\\\\", "[x]"])),
    st.builds("{} = {}".format, KEYS, st.sampled_from(["", "a", "a\\", '"a', '"a b"', "a]", ";"])),
    st.builds("\t{}".format, KEYS),
    st.text(alphabet='[]"\\=;#ac \t\r.-', max_size=12),
)


@settings(max_examples=300)
@given(st.lists(st.tuples(LINES, st.sampled_from(["\n", "\n", "\r\n", "", " "])), max_size=6))
@example([("[core] hooksPath = ]", "\n")])
@example([('[core "x"] hooksPath = ]', "\n")])
@example([("[user]", "\n"), ("name = \\", "\n"), ("[core]", "\n"), ("bare", "\n")])
@example([("\N{BYTE ORDER MARK}[core]", "\n"), ("bare", "\n")])
def test_no_setting_that_git_sees_is_missed(lines: list[tuple[str, str]]) -> None:
    """In a file that is taken to be plain."""
    text = "".join(line + end for line, end in lines)
    path = Path(f"/tmp/ttyscribe-git-{os.getpid()}")
    path.write_text(text, newline="")
    try:
        found = git._settings(str(path))
        told = subprocess.run(
            ["git", "config", "--file", path, "--no-includes", "--list", "--name-only", "-z"],
            capture_output=True,
            check=False,
        )
    finally:
        path.unlink()
    if found is None or told.returncode:
        return
    names = [name.decode().split(".") for name in told.stdout.split(b"\0") if name]
    assert {f"{parts[0]}.{parts[-1]}" for parts in names} <= set(found)
