# SPDX-License-Identifier: Apache-2.0
"""Attacks of a recorded user on their recording, from inside their session.

Each fails, or is itself recorded. What is promised, and what is not: SECURITY.md.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.driving import wait_until
from tests.system.machine import LAUNCHER, SOCKET, Login, Machine, User, as_user, make_user

from ttyscribe.events import OUTPUT
from ttyscribe.recorder import wire
from ttyscribe.session import lock
from ttyscribe.session.identity import recording_id
from ttyscribe.tlog import Decoder

pytestmark = [pytest.mark.system, pytest.mark.xdist_group("installed")]

SPOOL = "/var/spool/ttyscribe"

# What attacks start with. tried(WHAT, DO, ...) prints what came of an attempt.
PRELUDE = """\
import array, ctypes, errno, fcntl, os, signal, socket, stat, struct, sys, termios, time

def tried(what, do, *arguments):
    try:
        result = do(*arguments)
    except OSError as error:
        print(what, errno.errorcode[error.errno])
    else:
        print(what, "DONE", result)

libc = ctypes.CDLL(None, use_errno=True)

def call(function, *arguments):
    if getattr(libc, function)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), function)

HELLO = %r

def connect(path=%r):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.settimeout(20)
    s.connect(path)
    return s

def leave_terminal():
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        sys.exit()
    os.setsid()

def hello(s, fds, packet=HELLO):
    s.sendmsg([packet], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])
    got = s.recvmsg(65536, 4096)
    return s.recvmsg(65536, 4096) if got[0] == b"A" else got
"""
# What a client of the user's own says, which would be root.
HELLO = wire.Hello(b"-root", b"012", False, {b"LOGNAME": b"root"}, [b"x"], []).packed()


@pytest.fixture(scope="module")
def service(machine: Machine) -> Iterator[subprocess.Popen[bytes]]:
    process = machine.start_recorder()
    yield process
    wait_until(lambda: os.listdir(SPOOL) == [], "something stays in the spool")
    machine.stop_recorder(process)


class Inside:
    """A recorded session with an attacker in it, who knows all that can be known."""

    def __init__(self, machine: Machine, service: subprocess.Popen[bytes], login: Login) -> None:
        self.machine = machine
        self.login = login
        self.user = login.user
        self.parent = service.pid
        self.client = login.pid
        login.run("true")
        self.recorder = machine.sessions(service)[-1]
        self.outer = login.name

    def attack(self, code: str, *arguments: object) -> dict[str, str]:
        """Run Python code within the session: what it printed, by the first word of a line."""
        script = self.user.home / "attack.py"
        script.write_text(PRELUDE % (HELLO, str(SOCKET)) + code)
        words = " ".join(str(word) for word in arguments)
        printed = self.login.run(f"/usr/bin/python3 -I {script} {words}")
        assert "Traceback" not in printed, printed
        lines = [line.partition(" ") for line in printed.splitlines()]
        return {what: result for what, _, result in lines}

    def finish(self) -> bytes:
        """Leave, and return what was recorded, which is what the terminal showed."""
        self.login.exit()
        shown = recorded(self.machine, recording_of=self.user)
        assert self.login.seen in shown
        return self.login.seen


def recorded(machine: Machine, recording_of: User) -> list[bytes]:
    """The output of each recording since the last call; all of them the user's."""
    decoders: dict[str, Decoder] = {}
    shown: dict[str, bytes] = {}
    for message in machine.messages():
        assert message.user == recording_of.name
        decoder = decoders.setdefault(message.rec, Decoder())
        for _, kind, data in decoder.decode(message):
            if kind == OUTPUT:
                shown[message.rec] = shown.get(message.rec, b"") + data
    return list(shown.values())


@pytest.fixture
def inside(machine: Machine, service: subprocess.Popen[bytes], user: User) -> Iterator[Inside]:
    wait_until(lambda: machine.sessions(service) == [], "an earlier session does not end")
    machine.messages()
    with Login(user) as login:
        yield Inside(machine, service, login)


def test_recorder_and_service_cannot_be_signalled(inside: Inside) -> None:
    got = inside.attack(
        "for pid in map(int, sys.argv[1:]):\n"
        "    for number in (9, 15, 19, 1, 11):\n"
        "        tried(f'{pid}-{number}', os.kill, pid, number)\n",
        inside.parent, inside.recorder,
    )  # fmt: skip
    assert len(got) == 10 and set(got.values()) == {"EPERM"}
    inside.finish()


def test_a_stopped_client_stops_no_recording(inside: Inside) -> None:
    inside.attack("os.kill(int(sys.argv[1]), signal.SIGSTOP)", inside.client)
    assert inside.login.run("echo while stopped") == "while stopped\n"
    inside.attack("os.kill(int(sys.argv[1]), signal.SIGCONT)", inside.client)
    assert b"while stopped" in inside.finish()


def test_nothing_can_be_traced_or_read_that_holds_the_terminal(inside: Inside) -> None:
    got = inside.attack(
        "ATTACH, SEIZE = 16, 0x4206\n"
        "for pid in map(int, sys.argv[1:]):\n"
        "    tried(f'{pid}-attach', call, 'ptrace', ATTACH, pid, 0, 0)\n"
        "    tried(f'{pid}-seize', call, 'ptrace', SEIZE, pid, 0, 0)\n"
        "    for name in ('mem', 'environ', 'maps', 'fd', 'cwd', 'root', 'syscall', 'stack'):\n"
        "        tried(f'{pid}-{name}', os.open, f'/proc/{pid}/{name}', os.O_RDONLY)\n"
        "    for fd in range(12):\n"
        "        tried(f'{pid}-fd{fd}', os.open, f'/proc/{pid}/fd/{fd}', os.O_RDWR)\n"
        "    pidfd = os.pidfd_open(pid)\n"
        "    for fd in range(12):\n"
        "        tried(f'{pid}-get{fd}', call, 'syscall', 438, pidfd, fd, 0)\n",
        inside.client, inside.recorder, inside.parent,
    )  # fmt: skip
    assert len(got) == 3 * 34
    assert set(got.values()) <= {"EPERM", "EACCES"}, got
    inside.finish()


def test_the_outer_terminal_cannot_be_opened_by_any_path(inside: Inside) -> None:
    got = inside.attack(
        "outer = sys.argv[1]\n"
        "for mode in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):\n"
        "    tried(f'open-{mode}', os.open, outer, mode | os.O_NOCTTY)\n"
        "    tried(f'ctty-{mode}', os.open, outer, mode)\n"
        "path = os.open(outer, os.O_PATH)\n"
        "tried('path', os.open, f'/proc/self/fd/{path}', os.O_RDWR | os.O_NOCTTY)\n"
        "tried('chmod', os.chmod, outer, 0o666)\n"
        "tried('chown', os.chown, outer, os.getuid(), -1)\n"
        "tried('unlink', os.unlink, outer)\n"
        "tried('rename', os.rename, outer, outer + 'x')\n"
        "tried('xattr', os.setxattr, outer, 'user.x', b'')\n"
        "found = 0\n"
        "for pid in filter(str.isdigit, os.listdir('/proc')):\n"
        "    for fd in range(64):\n"
        "        try:\n"
        "            if os.readlink(f'/proc/{pid}/fd/{fd}') == outer:\n"
        "                found += 1\n"
        "        except OSError:\n"
        "            pass\n"
        "found -= 1\n"  # the path above, its own
        "print('proc', found)\n"
        "print('tty', os.ttyname(os.open('/dev/tty', os.O_RDWR)))\n",
        inside.outer,
    )  # fmt: skip
    assert got.pop("proc") == "0"
    assert got.pop("tty") not in ("", inside.outer)
    assert len(got) == 12
    assert not [result for result in got.values() if result.startswith("DONE")], got
    inside.finish()


def test_input_pushed_into_the_terminal_is_recorded_like_typed(inside: Inside) -> None:
    # TIOCSTI where the kernel still has it: it reaches the shell's terminal, no other.
    inside.attack(
        "fd = os.open('/dev/tty', os.O_RDWR)\n"
        "for c in b'echo pushed-$((40+2))\\n':\n"
        "    try:\n"
        "        fcntl.ioctl(fd, termios.TIOCSTI, bytes([c]))\n"
        "    except OSError:\n"
        "        pass\n"
    )  # fmt: skip
    inside.login.run("true")
    inside.finish()


def test_spool_log_and_notes_cannot_be_reached(inside: Inside) -> None:
    inside.login.run("echo something to spool")
    got = inside.attack(
        "for folder in ('/var/spool/ttyscribe', '/var/log/ttyscribe', '/run/ttyscribe/outer'):\n"
        "    tried(f'{folder}-list', os.listdir, folder)\n"
        "    tried(f'{folder}-create', os.open, folder + '/x', os.O_CREAT | os.O_WRONLY)\n"
        "    tried(f'{folder}-symlink', os.symlink, '/etc/passwd', folder + '/y')\n"
        "    tried(f'{folder}-rename', os.rename, folder, folder + '.old')\n"
        "    tried(f'{folder}-chmod', os.chmod, folder, 0o777)\n"
        "    tried(f'{folder}-rmdir', os.rmdir, folder)\n"
        "for name in sys.argv[1:]:\n"
        "    tried(f'{name}-read', os.open, name, os.O_RDONLY)\n"
        "    tried(f'{name}-write', os.open, name, os.O_WRONLY)\n"
        "    tried(f'{name}-unlink', os.unlink, name)\n"
        "    tried(f'{name}-truncate', os.truncate, name, 0)\n"
        "    tried(f'{name}-link', os.link, name, os.path.expanduser('~/hard'))\n",
        inside.machine.log, *Path(SPOOL).iterdir(),
    )  # fmt: skip
    assert len(got) == 18 + 5 * (1 + len(os.listdir(SPOOL)))
    assert set(got.values()) <= {"EACCES", "EPERM"}, got
    inside.finish()


def test_the_socket_and_the_locks_cannot_be_replaced(inside: Inside) -> None:
    entries = [str(path) for path in Path(lock.SERVICE_FOLDER).iterdir()]
    assert entries
    got = inside.attack(
        "sock, own = sys.argv[1:3]\n"
        "os.close(os.open(own, os.O_CREAT | os.O_WRONLY))\n"
        "new = os.path.dirname(sys.argv[3]) + '/new'\n"
        "tried('new', os.open, new, os.O_CREAT | os.O_WRONLY)\n"
        "tried('unlink', os.unlink, sock)\n"
        "tried('rename', os.rename, sock, sock + '.old')\n"
        "tried('chmod', os.chmod, sock, 0o600)\n"
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        "tried('bind', s.bind, sock)\n"
        "tried('beside', s.bind, sock + '.2')\n"
        "tried('over', os.rename, own, sock)\n"
        "for name in sys.argv[3:]:\n"
        "    tried(f'{name}-unlink', os.unlink, name)\n"
        "    tried(f'{name}-rename', os.rename, name, name + 'x')\n"
        "    tried(f'{name}-write', os.open, name, os.O_WRONLY)\n"
        "    tried(f'{name}-over', os.rename, own, name)\n",
        SOCKET, lock.FOLDER + "/own", *entries,
    )  # fmt: skip
    assert len(got) == 7 + 4 * len(entries)
    assert set(got.values()) <= {"EACCES", "EPERM", "EADDRINUSE"}, got
    Path(lock.FOLDER, "own").unlink()
    inside.finish()


def test_planted_locks_and_links_leave_the_next_login_recorded(inside: Inside, user: User) -> None:
    planted = inside.user.home / "planted"
    code = (
        "import os, socket, sys\n"
        "from ttyscribe.session import lock\n"
        "folder = lock.FOLDER\n"
        "registry = lock._Registry(folder)\n"
        "dev = os.stat('/dev/pts').st_dev\n"
        "for number in range(64):\n"
        "    key = lock._terminal_key(dev, os.makedev(136, number))\n"
        "    registry.add(key, 'x')\n"
        "    os.symlink('/etc/shadow', f'{folder}/{key}.00000000000000000001-1')\n"
        "    os.mkfifo(f'{folder}/{key}.00000000000000000002-1')\n"
        "    os.mkdir(f'{folder}/{key}.00000000000000000003-1')\n"
        "open(sys.argv[1], 'w').close()\n"
        "sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-I", "-c", code, str(planted)],
        user=user.uid, group=user.gid, extra_groups=[], stdin=subprocess.PIPE,
    )  # fmt: skip
    try:
        wait_until(lambda: planted.exists() or holder.poll() is not None, "nothing is planted")
        assert holder.poll() is None
        with Login(user) as login:
            assert login.run("echo second").endswith("second\n")
            login.exit()
            seen = login.seen
    finally:
        holder.communicate()
        planted.unlink()
        for path in Path(lock.FOLDER).iterdir():
            if path.lstat().st_uid == user.uid:
                path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    assert seen in recorded(inside.machine, recording_of=user)


# Registers a pty of its own as recorded, and becomes another user on it.
SU_ON_A_CLAIMED_TERMINAL = """\
import os, pty, select, sys
from ttyscribe.session import lock
master, slave = os.openpty()
device = os.fstat(slave)
registry = lock._Registry(lock.FOLDER)
entry = registry.add(lock._terminal_key(device.st_dev, device.st_rdev), "x")
if os.fork() == 0:
    os.login_tty(slave)
    os.execv("/bin/su", ["su", "-", sys.argv[1]])
seen = b""
for wait, say in ((b"assword", b"secret-pw"), (b"$ ", b"echo in-$((40+2)); exit")):
    while wait not in seen:
        assert select.select([master], [], [], 10)[0], seen
        seen += os.read(master, 65536)
    os.write(master, say + b"\\n")
os.wait()
print("in-42" in os.read(master, 65536).decode())
"""


def test_a_lock_of_the_users_making_leaves_their_su_to_another_recorded(
    machine: Machine, service: subprocess.Popen[bytes], user: User, other: User
) -> None:
    machine.messages()
    set_password(user)
    done = as_user(other, SU_ON_A_CLAIMED_TERMINAL, user.name)
    assert done.stdout == "True\n", done
    assert "in-42" in "".join(map(bytes.decode, recorded(machine, recording_of=user)))
    for path in Path(lock.FOLDER).iterdir():
        path.unlink()


def set_password(user: User) -> None:
    account = f"{user.name}:secret-pw\n"
    subprocess.run(["chpasswd"], input=account, text=True, check=True)


def test_a_session_without_its_terminal_can_not_open_it_by_name(
    machine: Machine, service: subprocess.Popen[bytes], user: User, other: User
) -> None:
    machine.messages()
    set_password(user)
    inner = "PS1=in: bash --norc -i </dev/tty >/dev/tty 2>&1 || echo no terminal"
    with Login(other, ["--norc"], shell=Path("/bin/bash")) as login:
        login.expect(rb"\$ ")
        login.line(
            f"echo secret-pw | su - {user.name} --session-command '{inner}' >out 2>/dev/null;"
            " printf '<%s>\\n' end"
        )
        login.expect(rb"in:|<end>")
        assert b"in:" not in login.seen.partition(b"end\r\n")[2]
        assert login.run("cat out; rm out").endswith("no terminal\n")
        login.exit()
    (shown,) = recorded(machine, recording_of=user)
    # What bash says of it may come before or behind: it takes another way.
    assert b"no terminal\n" in shown


def test_files_in_the_shared_lock_folder_slow_no_login_down(
    machine: Machine, service: subprocess.Popen[bytes], user: User, other: User
) -> None:
    machine.messages()
    before = quickest(other)
    code = (
        "import os, sys\n"
        "for number in range(40000):\n"
        "    os.close(os.open(f'{sys.argv[1]}/x-{number}-1', os.O_CREAT | os.O_WRONLY))\n"
    )
    try:
        as_user(user, code, lock.FOLDER)
        assert quickest(other) < 3 * before
    finally:
        for path in Path(lock.FOLDER).iterdir():
            path.unlink()
    machine.messages()


def quickest(user: User) -> float:
    """How long the quickest of some logins takes, in seconds."""
    times = []
    for _ in range(5):
        begin = time.monotonic()
        with Login(user, ["-c", "true"]) as login:
            assert login.finish() == 0
        times.append(time.monotonic() - begin)
    return min(times)


def test_a_client_of_the_users_own_is_recorded_as_the_user(inside: Inside) -> None:
    got = inside.attack(
        "s = connect()\n"
        "packet, rights, _, _ = hello(s, [0, 1, 2])\n"
        "print('answer', packet[:1].decode())\n"
        "sys.stdout.flush()\n"
        "leave_terminal()\n"
        "s2 = connect()\n"
        "null = os.open('/dev/null', os.O_RDWR)\n"
        "packet, rights, _, _ = hello(s2, [null] * 3)\n"
        "print('pipes', packet[:1].decode(), len(rights))\n"
    )
    # On its own terminal it is within what is recorded; elsewhere it is a session of its own.
    assert got["answer"] == "B"
    assert got["pipes"].startswith("R")
    inside.finish()  # which asserts whose recordings these are


def test_a_greeting_said_again_ends_the_session_it_was_said_in(inside: Inside) -> None:
    got = inside.attack(
        "leave_terminal()\n"
        "s = connect()\n"
        "null = os.open('/dev/null', os.O_RDWR)\n"
        "packet, rights, _, _ = hello(s, [null] * 3)\n"
        "print('first', packet[:1].decode())\n"
        "try:\n"
        "    packet, rights, _, _ = hello(s, [null] * 3)\n"
        "except OSError:\n"
        "    packet = b''\n"
        "print('second', (packet[:1] or b'end').decode())\n"
    )
    assert got["first"] == "R" and got["second"] in ("D", "end")
    inside.finish()


def test_descriptors_sent_later_do_not_stay_with_the_recorder(
    inside: Inside, machine: Machine, service: subprocess.Popen[bytes]
) -> None:
    got = inside.attack(
        "leave_terminal()\n"
        "s = connect()\n"
        "null = os.open('/dev/null', os.O_RDWR)\n"
        "master, terminal = os.openpty()\n"
        "hello(s, [terminal] * 3)\n"
        "for _ in range(20):\n"
        "    s.sendmsg([b'W'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS,"
        " array.array('i', [null] * 250))])\n"
        "me, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        "s.sendmsg([b'W'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS,"
        " array.array('i', [s.fileno(), me.fileno()]))])\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    for fd in (0, 1, 2): os.close(fd)\n"
        "    time.sleep(60)\n"
        "    os._exit(0)\n"
        "print('held', pid)\n"
    )
    second = max(machine.sessions(service))
    assert second != inside.recorder
    assert len(os.listdir(f"/proc/{second}/fd")) < 30
    os.kill(int(got["held"]), signal.SIGKILL)
    inside.finish()


def test_the_environment_of_a_login_changes_nothing_in_the_client(
    machine: Machine, service: subprocess.Popen[bytes], user: User, tmp_path: Path
) -> None:
    machine.messages()
    evil = user.home / "evil"
    marker = user.home / "ran"
    # An earlier try of this test may have left them.
    shutil.rmtree(evil, ignore_errors=True)
    marker.unlink(missing_ok=True)
    evil.mkdir()
    source = tmp_path / "evil.c"
    source.write_text(
        "#include <stdio.h>\n"
        "__attribute__((constructor)) static void run(void) {\n"
        '    char comm[64] = "";\n'
        '    FILE *f = fopen("/proc/self/comm", "r");\n'
        "    if (f) { fgets(comm, sizeof comm, f); fclose(f); }\n"
        f'    f = fopen("{marker}", "a");\n'
        "    if (f) { fputs(comm, f); fclose(f); }\n"
        "}\n"
    )
    subprocess.run(["cc", "-shared", "-fPIC", "-o", evil / "evil.so", source], check=True)
    for name in ("os", "site", "sitecustomize", "usercustomize", "ttyscribe", "_socket", "fcntl"):
        (evil / f"{name}.py").write_text(f"open('{marker}', 'a').write('python module {name}\\n')")
    for name in ("python3", "bash", "ttyscribe-wait", "env", "sh"):
        (evil / name).write_text(f"#!/bin/sh\necho path {name} >> {marker}\n")
        (evil / name).chmod(0o755)
    hostile = {
        "LD_PRELOAD": str(evil / "evil.so"),
        "LD_AUDIT": str(evil / "evil.so"),
        "LD_LIBRARY_PATH": str(evil),
        "PYTHONPATH": str(evil),
        "PYTHONHOME": str(evil),
        "PYTHONSTARTUP": str(evil / "os.py"),
        "PYTHONUSERBASE": str(evil),
        "PYTHONINSPECT": "1",
        "PYTHONBREAKPOINT": "os.system",
        "GCONV_PATH": str(evil),
        "LOCPATH": str(evil),
        "NLSPATH": str(evil / "%N"),
        "LC_ALL": "../../../../" + str(evil),
        "PATH": f"{evil}:/usr/bin:/bin",
        "IFS": "/",
        "BASH_ENV": "/dev/null",
        "TLOG_REC_SESSION_SHELL": str(evil / "sh"),
        "TTYSCRIBE_SOCKET": str(evil / "sock"),
        "XDG_CONFIG_HOME": str(evil),
        "XDG_STATE_HOME": str(evil),
    }
    with Login(user, env=hostile) as login:
        login.expect(rb"\$ ")
        login.line("builtin echo in; exit 5")
        status = login.finish()
        seen = login.seen
    ran = marker.read_text().splitlines() if marker.exists() else []
    # The shell is the user's own, and may do what they want in it.
    assert [line for line in ran if line.startswith(("python", "ttyscribe", "path"))] == [], ran
    if status == 5:
        assert seen in recorded(machine, recording_of=user)
    else:
        assert b"ttyscribe: " in seen and b"in\r\n" not in seen


def test_no_setting_of_the_users_turns_recording_off(
    machine: Machine, service: subprocess.Popen[bytes], user: User
) -> None:
    machine.messages()
    own = user.home / "own.conf"
    text = json.dumps({"session_recording": {"scope": "none"}, "service": "off"})
    own.write_text(text)
    for env in ({"TLOG_REC_SESSION_CONF_TEXT": text}, {"TLOG_REC_SESSION_CONF_FILE": str(own)}):
        with Login(user, ["-c", "echo in"], env=env) as login:
            login.finish()
        assert login.seen in recorded(machine, recording_of=user)


@pytest.fixture
def flooder(machine: Machine) -> Iterator[User]:
    """A user whom the service turns away for a while in the end."""
    with make_user("ttyscribe-flood") as user:
        yield user


def test_ten_thousand_connections_keep_nobody_out(
    machine: Machine, service: subprocess.Popen[bytes], other: User, flooder: User
) -> None:
    machine.messages()
    code = (
        "import resource, socket, sys, time\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))\n"
        "held, made = [], 0\n"
        "end = time.monotonic() + 25\n"
        "while made < 10000 and time.monotonic() < end:\n"
        "    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        "    s.setblocking(False)\n"
        "    try:\n"
        "        s.connect(sys.argv[1])\n"
        "        made += 1\n"
        "        held.append(s)\n"
        "    except BlockingIOError:\n"
        "        pass\n"
        "    if len(held) > 600: held.pop(0)\n"
        "print(made)\n"
    )
    flood = subprocess.Popen(
        [sys.executable, "-I", "-c", code, str(SOCKET)],
        user=flooder.uid, group=flooder.gid, extra_groups=[], stdout=subprocess.PIPE,
    )  # fmt: skip
    slowest = 0.0
    logins = 0
    most = 0
    while flood.poll() is None or not logins:
        begin = time.monotonic()
        with Login(other, ["-c", "echo in"]) as login:
            assert login.finish() == 0, login.seen
        slowest = max(slowest, time.monotonic() - begin)
        most = max(most, len(machine.sessions(service)))
        logins += 1
    made = int(flood.communicate()[0])
    print(f"{made} connections; meanwhile {logins} logins, the slowest in {slowest:.2f} s")
    assert made == 10_000
    assert most <= 256 + 2
    assert slowest < 15
    wait_until(lambda: machine.sessions(service) == [], "children stay")
    assert len(recorded(machine, recording_of=other)) == logins


def test_a_fork_bomb_in_a_session_leaves_it_recorded(inside: Inside) -> None:
    got = inside.attack(
        "import resource\n"
        "resource.setrlimit(resource.RLIMIT_NPROC, (80, 80))\n"
        "made = 0\n"
        "try:\n"
        "    while made < 1000:\n"
        "        if os.fork() == 0:\n"
        "            time.sleep(60)\n"
        "            os._exit(0)\n"
        "        made += 1\n"
        "except OSError as error:\n"
        "    print('stopped', errno.errorcode[error.errno])\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "os.killpg(0, signal.SIGTERM)\n"
    )
    assert got["stopped"] == "EAGAIN"
    assert inside.login.run("echo after the bomb") == "after the bomb\n"
    assert b"after the bomb" in inside.finish()


def test_a_flood_of_output_does_not_fill_the_spool(inside: Inside) -> None:
    most = 0
    inside.login.expect(rb"\$ ")
    inside.login.line("seq 400000; echo flood-$((40+2))")
    end = time.monotonic() + 60
    while b"flood-42" not in inside.login.seen and time.monotonic() < end:
        assert inside.login._read(5)
        sizes = [path.stat().st_size for path in Path(SPOOL).iterdir() if path.exists()]
        most = max(most, sum(sizes))
    assert most < 64 << 20
    inside.login.expect(rb"flood-42\r\n")
    inside.finish()


def test_output_that_looks_like_the_recordings_own_messages_is_kept(inside: Inside) -> None:
    rec = recording_id(inside.client)
    forged = {"ver": "2.3", "host": "h", "rec": rec, "user": inside.user.name, "term": "dumb",
              "session": 1, "id": 1, "pos": 0, "time": 0.0, "timing": "=80x24>6",
              "in_txt": "", "in_bin": [], "out_txt": "HIDDEN", "out_bin": []}  # fmt: skip
    line = json.dumps(forged, separators=(",", ":"))
    (inside.user.home / "forged").write_text(f"{line}\n" * 20)
    inside.login.run(f"echo {rec}")
    printed = inside.login.run("cat ~/forged; cat ~/forged")
    assert printed.count("HIDDEN") == 40
    # finish asserts that all of what was seen is in the recording.
    assert inside.finish().count(b"HIDDEN") >= 40


def test_titles_clocks_and_control_sequences_change_no_recording(inside: Inside) -> None:
    got = inside.attack(
        "tried('clock', time.clock_settime, time.CLOCK_REALTIME, 0)\n"
        "sys.stdout.write('\\x1b]0;title\\x07\\x1b[8m\\x1bc\\x00\\x9b\\r\\n')\n"
    )
    assert got["clock"] == "EPERM"
    inside.login.run("TZ=Asia/Tokyo date -s @0 >/dev/null 2>&1; true")
    assert b"\x1b]0;title\x07" in inside.finish()


def test_a_traced_login_shell_is_refused(
    machine: Machine, service: subprocess.Popen[bytes], user: User
) -> None:
    # The interpreter may be traced until it says that it must not be.
    code = (
        "import ctypes, os, sys\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "read, write = os.pipe()\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    os.dup2(write, 1); os.dup2(write, 2)\n"
        "    libc.ptrace(0, 0, 0, 0)\n"  # PTRACE_TRACEME
        "    os.execv(sys.argv[1], ['-x', '-c', 'echo in'])\n"
        "os.close(write)\n"
        "while True:\n"
        "    _, status = os.waitpid(pid, 0)\n"
        "    if not os.WIFSTOPPED(status): break\n"
        "    libc.ptrace(7, pid, 0, 0)\n"  # PTRACE_CONT
        "sys.stdout.write(os.read(read, 65536).decode())\n"
    )
    done = as_user(user, code, str(LAUNCHER))
    assert "is being traced" in done.stdout, done
    assert "in\n" not in done.stdout.splitlines(keepends=True)
