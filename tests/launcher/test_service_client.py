# SPDX-License-Identifier: Apache-2.0
"""The launcher's own client, compiled for real, before a recorder service of ours."""

from __future__ import annotations

import array
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import termios
import time
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.driving import wait_until

from ttyscribe.recorder import reach, wire
from ttyscribe.session import skip

ROOT = Path(__file__).resolve().parents[2]
COMPILE = ROOT / "packaging" / "compile-launcher"
# What the interpreter's script is given, in place of recording.
REPORT = """
import json, os, sys
noted = os.environb.get(b"SERVICE")
print(json.dumps([sys.argv[1:], None if noted is None else noted.decode()]))
"""
TIMEOUT = 20.0
OFLAG, LFLAG = 1, 3
TAKEN = wire.pack(wire.RESUMED, b"1")


class Service:
    """A launcher, and the socket that it asks."""

    def __init__(self, folder: Path, launcher: Path) -> None:
        self.launcher = launcher
        self.path = folder / "recorder.sock"
        self.path.unlink(missing_ok=True)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(TIMEOUT)
        self.socket.bind(str(self.path))
        self.socket.listen()
        self.given = 0

    def start(
        self, argv: list[bytes], environ: dict[bytes, bytes] | None = None, **more: object
    ) -> subprocess.Popen[bytes]:
        """The launcher with exactly this argv and environment; its output on pipes."""
        pipes = {"stdin": subprocess.DEVNULL, "stdout": -1, "stderr": -1}
        return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
            argv, executable=self.launcher, env=environ or {}, **{**pipes, **more}
        )

    def accept(self) -> tuple[socket.socket, bytes]:
        """The client's connection, and its HELLO."""
        connection, _ = self.socket.accept()
        connection.settimeout(TIMEOUT)
        connection.send(wire.ACCEPTED)
        packet, fds, _, _ = socket.recv_fds(connection, wire.PACKET_MAX, 3)
        self.given = len(fds)
        for fd in fds:
            # Ours would keep the pipes that they are from ending.
            os.close(fd)
        return connection, packet

    def close(self) -> None:
        self.socket.close()


@pytest.fixture(scope="module", params=["no libc", "libc"])
def compiled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("client")
    (folder / "main.py").write_text(REPORT)
    libc = {"WITH_LIBC": "1"} if request.param == "libc" else {}
    subprocess.run(
        [COMPILE, folder / "ttyscribe-rec-session", sys.executable, folder / "main.py"],
        env={**os.environ, **libc, "CFLAGS": f'-DSERVICE_SOCKET="{folder}/recorder.sock"'},
        check=True,
    )
    return folder


@pytest.fixture
def service(compiled: Path) -> Iterator[Service]:
    one = Service(compiled, compiled / "ttyscribe-rec-session")
    yield one
    one.close()


# The client that stays for what is unusual, which waits itself or becomes the native waiter.
PYTHON_CLIENT = """\
#!{python} -I
import os, sys
from ttyscribe.cli import rec_session
from ttyscribe.recorder import reach
reach.connect.__defaults__ = ({socket!r},)
rec_session.waiter = lambda: {waiter!r}
sys.exit(rec_session.launched("-sh", sys.argv[1:], dict(os.environb)))
"""


@pytest.fixture(params=["launcher", "python", "python with waiter"])
def each_service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Service]:
    """A service for each of the clients."""
    program, waiter, path = tmp_path / "client", tmp_path / "waiter", tmp_path / "recorder.sock"
    if request.param == "launcher":
        flags = {"CFLAGS": f'-DSERVICE_SOCKET="{path}"'}
        subprocess.run([COMPILE, program, sys.executable, "/"], env=os.environ | flags, check=True)
    else:
        native = request.param == "python with waiter"
        if native:
            subprocess.run([COMPILE, "--waiter", waiter], check=True)
        program.write_text(
            PYTHON_CLIENT.format(
                python=sys.executable, socket=str(path), waiter=str(waiter) if native else ""
            )
        )
        program.chmod(0o755)
    one = Service(tmp_path, program)
    yield one
    one.close()


def told(process: subprocess.Popen[bytes]) -> object:
    """What the interpreter was told of the service; None if that was not asked."""
    out, err = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, err) == (0, b"")
    return json.loads(out)[1]


def record(connection: socket.socket, fds: list[int], *fields: bytes) -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    connection.sendmsg([wire.pack(wire.RECORD, *fields)], rights)


def said(connection: socket.socket) -> bytes:
    """The client's next packet but for what it says of its terminal."""
    while (packet := connection.recv(wire.PACKET_MAX))[:1] in (wire.WINDOW, wire.RESUMED, wire.JOB):
        pass
    return packet


@pytest.mark.parametrize(
    ("argv", "environ"),
    [
        ([b"-bash"], {}),
        ([b"ttyscribe-rec-session", b"-c", b"echo \xff\n", b"", b"x" * 40000], {}),
        ([b""], {b"A": b"", b"TERM": b"xterm=1", b"B": b"=", b"PATH": b"", b"TERMINAL": b"no"}),
        ([b"-" * 1024], dict.fromkeys(wire.ENVIRONMENT[:5], b"v" * 4096)),
        ([b"-sh"], {b"N%d" % n: b"v" * 9000 for n in range(100)}),
        # The words of a script or command are not ours to read.
        ([b"-sh", b"script", b"--login"], {}),
        ([b"-sh", b"-c", b"command", b"--command"], {}),
        ([b"-sh", b"-s", b"--", b"--interactive"], {}),
        ([b"-sh", b"-", b"--interactive"], {}),
    ],
)
def test_it_says_byte_for_byte_what_the_python_client_says(
    service: Service, argv: list[bytes], environ: dict[bytes, bytes]
) -> None:
    process = service.start(argv, environ)
    connection, packet = service.accept()
    hello = wire.Hello(argv[0], b"012", False, environ, argv[1:], list(environ))
    assert packet == hello.packed()
    assert service.given == 3
    connection.send(wire.pack(wire.DIRECT))
    assert told(process) == ""


@pytest.mark.parametrize(
    ("argv", "environ"),
    [
        ([b"-sh", b"--help"], {}),
        ([b"-sh", b"--configuration"], {}),
        ([b"-sh", b"-x", b"--login"], {}),
        ([b"-sh", b"+O", b"--command", b"true"], {}),
        ([b"-" * 1025], {}),
        ([b"-sh", b"x" * 49152], {}),
        # What it would serve is to be looked at.
        ([b"-sh", b"-c", b"git-receive-pack 'x'"], {}),
        ([b"-sh"], {b"TERM": b"x" * 4097}),
        ([b"-sh"], {b"N%d" % n + b"x" * 100: b"" for n in range(100)}),
        ([b"-sh"], {b"N%d" % n: b"" for n in range(600)}),
    ],
)
def test_what_is_unusual_goes_to_python_before_the_service_is_asked(
    service: Service, argv: list[bytes], environ: dict[bytes, bytes]
) -> None:
    assert told(service.start(argv, environ)) is None
    service.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        service.socket.accept()


def test_a_service_that_shows_no_life_is_given_up_in_a_second(service: Service) -> None:
    begin = time.monotonic()
    # The kernel connects whom nobody accepts.
    assert told(service.start([b"-sh"])) == "the recorder service gives no answer; restart it"
    assert 0.5 < time.monotonic() - begin < 1.5


def test_the_python_client_gives_up_as_soon(service: Service) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.connect(str(service.path))
        begin = time.monotonic()
        assert reach.ask(sock, "-sh", [], {}, (0, 1, 2)) is None
        assert 0.5 < time.monotonic() - begin < 1.5


def test_an_answer_is_waited_for_once_the_service_has_shown_life(each_service: Service) -> None:
    process = each_service.start([b"-x", b"-c", b"echo in"])
    connection, _ = each_service.accept()
    time.sleep(1.5)
    connection.send(wire.pack(wire.BARE, b"/bin/sh"))
    assert process.communicate(timeout=TIMEOUT) == (b"in\n", b"")


def test_a_service_that_is_being_started_is_waited_for(each_service: Service) -> None:
    # Who listens is another process, and gone, as the former service.
    pid = os.fork()
    if pid == 0:
        each_service.socket.listen()
        os._exit(0)
    os.waitpid(pid, 0)
    process = each_service.start([b"-x", b"-c", b"echo in"])
    time.sleep(1.5)
    connection, _ = each_service.accept()
    connection.send(wire.pack(wire.BARE, b"/bin/sh"))
    assert process.communicate(timeout=TIMEOUT) == (b"in\n", b"")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"V99", "the recorder service speaks version 99, we 3; restart it"),
        (b"V" + b"9" * 5000, "restart it"),
        (b"?", "the recorder service gives no answer; restart it"),
        (b"", "the recorder service gives no answer; restart it"),
        (b"B", "the recorder service gives no answer; restart it"),
        (b"Bsh", "the recorder service gives no answer; restart it"),
        (b"Edeny\0/bin/sh", "the recorder service gives no answer; restart it"),
        (b"R/bin/sh\0\0", "gives an answer that is none"),
        (b"R/bin/sh\0\0oo", "gives an answer that is none"),
        (b"R/bin/sh\0\0ooo\0/bin/ls", "gives an answer that is none"),
        (b"R/bin/sh\0\0ppp", "gives an answer that is none"),
        (b"Rsh\0\0ooo", "gives an answer that is none"),
    ],
)
def test_an_answer_that_is_none_is_told_to_python_which_does_not_ask_again(
    service: Service, answer: bytes, words: str
) -> None:
    process = service.start([b"-sh"])
    connection, _ = service.accept()
    if answer:
        connection.send(answer)
    connection.close()
    note = told(process)
    assert isinstance(note, str) and words in note


def test_a_shell_that_is_not_recorded_takes_the_launchers_place(service: Service) -> None:
    environ = {b"SHELL": b"/x", b"TLOG_REC_SESSION_SHELL": b"/y", b"A": b"a"}
    process = service.start([b"-x", b"-c", b"echo $$ $0; exec env"], environ)
    connection, _ = service.accept()
    connection.send(wire.pack(wire.BARE, b"/bin/dash"))
    out, _ = process.communicate(timeout=TIMEOUT)
    first, *rest = out.splitlines()
    assert first == b"%d -dash" % process.pid
    assert {b"SHELL=/bin/dash", b"A=a"} <= set(rest)
    assert not any(line.startswith(b"TLOG_REC") for line in rest)


@pytest.mark.parametrize(
    ("shell", "status", "line"),
    [
        (b"/nowhere/sh\x1b\xc3\xa9", 127, rb"ttyscribe: /nowhere/sh\x1b\xc3\xa9: not found"),
        (b"/dev/null", 126, b"ttyscribe: /dev/null: can't run: Permission denied"),
    ],
)
@pytest.mark.parametrize("recorded", [False, True])
def test_a_shell_that_does_not_start_is_one_line(
    service: Service, shell: bytes, status: int, line: bytes, recorded: bool
) -> None:
    process = service.start([b"-x"])
    connection, _ = service.accept()
    if recorded:
        record(connection, [], shell, b"", b"ooo")
        assert connection.recv(wire.PACKET_MAX) == b"F%d" % status
        connection.send(wire.DONE)
    else:
        connection.send(wire.pack(wire.BARE, shell))
    assert process.communicate(timeout=TIMEOUT) == (b"", line + b"\n")
    assert process.returncode == status


def test_a_script_without_a_first_line_is_run_by_sh(service: Service, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text('echo "$0" "$@"\n')
    script.chmod(0o755)
    process = service.start([b"-x", b"one", b"two"])
    connection, _ = service.accept()
    connection.send(wire.pack(wire.BARE, os.fsencode(script)))
    out, _ = process.communicate(timeout=TIMEOUT)
    assert out == os.fsencode(script) + b" one two\n"


@pytest.mark.parametrize(
    ("outcome", "status", "out", "line"),
    [
        (b"deny", 1, b"", b"login refused, because the session can't be recorded: why\n"),
        (b"allow", 5, b"in\n", b"this session is not recorded: why\n"),
    ],
)
def test_a_session_that_cannot_be_recorded_has_the_outcome_that_the_service_says(
    service: Service, outcome: bytes, status: int, out: bytes, line: bytes
) -> None:
    process = service.start([b"-x", b"-c", b"echo in; exit 5"])
    connection, _ = service.accept()
    connection.send(wire.pack(wire.FAILED, outcome, b"/bin/sh", b"why"))
    assert process.communicate(timeout=TIMEOUT) == (out, b"ttyscribe: " + line)
    assert process.returncode == status


def test_the_shell_gets_what_was_passed_and_nothing_else(service: Service) -> None:
    command = b"ls /proc/self/fd; readlink /proc/self/fd/1 >&2; exit 9"
    process = service.start([b"-x", b"-c", command])
    connection, _ = service.accept()
    read, write = os.pipe()
    record(connection, [write], b"/bin/sh", b"no terminal: no notice", b"opo")
    os.close(write)
    assert connection.recv(wire.PACKET_MAX) == wire.pack(wire.ENDED, b"%d" % (9 << 8))
    connection.send(wire.pack(wire.DONE, b"a complaint"))
    out, err = process.communicate(timeout=TIMEOUT)
    with os.fdopen(read, "rb") as file:
        # One more is the folder that ls reads.
        assert file.read() == b"0\n1\n2\n3\n"
    assert (process.returncode, out) == (9, b"")
    pipe, complaint = err.split(b"\n", 1)
    assert pipe.startswith(b"pipe:") and complaint == b"a complaint\r\n"


def test_a_program_in_the_shells_place_has_its_own_words(service: Service) -> None:
    process = service.start([b"-x"])
    connection, _ = service.accept()
    record(connection, [], b"/bin/sh", b"", b"ooo", b"/bin/echo", b"echo", b"-n", b"A")
    assert connection.recv(wire.PACKET_MAX) == b"X0"
    connection.send(wire.DONE)
    assert process.communicate(timeout=TIMEOUT) == (b"A", b"")


@pytest.mark.parametrize(
    "environ",
    [
        {},
        dict.fromkeys([*skip.KEPT, *skip.ADDED], b"x"),
        dict.fromkeys([name + b"_" for name in skip.KEPT], b"x"),
        {b"LANG": b"de_DE.UTF-8", b"LC_ALL": b"C", b"TZ": b"Europe/Berlin", b"LANGUAGE": b"de"},
        {b"LANG": b"/tmp/x", b"LC_ALL": b"../x", b"LC_TIME": b"", b"TZ": b"/tmp/x"},
        {b"TZ": b":x", b"LOCPATH": b"/tmp", b"OPENSSL_CONF": b"/tmp/x", b"BASH_ENV": b"/tmp/x"},
        {b"TZ": b"../x", b"BASH_FUNC_scp%%": b"() { bash; }", b"LD_PRELOAD": b"/tmp/x", b"A": b"a"},
    ],
)
def test_a_program_in_the_shells_place_has_the_environment_that_the_python_client_makes(
    service: Service, environ: dict[bytes, bytes]
) -> None:
    process = service.start([b"-x"], environ)
    connection, _ = service.accept()
    record(connection, [], b"/bin/sh", b"", b"ooo", b"/usr/bin/env", b"env", b"-0")
    assert connection.recv(wire.PACKET_MAX) == b"X0"
    connection.send(wire.DONE)
    out, _ = process.communicate(timeout=TIMEOUT)
    expected = skip.environment_of({**environ, b"SHELL": b"/bin/sh"})
    assert sorted(out.split(b"\0")[:-1]) == sorted(b"%b=%b" % item for item in expected.items())


def test_signals_that_were_ignored_or_blocked_are_the_shells_as_well(service: Service) -> None:
    code = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "signal.signal(signal.SIGPIPE, signal.SIG_DFL)\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_DFL)\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])\n"
        "os.execve(sys.argv[1], ['-x'], {})\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, service.launcher], stdout=-1)
    connection, _ = service.accept()
    grep = [b"/bin/grep", b"grep", b"-E", b"^Sig(Ign|Blk)", b"/proc/self/status"]
    record(connection, [], b"/bin/sh", b"", b"ooo", *grep)
    connection.recv(wire.PACKET_MAX)
    connection.send(wire.DONE)
    out, _ = process.communicate(timeout=TIMEOUT)
    assert out == b"SigBlk:\t0000000000000800\nSigIgn:\t0000000000000002\n"


def test_without_its_recorder_the_shell_ends(service: Service) -> None:
    process = service.start([b"-x", b"-c", b"echo there; exec sleep 1000"])
    connection, _ = service.accept()
    record(connection, [], b"/bin/sh", b"", b"ooo")
    assert process.stdout is not None
    assert process.stdout.readline() == b"there\n"
    connection.close()
    _, err = process.communicate(timeout=TIMEOUT)
    assert err == b"ttyscribe: the recorder is gone; the session ends\r\n"
    assert process.returncode == 1


def test_a_shell_that_its_lost_recorders_pty_hung_up_is_no_end_of_its_own(
    service: Service,
) -> None:
    process = service.start([b"-x", b"-c", b"kill -HUP $$"])
    connection, _ = service.accept()
    record(connection, [], b"/bin/sh", b"", b"ooo")
    assert connection.recv(wire.PACKET_MAX) == b"X1"
    connection.close()
    _, err = process.communicate(timeout=TIMEOUT)
    assert err == b"ttyscribe: the recorder is gone; the session ends\r\n"
    assert process.returncode == 1


SIGNALS = ["HUP", "INT", "QUIT", "TERM", "USR1", "ALRM", "XCPU", "RTMAX", "PIPE", "CONT",
           "WINCH"]  # fmt: skip


@pytest.mark.parametrize("name", SIGNALS)
def test_without_a_terminal_a_signal_is_the_shells(each_service: Service, name: str) -> None:
    script = f"trap 'echo got it; exit 3' {name}; echo ready; while sleep 0.02; do :; done"
    process = each_service.start([b"-x", b"-c", script.encode()], start_new_session=True)
    connection, _ = each_service.accept()
    record(connection, [], b"/bin/bash", b"", b"ooo")
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    os.kill(process.pid, signal.Signals[f"SIG{name}"])
    # Nothing is said of it: neither of a window nor of an end of ours.
    assert connection.recv(wire.PACKET_MAX) == wire.pack(wire.ENDED, b"%d" % (3 << 8))
    connection.send(wire.DONE)
    assert process.communicate(timeout=TIMEOUT) == (b"got it\n", b"")
    assert process.returncode == 3


@pytest.mark.parametrize("name", ["TERM", "HUP", "INT", "USR1", "ALRM", "RTMAX", "PIPE"])
def test_on_a_terminal_a_signal_ends_the_session_in_order(each_service: Service, name: str) -> None:
    """As the end of the terminal does, or by the end of the shell, which gets all others."""
    number = signal.Signals[f"SIG{name}"]
    outer, theirs = os.openpty()
    inner, slave = os.openpty()
    before = termios.tcgetattr(theirs)
    process = each_service.start(
        [b"-x", b"-c", b"echo ready; exec sleep 1000"],
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        preexec_fn=control,
    )  # fmt: skip
    connection, _ = each_service.accept()
    record(connection, [slave] * 3, b"/bin/bash", b"", b"ppp")
    os.close(slave)
    assert os.read(inner, 100) == b"ready\r\n"
    assert termios.tcgetattr(theirs) != before
    os.kill(process.pid, number)
    hung_up = number in (signal.SIGTERM, signal.SIGHUP)
    if hung_up:
        assert said(connection) == wire.pack(wire.SIGNAL, b"%d" % number)
    else:
        assert said(connection) == wire.pack(wire.ENDED, b"%d" % number)
    os.close(inner)
    if hung_up:
        assert connection.recv(wire.PACKET_MAX) == wire.pack(wire.ENDED, b"%d" % signal.SIGHUP)
    connection.send(wire.DONE)
    assert process.wait(TIMEOUT) == -number
    assert termios.tcgetattr(theirs) == before
    os.close(theirs)
    os.close(outer)


def test_a_shell_that_can_not_be_recorded_ends_even_if_it_ignores_the_hangup(
    each_service: Service,
) -> None:
    script = b"trap '' HUP PIPE; echo ready; while sleep 0.02; do :; done"
    process = each_service.start([b"-x", b"-c", script])
    connection, _ = each_service.accept()
    record(connection, [], b"/bin/bash", b"", b"ooo")
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    connection.send(wire.END)
    assert connection.recv(wire.PACKET_MAX) == wire.pack(wire.ENDED, b"%d" % signal.SIGKILL)
    connection.send(wire.DONE)
    assert process.communicate(timeout=TIMEOUT) == (b"", b"")
    assert process.returncode == -signal.SIGKILL


def control() -> None:
    """Let our terminal control us, who lead a session."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_where_no_terminal_controls_us_none_controls_the_shell(
    each_service: Service,
) -> None:
    """As su -c does: what the shell leaves in the background is not hung up with it."""
    outer, theirs = os.openpty()
    inner, slave = os.openpty()
    script = b"exec 9<>/dev/tty; trap 'exit 3' INT; echo ready; while sleep 0.02; do :; done"
    process = each_service.start(
        [b"-x", b"-c", script], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    connection, _ = each_service.accept()
    record(connection, [slave] * 3, b"/bin/bash", b"", b"ppp")
    shown = b""
    while b"ready\r\n" not in shown:
        shown += os.read(inner, 4096)
    assert b"/dev/tty: No such device" in shown
    os.kill(process.pid, signal.SIGINT)
    assert said(connection) == wire.pack(wire.ENDED, b"%d" % (3 << 8))
    connection.send(wire.DONE)
    assert process.wait(TIMEOUT) == 3
    for fd in (outer, theirs, inner, slave):
        os.close(fd)


@pytest.mark.parametrize("other", [False, True])
def test_the_terminal_that_sshd_named_is_the_one_that_the_shell_gets(
    each_service: Service, other: bool
) -> None:
    outer, theirs = os.openpty()
    inner, slave = os.openpty()
    name, given = os.ttyname(theirs).encode(), os.ttyname(slave).encode()
    process = each_service.start(
        [b"-x", b"-c", b"echo $SSH_TTY"], {b"SSH_TTY": name + b"1" if other else name},
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    connection, _ = each_service.accept()
    record(connection, [slave] * 3, b"/bin/bash", b"", b"ppp")
    assert os.read(inner, 100) == (name + b"1" if other else given) + b"\r\n"
    said(connection)
    connection.send(wire.DONE)
    assert process.wait(TIMEOUT) == 0
    for fd in (outer, theirs, inner, slave):
        os.close(fd)


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("piped", [False, True])
def test_only_what_is_ours_alone_of_the_terminal_is_changed(
    each_service: Service, raw: bool, piped: bool
) -> None:
    outer, theirs = os.openpty()
    inner, slave = os.openpty()
    if raw:
        tty.setraw(theirs)
        both = termios.tcgetattr(theirs)
        both[OFLAG] |= termios.OPOST
        termios.tcsetattr(theirs, termios.TCSANOW, both)
    before = termios.tcgetattr(theirs)
    process = each_service.start(
        [b"-x", b"-c", b"echo ready >&2; read line"],
        stdin=theirs, stdout=subprocess.DEVNULL if piped else theirs, stderr=theirs,
        start_new_session=True,
    )  # fmt: skip
    connection, _ = each_service.accept()
    record(connection, [slave] * (3 - piped), b"/bin/bash", b"", b"pop" if piped else b"ppp")
    os.close(slave)
    shared = raw or piped
    assert connection.recv(wire.PACKET_MAX) == wire.pack(wire.RESUMED, b"0" if shared else b"1")
    assert os.read(inner, 100) == (b"ready\n" if shared else b"ready\r\n")
    mode = termios.tcgetattr(theirs)
    assert (mode == before) == raw
    assert bool(mode[OFLAG] & termios.OPOST) == shared
    assert not mode[LFLAG] & (termios.ICANON | termios.ECHO)
    if raw:
        # The other session has ended, and has given it back.
        termios.tcsetattr(theirs, termios.TCSANOW, termios.tcgetattr(inner))
        before = termios.tcgetattr(theirs)
    os.write(inner, b"a line\n")
    assert said(connection) == wire.pack(wire.ENDED, b"0")
    connection.send(wire.DONE)
    assert process.wait(TIMEOUT) == 0
    assert termios.tcgetattr(theirs) == before
    for fd in (outer, theirs, inner):
        os.close(fd)


def test_a_shell_that_suspends_itself_suspends_the_session(each_service: Service) -> None:
    outer, theirs = os.openpty()
    inner, slave = os.openpty()
    before = termios.tcgetattr(theirs)
    process = each_service.start(
        [b"-x", b"-c", b"kill -STOP $$; echo back"],
        stdin=theirs, stdout=theirs, stderr=theirs, process_group=0,
    )  # fmt: skip
    connection, _ = each_service.accept()
    # No key of this terminal would stop it.
    other = subprocess.Popen(["sleep", "1000"], process_group=process.pid)
    record(connection, [slave] * 3, b"/bin/bash", b"", b"ppp")
    # The recorder reads the keyboard until it says that it does not.
    assert said(connection) == wire.STOPPED
    assert termios.tcgetattr(theirs) != before
    connection.send(wire.HELD)
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    assert termios.tcgetattr(theirs) == before
    process.send_signal(signal.SIGCONT)
    assert os.read(inner, 100) == b"back\r\n"
    assert termios.tcgetattr(theirs) != before
    assert connection.recv(wire.PACKET_MAX) == TAKEN
    assert said(connection) == wire.pack(wire.ENDED, b"0")
    connection.send(wire.DONE)
    assert process.wait(TIMEOUT) == 0
    assert os.waitpid(other.pid, os.WNOHANG | os.WUNTRACED) == (0, 0)
    other.kill()
    other.wait()
    for fd in (outer, theirs, inner, slave):
        os.close(fd)


def test_a_session_that_is_woken_before_it_stops_goes_on(each_service: Service) -> None:
    """As su does, which wakes its child a second time when it is woken."""
    outer, theirs = os.openpty()
    inner, slave = os.openpty()
    process = each_service.start(
        [b"-x", b"-c", b"kill -STOP $$; echo back; read line"],
        stdin=theirs, stdout=theirs, stderr=theirs, process_group=0,
    )  # fmt: skip
    connection, _ = each_service.accept()
    record(connection, [slave] * 3, b"/bin/bash", b"", b"ppp")
    os.close(slave)
    assert said(connection) == wire.STOPPED
    process.send_signal(signal.SIGCONT)
    assert connection.recv(wire.PACKET_MAX) == TAKEN
    assert os.read(inner, 100) == b"back\r\n"
    connection.send(wire.HELD)
    os.write(inner, b"a line\n")
    assert said(connection) == wire.pack(wire.ENDED, b"0")
    connection.send(wire.DONE)
    assert process.wait(TIMEOUT) == 0
    for fd in (outer, theirs, inner):
        os.close(fd)


def led_by(
    program: str, service: Service, terminal: int, slave: int, *tracer: str
) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start a program that starts the client on terminal, and record that on the pty's slave."""
    process = subprocess.Popen(
        [*tracer, sys.executable, "-c", program, service.launcher],
        stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True,
    )  # fmt: skip
    connection, _ = service.accept()
    record(connection, [slave] * 3, b"/bin/bash", b"", b"ppp")
    os.close(slave)
    return process, connection


# Leads a session on its terminal, and starts the client there in a job of its own, which it
# wakes. Its status is the signal that stopped that.
AS_A_JOB = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
if not (pid := os.fork()):
    os.setpgid(0, 0)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTTOU])
    os.tcsetpgrp(0, os.getpid())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTTOU])
    os.execve(sys.argv[1], ["-x", "-c", "echo there; read line; echo got $line"], {})
status = os.waitpid(pid, os.WUNTRACED)[1]
os.killpg(pid, signal.SIGCONT)
os.waitpid(pid, 0)
os._exit(os.WSTOPSIG(status))
"""


def stop_and_end(process: subprocess.Popen[bytes], connection: socket.socket, inner: int) -> None:
    """Type what stops the job of AS_A_JOB, and what ends it once it is woken."""
    os.write(inner, b"\x1a")
    assert said(connection) == wire.STOPPED
    connection.send(wire.HELD)
    assert connection.recv(wire.PACKET_MAX) == TAKEN
    os.write(inner, b"a line\n")
    assert said(connection) == wire.pack(wire.ENDED, b"0")
    connection.send(wire.DONE)
    assert process.wait(TIMEOUT) == signal.SIGTSTP


def test_the_key_that_stops_a_job_stops_a_client_that_is_in_one(each_service: Service) -> None:
    outer, theirs = os.openpty()
    inner, slave = os.openpty()
    process, connection = led_by(AS_A_JOB, each_service, theirs, slave)
    assert connection.recv(wire.PACKET_MAX) == TAKEN
    assert os.read(inner, 100) == b"there\r\n"
    stop_and_end(process, connection, inner)
    for fd in (outer, theirs, inner):
        os.close(fd)


def test_no_key_stops_a_job_before_it_is_the_shell(each_service: Service) -> None:
    """Nobody would see it: the client waits for the shell, and its own shell for the client."""
    outer, theirs = os.openpty()
    inner, slave = os.openpty()
    # What takes a terminal does nothing else for as long: time for a key.
    slow = ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", "trace=ioctl",
            "-e", "inject=ioctl:delay_exit=30000"]  # fmt: skip
    process, connection = led_by(AS_A_JOB, each_service, theirs, slave, *slow)
    wait_until(lambda: os.tcgetpgrp(inner), "no leader")
    leader = os.tcgetpgrp(inner)
    wait_until(lambda: os.tcgetpgrp(inner) != leader, "no job")
    os.write(inner, b"\x1a")
    assert connection.recv(wire.PACKET_MAX) == TAKEN
    assert os.read(inner, 100) == b"^Z"
    assert os.read(inner, 100) == b"there\r\n"
    stop_and_end(process, connection, inner)
    for fd in (outer, theirs, inner):
        os.close(fd)


# Leads a session on its terminal, and starts the client there in its foreground job, together
# with another process.
IN_THE_FOREGROUND = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
if not (pid := os.fork()):
    os.setpgid(0, 0)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTTOU])
    os.tcsetpgrp(0, os.getpid())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTTOU])
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGQUIT, lambda *_: os.killpg(0, signal.SIGINT))
    if not os.fork():
        while os.getppid() != 1:
            signal.pause()
        os._exit(0)
    os.execve(sys.argv[1], ["-x", "-c", "echo there; read line; echo got $line"], {})
_, status = os.waitpid(pid, 0)
os._exit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.parametrize("ignored", [False, True])
def test_keys_that_are_for_all_of_a_job_are_told_and_typed_at_the_pty(
    each_service: Service, ignored: bool
) -> None:
    """Also where the client was started with them ignored, as its job's other programs are."""
    outer, theirs = os.openpty()
    inner, slave = os.openpty()
    ignore = "for each in (2, 3): signal.signal(each, signal.SIG_IGN)\n    " if ignored else ""
    program = IN_THE_FOREGROUND.replace("os.execve", f"{ignore}os.execve")
    process, connection = led_by(program, each_service, theirs, slave)
    assert connection.recv(wire.PACKET_MAX) == TAKEN
    kind, (group,) = wire.unpack(connection.recv(wire.PACKET_MAX))
    assert kind == wire.JOB
    wait_until(lambda: os.tcgetpgrp(inner) == int(group), "the shell is in another group")
    # It is not named after the shell, and stays for a shell that comes back to it.
    named = Path(f"/proc/{int(group)}/stat")
    wait_until(lambda: b") Z " in named.read_bytes(), "the group is the shell's")

    def has(intr: bytes, isig: int) -> bool:
        mode = termios.tcgetattr(theirs)
        return bool(mode[6][termios.VINTR] == intr and mode[LFLAG] & termios.ISIG == isig)

    assert has(b"\x03", termios.ISIG)
    connection.send(wire.pack(wire.KEYS, b"\0\x18\x1c\x1a"))
    wait_until(lambda: has(b"\x18", termios.ISIG), "the terminal has other keys")
    # The other one of the job, which is interrupted too, interrupts all of it for another key.
    os.write(outer, b"\x18")
    assert said(connection) == wire.pack(wire.TYPED, b"%d" % signal.SIGINT)
    os.write(outer, b"\x1c")
    told = {said(connection), said(connection)}
    assert told == {
        wire.pack(wire.TYPED, b"%d" % signal.SIGQUIT), wire.pack(wire.TO_JOB, b"%d" % signal.SIGINT)
    }  # fmt: skip
    # Who reads what was typed behind a key can have that first.
    os.write(outer, b"\x18x")
    assert os.read(theirs, 10) == b"x"
    connection.send(wire.SYNC)
    assert said(connection) == wire.pack(wire.TYPED, b"%d" % signal.SIGINT)
    assert said(connection) == wire.SYNC
    connection.send(wire.KEYS)
    wait_until(lambda: has(b"\x03", 0), "the terminal still sends signals")
    os.write(outer, b"\x03")
    assert os.read(theirs, 10) == b"\x03"
    os.write(inner, b"a line\n")
    assert said(connection) == wire.pack(wire.ENDED, b"0")
    connection.send(wire.DONE)
    assert process.wait(TIMEOUT) == 0
    for fd in (outer, theirs, inner):
        os.close(fd)


# Leads a session on its terminal, and starts the client there in a job of its own.
IN_THE_BACKGROUND = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
if not (pid := os.fork()):
    os.setpgid(0, 0)
    os.execve(sys.argv[1], ["-x", "-c", "echo there; stty -a; read line; echo got $line"], {})
sys.stdin.readline()
os.tcsetpgrp(0, pid)
os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_the_terminal_is_taken_once_our_job_is_in_the_foreground(each_service: Service) -> None:
    outer, theirs = os.openpty()
    inner, slave = os.openpty()
    # As a line editor has it, while it waits for a line.
    before = termios.tcgetattr(theirs)
    before[LFLAG] &= ~(termios.ICANON | termios.ECHO)
    termios.tcsetattr(theirs, termios.TCSANOW, before)
    termios.tcsetattr(slave, termios.TCSANOW, before)
    process, connection = led_by(IN_THE_BACKGROUND, each_service, theirs, slave)
    assert connection.recv(wire.PACKET_MAX) == wire.BEHIND
    shown = b""
    # The terminal makes the line ends.
    while b"-tostop" not in shown:
        shown += os.read(inner, 4096)
    assert shown.startswith(b"there\n") and b"-opost" in shown
    assert b" icanon" in shown and b" echo " in shown
    assert termios.tcgetattr(theirs)[:6] == before[:6]
    before[LFLAG] |= termios.ICANON | termios.ECHO
    termios.tcsetattr(theirs, termios.TCSANOW, before)
    os.write(outer, b"\n")
    passing = (wire.WINDOW, wire.BEHIND, wire.JOB)
    while (packet := connection.recv(wire.PACKET_MAX))[:1] in passing:
        pass
    assert packet == TAKEN
    assert termios.tcgetattr(theirs)[:6] != before[:6]
    os.write(inner, b"a line\n")
    assert said(connection) == wire.pack(wire.ENDED, b"0")
    connection.send(wire.DONE)
    assert process.wait(TIMEOUT) == 0
    assert termios.tcgetattr(theirs)[:6] == before[:6]
    for fd in (outer, theirs, inner):
        os.close(fd)


def test_without_a_terminal_a_stopped_shell_stays_so(each_service: Service) -> None:
    process = each_service.start([b"-x", b"-c", b"echo $$; kill -STOP $$; echo back"])
    connection, _ = each_service.accept()
    record(connection, [], b"/bin/bash", b"", b"ooo")
    assert process.stdout is not None
    state = Path(f"/proc/{int(process.stdout.readline())}/stat")
    wait_until(lambda: b") T " in state.read_bytes(), "it does not stop")
    time.sleep(0.2)
    assert b") T " in state.read_bytes()
    process.send_signal(signal.SIGCONT)
    assert process.stdout.readline() == b"back\n"
    assert connection.recv(wire.PACKET_MAX) == wire.pack(wire.ENDED, b"0")
    connection.send(wire.DONE)
    assert process.wait(TIMEOUT) == 0
