# SPDX-License-Identifier: Apache-2.0
"""The native launcher, compiled for real, in front of the real main.py.

`ttyscribe.cli.rec_session` is replaced by one that reports what it was given.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]
COMPILE = ROOT / "packaging" / "compile-launcher"

# Writes one line of JSON on stdout; bytes as latin-1, so that any value shows.
REPORT = """
import json, os, posix, sys

def launched(argv0, arguments, environ, ignored, service, held):
    if arguments[:1] == [b"exec".decode()]:
        os.execve(arguments[1], arguments[1:], environ)
    print(json.dumps({
        "argv0": os.fsencode(argv0).decode("latin-1"),
        "arguments": [os.fsencode(a).decode("latin-1") for a in arguments],
        "environ": {k.decode("latin-1"): v.decode("latin-1") for k, v in environ.items()},
        "own": {k.decode("latin-1"): v.decode("latin-1") for k, v in posix.environ.items()},
        "path": sys.path,
        "flags": [sys.flags.isolated, sys.flags.no_site, sys.flags.utf8_mode],
        "modules": sorted(sys.modules),
        "fds": sorted(int(n) for n in os.listdir("/proc/self/fd")),
    }))
    return 7
"""


@pytest.fixture(scope="module", params=["no libc", "libc"])
def launcher(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A launcher whose package reports instead of recording; both ways to link it."""
    folder = tmp_path_factory.mktemp("launcher")
    package = folder / "ttyscribe"
    (package / "cli").mkdir(parents=True)
    (package / "launcher").mkdir()
    (package / "__init__.py").touch()
    (package / "cli" / "__init__.py").touch()
    (package / "cli" / "rec_session.py").write_text(REPORT)
    main = package / "launcher" / "main.py"
    shutil.copy(ROOT / "src/ttyscribe/launcher/main.py", main)
    output = folder / "ttyscribe-rec-session"
    libc = {"WITH_LIBC": "1"} if request.param == "libc" else {}
    compile_launcher(output, sys.executable, str(main), **libc)
    return output


def compile_launcher(output: Path, python: str, main: str, **environment: str) -> None:
    # Whatever service runs on this machine is not these tests'.
    flags = {"CFLAGS": f'-DSERVICE_SOCKET="{output}.sock"'}
    variables = {**os.environ, **flags, **environment}
    subprocess.run([COMPILE, output, python, main], env=variables, check=True)


def start(
    launcher: Path,
    argv: list[bytes],
    environment: dict[bytes, bytes],
) -> subprocess.CompletedProcess[bytes]:
    """Run the launcher with exactly this argv, argv[0] included, and this environment."""
    return subprocess.run(
        argv, executable=launcher, env=environment, capture_output=True, check=False
    )


def report(
    launcher: Path, argv: list[bytes], environment: dict[bytes, bytes] | None = None
) -> dict[str, object]:
    done = start(launcher, argv, environment or {})
    assert (done.returncode, done.stderr) == (7, b"")
    result: dict[str, object] = json.loads(done.stdout)
    return result


def latin(values: list[bytes]) -> list[str]:
    return [value.decode("latin-1") for value in values]


words = st.binary(max_size=40).map(lambda data: data.replace(b"\0", b"."))
names = st.sampled_from(
    [
        b"LD_LIBRARY_PATH",
        b"PYTHONPATH",
        b"PYTHONHOME",
        b"PYTHONSTARTUP",
        b"PYTHONWARNINGS",
        b"GCONV_PATH",
        b"LOCPATH",
        b"GLIBC_TUNABLES",
        b"LC_ALL",
        b"LANG",
        b"_",
        b"__",
        b"BASH_FUNC_x%%",
    ]
) | st.binary(min_size=1, max_size=12).filter(lambda n: b"\0" not in n and b"=" not in n)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(argv=st.lists(words, min_size=1, max_size=5), environment=st.dictionaries(names, words))
def test_arguments_and_environment_arrive_byte_for_byte(
    launcher: Path, argv: list[bytes], environment: dict[bytes, bytes]
) -> None:
    if argv[1:2] == [b"exec"]:
        argv[1] = b"exec."
    got = report(launcher, argv, environment)
    assert got["argv0"] == argv[0].decode("latin-1")
    assert got["arguments"] == latin(argv[1:])
    assert got["environ"] == {
        name.decode("latin-1"): value.decode("latin-1") for name, value in environment.items()
    }


@pytest.mark.parametrize(
    "argv0",
    [
        b"-bash",
        b"-su",
        b"ttyscribe-rec-session",
        b"-ttyscribe-rec-session",
        b"/usr/bin/ttyscribe-rec-session-shell-bin-zsh",
        b"-tlog-rec-session-shell-bin-zsh",
        b"- two words\xff\xfe",
        b"",
    ],
)
def test_argv0_reaches_python_unchanged(launcher: Path, argv0: bytes) -> None:
    assert report(launcher, [argv0, b"-c", b""])["argv0"] == argv0.decode("latin-1")


@pytest.mark.parametrize(
    "name", ["ttyscribe-rec-session-shell-bin-zsh", "tlog-rec-session", "-tlog-rec-session"]
)
def test_a_symlinks_name_reaches_python(launcher: Path, tmp_path: Path, name: str) -> None:
    link = tmp_path / name
    link.symlink_to(launcher)
    done = subprocess.run([link, "-l"], env={}, stdout=subprocess.PIPE, check=False)
    assert json.loads(done.stdout)["argv0"] == str(link)


def test_options_of_the_interpreter_among_the_arguments_are_not_taken_by_it(
    launcher: Path,
) -> None:
    arguments = [b"-V", b"--help", b"-X", b"importtime", b"-c", b"1/0", b"--", b"-"]
    assert report(launcher, [b"-sh", *arguments])["arguments"] == latin(arguments)


def test_a_caller_without_argv0_gets_a_session_too(launcher: Path) -> None:
    # Only a raw execve can do this; newer kernels put an empty argv[0] in its place.
    code = (
        "import ctypes, sys\n"
        "libc = ctypes.CDLL(None)\n"
        "empty = (ctypes.c_char_p * 1)(None)\n"
        "libc.execve(sys.argv[1].encode(), empty, empty)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, launcher], stdout=subprocess.PIPE, check=False
    )
    assert json.loads(done.stdout)["argv0"] in ("", "ttyscribe-rec-session")


def test_nothing_of_the_environment_means_anything_to_the_interpreter(launcher: Path) -> None:
    hostile = {
        b"PYTHONPATH": b"/tmp",
        b"PYTHONVERBOSE": b"1",
        b"PYTHONPROFILEIMPORTTIME": b"1",
        b"PYTHONUTF8": b"0",
        b"LD_DEBUG": b"all",
        b"MALLOC_PERTURB_": b"5",
        b"LC_ALL": b"en_US.ISO-8859-1",
    }
    got = report(launcher, [b"-bash"], hostile)
    own = got["own"]
    assert isinstance(own, dict)
    # The interpreter itself adds LC_CTYPE where it finds no locale.
    assert set(own) - {"LC_CTYPE"} == {"_" + name.decode() for name in hostile}
    assert got["flags"] == [1, 1, 1]
    path = got["path"]
    assert isinstance(path, list) and "/tmp" not in path
    # The two folders of main.py are the last: the standard library can't be shadowed.
    assert path[-2] == str(launcher.parent)
    assert path[-1].startswith(sys.prefix) and path[-1].endswith("/site-packages")


def test_a_preloaded_library_reaches_the_shell_but_not_the_launcher(
    launcher: Path, tmp_path: Path
) -> None:
    source = tmp_path / "hostile.c"
    source.write_text(
        "#include <unistd.h>\n"
        "__attribute__((constructor)) static void go(void)\n"
        '{ if (write(2, "hostile ", 8) < 0) _exit(9); }\n'
    )
    library = tmp_path / "hostile.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    environment = {b"LD_PRELOAD": os.fsencode(library), b"LD_AUDIT": b"/nowhere.so"}

    done = start(launcher, [b"-bash"], environment)
    assert done.stderr == b""

    environment = {b"LD_PRELOAD": os.fsencode(library)}
    done = start(launcher, [b"-bash", b"exec", b"/usr/bin/env"], environment)
    assert done.stderr == b"hostile "
    assert done.stdout == b"LD_PRELOAD=" + os.fsencode(library) + b"\n"


def test_a_variable_without_a_name_is_left_out(launcher: Path) -> None:
    code = (
        "import ctypes, sys\n"
        "libc = ctypes.CDLL(None)\n"
        "argv = (ctypes.c_char_p * 2)(b'-sh', None)\n"
        "env = (ctypes.c_char_p * 5)(b'=odd', b'', b'no equals', b'A==b', None)\n"
        "libc.execve(sys.argv[1].encode(), argv, env)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, launcher], stdout=subprocess.PIPE, check=False
    )
    assert json.loads(done.stdout)["environ"] == {"A": "=b"}


def test_descriptors_pass_through_and_closed_ones_stay_closed(launcher: Path) -> None:
    with open(os.devnull, "rb") as extra:
        fd = extra.fileno()
        done = subprocess.run(
            ["-bash"],
            executable=launcher,
            env={},
            stdout=subprocess.PIPE,
            pass_fds=[fd],
            preexec_fn=lambda: os.close(0),
            check=False,
        )
    fds = json.loads(done.stdout)["fds"]
    assert fd in fds
    # 0 was free, so the listing itself took it.
    assert set(fds) <= {0, 1, 2, fd}


def test_a_large_environment_arrives(launcher: Path) -> None:
    environment = {b"V%d" % i: b"x" * 1000 for i in range(500)}
    got = report(launcher, [b"-bash"], environment)
    own = got["environ"]
    assert isinstance(own, dict) and len(own) == 500


# Who the built-in outcome keeps out, and whom it lets in.
NOBODY = 65534
BROKEN = {
    "no interpreter": ("/nowhere/python3", 127, b"the interpreter /nowhere/python3 is missing; in"),
    "interpreter may not run": (os.devnull, 126, b"/dev/null may not run; install ttyscribe again"),
    "half an installation": (None, 126, b"the installation is damaged: ModuleNotFound"),
    "zeros in a module": (bytes(13000), 126, b"null bytes; install it again"),
    "no memory": (b"raise MemoryError", 126, b"no memory is left; free some or raise the limit"),
    "a fault": (
        b"def launched(*_): raise ValueError('a\\x1b\\nb')", 126,
        b"internal error: ValueError: a??b",
    ),
}  # fmt: skip


class SystemLog:
    """A socket in the place of /dev/log, a datagram one as most, or a stream."""

    def __init__(self, path: Path, kind: socket.SocketKind = socket.SOCK_DGRAM) -> None:
        self._socket = socket.socket(socket.AF_UNIX, kind)
        self._socket.bind(str(path))
        if kind == socket.SOCK_STREAM:
            self._socket.listen()
        path.chmod(0o666)
        self._socket.setblocking(False)
        self._is_stream = kind == socket.SOCK_STREAM

    def read(self) -> list[bytes]:
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                if not self._is_stream:
                    found.append(self._socket.recv(65536))
                    continue
                connection, _ = self._socket.accept()
                with connection:
                    connection.setblocking(True)
                    found += connection.makefile("rb").read().removesuffix(b"\0").split(b"\0")
        return found

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that others than root reach."""
    with tempfile.TemporaryDirectory(prefix="ttyscribe-launcher-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(params=[socket.SOCK_DGRAM, socket.SOCK_STREAM], ids=["datagram", "stream"])
def system_log(folder: Path, request: pytest.FixtureRequest) -> Iterator[SystemLog]:
    log = SystemLog(folder / "log", request.param)
    yield log
    log.close()


def broken_launcher(folder: Path, what: str) -> tuple[Path, int, bytes]:
    """A launcher of what is broken; whose exit status that is for a user, and what is told."""
    python, status, words = BROKEN[what]
    main = folder / "ttyscribe" / "launcher" / "main.py"
    main.parent.mkdir(parents=True)
    source = (ROOT / "src/ttyscribe/launcher/main.py").read_text()
    assert "/dev/log" in source
    main.write_text(source.replace("/dev/log", str(folder / "log")))
    (folder / "ttyscribe" / "__init__.py").touch()
    if isinstance(python, bytes):
        (folder / "ttyscribe" / "cli").mkdir()
        (folder / "ttyscribe" / "cli" / "__init__.py").touch()
        (folder / "ttyscribe" / "cli" / "rec_session.py").write_bytes(python)
    interpreter = python if isinstance(python, str) else "/usr/bin/python3"
    flags = f'-DSERVICE_SOCKET="{folder}/service" -DLOG_SOCKET="{folder}/log"'
    compile_launcher(folder / "broken", interpreter, str(main), CFLAGS=flags)
    return folder / "broken", status, words


@pytest.mark.parametrize("what", BROKEN)
def test_broken_installation_keeps_users_out_and_lets_root_in(
    folder: Path, system_log: SystemLog, what: str
) -> None:
    launcher, status, words = broken_launcher(folder, what)
    for user, out in ((NOBODY, b""), (0, b"-bash on a b\n")):
        done = subprocess.run(
            ["-sh", "-c", "echo $0 $X \"$@\"; kill -PIPE $$", "-bash", "a", "b"],
            executable=launcher, user=user, env={"X": "on"}, capture_output=True, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (-signal.SIGPIPE if user == 0 else status, out)
        (line,) = done.stderr.splitlines()
        told = b"this session is not recorded: " if user == 0 else b"login refused, because "
        assert line.startswith(b"ttyscribe: " + told) and words in line
        assert b"\x1b" not in line
        (alert,) = system_log.read()
        assert alert.startswith(b"<81>ttyscribe: user %d: " % user + told) and words in alert


def test_roots_shell_in_a_broken_installation_is_as_its_caller_wants_it(folder: Path) -> None:
    launcher, _, _ = broken_launcher(folder, "no interpreter")
    script = b"shopt -q login_shell && echo $0 $SHELL $TLOG_REC_SESSION_SHELL; env"
    environment = {b"LD_X": b"1", b"TLOG_REC_SESSION_SHELL": b"/bin/sh", b"_A": b"\xff"}
    done = start(launcher, [b"-su", b"-c", script], environment)
    lines = done.stdout.splitlines()
    assert lines[0] == b"-bash /bin/bash"
    assert {b"LD_X=1", b"_A=\xff", b"SHELL=/bin/bash"} <= set(lines)
    # What is asked of us alone is no login.
    assert start(launcher, [b"ttyscribe-rec-session", b"--help"], {}).returncode == 127


@pytest.mark.parametrize(
    ("limit", "most", "status", "words"),
    [
        (resource.RLIMIT_NOFILE, 3, 1, b"no file descriptor is left"),
        (resource.RLIMIT_AS, 4 << 20, 126, b"no memory is left"),
        (resource.RLIMIT_AS, 12 << 20, 126, b"no memory is left"),
    ],
)
def test_limit_that_leaves_no_room_for_the_interpreter_is_one_line_and_one_alert(
    folder: Path, system_log: SystemLog, limit: int, most: int, status: int, words: bytes
) -> None:
    """For root, too, whom somebody else's limits would let in unrecorded."""
    launcher, _, _ = broken_launcher(folder, "half an installation")
    for user in (0, NOBODY):
        done = subprocess.run(
            ["-sh", "-c", "exit"], executable=launcher, user=user, env={}, capture_output=True,
            preexec_fn=lambda: resource.setrlimit(limit, (most, most)), check=False,
        )  # fmt: skip
        check_refused(done, system_log, status, words)


def check_refused(
    done: subprocess.CompletedProcess[bytes], system_log: SystemLog, status: int, words: bytes
) -> None:
    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (status, b"")
    assert line.startswith(b"ttyscribe: login refused") and words in line
    (alert,) = system_log.read()
    assert words in alert


def test_too_large_an_environment_is_one_line(launcher: Path) -> None:
    # The longest string that the kernel takes has no room for the prefix.
    done = start(launcher, [b"-bash", b"-c", b"exit 7"], {b"A": b"x" * (131071 - 2)})
    assert b"too long" in done.stderr and done.stderr.count(b"\n") == 1
    assert done.returncode == 126


def test_without_a_compiler_the_helper_says_so_and_writes_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [COMPILE, tmp_path / "out", "/usr/bin/python3", "/main.py"],
        env={"PATH": "/usr/bin:/bin", "CC": "no-such-cc"},
        stderr=subprocess.PIPE,
        check=False,
    )
    assert done.returncode == 3
    assert b"no C compiler 'no-such-cc'" in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_launcher_is_static(launcher: Path) -> None:
    # A PT_INTERP segment (type 3) would name a loader, which obeys LD_PRELOAD.
    elf = launcher.read_bytes()
    assert elf[4] == 2, "a 64-bit file"
    offset = int.from_bytes(elf[32:40], sys.byteorder)
    size = int.from_bytes(elf[54:56], sys.byteorder)
    headers = int.from_bytes(elf[56:58], sys.byteorder)
    kinds = [
        int.from_bytes(elf[at : at + 4], sys.byteorder)
        for at in range(offset, offset + size * headers, size)
    ]
    assert 1 in kinds, "something is loaded"
    assert 3 not in kinds
