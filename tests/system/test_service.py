# SPDX-License-Identifier: Apache-2.0
"""The recorder service and its client, with real users on real terminals."""

from __future__ import annotations

import array
import contextlib
import grp
import os
import pty
import pwd
import random
import signal
import socket
import stat
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.driving import TIMEOUT, wait_until
from tests.system.machine import (
    LAUNCHER,
    RECORDER,
    SERVICE_USER,
    SOCKET,
    Login,
    Machine,
    User,
    as_user,
    children,
    connect,
    proc_status,
    processes,
    set_window,
)

from ttyscribe.events import OUTPUT
from ttyscribe.recorder import privileges, wire
from ttyscribe.tlog import Decoder
from ttyscribe.tlog.decode import ParsedMessage

pytestmark = [pytest.mark.system, pytest.mark.xdist_group("installed")]

SPOOL = "/var/spool/ttyscribe"


@pytest.fixture
def service(machine: Machine) -> Iterator[subprocess.Popen[bytes]]:
    """A recorder service of this test's own."""
    machine.configure()
    machine.messages()
    process = machine.start_recorder()
    yield process
    # All that was captured comes to the log, that of killed recorders too.
    wait_until(lambda: os.listdir(SPOOL) == [], "something stays in the spool")
    for one in [*machine.recorders]:
        wait_until(lambda: machine.sessions(one) == [], "sessions do not end")  # noqa: B023
        machine.stop_recorder(one)


def outputs(found: list[ParsedMessage]) -> dict[str, bytes]:
    """What each recording shows, by its id."""
    decoders: dict[str, Decoder] = {}
    shown: dict[str, bytes] = {}
    for message in found:
        decoder = decoders.setdefault(message.rec, Decoder())
        for _, kind, data in decoder.decode(message):
            if kind == OUTPUT:
                shown[message.rec] = shown.get(message.rec, b"") + data
    return shown


def ended(found: list[ParsedMessage]) -> list[object]:
    """How the recordings among messages ended."""
    members = [m.extra for m in found if m.extra is not None and m.extra.get("event") == "end"]
    return [member.get("signal", member.get("status")) for member in members]


def hello(names: bytes = b"012", version: int = wire.VERSION, *more: bytes) -> bytes:
    packed = wire.Hello(b"-x", names, False, {}, list(more), []).packed()
    own = b"H%d\0" % wire.VERSION
    assert packed.startswith(own)
    return b"H%d\0" % version + packed[len(own) :]


def send(sock: socket.socket, packet: bytes, fds: list[int]) -> None:
    sock.sendmsg([packet], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])


def answer(sock: socket.socket) -> bytes:
    """What the service says, but for that it is there."""
    try:
        packet = sock.recv(wire.PACKET_MAX)
    except ConnectionResetError:
        return b""
    return answer(sock) if packet == wire.ACCEPTED else packet


def test_a_login_is_recorded_whole_and_ends_with_the_shells_status(
    machine: Machine, service: subprocess.Popen[bytes], user: User
) -> None:
    with Login(user) as login:
        assert login.run("echo hello $((6*7))") == "hello 42\n"
        login.exit(3)
        seen = login.seen
    found = machine.messages()
    (shown,) = outputs(found).values()
    assert shown == seen
    assert ended(found) == [3]
    assert {message.user for message in found} == {user.name}


def test_the_shells_terminal_is_the_users_and_the_outer_one_is_not(
    machine: Machine, service: subprocess.Popen[bytes], user: User
) -> None:
    with Login(user) as login:
        inner = login.run("tty").strip()
        assert inner.startswith("/dev/pts/") and inner != login.name
        mine, outer = os.stat(inner), os.stat(login.name)
        assert (mine.st_uid, mine.st_gid) == (user.uid, grp.getgrnam("tty").gr_gid)
        assert stat.S_IMODE(mine.st_mode) == 0o620
        assert outer.st_uid not in (0, user.uid)
        assert stat.S_IMODE(outer.st_mode) == 0o600
        assert login.run("mesg n; mesg") == "is n\n"
        assert login.run("mesg y; mesg") == "is y\n"
        login.exit()
        back = os.stat(login.name)
        assert (back.st_uid, stat.S_IMODE(back.st_mode)) == (user.uid, 0o620)


def test_window_sizes_reach_the_shell_and_the_recording(
    machine: Machine, service: subprocess.Popen[bytes], user: User
) -> None:
    with Login(user) as login:
        assert login.run("stty size") == "24 80\n"
        set_window(login.fd, 50, 132)
        wait_until(lambda: login.run("stty size") == "50 132\n", "the size does not arrive")
        login.exit()
    decoder = Decoder()
    events = [event for message in machine.messages() for event in decoder.decode(message)]
    assert b"132x50" in [data for _, _, data in events]


def test_keys_that_send_signals_reach_the_foreground_job(
    machine: Machine, service: subprocess.Popen[bytes], user: User
) -> None:
    with Login(user) as login:
        login.expect(rb"\$ ")
        # What the job says on SIGCONT, it says once the terminal is its own again. dash would
        # wait for a child that the key stops before its exec, and not be stopped itself.
        login.line("bash -c 'trap \"echo again\" CONT; echo start; while :; do sleep 0.1; done'")
        login.expect(rb"\nstart\r\n")
        login.send(b"\x1a")
        login.expect(rb"Stopped")
        login.expect(rb"\$ ")
        login.line("fg")
        login.expect(rb"\nagain\r\n")
        login.send(b"\x03")
        assert login.run("echo $?") == "130\n"
        login.exit()


def test_the_terminal_has_its_mode_back_after_the_session(
    machine: Machine, service: subprocess.Popen[bytes], user: User
) -> None:
    with Login(user) as login:
        # The waiting client, not the shell, holds the other end open.
        login.run("true")
        during = termios.tcgetattr(login.fd)
        assert not during[3] & (termios.ECHO | termios.ICANON)
        login.exit()
        after = termios.tcgetattr(login.fd)
        assert after[3] & termios.ECHO and after[3] & termios.ICANON


@pytest.fixture
def sudoers(user: User) -> Iterator[Path]:
    """The user may become any other, each on a terminal of sudo's own."""
    path = Path("/etc/sudoers.d/ttyscribe-test")
    path.write_text(f"Defaults:{user.name} use_pty\n{user.name} ALL=(ALL) NOPASSWD: ALL\n")
    path.chmod(0o440)
    yield path
    path.unlink()


def test_sudo_with_a_terminal_of_its_own_is_recorded_once(
    machine: Machine, service: subprocess.Popen[bytes], user: User, other: User, sudoers: Path
) -> None:
    with Login(user) as login:
        inner = login.run("tty").strip()
        seen = login.run(f"sudo -u {other.name} -i sh -c 'id -un; tty'")
        login.exit()
    name, terminal = seen.split()
    assert name == other.name
    assert terminal.startswith("/dev/pts/") and terminal != inner
    (shown,) = outputs(machine.messages()).values()
    assert terminal.encode() in shown


def test_su_without_a_terminal_keeps_output_and_errors_apart(
    machine: Machine, service: subprocess.Popen[bytes], user: User
) -> None:
    command = "echo out; echo err >&2; cat; exit 7"
    done = subprocess.run(
        ["su", "-", user.name, "-c", command], input=b"in\n", capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\nin\n", b"err\n")
    found = machine.messages()
    (shown,) = outputs(found).values()
    assert sorted(shown.split()) == [b"err", b"in", b"out"]
    assert ended(found) == [7]


def test_a_user_that_is_not_recorded_gets_the_shell_in_place_of_the_client(
    machine: Machine, service: subprocess.Popen[bytes], user: User
) -> None:
    machine.configure(session_recording={"scope": "none"})
    with Login(user) as login:
        assert login.run("echo $$").strip() == str(login.pid)
        assert login.run("tty").strip() == login.name
        login.exit()
    assert machine.messages() == []


@pytest.mark.parametrize("outcome", ["deny", "allow"])
def test_a_writer_that_cannot_be_opened_leads_to_the_chosen_outcome(
    machine: Machine, service: subprocess.Popen[bytes], user: User, outcome: str
) -> None:
    machine.configure(file={"path": "/nowhere/x.tlog"}, on_failure=outcome)
    with Login(user, ["-c", "echo in"]) as login:
        status = login.finish()
    what = b"login refused" if outcome == "deny" else b"this session is not recorded"
    assert what in login.seen
    assert b"/nowhere/x.tlog" in login.seen
    assert (status, b"in\r\n" in login.seen) == ((1, False) if outcome == "deny" else (0, True))


def test_a_configuration_counts_for_the_next_session(
    machine: Machine, service: subprocess.Popen[bytes], user: User
) -> None:
    for notice in ("ONE", "TWO"):
        machine.configure(notice=f"{notice}\n")
        with Login(user, ["-c", "true"]) as login:
            assert login.finish() == 0
        assert login.seen == notice.encode() + b"\r\n"


def test_a_configuration_that_wants_no_service_records_in_the_clients_process(
    machine: Machine, service: subprocess.Popen[bytes], user: User
) -> None:
    own = user.home / "own.tlog"
    machine.configure(service="off", file={"path": str(own)})
    with Login(user) as login:
        assert login.run("echo here") == "here\n"
        assert machine.sessions(service) == []
        login.exit()
    assert own.stat().st_uid == user.uid
    own.unlink()


def test_without_a_service_it_is_as_the_configuration_says(machine: Machine, user: User) -> None:
    machine.no_recorder()
    own = user.home / "own.tlog"
    machine.configure(service="required", file={"path": str(own)})
    with Login(user, ["-c", "echo in"]) as login:
        assert login.finish() == 1
    assert b"no recorder service listens" in login.seen and b"in\r\n" not in login.seen
    machine.configure(service="preferred", file={"path": str(own)})
    with Login(user, ["-c", "echo in"]) as login:
        assert login.finish() == 0
    assert login.seen == b"in\r\n"
    assert own.exists()
    own.unlink()


def test_a_client_of_another_version_is_told_ours(
    machine: Machine, service: subprocess.Popen[bytes]
) -> None:
    with connect() as sock, open(os.devnull) as null:
        send(sock, hello(version=wire.VERSION + 1), [null.fileno()] * 3)
        assert answer(sock) == b"V%d" % wire.VERSION


def test_a_service_of_another_version_is_refused_by_name(machine: Machine, user: User) -> None:
    machine.no_recorder()
    machine.configure()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as fake:
        fake.bind(str(SOCKET))
        SOCKET.chmod(0o666)
        fake.listen()
        try:
            with Login(user, ["-c", "echo in"]) as login:
                connection, _ = fake.accept()
                connection.send(wire.ACCEPTED)
                connection.recv(wire.PACKET_MAX)
                connection.send(b"V99")
                assert login.finish() == 1
                connection.close()
        finally:
            SOCKET.unlink()
    assert b"speaks version 99" in login.seen and b"in\r\n" not in login.seen


def test_two_hundred_logins_at_once_are_all_served(
    machine: Machine, service: subprocess.Popen[bytes], user: User
) -> None:
    logins = [
        subprocess.Popen(
            [LAUNCHER, "-c", "exit 7"], user=user.uid, group=user.gid, extra_groups=[],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )
        for _ in range(200)
    ]  # fmt: skip
    ends = [(login.communicate(timeout=TIMEOUT)[1], login.returncode) for login in logins]
    assert ends == [(b"", 7)] * 200
    assert ended(machine.messages()) == [7] * 200


def test_a_silent_client_costs_one_child_for_a_few_seconds(
    machine: Machine, service: subprocess.Popen[bytes], user: User
) -> None:
    with connect() as sock:
        begin = time.monotonic()
        wait_until(lambda: len(machine.sessions(service)) == 1, "no child serves it")
        with Login(user, ["-c", "true"]) as login:
            assert login.finish() == 0
        wait_until(lambda: machine.sessions(service) == [], "the child stays")
        assert time.monotonic() - begin < 8
        assert answer(sock) == b""


@pytest.mark.parametrize(
    "packet",
    [
        b"H",
        b"H\0\0\0",
        b"Z" * 100,
        b"H%d" % wire.VERSION,
        b"H%d\0-x\00012\0000\0-1" % wire.VERSION,
        b"H%d\0-x\00012\0000\09999999999999999999999" % wire.VERSION,
        b"H%d\0-x\0999\0000\0000" % wire.VERSION,
        b"H" + b"9" * 5000,
        os.urandom(60_000),
        b"H%d\0" % wire.VERSION + b"\0" * 60_000,
        wire.pack(wire.ENDED, b"0"),
        wire.pack(wire.RECORD, b"/bin/sh", b"", b"ppp"),
    ],
    ids=range(12),
)
def test_garbage_is_turned_away_and_hurts_nobody(
    machine: Machine, service: subprocess.Popen[bytes], packet: bytes
) -> None:
    with connect() as sock, open(os.devnull) as null:
        send(sock, packet, [null.fileno()] * 3)
        said = answer(sock)
        assert said[:1] in (wire.FAILED, wire.OTHER_VERSION, b"")
        # Nothing that it says afterwards counts.
        with contextlib.suppress(OSError):
            sock.send(packet)
        assert answer(sock) == b""
    wait_until(lambda: machine.sessions(service) == [], "the child stays")
    assert service.poll() is None


def test_descriptors_that_are_not_those_named_are_refused(
    machine: Machine, service: subprocess.Popen[bytes]
) -> None:
    with open(os.devnull) as null:
        for names, count in ((b"012", 0), (b"012", 2), (b"", 1), (b"0", 3), (b"012", 200)):
            with connect() as sock:
                if count:
                    send(sock, hello(names), [null.fileno()] * count)
                else:
                    sock.send(hello(names))
                assert answer(sock)[:1] == wire.FAILED, (names, count)


def test_a_descriptor_that_is_only_a_path_is_refused(
    machine: Machine, service: subprocess.Popen[bytes]
) -> None:
    # It can be had of files that its holder may not open; the recorder might.
    path = os.open("/dev/null", os.O_PATH)
    with connect() as sock:
        send(sock, hello(), [path] * 3)
        assert answer(sock)[:1] == wire.FAILED
    os.close(path)


def test_a_socket_that_is_no_stream_is_refused(
    machine: Machine, service: subprocess.Popen[bytes], user: User
) -> None:
    # Whoever gets a datagram is told whose process sent it, which would be the recorder.
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        address = f"ttyscribe-test-{os.getpid()}"
        receiver.bind("\0" + address)
        receiver.setblocking(False)
        code = (
            "import socket, subprocess, sys\n"
            "for kind in (socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):\n"
            "    one, other = socket.socketpair(socket.AF_UNIX, kind)\n"
            "    if kind == socket.SOCK_DGRAM:\n"
            "        one = socket.socket(socket.AF_UNIX, kind)\n"
            "        one.connect(chr(0) + sys.argv[2])\n"
            "    done = subprocess.run([sys.argv[1], '-c', 'echo in'], stdin=subprocess.DEVNULL,\n"
            "                          stdout=one, stderr=subprocess.PIPE)\n"
            "    print(done.returncode, done.stderr.decode().strip())\n"
        )
        done = as_user(user, code, str(LAUNCHER), address)
        with pytest.raises(BlockingIOError):
            receiver.recv(100)
    lines = done.stdout.splitlines()
    assert len(lines) == 2, done
    for line in lines:
        assert line.startswith("1 ") and line.endswith("passed a socket that is no stream")
    assert machine.messages() == []


def test_three_descriptors_of_dev_null_are_a_session_without_a_terminal(
    machine: Machine, service: subprocess.Popen[bytes]
) -> None:
    with connect() as sock, open(os.devnull, "r+b", buffering=0) as null:
        send(sock, hello(), [null.fileno()] * 3)
        assert answer(sock)[:1] == wire.RECORD
        sock.send(wire.pack(wire.ENDED, b"0"))
        assert answer(sock) == wire.DONE


def test_another_users_terminal_is_not_taken(
    machine: Machine, service: subprocess.Popen[bytes], user: User, other: User
) -> None:
    master, slave = pty.openpty()
    os.fchown(slave, other.uid, -1)
    os.fchmod(slave, 0o622)
    name = os.ttyname(slave)
    code = (
        "import os, socket, sys\n"
        "fd = os.open(sys.argv[1], os.O_WRONLY | os.O_NOCTTY)\n"
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        "s.connect(sys.argv[2])\n"
        "socket.send_fds(s, [bytes.fromhex(sys.argv[3])], [fd] * 3)\n"
        "assert s.recv(100) == b'A'\n"
        "print(s.recv(65536)[:1].decode())\n"
        "st = os.stat(sys.argv[1])\n"
        "print(st.st_uid, oct(st.st_mode & 0o777))\n"
    )
    done = as_user(user, code, name, str(SOCKET), hello().hex())
    assert done.stdout.split()[-2:] == [str(other.uid), "0o622"], done
    assert os.fstat(slave).st_uid == other.uid
    os.close(master)
    os.close(slave)


def test_each_user_has_a_limit_and_so_has_the_machine(
    machine: Machine, service: subprocess.Popen[bytes], user: User, other: User
) -> None:
    machine.stop_recorder(service)
    machine.start_recorder("--max-sessions", "3", "--max-sessions-per-user", "2")
    with contextlib.ExitStack() as logins:
        for _ in range(2):
            logins.enter_context(Login(user)).run("true")
        with Login(user, ["-c", "echo in"]) as third:
            assert third.finish() == 1
        assert b"2 recorded sessions already" in third.seen
        last = logins.enter_context(Login(other))
        last.run("true")
        with Login(other, ["-c", "echo in"]) as fourth:
            assert fourth.finish() == 1
        assert b"3 sessions are recorded already" in fourth.seen
        last.exit()
        wait_until(lambda: _gets_in(other), "a place that is free again is not given")


def test_who_is_turned_away_comes_to_the_chosen_outcome(
    machine: Machine, service: subprocess.Popen[bytes], user: User
) -> None:
    machine.stop_recorder(service)
    machine.start_recorder("--max-sessions", "1")
    with Login(user) as login:
        login.run("true")
        for outcome, result in (("deny", 1), ("allow", 0)):
            machine.configure(on_failure=outcome)
            for more in ([], ["--login"]):  # the native client, and the one in Python
                with Login(user, ["-c", "echo in", *more]) as second:
                    assert second.finish() == result
                assert b"1 sessions are recorded already" in second.seen
                assert (b"in\r\n" in second.seen) == (outcome == "allow")
        login.exit()


def test_deliveries_go_on_after_the_process_for_them_was_killed(
    machine: Machine, service: subprocess.Popen[bytes], user: User
) -> None:
    (killed,) = children(service.pid)
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: children(service.pid) not in ([], [killed]), "there is no other one")
    (courier,) = children(service.pid)
    with Login(user) as login:
        login.run("echo hello")
        (child,) = set(children(service.pid)) - {courier}
        os.kill(child, signal.SIGKILL)
        login.finish()
    wait_until(lambda: os.listdir(SPOOL) == [], "nothing is delivered")
    (shown,) = outputs(machine.messages()).values()
    assert b"hello" in shown


def test_a_new_service_gives_back_the_terminals_of_a_former_ones_sessions(
    machine: Machine, service: subprocess.Popen[bytes], user: User
) -> None:
    with Login(user) as login:
        login.run("true")
        (child,) = machine.sessions(service)
        machine.start_recorder()
        machine.stop_recorder(service)
        os.kill(child, signal.SIGKILL)
        login.finish()
        wait_until(lambda: os.stat(login.name).st_uid == user.uid, "it is not given back")
        assert stat.S_IMODE(os.stat(login.name).st_mode) == 0o620


def test_a_process_is_recorded_once(
    machine: Machine, service: subprocess.Popen[bytes], user: User
) -> None:
    code = (
        "import os, socket, sys, time\n"
        "null = os.open('/dev/null', os.O_RDWR)\n"
        "def session():\n"
        "    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        "    s.connect(sys.argv[1])\n"
        "    socket.send_fds(s, [bytes.fromhex(sys.argv[2])], [null] * 3)\n"
        "    assert s.recv(100) == b'A'\n"
        "    print(s.recv(65536)[:1].decode())\n"
        "    return s\n"
        "first = session()\n"
        "session()\n"
        "first.send(b'X0')\n"
        "first.recv(100)\n"
        "session()\n"
        "time.sleep(0.5)\n"
        "session()\n"
    )
    done = as_user(user, code, str(SOCKET), hello().hex())
    assert done.stdout.split() == ["R", "E", "E", "E"], done
    assert len(outputs(machine.messages())) <= 1


def test_an_end_that_is_none_ends_the_session_as_the_clients_death_does(
    machine: Machine, service: subprocess.Popen[bytes]
) -> None:
    for end in (b"99999999999999999999", b"65536", b"-1"):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                with connect() as sock, open(os.devnull, "r+b", buffering=0) as null:
                    send(sock, hello(), [null.fileno()] * 3)
                    answer(sock)
                    sock.send(wire.pack(wire.ENDED, end))
                    status = int(answer(sock) != wire.DONE)
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0
    wait_until(lambda: machine.sessions(service) == [], "the child stays")
    assert ended(machine.messages()) == ["HUP"] * 3


def test_the_start_names_the_uid_that_logged_in(
    machine: Machine, service: subprocess.Popen[bytes], user: User
) -> None:
    script = f"echo 4711 >/proc/self/loginuid && su - {user.name} -c true"
    subprocess.run(["sh", "-c", script], stdin=subprocess.DEVNULL, check=True)
    (start,) = [m.extra for m in machine.messages() if m.extra and m.extra["event"] == "start"]
    assert start["loginuid"] == 4711


def test_a_proc_that_hides_processes_is_told_of_by_name(machine: Machine, user: User) -> None:
    machine.no_recorder()
    machine.configure()
    command = "mount -t proc -o hidepid=2 proc /proc && exec \"$@\""
    recorder = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", command, "sh", *RECORDER],
        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        wait_until(SOCKET.exists, "the recorder does not listen")
        with Login(user, ["-c", "echo in"]) as login:
            assert login.finish() == 1
        assert b"mounted with hidepid" in login.seen
    finally:
        recorder.terminate()
        _, told = recorder.communicate(timeout=TIMEOUT)
    assert told.startswith(b"ttyscribe recorder: the recorder can't see other users' processes")


def _gets_in(user: User) -> bool:
    with Login(user, ["-c", "true"]) as login:
        return login.finish() == 0


def test_a_restart_breaks_no_session_and_no_login_finds_no_service(
    machine: Machine, service: subprocess.Popen[bytes], user: User
) -> None:
    missed: list[OSError] = []
    stop = threading.Event()

    def knock() -> None:
        while not stop.is_set():
            try:
                connect().close()
            except OSError as error:
                missed.append(error)
            time.sleep(0.002)

    with contextlib.ExitStack() as stack:
        logins = [stack.enter_context(Login(user)) for _ in range(20)]
        for number, login in enumerate(logins):
            assert login.run(f"echo before {number}") == f"before {number}\n"
        thread = threading.Thread(target=knock)
        thread.start()
        new = machine.start_recorder()
        machine.stop_recorder(service)
        stop.set()
        thread.join()
        assert missed == []
        assert new.poll() is None
        for number, login in enumerate(logins):
            assert login.run(f"echo after {number}") == f"after {number}\n"
            login.exit()
        seen = sorted(login.seen for login in logins)
    found = machine.messages()
    assert sorted(outputs(found).values()) == seen
    assert len(ended(found)) == 20


def test_sessions_outlive_a_service_that_is_killed(
    machine: Machine, service: subprocess.Popen[bytes], user: User
) -> None:
    with Login(user) as login:
        login.run("true")
        service.kill()
        service.wait()
        machine.recorders.remove(service)
        assert login.run("echo on") == "on\n"
        login.exit(4)
        seen = login.seen
    (shown,) = outputs(machine.messages()).values()
    assert shown == seen
    SOCKET.unlink()


def test_a_killed_recorder_ends_its_session_at_once(
    machine: Machine, service: subprocess.Popen[bytes], user: User
) -> None:
    with Login(user) as login:
        shell = int(login.run("echo $$"))
        (child,) = machine.sessions(service)
        begin = time.monotonic()
        os.kill(child, signal.SIGKILL)
        assert login.finish() == 1
        assert time.monotonic() - begin < 3
        assert b"the recorder is gone; the session ends\r\n" in login.seen
        assert not Path(f"/proc/{shell}").exists()
        wait_until(lambda: os.stat(login.name).st_uid == user.uid, "it is not given back")
        assert stat.S_IMODE(os.stat(login.name).st_mode) == 0o620
        wait_until(lambda: os.listdir(SPOOL) == [], "what it had captured stays in the spool")
        (shown,) = outputs(machine.messages()).values()
        assert shown == login.seen.partition(b"ttyscribe: the recorder is gone")[0]
        mode = termios.tcgetattr(login.fd)
        assert mode[3] & termios.ECHO and mode[3] & termios.ICANON


INSTANTS = 12


@pytest.fixture(scope="module")
def text(user: User) -> Iterator[Path]:
    """A file of the user's in which no two places look alike."""
    path = user.home / "text"
    path.write_text("".join(f"{n:08} äé € 🙂\n" for n in range(60_000)), encoding="utf-8")
    yield path
    path.unlink()


def shown_until(user: User, text: Path, size: int, kill: Callable[[], None]) -> bytes:
    """What a session shows of text that is killed when the terminal has got about size bytes."""
    with Login(user, ["-c", f"cat {text}"]) as login:
        while len(login.seen) < size and login._read(5):
            pass
        kill()
        login.finish()
        return login.seen.partition(b"ttyscribe: the recorder is gone")[0]


def check_nothing_lost(machine: Machine, text: Path, seen: bytes) -> None:
    """What was seen is recorded, each byte once, and nothing that was not there."""
    # The service does so too, every few seconds.
    code = "import sys; from ttyscribe.session.recovery import recover; list(recover(sys.argv[1]))"
    words = [sys.executable, "-I", "-c", code, SPOOL]
    subprocess.run(words, user=SERVICE_USER, group=SERVICE_USER, extra_groups=[], check=True)
    wait_until(lambda: os.listdir(SPOOL) == [], "something stays in the spool")
    found = machine.messages()
    assert [message.id for message in found] == list(range(1, len(found) + 1))
    (shown,) = outputs(found).values()
    assert shown.startswith(seen), (len(seen), len(shown))
    assert text.read_bytes().replace(b"\n", b"\r\n").startswith(shown)


def test_a_recorder_killed_under_load_loses_and_doubles_nothing(
    machine: Machine, service: subprocess.Popen[bytes], user: User, text: Path
) -> None:
    chance = random.Random(20261125)

    def kill() -> None:
        for child in machine.sessions(service):
            os.kill(child, signal.SIGKILL)

    for _ in range(INSTANTS):
        size = int((text.stat().st_size // 2) ** chance.random())
        seen = shown_until(user, text, size, kill)
        check_nothing_lost(machine, text, seen)


def test_a_service_killed_whole_under_load_loses_and_doubles_nothing(
    machine: Machine, service: subprocess.Popen[bytes], user: User, text: Path
) -> None:
    chance = random.Random(20261126)

    def kill() -> None:
        (process,) = machine.recorders
        for pid in (process.pid, *children(process.pid)):
            os.kill(pid, signal.SIGKILL)
        process.wait()
        machine.recorders.remove(process)
        SOCKET.unlink()

    for _ in range(INSTANTS):
        size = int((text.stat().st_size // 2) ** chance.random())
        seen = shown_until(user, text, size, kill)
        machine.start_recorder()
        check_nothing_lost(machine, text, seen)


def test_a_shell_that_ignores_the_hangup_does_not_outlive_its_recorder(
    machine: Machine, service: subprocess.Popen[bytes], user: User
) -> None:
    with Login(user) as login:
        shell = int(login.run("trap '' HUP TERM; echo $$"))
        # One that waits for its next line ends with the terminal.
        login.line("echo on; while :; do read -t 1 x; done")
        login.expect(rb"\non\r\n")
        (child,) = machine.sessions(service)
        os.kill(child, signal.SIGKILL)
        assert login.finish() == 1
        assert not Path(f"/proc/{shell}").exists()


def test_no_job_outlives_the_recorder_by_ignoring_the_hangup(
    machine: Machine, service: subprocess.Popen[bytes], user: User
) -> None:
    with Login(user) as login:
        # One writes to the outer terminal as soon as that is the user's again.
        write = f"(echo un\"\"seen >{login.name})"
        ignoring = f"bash -c 'trap \"\" HUP; while sleep 0.01; do {write}; done'"
        login.run(f"{ignoring} 2>/dev/null & {ignoring} 2>&1 | cat >/dev/null & true")
        (child,) = machine.sessions(service)
        os.kill(child, signal.SIGKILL)
        assert login.finish() == 1
        wait_until(lambda: processes(user.uid) == [], "something of the session goes on")
        assert b"unseen" not in login.seen


@pytest.mark.parametrize("client", ["native", "python"])
def test_without_a_terminal_nothing_outlives_the_recorder_either(
    machine: Machine, service: subprocess.Popen[bytes], user: User, client: str
) -> None:
    command = "bash -c 'trap \"\" HUP; echo up; sleep 300'; true"
    shell = [str(LAUNCHER), "-c", command]
    with subprocess.Popen(
        shell if client == "native" else [*shell, "--login"],
        user=user.uid, group=user.gid, extra_groups=[], start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        (child,) = machine.sessions(service)
        os.kill(child, signal.SIGKILL)
        assert b"the recorder is gone" in process.communicate(timeout=TIMEOUT)[1]
        wait_until(lambda: processes(user.uid) == [], "something of the session goes on")


@pytest.mark.parametrize("key", [b"\x03", b"\x1c"])
def test_a_key_that_sends_a_signal_reaches_a_command_that_left_its_terminal(
    machine: Machine, service: subprocess.Popen[bytes], user: User, key: bytes, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.touch()
    # A trap waits for the command that runs, which a key just before it does not reach.
    command = "trap 'echo got it; exit' INT QUIT; echo up; while :; do sleep 0.1; done"
    with Login(User("root"), ["--norc"], shell=Path("/bin/bash")) as login:
        login.expect(rb"\$ ")
        login.line(f'su - {user.name} --session-command "{command}" </dev/null >{out} 2>&1')
        wait_until(lambda: out.read_text() == "up\n", "it does not start")
        login.send(key)
        wait_until(lambda: out.read_text().endswith("got it\n"), "it does not get the signal")
        login.exit()


def test_a_killed_client_hangs_the_shell_up(
    machine: Machine, service: subprocess.Popen[bytes], user: User
) -> None:
    command = "trap 'echo got HUP > ~/hup; exit' HUP; echo $$; while :; do sleep 0.1; done"
    with Login(user, ["-c", command]) as login:
        shell = int(login.expect(rb"([0-9]+)\r\n").group(1))
        login.kill(signal.SIGKILL)
        wait_until(lambda: not Path(f"/proc/{shell}").exists(), "the shell stays")
    assert (user.home / "hup").read_text() == "got HUP\n"
    wait_until(lambda: machine.sessions(service) == [], "its recorder stays")
    assert ended(machine.messages()) == ["HUP"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_client_told_to_end_ends_by_that_signal_with_the_recording_complete(
    machine: Machine, service: subprocess.Popen[bytes], user: User, number: signal.Signals
) -> None:
    with Login(user) as login:
        login.run("true")
        login.kill(number)
        assert login.finish() == -number
    wait_until(lambda: machine.sessions(service) == [], "its recorder stays")
    assert len(ended(machine.messages())) == 1


def test_a_shell_killed_by_a_signal_ends_the_client_by_the_same(
    machine: Machine, service: subprocess.Popen[bytes], user: User
) -> None:
    with Login(user, ["-c", "kill -SEGV $$"]) as login:
        assert login.finish() == -signal.SIGSEGV
    assert ended(machine.messages()) == ["SEGV"]


def test_signals_that_were_ignored_stay_ignored_by_the_waiting_client(
    machine: Machine, service: subprocess.Popen[bytes], user: User
) -> None:
    wrapper = "trap '' QUIT TERM; exec " + str(LAUNCHER)
    with Login(user, ["-c", wrapper], shell=Path("/bin/bash")) as login:
        assert login.run("echo up") == "up\n"
        login.kill(signal.SIGTERM)
        login.kill(signal.SIGQUIT)
        assert login.run("echo still") == "still\n"
        login.exit()


def test_the_waiting_client_is_small_and_cannot_be_traced_or_read(
    machine: Machine, service: subprocess.Popen[bytes], user: User
) -> None:
    with Login(user) as login:
        login.run("true")
        # Not the interpreter, whichever of the two native programs it is.
        assert Path(f"/proc/{login.pid}/comm").read_text().startswith("ttyscribe-")
        rollup = Path(f"/proc/{login.pid}/smaps_rollup").read_text()
        (pss,) = [int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")]
        assert pss < 200  # KiB
        # What is not dumpable belongs to root.
        assert os.stat(f"/proc/{login.pid}/fd").st_uid == 0
        login.exit()


def test_the_recorder_runs_as_its_own_user_with_two_capabilities(
    machine: Machine, service: subprocess.Popen[bytes], user: User
) -> None:
    uid = pwd.getpwnam(SERVICE_USER).pw_uid
    with Login(user) as login:
        login.run("true")
        (child,) = machine.sessions(service)
        assert proc_status(child, "Uid").split() == [str(uid)] * 4
        assert int(proc_status(child, "CapEff"), 16) == 1 << 0 | 1 << 3
        assert int(proc_status(child, "CapPrm"), 16) == 1 << 0 | 1 << 3
        groups = {grp.getgrgid(int(gid)).gr_name for gid in proc_status(child, "Groups").split()}
        assert groups <= set(privileges.GROUPS)
        login.exit()


def test_tmux_works_inside(machine: Machine, service: subprocess.Popen[bytes], user: User) -> None:
    with Login(user, env={"TERM": "xterm"}) as login:
        login.expect(rb"\$ ")
        login.line("tmux -L ttyscribe -f /dev/null new-session 'echo in-$((40+2)); read x'")
        login.expect(rb"in-42")
        login.send(b"\r")
        login.expect(rb"exited")
        login.line("exit")
        assert login.finish() == 0
    wait_until(lambda: processes(user.uid) == [], "tmux stays")


# As the unit starts it.
AS_UNIT = [
    "setpriv", "--reuid", SERVICE_USER, "--regid", SERVICE_USER, "--groups", "utmp,systemd-journal",
    "--inh-caps", "-all,+chown,+fowner,+dac_read_search",
    "--ambient-caps", "+chown,+fowner,+dac_read_search",
    "--bounding-set", "-all,+chown,+fowner,+dac_read_search",
    "--no-new-privs",
]  # fmt: skip


def test_a_service_started_as_systemd_does_it_serves_and_leaves_the_socket(
    machine: Machine, user: User
) -> None:
    machine.no_recorder()
    machine.configure()
    machine.messages()
    notify = f"ttyscribe-test-{os.getpid()}"
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
    ):
        manager.bind("\0" + notify)
        manager.settimeout(TIMEOUT)
        sock.bind(str(SOCKET))
        SOCKET.chmod(0o666)
        sock.listen()
        pid = os.fork()
        if pid == 0:
            try:
                os.dup2(sock.fileno(), 3)
                passed = {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
                environ = {**os.environ, **passed, "NOTIFY_SOCKET": "@" + notify}
                os.execvpe(AS_UNIT[0], [*AS_UNIT, *RECORDER], environ)
            finally:
                os._exit(127)
        try:
            assert manager.recv(100) == b"READY=1"
            with Login(user) as login:
                login.run("true")
                outer = os.stat(login.name)
                assert outer.st_uid == pwd.getpwnam(SERVICE_USER).pw_uid
                login.exit()
                assert os.stat(login.name).st_uid == user.uid
            os.kill(pid, signal.SIGHUP)
            with Login(user, ["-c", "echo in"]) as login:
                assert login.finish() == 0
            assert login.seen == b"in\r\n"
        finally:
            os.kill(pid, signal.SIGTERM)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            assert SOCKET.exists()
            SOCKET.unlink()
    assert len(ended(machine.messages())) == 2
