# SPDX-License-Identifier: Apache-2.0
"""The recording login shell against bash: the same entries, the same results, line by line."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import pwd
import random
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.driving import Terminal, wait_until
from tests.system.comparing import (
    AS_USER,
    TIMEOUT,
    asleep,
    compared,
    ended,
    root_prompt,
    screen,
    without_notices,
)
from tests.system.ownmachine import CONFIG, LAUNCHER, USER, OwnMachine, own_machine
from tests.system.sides import PATH, Result, Side, Sshd

from ttyscribe.events import INPUT, OUTPUT
from ttyscribe.tlog import Decoder

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnMachine]:
    with own_machine(tmp_path_factory.mktemp("machine")) as machine:
        machine.add_user(USER)
        yield machine


# What a login shell is asked: as `ssh host COMMAND`.
COMMANDS = {
    "exit 0": "exit 0",
    "exit 1": "exit 1",
    "exit 255": "exit 255",
    "no such command": "no-such-command",
    "syntax error": "if",
    "out and err apart": "echo out; echo err >&2; echo out again; printf 'no line end'",
    "name and options": 'echo "$0" "$#" "$-"; shopt login_shell; echo "$SHELL"',
    "arguments": 'tr "\\0" "\\n" </proc/$$/cmdline; true',
    "environment": "env | sort",
    "umask, folder, nice": "umask; pwd; nice; ulimit -a; ulimit -Ha",
    "limits": "grep -v '^Max pending' /proc/$$/limits; cat /proc/$$/oom_score_adj"
    " /proc/$$/coredump_filter /proc/$$/timerslack_ns /proc/$$/cgroup",
    "status": "grep -E '^(Umask|Uid|Gid|Groups|NoNewPrivs|Seccomp|Cap|Cpus_allowed)'"
    " /proc/$$/status; stat -c %U:%G /proc/$$",
    # Without a child, for which bash changes its own signals.
    "signals": "while read -r name value; do case $name in SigPnd*|ShdPnd*|SigBlk*|SigIgn*|SigCgt*)"
    ' echo "$name $value";; esac; done </proc/$$/status; trap',
    "signals of a child": "grep -E '^(SigPnd|ShdPnd|SigBlk|SigIgn|SigCgt)' /proc/self/status",
    "descriptors": "readlink /proc/$$/fd/0 /proc/$$/fd/1 /proc/$$/fd/2;"
    " for n in 3 4 5 6 7 8 9 10 11 12; do [ -e /proc/$$/fd/$n ] && echo $n; done",
    "access modes": "for n in 0 1 2; do grep flags /proc/$$/fdinfo/$n; done",
    "session and group": "read -r pid comm state parent group session tty foreground rest"
    " </proc/$$/stat; [ $pid = $session ] && echo leads its session;"
    " [ $pid = $group ] && echo leads its group; [ $group = $foreground ] && echo foreground;"
    " [ $tty = 0 ] && echo no terminal; tty; (exec 9<>/dev/tty) 2>&1 | sed 's/.*: //'",
    "signal to the group": "kill -TERM 0; echo not reached",
    "signal to its group": "kill -KILL -$$; echo not reached",
    "signal to the parent's child": "sh -c 'kill -HUP $PPID'; echo not reached",
    "background": "(sleep 0.3; echo late; echo late too >&2) & echo first",
    "disowned": "sleep 0.2 & disown; echo first; exit 4",
    "detached": "(sleep 0.4; echo alive) </dev/null >/dev/null 2>&1 & echo first",
    "input ends at once": "cat; echo eof",
    "sub shell": "bash -c 'exit 9'; echo $?; (exit 8); echo $?; false | true; echo $?",
    "many lines": "seq 1 20000",
    "both many lines": "seq 1 5000; seq 1 5000 >&2",
    "bytes": "printf '\\000\\377\\376\\200a\\r\\n\\033[31m'",
    "locale": "locale 2>&1; LC_ALL=de_DE.ISO-8859-1 printf 'x\\344\\n'",
    "replaced": "exec sh -c 'exit 5'",
    "utmp": "who am i",
    "name of the terminal": '[ "$SSH_TTY" = "$(tty)" ] && echo the same; echo shown >$SSH_TTY',
}
SIGNALS = ("TERM", "KILL", "HUP", "INT", "QUIT", "PIPE", "USR1", "SEGV", "XFSZ", "RTMIN")
COMMANDS |= {f"kill -{name}": f"echo before; kill -{name} $$; echo after" for name in SIGNALS}

# And as the input of `ssh host`, for a shell that reads what it is to do.
SCRIPTS = {
    "nothing": "",
    "exit 3": "echo hello\nexit 3\n",
    "no line end": "echo hello",
    "login shell": 'echo "$0" "$-"; shopt login_shell; tty; echo "$PS1"\n',
    "reads its own input": "cat\nfirst\nsecond\n",
    "head": "head -c 3\nabcdef\necho rest\n",
    "dies": "echo one\nkill -TERM $$\necho two\n",
    "syntax error": "echo one\nfi\necho two\n",
    "environment": "env | sort\n",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_ssh_with_a_command(bash: Side, ours: Side, name: str) -> None:
    compared(bash, ours, lambda side: side.ssh(COMMANDS[name]))


@pytest.mark.parametrize("name", SCRIPTS)
def test_ssh_with_commands_on_its_input(bash: Side, ours: Side, name: str) -> None:
    compared(bash, ours, lambda side: side.ssh(data=SCRIPTS[name].encode()))


# Without a local terminal a person's own ssh -t is ssh -tt.
ON_A_TERMINAL = [
    "exit 0", "exit 255", "out and err apart", "name and options", "arguments", "environment",
    "umask, folder, nice", "limits", "status", "signals", "signals of a child", "descriptors",
    "access modes", "session and group", "signal to the group", "signal to its group",
    "signal to the parent's child", "many lines", "bytes", "replaced", "kill -TERM", "kill -KILL",
    "kill -HUP", "kill -INT", "utmp", "name of the terminal",
]  # fmt: skip


@pytest.mark.parametrize("name", [*ON_A_TERMINAL, "stty -a; stty size"])
def test_ssh_t_with_a_command(bash: Side, ours: Side, name: str) -> None:
    command = COMMANDS.get(name, name)
    compared(bash, ours, lambda side: side.ssh(command, options=["-tt"]), terminal=True)


def test_ssh_T_and_n_and_from_a_file(bash: Side, ours: Side, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.write_text("one\ntwo\n")

    def from_file(side: Side) -> Result:
        with open(data, "rb") as file:
            return side.ssh("cat; echo end", stdin=file, data=None)

    compared(bash, ours, lambda side: side.ssh("cat; tty", options=["-T"], data=b"input"))
    compared(bash, ours, lambda side: side.ssh("cat; tty", options=["-n"], data=b"input"))
    compared(bash, ours, from_file)


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 65536, 3_000_000, 50_000_000])
def test_binary_data_passes_both_ways(bash: Side, ours: Side, tmp_path: Path, size: int) -> None:
    data = tmp_path / "data"
    data.write_bytes(random.Random(size).randbytes(size))

    def copy(side: Side) -> Result:
        with open(data, "rb") as stdin, open(tmp_path / side.name, "wb") as out:
            result = side.ssh("cat", stdin=stdin, data=None, out=out)
        digest = hashlib.sha256((tmp_path / side.name).read_bytes()).hexdigest()
        return Result(digest.encode(), result.err, result.status)

    compared(bash, ours, copy)
    assert (tmp_path / ours.name).read_bytes() == data.read_bytes()
    assert ours.log is not None
    ours.log.unlink()


ENTRIES: dict[str, Callable[[Side], Result]] = {
    "su -": lambda side: side.run(["su", "-", USER], data=b"echo $0 $-; pwd; exit 5\n"),
    "su": lambda side: side.run(["su", USER], data=b"echo $0; pwd; exit 6\n"),
    "su - -c": lambda side: side.run(["su", "-", USER, "-c", "echo $0; env | sort; exit 7"]),
    "su -c": lambda side: side.run(["su", USER, "-c", "cat; echo $0 $*", "a", "b"], data=b"in"),
    "su -m -c": lambda side: side.run(["su", "-m", USER, "-c", "pwd; echo $HOME; exit 3"]),
    "su -c killed": lambda side: side.run(["su", USER, "-c", "kill -TERM $$"]),
    "su -c dumped": lambda side: side.run(["su", USER, "-c", "kill -KILL $$"]),
    "sudo -i": lambda side: side.run(["sudo", "-u", USER, "-i"], data=b"env | sort\nexit 4\n"),
    "sudo -i command": lambda side: side.run(["sudo", "-u", USER, "-i", "echo", "a  b", "$0"]),
    "runuser -l": lambda side: side.run(["runuser", "-l", USER, "-c", "echo $0; exit 8"]),
    "as cron": lambda side: side.started(
        "-c", 'echo "$0"; env | sort; cat; echo err >&2; exit 9',
        env={"HOME": f"/home/{USER}", "LOGNAME": USER, "PATH": PATH, "SHELL": side.shell},
        stderr=subprocess.STDOUT,
    ),
    "by path": lambda side: side.run(
        ["setpriv", "--reuid", USER, "--regid", USER, "--clear-groups", side.shell,
         "-c", "echo $0; no-such-program; exit 9"]
    ),
    "empty environment": lambda side: side.started("-c", "echo $0; env | grep -v ^SHELL=", env={}),
    "login, empty environment": lambda side: side.started(login=True, env={}),
    "no TERM, other locale": lambda side: side.started(
        "-c", "printf 'n\\303\\244 \\344 ' ; echo $LANG; locale charmap",
        env={"LANG": "de_DE.ISO-8859-1", "HOME": f"/home/{USER}", "SHELL": side.shell},
    ),
    "environment with odd bytes": lambda side: side.started(
        "-c", "env | sort | od -c",
        env={"A": "\udcff\udcfe", "B": "l1\nl2", "PATH": PATH, "SHELL": side.shell, "_": "x"},
    ),
    "script and arguments": lambda side: side.started(
        "-c", 'printf "<%s>" "$0" "$@"', "name", "", "a b", "\udcff", "--", "-l"
    ),
    "options": lambda side: side.started("-e", "-u", "-c", "echo $-; false; echo no"),
    "stdin closed": lambda side: side.started("-c", "readlink /proc/$$/fd/0; cat", closed=[0]),
    "stdin a folder": lambda side: side.started(
        "-c", "readlink /proc/$$/fd/0; cat; ls /proc/$$/fd; exit 3", stdin=os.open("/", os.O_RDONLY)
    ),
    "stdout closed": lambda side: side.started("-c", "echo out; echo err >&2; exit 3", closed=[1]),
    "stderr closed": lambda side: side.started("-c", "echo out; echo err >&2; exit 3", closed=[2]),
    "all closed": lambda side: side.started("-c", "echo out; exit 3", closed=[0, 1, 2]),
    "stdin closed, login": lambda side: side.started(login=True, closed=[0]),
    "one file for out and err": lambda side: side.started(
        "-c", "for n in 1 2 3 4; do echo out $n; echo err $n >&2; done", stderr=subprocess.STDOUT
    ),
    "nice": lambda side: side.run(
        ["nice", "-n", "7", "su", USER, "-c", "nice; umask; ulimit -n -c -s"]
    ),
    "limited": lambda side: side.run(
        ["sh", "-c", f"umask 027; ulimit -n 64 -c 0; exec su {USER} -c 'umask; ulimit -n'"]
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ENTRIES)
def test_entry(bash: Side, ours: Side, name: str) -> None:
    compared(bash, ours, ENTRIES[name])


def test_a_limit_on_time_is_the_shells_and_not_the_recorders(bash: Side, ours: Side) -> None:
    line = "grep 'cpu time' /proc/self/limits; exec 2>&1; grep -c 'time *60 ' /proc/$PPID/limits"

    def limited(side: Side) -> Result:
        return side.started("-c", line, limits={resource.RLIMIT_CPU: 60})

    out = limited(bash).out.splitlines()
    ours.enter()
    found = limited(ours).out.splitlines()
    assert found[0] == out[0]
    # In the service another process records.
    assert ours.name == "service" or found[1] == b"0"


def test_sudo_needs_no_interpreter_where_the_service_records(ours: Side) -> None:
    """Though it gives SHELL twice."""
    ours.enter()
    line = "tr '\\0' ' ' </proc/$PPID/cmdline"
    shown = ours.run(["sudo", "-u", USER, "-i", "sh", "-c", line]).out
    assert shown.startswith(b"-ttyscribe-rec-session ") == (ours.name == "service")


@pytest.mark.parametrize("name", ["TERM", "KILL", "HUP", "PIPE", "USR1"])
def test_the_shells_death_by_signal_is_ours(bash: Side, ours: Side, name: str) -> None:
    number = signal.Signals[f"SIG{name}"]
    compared(bash, ours, lambda side: side.started("-c", f"kill -{name} $$"))
    assert ours.started("-c", f"kill -{name} $$").status == -number


def test_a_reader_that_goes_away_ends_the_writer(bash: Side, ours: Side) -> None:
    def cut_off(side: Side) -> Result:
        with side.start("-c", "yes; echo $? >&2; exit 4") as process:
            assert process.stdout is not None
            first = process.stdout.read(4)
            process.stdout.close()
            process.stdout = None
            _, err = process.communicate(timeout=30)
        return Result(first, err, process.returncode)

    compared(bash, ours, cut_off)


def test_who_waits_for_its_reader_to_go_away_sees_it(bash: Side, ours: Side) -> None:
    """tail -f watches its output for that, also while it has nothing to write."""

    def piped(side: Side) -> Result:
        line = f"su {USER} -c 'echo up; exec tail -f /dev/null' | head -n 1"
        return side.run(["bash", "-c", line + "; echo ${PIPESTATUS[0]}"])

    compared(bash, ours, piped)

    def closed(side: Side) -> Result:
        # tail does not do so with a socket, which sshd makes of it.
        waits = "import select; p = select.poll(); p.register(1, 0); exit(not p.poll(9000))"
        reader, theirs = socket.socketpair()
        with theirs:
            process = side.start(
                "-c", f"echo up; exec /usr/bin/python3 -c '{waits}'", stdout=theirs
            )
        shown = reader.recv(3)
        reader.close()
        return Result(shown, b"", process.wait(30))

    compared(bash, ours, closed)


def test_what_goes_to_another_terminal_arrives_there(bash: Side, ours: Side) -> None:
    def apart(side: Side) -> Result:
        with contextlib.ExitStack() as stack:
            master, slave = os.openpty()
            stack.callback(os.close, master)
            with open(slave, "wb", 0) as other:
                shown = side.on_terminal("-c", "echo out; echo err >&2", stderr=other)
            return Result(shown.out, os.read(master, 64), shown.status)

    compared(bash, ours, apart, terminal=True)


CLOSES = {
    "stdout": (1, "exec >&-"),
    "stderr": (2, "exec 2>/dev/null"),
    "both": (1, "exec >/dev/null 2>&1"),
    "an inherited one": (5, "exec 5>&-"),
}


@pytest.mark.parametrize("name", CLOSES)
def test_the_end_of_what_the_shell_closes_is_seen_while_it_goes_on(
    bash: Side, ours: Side, name: str
) -> None:
    number, closes = CLOSES[name]
    command = f"echo out; {closes}; read x; exit 3"

    def closed(side: Side) -> Result:
        side.enter()
        read, write = os.pipe()
        others = subprocess.DEVNULL
        with open(read, "rb") as reader:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {AS_USER} -c '{command}' {number}>&{write} {write}>&-"],
                env={"PATH": PATH, "SH": side.shell}, pass_fds=[write], start_new_session=True,
                stdin=subprocess.PIPE, stdout=others, stderr=others,
            )  # fmt: skip
            os.close(write)
            # To its end, before the shell is told to go on.
            shown = reader.read()
        assert process.stdin is not None
        process.stdin.write(b"on\n")
        process.stdin.close()
        return Result(shown, b"", process.wait(TIMEOUT))

    compared(bash, ours, closed)


def test_who_writes_what_the_shell_has_closed_sees_it(bash: Side, ours: Side) -> None:
    def written(side: Side) -> Result:
        script = "exec <&-; echo closed; sleep 1016"
        with side.start("-c", script, stdin=subprocess.PIPE) as process:
            assert process.stdin is not None and process.stdout is not None
            shown = process.stdout.readline()
            with pytest.raises(BrokenPipeError):
                while True:
                    os.write(process.stdin.fileno(), bytes(4096))
            wait_until(lambda: side.machine.running("sleep", "1016", whole=True), "no job")
            for pid in side.machine.running("sleep", "1016", whole=True):
                os.kill(pid, signal.SIGKILL)
            return Result(shown, b"", process.wait(TIMEOUT))

    compared(bash, ours, written)


def test_signals_that_the_caller_blocked_stay_so_and_keep_no_session_from_its_end(
    bash: Side, ours: Side
) -> None:
    line = "import os, signal, sys; signal.pthread_sigmask(0, signal.valid_signals())"
    shell = "os.execv(sys.argv[1], ['-', '-c', 'grep SigBlk /proc/$$/status; exit 3'])"

    def blocked(side: Side) -> Result:
        account = pwd.getpwnam(USER)
        command = [sys.executable, "-c", f"{line}; {shell}", side.shell]
        env = {"HOME": account.pw_dir, "LOGNAME": USER, "PATH": PATH}
        done = subprocess.run(
            command, user=USER, group=account.pw_gid, extra_groups=[], env=env, cwd="/",
            capture_output=True, timeout=30, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return Result(done.stdout, done.stderr, done.returncode)

    compared(bash, ours, blocked)


def test_its_own_pipes_can_be_opened_by_name(bash: Side, ours: Side) -> None:
    """Where the caller's are the user's, as under cron."""
    line = "echo out >/dev/stdout; echo err >/dev/stderr; exit 3"

    def started(side: Side) -> Result:
        out, err = os.pipe(), os.pipe()
        uid = pwd.getpwnam(USER).pw_uid
        for fd in (out[1], err[1]):
            os.fchown(fd, uid, -1)
        with open(out[1], "wb") as stdout, open(err[1], "wb") as stderr:
            process = side.start("-c", line, stdout=stdout, stderr=stderr)
        with open(out[0], "rb") as shown, open(err[0], "rb") as told:
            return Result(shown.read(), told.read(), process.wait(30))

    compared(bash, ours, started)


@pytest.mark.parametrize(("command", "status"), [("seq 1 1000", 1), ("seq 1 1000; exit 5", 5)])
def test_output_that_no_disk_takes_is_told_and_is_no_success(
    ours: Side, command: str, status: int
) -> None:
    ours.enter()
    result = ours.run(["sh", "-c", f"su {USER} -c '{command}' >/dev/full"])
    assert result.status == status
    assert result.err.rstrip() == b"ttyscribe: output was lost: No space left on device"


def test_all_three_on_one_socket(bash: Side, ours: Side) -> None:
    def on_socket(side: Side) -> Result:
        here, there = socket.socketpair()
        with side.start(
            "-c", "cat; echo err >&2; echo out; test -S /proc/self/fd/1 && echo socket",
            stdin=there, stdout=there, stderr=there,
        ) as process:  # fmt: skip
            there.close()
            here.sendall(b"input\n")
            here.shutdown(socket.SHUT_WR)
            out = b""
            while data := here.recv(65536):
                out += data
            status = process.wait(30)
        return Result(out, b"", status)

    compared(bash, ours, on_socket)


LINES = "".join(f"{number}\n" for number in range(400_000))
SCRIPT = f"""\
su {USER} -c 'echo one'
su - {USER} -c 'echo $0'
sudo -u {USER} -i cat /dev/null
su {USER} -c 'head -c 5'
1234
su {USER} -c 'read x; echo got $x'
a line
echo on
su {USER} -c cat
the rest
of it
"""
A_LOT = f"""\
su {USER} -c 'head -c 1000000 | sha1sum'
su {USER} -c 'head -c 777; true' | sha1sum
head -c 7
su {USER} -c 'sleep .1'
su {USER} -c sha1sum
cat
"""
PARTLY_READ = {
    "script": ("bash -s", SCRIPT),
    "shell": ("bash -s", f"su - {USER}\necho $0\nexit 3\necho $? back\n"),
    "loop": (f'while read x; do su {USER} -c "echo $x"; done', "1\n2\n3\n4\n5\n"),
    "a lot of it": (A_LOT, LINES),
    "none": (f"su {USER} -c 'exec <&-; echo one'; su {USER} -c cat; su {USER} -c 'read x'", ""),
    "slowly": (
        f"su {USER} -c 'while head -c 9999 | grep -q .; do sleep .001; done'; cat", LINES[:500_000]
    ),
    "nested": (
        f"su {USER} -c \"exec $(getent passwd {USER} | cut -d: -f7) -c 'head -c 10'\"; sha1sum",
        LINES,
    ),
    "and closed": (f"su {USER} -c 'read x; exec <&-; echo $x'; cat", "a\nb\nc\n"),
}


def on_a_socket(side: Side, line: str, data: bytes) -> Result:
    here, there = socket.socketpair()
    process = subprocess.Popen(
        ["bash", "-c", line], stdin=there.fileno(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={"PATH": PATH + ":/usr/sbin:/sbin", "TERM": "xterm", "HOME": "/root"}, cwd="/",
        start_new_session=True,
    )  # fmt: skip
    there.close()

    def send() -> None:
        with here, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            # Not all that is read is there from the first.
            for at in range(0, len(data), max(64, len(data) // 4)):
                here.sendall(data[at : at + max(64, len(data) // 4)])
                time.sleep(0.1)
            here.shutdown(socket.SHUT_WR)
            process.wait(TIMEOUT)

    sender = threading.Thread(target=send)
    sender.start()
    out, err = process.communicate(timeout=TIMEOUT)
    sender.join()
    return Result(out, err, process.returncode)


@pytest.mark.parametrize("name", PARTLY_READ)
@pytest.mark.parametrize("logs_input", [False, True])
def test_what_a_command_leaves_of_its_input_is_its_starters(
    bash: Side, ours: Side, tmp_path: Path, name: str, logs_input: bool
) -> None:
    line, data = PARTLY_READ[name]
    values = ours.values

    def from_file(side: Side) -> Result:
        (tmp_path / "data").write_text(data)
        with open(tmp_path / "data", "rb") as file:
            return side.run(["bash", "-c", line], stdin=file)

    def from_pipe(side: Side) -> Result:
        return side.run(["bash", "-c", line], data=data.encode())

    try:
        ours.values = {**(values or {}), "log": {"input": logs_input}}
        compared(bash, ours, lambda side: on_a_socket(side, line, data.encode()))
        if not logs_input:
            compared(bash, ours, from_pipe)
        # Bash, too, reads ahead in a file, and is itself the shell there. Where input is
        # logged the outer one of two sessions makes a pipe of a file, and a pipe is read ahead.
        if name != "shell" and not (name == "nested" and logs_input):
            compared(bash, ours, from_file)
    finally:
        ours.values = values


def test_ignored_signals_stay_ignored(bash: Side, ours: Side) -> None:
    # As under nohup, and as systemd does with SIGPIPE for its services.
    script = "trap '' PIPE XFSZ HUP INT QUIT TERM; exec su %s -c 'grep SigIgn /proc/self/status'"
    compared(bash, ours, lambda side: side.run(["bash", "-c", script % USER]))


@pytest.mark.parametrize(
    "name", ["INT", "QUIT", "TERM", "HUP", "USR1", "USR2", "ALRM", "XCPU", "RTMAX", "CONT", "WINCH"]
)
def test_signal_sent_to_the_login_shell_reaches_the_shell(
    bash: Side, ours: Side, name: str
) -> None:
    def signalled(side: Side) -> Result:
        script = f"trap 'echo got it; exit 3' {name}; echo ready; while sleep 0.02; do :; done"
        with side.start("-c", script) as process:
            assert process.stdout is not None
            first = process.stdout.readline()
            os.kill(process.pid, signal.Signals[f"SIG{name}"])
            out, err = process.communicate(timeout=30)
        return Result(first + out, err, process.returncode)

    compared(bash, ours, signalled)


@pytest.mark.parametrize("as_a_job", [False, True])
@pytest.mark.parametrize("name", ["INT", "QUIT", "USR1", "ALRM", "XCPU", "RTMAX"])
def test_signal_sent_to_a_login_on_a_terminal_reaches_the_shell(
    bash: Side, ours: Side, name: str, as_a_job: bool
) -> None:
    """All but those that a terminal's end brings."""
    script = f"trap 'echo got it; exit 3' {name}; echo ready; while sleep 0.02; do :; done"

    def signalled(side: Side) -> Result:
        side.enter()
        command = f'{AS_USER} -c "{script}"'
        env = {"PATH": PATH + ":/usr/sbin:/sbin", "TERM": "dumb", "SH": side.shell, "PS1": "root# "}
        if as_a_job:
            command = f"set -m; {command}; exit $?"
        with Terminal(["bash", "--norc", "-c", command], env=env) as terminal:
            terminal.expect(rb"ready\r+\n")
            children = Path(f"/proc/{terminal.pid}/task/{terminal.pid}/children").read_text()
            login = int(children) if as_a_job else terminal.pid
            os.kill(login, signal.Signals[f"SIG{name}"])
            terminal.expect(rb"got it\r+\n")
            status = terminal.finish()
        return Result(screen(terminal), b"", status)

    compared(bash, ours, lambda side: without_notices(signalled(side)))


@pytest.mark.parametrize("how", ["su - {user} <{script}", "su {user} -c '. {script}' </dev/null"])
def test_a_resized_window_is_no_matter_of_a_session_that_is_not_on_it(
    bash: Side, ours: Side, tmp_path: Path, how: str
) -> None:
    script, out = tmp_path / "script", tmp_path / "out"
    for path in [tmp_path, *tmp_path.parents[:-2]]:
        path.chmod(0o755)
    go = Path(f"/home/{USER}/go")
    script.write_text(f"echo ready\nwhile [ ! -e {go} ]; do sleep 0.2; done\necho done\n")

    def resized(side: Side) -> Result:
        go.unlink(missing_ok=True)
        out.unlink(missing_ok=True)
        with root_prompt(side, term="xterm") as terminal:
            terminal.line(f"{how.format(user=USER, script=script)} >{out} 2>&1; echo st=$?.")
            wait_until(lambda: out.exists() and out.read_bytes(), "no shell")
            terminal.resize(30, 100)
            go.touch()
            status = terminal.expect(rb"st=(\d+)\.").group(1)
        return Result(out.read_bytes(), b"", int(status))

    compared(bash, ours, resized)


def test_interactive_session_looks_the_same(bash: Side, ours: Side) -> None:
    def session(side: Side) -> Result:
        side.enter()
        with side.ssh_terminal() as terminal:
            terminal.expect(rb"ready\$ ")
            for line in (
                "echo $0 $- $TERM $SHLVL $SHELL",
                "tty | tr 0-9 N",
                "stty -a",
                "cat <<end\nä €\nend",
                "sh -c 'exit 7'",
                "echo $?",
            ):
                for part in line.split("\n"):
                    terminal.line(part)
                    terminal.expect(rb"ready\$ |\?2004h> ")
            terminal.line("exit 5")
            status = terminal.finish()
        return Result(screen(terminal), b"", status)

    compared(bash, ours, session)


def test_each_login_counts_once_and_is_told_once_by_wall(bash: Side, ours: Side) -> None:
    """With the service. In direct mode the user may only add a record, by libutempter's helper."""

    def session(side: Side) -> Result:
        side.enter()

        def logins() -> int:
            return side.run(["who"]).out.count(USER.encode())

        before = logins()
        with side.ssh_terminal() as terminal:
            terminal.expect(rb"ready\$ ")
            terminal.line("who am i | cut -d' ' -f1")
            (user,) = terminal.expect(rb"[\r\n](\w+)\r\n.*ready\$ ").groups()
            counted = logins() - before
            side.run(["wall", "to all"])
            terminal.expect(rb"to all")
            terminal.line("echo typed-$((40+2))")
            terminal.expect(rb"typed-42\r\n")
            terminal.line("exit")
            terminal.finish()
            told = terminal.seen.count(b"to all")
        # sshd ends the record when the client is gone.
        wait_until(lambda: logins() == before, "it is still logged in")
        return Result(repr((user, counted, told)).encode(), b"", 0)

    if ours.name == "service":
        compared(bash, ours, session)
    else:
        assert session(ours).status == 0


def test_keyboard_signals_reach_the_foreground_job(bash: Side, ours: Side) -> None:
    def session(side: Side) -> Result:
        side.enter()
        with side.ssh_terminal() as terminal:
            terminal.expect(rb"ready\$ ")
            for job, key in (("1001", b"\x03"), ("1002", b"\x1c"), ("1003", b"\x1a")):
                terminal.line(f"sleep {job}")
                wait_until(lambda job=job: side.machine.running("sleep", job), "no job")
                terminal.send(key)
                terminal.expect(rb"ready\$ ")
                terminal.line("echo status $?")
                terminal.expect(rb"ready\$ ")
            terminal.line("jobs; fg")
            terminal.expect(rb"sleep 1003\r\n.*sleep 1003\r\n")
            # Before bash has given it the terminal, the key is bash's.
            wait_until(lambda: asleep(side, "1003"), "no job")
            terminal.send(b"\x03")
            terminal.expect(rb"ready\$ ")
            terminal.send(b"\x04")
            status = terminal.finish()
        return Result(screen(terminal), b"", status)

    compared(bash, ours, session)
    assert not ours.machine.running("sleep")


def starting(side: Side, *arguments: str) -> Terminal:
    """The login shell on a terminal, which has begun, and started no shell yet."""
    side.enter()
    account = ["--reuid", USER, "--regid", USER, "--clear-groups"]
    env = {"PATH": PATH, "TERM": "dumb", "HOME": f"/home/{USER}", "LOGNAME": USER}
    terminal = Terminal(["setpriv", *account, side.shell, *arguments], env=env, cwd="/")

    def holds_keys() -> bool:
        status = Path(f"/proc/{terminal.pid}/status").read_text()
        blocked = re.search(r"^SigBlk:\s*(\w+)", status, re.MULTILINE)
        assert blocked is not None
        return bool(int(blocked[1], 16) >> signal.SIGINT - 1 & 1)

    while not holds_keys():
        pass
    return terminal


@pytest.mark.parametrize("key", [b"\x03", b"\x1c"])
def test_no_key_ends_a_login_that_is_just_beginning(ours: Side, key: bytes) -> None:
    with starting(ours) as terminal:
        terminal.send(key)
        terminal.expect(rb"\$ ")
        terminal.line("echo typed-$((40+2)); exit 3")
        terminal.expect(rb"typed-42\r\n")
        assert terminal.finish() == 3
    assert b"Traceback" not in terminal.seen


def test_a_key_ends_a_command_that_is_just_beginning(ours: Side) -> None:
    """Not the one that sends QUIT, which bash ignores."""
    with starting(ours, "-c", "sleep 1015; echo on") as terminal:
        terminal.send(b"\x03")
        assert terminal.finish() == -signal.SIGINT
    assert without_notices(Result(terminal.seen, b"", 0)).out == b"^C"
    wait_until(lambda: all(ended(ours).values()), "a recording has no end")


TYPED_AHEAD = {
    "an end of file": ("cat; echo end", b"hello\n\x04"),
    "one in a line": ("wc -c; stty -a", b"hello\x04\x04"),
    "only that": ("cat; stty -a; echo end", b"\x04"),
    "lines behind it": ("cat; read x; echo got $x", b"one\ntwo\n\x04three\n"),
    "a long line": ("read x; echo ${#x}", b"x" * 4094 + b"\n"),
    "quoted keys": ("read -r x; echo ${#x}; read y; echo $y", b"a\x16\x03\x16\x04\x16\x15b\non\n"),
}


@pytest.mark.parametrize("name", TYPED_AHEAD)
def test_what_is_typed_before_the_shell_is_there_is_its_input(
    bash: Side, ours: Side, name: str
) -> None:
    command, keys = TYPED_AHEAD[name]

    def session(side: Side) -> Result:
        side.enter()
        master, slave = os.openpty()
        os.fchown(slave, pwd.getpwnam(USER).pw_uid, -1)
        os.write(master, keys)
        fds = {"stdin": slave, "stdout": slave, "stderr": slave}
        with side.start("-c", f"{command}; exit 4", **fds) as client:  # type: ignore[arg-type]
            os.close(slave)
            shown = b""
            with contextlib.suppress(OSError):
                while data := os.read(master, 65536):
                    shown += data
        os.close(master)
        return Result(shown, b"", client.returncode)

    compared(bash, ours, lambda side: without_notices(session(side)))


@pytest.mark.parametrize("first", [b"", b"one\n", b"one\x04\x04"])
def test_a_line_that_is_begun_before_the_shell_is_there_is_shown_once_and_goes_on(
    bash: Side, ours: Side, first: bytes
) -> None:
    read = "read x; echo got $x"
    command = f"{read if first else ''}\necho ready; {read}"

    def session(side: Side) -> Result:
        side.enter()
        master, slave = os.openpty()
        os.fchown(slave, pwd.getpwnam(USER).pw_uid, -1)
        os.write(master, first + b"begin\x16\x03ning")
        fds = {"stdin": slave, "stdout": slave, "stderr": slave}
        with side.start("-c", command, **fds) as client:  # type: ignore[arg-type]
            os.close(slave)
            shown = b""
            with contextlib.suppress(OSError):
                while data := os.read(master, 65536):
                    if b"ready" not in shown and b"ready" in shown + data:
                        os.write(master, b"\x7f\x7f, end\n")
                    shown += data
        os.close(master)
        return Result(shown, b"", client.returncode)

    compared(bash, ours, lambda side: without_notices(session(side)))


def test_what_is_typed_before_the_shell_is_there_is_recorded_as_such(ours: Side) -> None:
    """It is no password: the terminal has shown it."""
    values = ours.values
    before = set(ours.recordings())
    try:
        ours.values = {**(values or {}), "log": {"input": True}}
        ours.enter()
        master, slave = os.openpty()
        os.fchown(slave, pwd.getpwnam(USER).pw_uid, -1)
        os.write(master, b"a line\n")
        fds = {"stdin": slave, "stdout": slave, "stderr": slave}
        with ours.start("-c", "read x", **fds):  # type: ignore[arg-type]
            os.close(slave)
            with contextlib.suppress(OSError):
                while os.read(master, 65536):
                    pass
        os.close(master)
    finally:
        ours.values = values
    (rec,) = set(ours.recordings()) - before
    decoder = Decoder()
    events = [event for message in ours.recordings()[rec] for event in decoder.decode(message)]
    assert b"".join(data for _, kind, data in events if kind == INPUT) == b"a line\n"


def test_login_on_a_terminal(bash: Side, ours: Side) -> None:
    def session(side: Side) -> Result:
        argv = ["setsid", "-c", "-w", "login", "-f", USER]
        with Terminal(argv, env={"PATH": "/usr/bin:/bin:/usr/sbin", "TERM": "xterm"}) as terminal:
            terminal.expect(rb"ready\$ ")
            terminal.line("echo $0 $SHELL; pwd; umask")
            terminal.expect(rb"ready\$ ")
            terminal.line("exit 3")
            status = terminal.finish()
        return Result(screen(terminal), b"", status)

    compared(bash, ours, session)


def test_hang_up_ends_the_shell_and_its_job_and_spares_nohup(bash: Side, ours: Side) -> None:
    for side in (bash, ours):
        hang_up(side)
    wait_until(lambda: all(ended(ours).values()), "a recording has no end")


def hang_up(side: Side) -> None:
    running = side.machine.running
    side.enter()
    with side.ssh_terminal() as terminal:
        terminal.expect(rb"ready\$ ")
        for line in ("nohup sleep 2001 >/dev/null 2>&1 &", "sleep 2002 & disown", "sleep 2003 &"):
            terminal.line(line)
            terminal.expect(rb"ready\$ ")
        terminal.line("sleep 2004")
        wait_until(lambda: running("sleep", "2004"), "no job")
        terminal.kill(signal.SIGKILL)
        wait_until(lambda: not running("sleep", "2003"), f"{side.name}: the job goes on")
        wait_until(lambda: not running("sleep", "2004"), f"{side.name}: the job goes on")
        wait_until(lambda: not running("-bash"), f"{side.name}: the shell goes on")
    spared = running("sleep")
    assert len(spared) == 2, side.name
    for pid in spared:
        os.kill(pid, signal.SIGKILL)


def test_sigterm_to_the_recorder_ends_in_order(bash: Side, ours: Side) -> None:
    ours.enter()
    before = set(ours.recordings())
    with ours.ssh_terminal() as terminal:
        terminal.expect(rb"ready\$ ")
        terminal.line("echo $PPID.")
        recorder = int(terminal.expect(rb"[\r\n](\d+)\.\r\n").group(1))
        terminal.expect(rb"ready\$ ")
        terminal.line("echo last words")
        terminal.expect(rb"[\r\n]last words\r\n")
        os.kill(recorder, signal.SIGTERM)
        terminal.finish()
    wait_until(lambda: all(ended(ours).values()), "the recording has no end")
    (rec,) = set(ours.recordings()) - before
    decoder = Decoder()
    events = [event for message in ours.recordings()[rec] for event in decoder.decode(message)]
    assert b"last words" in b"".join(data for _, kind, data in events if kind == OUTPUT)


SHELLS = ("/bin/bash", "/bin/dash", "/bin/zsh", "/bin/tcsh", "/usr/bin/fish", "/bin/rbash")


@pytest.fixture(scope="module")
def symlinks(machine: OwnMachine) -> dict[str, str]:
    """By shell, the name of the login shell that stands for it."""
    folder = Path("/run/shells")
    folder.mkdir()
    names = {}
    for shell in SHELLS:
        name = folder / f"ttyscribe-rec-session-shell{shell.replace('/', '-')}"
        name.symlink_to(LAUNCHER)
        names[shell] = str(name)
    return names


@pytest.mark.parametrize("shell", SHELLS)
def test_shell(
    machine: OwnMachine, sshd: Sshd, ours: Side, symlinks: dict[str, str], shell: str
) -> None:
    base = shell.rpartition("/")[2]
    plain = Side(machine, sshd, f"plain-{base}", shell, None, None)
    recorded = Side(machine, sshd, f"{ours.name}-{base}", symlinks[shell], ours.values, ours.log)
    args = 'sh -c \'tr "\\0" "|" </proc/$PPID/cmdline; echo\'; '
    commands = (f"{args} echo hello; echo err >&2; exit 7", "no-such-command")
    try:
        for command in commands:
            compared(plain, recorded, functools.partial(by_command, command))
            compared(plain, recorded, functools.partial(by_input, command))
        compared(
            plain, recorded, lambda side: side.ssh("echo $SHELL; tty", options=["-tt"]),
            terminal=True,
        )  # fmt: skip
        compared(plain, recorded, lambda side: side.started("-c", "echo a; kill -TERM $$", "x"))
    finally:
        plain.disconnect()
        recorded.disconnect()


def by_command(command: str, side: Side) -> Result:
    return side.ssh(command)


def by_input(command: str, side: Side) -> Result:
    return side.ssh(data=f"{command}\n".encode())


def test_shell_that_is_missing_or_may_not_run(ours: Side, tmp_path: Path) -> None:
    assert ours.values is not None and ours.log is not None
    broken = Path("/run/broken-shell")
    broken.write_text("#!/bin/sh\n")
    broken.chmod(0o644)
    assert ours.ssh("true").status == 0
    for path, status, why in (("/run/no-shell", 127, b"not found"), (broken, 126, b"can't run")):
        ours.machine.configure({**ours.values, "shell": str(path)})
        for words in ((), ("true",)):
            result = ours.ssh(*words)
            assert result.status == status
            assert result.out == b""
            assert result.err.count(b"\n") == 1
            assert why in result.err
    assert CONFIG.exists()


def any_of(user: str) -> str:
    """A user's processes."""
    columns = "pid=,ppid=,stat=,etimes=,args="
    return subprocess.run(
        ["ps", "-o", columns, "-U", user], capture_output=True, text=True, check=False
    ).stdout


def test_a_user_who_may_start_no_process_is_told_so_and_the_recording_has_an_end(
    bash: Side, ours: Side
) -> None:
    ours.enter()
    before = set(ended(ours))
    # su itself would not get so far while the user has another process.
    bash.disconnect()
    ours.disconnect()
    subprocess.run(["pkill", "-KILL", "-U", USER], check=False)
    # One that is not reaped yet counts too.
    deadline = time.monotonic() + TIMEOUT
    while left := any_of(USER):
        assert time.monotonic() < deadline, f"processes of other tests do not end:\n{left}"
        time.sleep(0.05)
    result = ours.run(["prlimit", "--nproc=0", "su", USER, "-c", "echo out"])
    assert (result.out, result.err.count(b"\n")) == (b"", 1)
    # The one that records would be one more than the shell is alone.
    assert result.status == 1
    assert result.err.startswith(b"ttyscribe: login refused, because the session can't be rec")
    if ours.name == "direct":
        assert b"no more processes are allowed; raise their limit (ulimit -u)" in result.err
    else:
        assert b"no process or memory is left to start the shell" in result.err
    wait_until(
        lambda: [end for rec, end in ended(ours).items() if rec not in before] == [True],
        "the end of the recording",
    )


def test_jobs_of_a_closed_session_keep_no_channel(bash: Side, ours: Side) -> None:
    compared(
        bash, ours,
        lambda side: side.ssh("nohup sleep 0.5 >/dev/null 2>&1 </dev/null & echo done"),
    )  # fmt: skip


def test_sftp_works(bash: Side, ours: Side, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.write_bytes(os.urandom(300_000))

    def transfer(side: Side) -> Result:
        side.ssh("rm -f copy")
        back = tmp_path / f"back-{side.name}"
        config = str(side.sshd.folder / "ssh_config")
        batch = f"put {data} copy\nget copy {back}\nls -1 copy\n"
        result = side.run(["sftp", "-q", "-b", "-", "-F", config, "host"], data=batch.encode())
        assert back.read_bytes() == data.read_bytes()
        return Result(result.out.replace(str(back).encode(), b"back"), result.err, result.status)

    compared(bash, ours, transfer)


def test_git_transfers_are_counted_but_for_what_runs_its_users_own(
    ours: Side, tmp_path: Path
) -> None:
    ours.enter()
    name = f"{ours.name}-{tmp_path.name}.git"
    hook = f"{name}/hooks/pre-receive"
    assert ours.ssh(f"git init -q --bare {name}").status == 0
    work = tmp_path / "work"
    git = ["git", "-C", str(work), "-c", "user.name=a", "-c", "user.email=a@example.com"]
    subprocess.run(["git", "init", "-q", str(work)], check=True)
    environ = {**os.environ, "GIT_SSH_COMMAND": f"ssh -F {ours.sshd.folder}/ssh_config"}

    def transfer(*words: str) -> bytes:
        """Commit something, and transfer it; what is shown."""
        subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
        return subprocess.run([*git, *words], env=environ, stderr=-1, check=True).stderr

    def rules() -> list[object]:
        found = [message.extra or {} for made in ours.recordings().values() for message in made]
        return [extra["rule"] for extra in found if "rule" in extra and name in str(extra)]

    push = ("push", f"host:{name}", "HEAD:refs/heads/main")
    transfer(*push)
    wait_until(lambda: rules() == ["git-receive-pack"], "the push, counted")
    transfer("fetch", f"host:{name}", "main")
    wait_until(lambda: rules() == ["git-receive-pack", "git-upload-pack"], "the fetch, counted")
    script = b"#!/bin/bash\necho by the hook\n"
    assert ours.ssh(f"cat >{hook} && chmod +x {hook}", data=script).status == 0
    assert b"by the hook" in transfer(*push)
    log = ours.log
    assert log is not None
    wait_until(lambda: b"by the hook" in log.read_bytes(), "the hook's output, recorded")
    assert len(rules()) == 2
    # What this user calls safe is another's: only with their configuration git serves it.
    ours.ssh(f"rm {hook}; git config --global safe.directory '*'")
    subprocess.run(["chown", "-R", "root:root", pwd.getpwnam(USER).pw_dir + "/" + name], check=True)
    transfer("fetch", f"host:{name}", "main")
    ours.ssh("rm .gitconfig")
    assert len(rules()) == 2


def test_a_skipped_transfer_does_not_stand_for_the_sessions_recording(
    machine: OwnMachine, ours: Side, tmp_path: Path
) -> None:
    """Where one recording is enough for an audit session, which its channels share."""
    server = Sshd(tmp_path / "pam", pam=True)
    assert ours.values is not None and ours.log is not None
    values, log = {**ours.values, "lock": "session"}, ours.log
    side = Side(machine, server, ours.name, ours.shell, values, ours.log)
    try:
        side.enter()
        side.ssh("true")
        transfer = ["-S", str(server.folder / side.name), "host", "scp", "-t", "/tmp"]
        with subprocess.Popen(server.client(*transfer), stdin=-1, stdout=-1) as scp:
            assert scp.stdin is not None and scp.stdout is not None
            assert scp.stdout.read(1) == b"\0"
            side.ssh("echo in the se''ssion")
            wait_until(lambda: b"in the session" in log.read_bytes(), "the command, recorded")
            scp.stdin.close()
    finally:
        side.disconnect()
        server.stop()


def test_sshd_with_pam(machine: OwnMachine, bash: Side, ours: Side, tmp_path: Path) -> None:
    server = Sshd(tmp_path / "pam", pam=True)
    plain = Side(machine, server, "plain", bash.shell, None, None)
    recorded = Side(machine, server, ours.name, ours.shell, ours.values, ours.log)
    try:
        compared(plain, recorded, lambda side: side.ssh("env | sort; ulimit -a; exit 3"))
        compared(plain, recorded, lambda side: side.ssh(data=b"echo $0; exit 4\n"))
        compared(plain, recorded, lambda side: side.ssh("tty; id", options=["-tt"]), terminal=True)
    finally:
        plain.disconnect()
        recorded.disconnect()
        server.stop()
