# SPDX-License-Identifier: Apache-2.0
"""Which commands are skipped: only those for which it is certain what runs."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ttyscribe.config.models import Skip as SkipSettings
from ttyscribe.session.roots import is_roots
from ttyscribe.session.skip import Skip, environment_of, skip_rule, split

COMMANDS = SkipSettings().commands
NAMES = ["scp", "rsync", "git-upload-pack", "git-receive-pack", "borg", "sftp-server", "git"]

# A program of root's that tells, on its output, by what name and words it was run.
TELL = '#!/bin/sh\nprintf \'%s\\0\' "$0" "$@"\n'


@pytest.fixture(scope="module")
def programs() -> Iterator[Path]:
    """A folder of root's with a program for each name, where a path of root's leads."""
    folder = Path(f"/usr/lib/ttyscribe-test-{os.getpid()}")
    folder.mkdir(mode=0o755)
    for name in NAMES:
        (folder / name).write_text(TELL)
        (folder / name).chmod(0o755)
    yield folder
    shutil.rmtree(folder)


NOTHING: Mapping[str, str] = {}


def skipped(
    line: str,
    programs: Path,
    *,
    shell: str = "/bin/bash",
    is_plain_git: bool = True,
    environ: Mapping[str, str] = NOTHING,
) -> str | None:
    """The rule by which the line is skipped."""
    variables = {"PATH": str(programs), "HOME": "/nonexistent", **environ}
    encoded = {os.fsencode(k): os.fsencode(v) for k, v in variables.items()}
    found = skip_rule(line, COMMANDS, shell, encoded, is_plain_git)
    return None if found is None else found.rule


SKIPPED = [
    ("scp -t /tmp/x", "scp -t"),
    ("scp -f x", "scp -f"),
    ("scp -r -p -t -- -x", "scp -t"),
    ("scp -prt 'with space'", "scp -t"),
    ("scp -v -d -t ./Übung", "scp -t"),
    ("rsync --server --sender -vlogDtpre.iLsfxCIvu . /srv/data/", "rsync --server"),
    ("rsync --server -logDtpre.iLsfxCIvu . with\\ space\\'s", "rsync --server"),
    ("scp -f '/srv/it'\\''s.git'", "scp -f"),
    ("scp -f '/srv/a'\\!'.git'", "scp -f"),
    ('borg serve --umask=077 --restrict-to-path "/srv/my backup"', "borg serve"),
    ("sftp-server", "sftp-server"),
    ("sftp-server -l INFO -e", "sftp-server"),
    ("  scp\t-t  x ", "scp -t"),
    ("'scp' \"-t\" ''", "scp -t"),
]

RECORDED = [
    "",
    " ",
    "scp",
    "scp x y",
    "scp -x -t y",
    # Options with a value swallow what follows, and then scp is a client that runs -S.
    "scp -S /bin/bash -t x",
    "scp -c -t -S /bin/bash host:x y",
    "scp -- -t x",
    "scp x -t",
    "scp -t x; bash",
    "scp -t x;bash",
    "scp -t x && bash",
    "scp -t x || bash",
    "scp -t x | bash",
    "scp -t x & bash",
    "scp -t x\nbash",
    "scp -t 'x\nbash'",
    "scp -t $(bash)",
    "scp -t `bash`",
    'scp -t "$(bash)"',
    'scp -t "`bash`"',
    "scp -t $HOME",
    'scp -t "$HOME"',
    "scp -t > x",
    "scp -t < x",
    "scp -t <(bash)",
    "scp -t ~/x",
    "scp -t *.c",
    "scp -t x?",
    "scp -t [a]",
    "scp -t {a,b}",
    "scp -t !x",
    "scp -t x # comment",
    "scp -t =ls",
    "scp -t 'open",
    'scp -t "open',
    "scp -t x\\",
    "scp -t \\\nx",
    "scp -t \\x41",
    "X=1 scp -t x",
    "PATH=/tmp scp -t x",
    "(scp -t x)",
    "{ scp -t x; }",
    "! scp -t x",
    "exec scp -t x",
    "command scp -t x",
    "env scp -t x",
    "bash -c 'scp -t x'",
    "escp -t x",
    "scp-t x",
    "./scp -t x",
    "rsync host:x y --server",
    "rsync -e bash -- --server host:x",
    "rsync -e bash -f --server host:x y",
    "rsync --server --daemon .",
    "rsync --server --daemon --config=/tmp/x .",
    "rsync --server --config=/tmp/x --daemon .",
    "rsync --server --rsh=bash .",
    # More arguments would come over the connection.
    "rsync --server -s",
    "rsync --server -vslogDtpre.iLfxCIvu",
    "rsync --server --secluded-args .",
    "borg",
    "borg create serve",
    "git upload-pack x",
    "git -c core.pager=bash upload-pack x",
    # sshd runs it itself; as a program it does not exist.
    "internal-sftp",
    "sftp-server\u00a0x;bash",
]


@pytest.mark.parametrize(("line", "rule"), SKIPPED)
def test_a_machine_protocol_is_skipped(line: str, rule: str, programs: Path) -> None:
    assert skipped(line, programs) == rule


@pytest.mark.parametrize("line", RECORDED)
def test_anything_else_is_recorded_in_full(line: str, programs: Path) -> None:
    assert skipped(line, programs) is None


def test_a_program_of_gits_is_skipped_where_it_would_run_nothing_of_its_users(
    programs: Path,
) -> None:
    genuine = {"PATH": "/usr/bin"}
    for name in ("git-upload-pack", "git-receive-pack"):
        assert skipped(f"{name} x", programs, environ=genuine) == name
        assert skipped(f"{name} x", programs, environ=genuine, is_plain_git=False) is None


@pytest.mark.parametrize(("line", "rule"), SKIPPED)
def test_what_is_executed_is_what_bash_would_run(line: str, rule: str, programs: Path) -> None:
    environ = {b"PATH": os.fsencode(programs)}
    found = skip_rule(line, COMMANDS, "/bin/bash", environ, is_plain_git=True)
    assert found is not None
    by_bash = subprocess.run(["/bin/bash", "-c", line], env=environ, capture_output=True)
    directly = subprocess.run(
        found.argv, executable=found.path, env=environment_of(environ), capture_output=True
    )
    assert by_bash.stderr == directly.stderr == b""
    assert by_bash.stdout == directly.stdout
    words = split(line) or []
    assert by_bash.stdout.split(b"\0")[1:-1] == [os.fsencode(word) for word in words[1:]]


LINES = st.lists(
    st.one_of(
        st.sampled_from(["-t", "x=1", "a%b", " ", "'", '"', "'a  b'", '"c\'d"', "\\ ", "\\$", "é"]),
        st.sampled_from(list("!#&()*<>?[]^{|}\t\n\r\v@:,+-./_")),
        st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
    ),
    max_size=12,
).map("".join)


@given(LINES)
@example("'a b'\\ c\"d e\"")
@example("\u2003x")
@example("a\u00a0b")
def test_a_line_that_splits_is_split_the_same_by_real_shells(line: str) -> None:
    words = split("cmd " + line)
    if words is None:
        return
    script = f'cmd() {{ printf "%s\\0" "$@"; }}; cmd {line}'
    for shell in ("bash", "dash"):
        run = subprocess.run([shell, "-c", script], capture_output=True, cwd="/usr/share/doc")
        expected = words[1:] or [""]  # printf without arguments prints its format once
        assert run.stdout == b"".join([os.fsencode(word) + b"\0" for word in expected])


@given(
    st.sampled_from([line for line, _ in SKIPPED]),
    st.sampled_from(list(";&|<>`$(){}*?[]~!#^\n\r")),
    st.data(),
)
def test_no_line_with_an_unquoted_special_character_is_skipped(
    line: str, special: str, data: st.DataObject
) -> None:
    quoted = "'" in line or '"' in line or "\\" in line
    at = len(line) if quoted else data.draw(st.integers(0, len(line)))
    assert split(line[:at] + special + line[at:]) is None


@pytest.mark.parametrize(
    "shell", ["/bin/rbash", "/usr/bin/git-shell", "/usr/sbin/nologin", "/usr/bin/python3"]
)
def test_a_shell_that_may_not_run_the_line_is_asked(shell: str, programs: Path) -> None:
    assert skipped("scp -t x", programs, shell=shell) is None


@pytest.mark.parametrize(
    "variable",
    ["LD_PRELOAD", "LD_LIBRARY_PATH", "PYTHONPATH", "PERL5OPT", "GIT_EXEC_PATH", "BORG_RSH"],
)
def test_an_environment_that_loads_code_is_not_skipped(variable: str, programs: Path) -> None:
    assert skipped("scp -t x", programs, environ={variable: "/tmp/x"}) is None
    assert skipped("scp -t x", programs, environ={"GIT_PROTOCOL": "version=2"}) == "scp -t"


ABOUT_THE_LOGIN = {
    b"HOME": b"/home/alice",
    b"LOGNAME": b"alice",
    b"SSH_CONNECTION": b"192.0.2.1 1 192.0.2.2 22",
    b"GIT_PROTOCOL": b"version=2",
    b"LANG": b"de_DE.UTF-8",
    b"LC_TIME": b"C",
    b"TZ": b"Europe/Berlin",
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"OPENSSL_CONF", b"/tmp/x"),
        (b"OPENSSL_MODULES", b"/tmp/x"),
        (b"OPENSSL_ENGINES", b"/tmp/x"),
        (b"BASH_ENV", b"/tmp/x"),
        (b"BASH_FUNC_scp%%", b"() { bash; }"),
        (b"ENV", b"/tmp/x"),
        (b"LOCPATH", b"/tmp/x"),
        (b"NLSPATH", b"/tmp/x"),
        (b"TZDIR", b"/tmp/x"),
        (b"XDG_CONFIG_HOME", b"/tmp/x"),
        (b"SSH_ASKPASS", b"/tmp/x"),
        (b"LC_ALL", b"../../tmp/x"),
        (b"TZ", b"/tmp/x"),
        (b"TZ", b":/tmp/x"),
        (b"TZ", b"../../../tmp/x"),
    ],
)
def test_a_skipped_command_gets_only_what_is_known_to_be_harmless(
    name: bytes, value: bytes
) -> None:
    assert environment_of(ABOUT_THE_LOGIN).items() >= ABOUT_THE_LOGIN.items()
    made = environment_of({**ABOUT_THE_LOGIN, name: value, b"PATH": b"/home/alice/bin"})
    assert made.get(name) != value
    assert made[b"PATH"] == b"/usr/sbin:/usr/bin:/sbin:/bin"


def test_a_genuine_program_runs_nothing_that_openssls_variables_name(tmp_path: Path) -> None:
    """A provider named by the user's configuration is loaded, and may do anything."""
    (tmp_path / "evil.c").write_text(
        "#include <unistd.h>\n"
        "__attribute__((constructor)) static void go(void)"
        ' { write(1, "taken over\\n", 11); _exit(0); }\n'
    )
    module = tmp_path / "evil.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", module, tmp_path / "evil.c"], check=True)
    configuration = tmp_path / "openssl.cnf"
    configuration.write_text(
        "openssl_conf = init\n[init]\nproviders = all\n[all]\nevil = evil\n"
        f"[evil]\nmodule = {module}\nactivate = 1\n"
    )
    # What borg does, and with it the library that rsync is linked with.
    code = "import hashlib; hashlib.sha256(); print('genuine')"
    for environ in (
        {b"OPENSSL_CONF": os.fsencode(configuration)},
        environment_of({b"OPENSSL_CONF": os.fsencode(configuration)}),
    ):
        argv = ["/usr/bin/python3", "-c", code]
        run = subprocess.run(argv, env=environ, stdout=subprocess.PIPE, check=True)
        assert run.stdout == (b"taken over\n" if len(environ) == 1 else b"genuine\n")


def test_a_genuine_rsync_runs_nothing_that_a_file_of_its_users_names(tmp_path: Path) -> None:
    """Its options are read by a library that first looks into ~/.popt for what they stand for."""
    (tmp_path / ".popt").write_text("rsync exec --server bash\n")
    environ = {b"HOME": os.fsencode(tmp_path), b"PATH": b"/usr/bin:/bin"}
    found = skip_rule("rsync --server", COMMANDS, "/bin/bash", environ)
    assert found is not None
    cases = ((["rsync", "--server"], environ), (found.argv, environment_of(environ)))
    for argv, variables in cases:
        path = found.path if argv is found.argv else found.program
        took = tmp_path / "took"
        subprocess.run(
            argv, executable=path, env=variables, input=f"touch {took}".encode(),
            capture_output=True, cwd=tmp_path, check=False,
        )  # fmt: skip
        assert took.exists() == (argv is not found.argv)
        took.unlink(missing_ok=True)


def unconfined(found: Skip) -> list[str]:
    """What it comes to."""
    assert found.path.endswith("/ttyscribe-confine")
    return found.argv[found.argv.index("--") + 1 :]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_skipped_command_can_not_write_to_the_memory_of_a_program(programs: Path) -> None:
    """Its own, by which rsync --append to /proc/self/mem becomes any program, or another's."""
    (programs / "sftp-server").write_text(
        "#!/usr/bin/python3\n"
        "import os, sys\n"
        "def tried(name, flags):\n"
        "    try:\n"
        "        os.close(os.open(name, flags, 0o600))\n"
        "        return 'open'\n"
        "    except OSError as error:\n"
        "        return error.strerror\n"
        "other = os.environ['HOME']\n"
        "os.makedirs('a', exist_ok=True), os.makedirs('b', exist_ok=True)\n"
        "print(tried('/proc/self/mem', os.O_RDWR), tried('/proc/thread-self/mem', os.O_WRONLY),\n"
        "      tried(f'/proc/{other}/mem', os.O_RDWR), tried(f'/proc/{other}/maps', os.O_RDONLY),\n"
        "      tried('a/x', os.O_RDWR | os.O_CREAT), tried('/dev/null', os.O_WRONLY),\n"
        "      tried('/proc/self/status', os.O_RDONLY), os.rename('a/x', 'b/x'), sep=', ')\n"
    )
    folder = Path(f"/tmp/ttyscribe-skip-{os.getpid()}")
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    found = skip_rule("sftp-server", COMMANDS, "/bin/sh", {b"PATH": os.fsencode(programs)})
    assert found is not None
    other = subprocess.Popen(["sleep", "60"], user=65534, group=65534)
    environ = {"HOME": str(other.pid)}
    try:
        told = [
            subprocess.run(
                argv, executable=path, user=65534, group=65534, extra_groups=[], cwd=folder,
                capture_output=True, text=True, env=environ, check=True,
            ).stdout
            for path, argv in ((found.path, found.argv), (unconfined(found)[0], ["sftp-server"]))
        ]  # fmt: skip
    finally:
        other.kill()
        other.wait()
        shutil.rmtree(folder)
        (programs / "sftp-server").write_text(TELL)
    refused = "Permission denied"
    assert told[0] == ", ".join([refused] * 4 + ["open"] * 3 + ["None\n"])
    assert told[1].split(", ")[0] == "open"


def test_without_a_kernel_that_confines_all_is_recorded(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ttyscribe.session.confine._confiner", lambda: "/bin/false")
    assert [skipped(line, programs) for line, _ in SKIPPED] == [None] * len(SKIPPED)


def test_git_upload_pack_runs_nothing_of_its_users_configuration(tmp_path: Path) -> None:
    took = tmp_path / "took"
    hook = tmp_path / "hook"
    hook.write_text(f'#!/bin/sh\ntouch {took}\nexec "$@"\n')
    hook.chmod(0o755)
    (tmp_path / ".gitconfig").write_text(f"[uploadpack]\npackObjectsHook = {hook}\n")
    repository = tmp_path / "repository"
    git = ["git", "-C", str(repository), "-c", "user.name=a", "-c", "user.email=a@example.com"]
    subprocess.run(["git", "init", "-q", str(repository)], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    environ = {b"HOME": os.fsencode(tmp_path), b"PATH": b"/usr/bin:/bin"}
    script = tmp_path / "upload"
    for number, variables in enumerate((environ, environment_of(environ))):
        words = " ".join(f"'{os.fsdecode(k)}={os.fsdecode(v)}'" for k, v in variables.items())
        script.write_text(f'#!/bin/sh\nexec env -i {words} git-upload-pack "$@"\n')
        script.chmod(0o755)
        copy = tmp_path / f"copy{number}"
        clone = ["git", "clone", "-q", "--no-local", "-u", str(script), str(repository), str(copy)]
        subprocess.run(clone, check=True)
        assert took.exists() == (number == 0)
        took.unlink(missing_ok=True)


def test_startup_files_of_the_shell_can_not_take_a_skipped_command_over(
    programs: Path, tmp_path: Path
) -> None:
    """bash reads BASH_ENV; what is executed does not pass through bash."""
    took = tmp_path / "took"
    startup = tmp_path / "startup"
    startup.write_text(f"scp() {{ touch {took}; }}\ntouch {took}\n")
    environ = {b"PATH": os.fsencode(programs), b"BASH_ENV": os.fsencode(startup)}
    found = skip_rule("scp -t x", COMMANDS, "/bin/bash", environ)
    assert found is not None
    given = environment_of(environ)
    subprocess.run(found.argv, executable=found.path, env=given, stdout=subprocess.DEVNULL)
    assert not took.exists()


def test_a_program_that_comes_first_in_path_and_is_not_roots_is_recorded(
    programs: Path, tmp_path: Path
) -> None:
    """Even though the genuine one comes later."""
    (tmp_path / "scp").write_text(TELL)
    assert skipped("scp -t x", programs, environ={"PATH": f"{tmp_path}:{programs}"}) == "scp -t"
    (tmp_path / "scp").chmod(0o755)
    os.chown(tmp_path / "scp", 1, 1)
    assert skipped("scp -t x", programs, environ={"PATH": f"{tmp_path}:{programs}"}) is None
    for path in (f".:{programs}", f":{programs}", f"bin:{programs}", ""):
        assert skipped("scp -t x", programs, environ={"PATH": path}) is None


def test_a_path_counts_if_only_root_can_change_where_it_leads(programs: Path) -> None:
    genuine = programs / "scp"
    assert is_roots(str(genuine))
    assert is_roots(f"/usr/../usr/lib/./{programs.name}//scp")
    assert is_roots("/bin/sh")  # through links of root's
    assert not is_roots("/")
    assert not is_roots(str(programs))
    assert not is_roots(f"{programs}/missing")

    # A link of a user's to a genuine program of root's, under a name it does not have.
    home = Path(f"/tmp/ttyscribe-skip-{os.getpid()}")
    home.mkdir()
    try:
        (home / "scp").symlink_to("/bin/bash")
        assert not is_roots(str(home / "scp"))
        os.chown(home / "scp", 1, 1, follow_symlinks=False)
        assert not is_roots(str(home / "scp"))
        # A link of root's that leads through a folder of a user's.
        link = programs / "indirect"
        link.symlink_to(home / "scp")
        assert not is_roots(str(link))
        (programs / "loop").symlink_to("loop")
        assert not is_roots(str(programs / "loop"))
    finally:
        shutil.rmtree(home)

    for mode in (0o775, 0o757):
        genuine.chmod(mode)
        assert not is_roots(str(genuine))
    genuine.chmod(0o644)
    assert not is_roots(str(genuine))
    genuine.chmod(0o755)
    programs.chmod(0o777)
    assert not is_roots(str(genuine))
    programs.chmod(0o755)


def test_a_list_of_the_admins_own_is_matched_by_name_or_by_path(programs: Path) -> None:
    environ = {b"PATH": os.fsencode(programs)}

    def rule(line: str, *commands: str) -> str | None:
        found = skip_rule(line, commands, "/bin/sh", environ)
        return None if found is None else found.rule

    assert rule("git upload-pack x", "git upload-pack") == "git upload-pack"
    assert rule("git status", "git upload-pack") is None
    assert rule(f"{programs}/borg serve", f"{programs}/borg serve") == f"{programs}/borg serve"
    assert rule("borg serve", f"{programs}/borg serve") is None
    assert rule("borg serve", " ") is None
    assert rule("scp -t x") is None
