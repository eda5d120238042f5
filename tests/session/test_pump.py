# SPDX-License-Identifier: Apache-2.0
"""The pump, driven through `ttyscribe rec`: terminals, pipes, signals, jobs, bulk."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

import pytest
from tests.driving import (
    MAIN,
    REC,
    Terminal,
    clean_environment,
    events,
    messages,
    output,
    run,
    typed,
    wait_until,
    windows,
)

from ttyscribe.events import INPUT, OUTPUT
from ttyscribe.terminal import sink

LFLAG = 3


@pytest.fixture
def tlog(tmp_path: Path) -> Path:
    return tmp_path / "a.tlog"


def rec(tlog: Path, *arguments: str) -> list[str]:
    return [*REC, "-o", str(tlog), *arguments]


def shell(tlog: Path, *options: str) -> list[str]:
    return rec(tlog, *options, "--", "bash", "--norc", "--noprofile", "-i")


def mode(terminal: Terminal) -> list[object]:
    """The terminal's modes, as its own side sees them."""
    return list(termios.tcgetattr(terminal.fd))


def cooked(terminal: Terminal) -> bool:
    lflag = termios.tcgetattr(terminal.fd)[LFLAG]
    return bool(lflag & termios.ICANON) and bool(lflag & termios.ECHO)


# The terminal is given back.


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1,
        signal.SIGUSR2, signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF, signal.SIGXCPU,
    ],
)  # fmt: skip
def test_signal_to_the_recorder_restores_the_terminal_and_ends_the_shell(
    tlog: Path, number: int
) -> None:
    # The recorder's parent keeps the terminal, so that its mode can be looked at.
    command = (
        f"{' '.join(rec(tlog, 'sleep', '1000'))} & echo $! >{tlog}.pid; trap : INT; "
        "fg; stty -a; exec cat"
    )
    with Terminal(["bash", "--norc", "--noprofile", "-ic", f"set -m; {command}"]) as terminal:
        before = mode(terminal)
        wait_until(lambda: not cooked(terminal), "the terminal does not become raw")
        recorder = int(Path(f"{tlog}.pid").read_text())
        children = Path(f"/proc/{recorder}/task/{recorder}/children")
        wait_until(lambda: children.read_text(), "no child")
        sleeper = int(children.read_text())
        os.kill(recorder, number)
        terminal.expect(b" echo ")
        assert mode(terminal) == before
        wait_until(lambda: not Path(f"/proc/{sleeper}").exists(), "the command outlives us")
    last = messages(tlog)[-1].extra
    # All but what tells of the terminal's end is the command's.
    ended_by = signal.SIGHUP if number == signal.SIGTERM else signal.Signals(number)
    assert last is not None and last["signal"] == ended_by.name[3:]


def test_recorder_ends_by_the_signal_that_it_was_sent(tlog: Path) -> None:
    with Terminal(rec(tlog, "-c", "echo up; exec sleep 1000")) as terminal:
        terminal.expect(b"up")
        terminal.kill(signal.SIGTERM)
        assert terminal.finish() == -signal.SIGTERM
    assert output(tlog) == b"up\r\n"


SLOW = ("--limit-rate=1", "--limit-burst=2000", "--limit-action=delay")


def test_interrupt_at_the_end_of_a_slow_recording_leaves_the_rest_to_the_spool(
    tmp_path: Path, tlog: Path
) -> None:
    env = clean_environment(XDG_STATE_HOME=str(tmp_path))
    with Terminal(rec(tlog, *SLOW, "-c", "seq 1 300"), env=env) as terminal:
        terminal.expect(b"300\r\n")
        wait_until(lambda: cooked(terminal), "the terminal stays raw")
        terminal.send(b"\x03")
        assert terminal.finish(10) == 1
        assert b"the end of the recording waits in" in terminal.seen
    run([*MAIN, "recover"], env=env)
    assert output(tlog) == b"".join(b"%d\r\n" % number for number in range(1, 301))
    assert messages(tlog)[-1].extra["status"] == 0  # type: ignore[index]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
def test_signal_at_the_end_of_a_slow_recording_leaves_the_rest_to_the_spool(
    tmp_path: Path, tlog: Path, number: int
) -> None:
    with subprocess.Popen(
        rec(tlog, *SLOW, "-c", "seq 1 300; exit 3"), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=clean_environment(XDG_STATE_HOME=str(tmp_path)),
    ) as process:  # fmt: skip
        (spool,) = wait_for_end(tmp_path)
        process.send_signal(number)
        _, err = process.communicate(timeout=10)
        assert process.returncode == 3
        assert b"the end of the recording waits in" in err
        assert spool.exists()


def wait_for_end(state: Path) -> list[Path]:
    """The spool files, once they hold an end."""
    folder = state / "ttyscribe/spool"
    found: list[Path] = []

    def ended() -> bool:
        found[:] = folder.glob("*") if folder.exists() else []
        return any(b'"event":"end"' in path.read_bytes() for path in found)

    wait_until(ended, "no end in the spool")
    return found


def test_limit_that_lets_nothing_through_is_refused(tlog: Path) -> None:
    done = run(rec(tlog, "--limit-rate=0", "--limit-action=delay", "-c", "echo hi"))
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"limit.rate of 0" in done.stderr


def test_a_fault_of_ours_restores_the_terminal_and_keeps_what_was_captured(tlog: Path) -> None:
    program = (
        "import sys; from ttyscribe.session.pump import Pump; from ttyscribe.cli import main\n"
        "def fail(self): raise RuntimeError('a fault')\n"
        "Pump.resize = fail\n"
        f"sys.exit(main(['rec', '-o', {str(tlog)!r}, '-c', 'echo up; exec sleep 1000']))\n"
    )
    argv = ["bash", "--norc", "-ic", '"$@"; echo rc=$?; exec cat', "bash",
            sys.executable, "-I", "-c", program]  # fmt: skip
    with Terminal(argv) as terminal:
        before = mode(terminal)
        terminal.expect(b"up")
        terminal.resize(30, 90)
        terminal.expect(b"ttyscribe rec: the recorder failed: RuntimeError: a fault\r\n")
        terminal.expect(b"rc=1")
        assert mode(terminal) == before
    assert output(tlog) == b"up\r\n"
    assert messages(tlog)[-1].extra is not None


def test_terminal_is_raw_within_and_as_before_after(tlog: Path) -> None:
    argv = ["bash", "--norc", "-ic", '"$@"; echo back; exec cat', "bash",
            *rec(tlog, "-c", "echo up; read x")]  # fmt: skip
    with Terminal(argv) as terminal:
        before = mode(terminal)
        terminal.expect(b"up")
        assert not cooked(terminal)
        terminal.line("")
        terminal.expect(b"back")
        assert mode(terminal) == before


def test_the_inner_terminal_has_the_modes_of_the_outer(tlog: Path) -> None:
    inner, outer = tlog.with_name("inner"), tlog.with_name("outer")
    stty = f"stty erase ^H intr ^X -ixon; stty -g >{outer}; "
    with Terminal(["bash", "-c", stty + " ".join(rec(tlog, "-c", f"'stty -g >{inner}'"))]) as t:
        assert t.finish() == 0
    assert inner.read_text() == outer.read_text()


# Window sizes.


def test_resize_reaches_the_program_and_the_recording(tlog: Path) -> None:
    # Not by a trap: bash forgets a signal that comes while it runs the trap for the one before.
    show = 'size=$(stty size); [ "$size" = "$old" ] || echo now $size; old=$size'
    command = f"echo up; while {show}; do read -t 0.1 x && break; done"
    with Terminal(rec(tlog, "--", "bash", "-c", command)) as terminal:
        terminal.expect(b"up")
        for rows, columns in ((40, 100), (10, 20), (24, 80)):
            terminal.resize(rows, columns)
            terminal.expect(b"now %d %d" % (rows, columns))
        terminal.line("")
        assert terminal.finish() == 0
    assert windows(tlog) == [b"80x24", b"100x40", b"20x10", b"80x24"]


def test_terminal_without_a_size_has_no_window_until_it_has_one(tlog: Path) -> None:
    command = "while stty size; do read -t 0.1 && break; done"
    with Terminal(rec(tlog, "--", "bash", "-c", command), size=(0, 0)) as terminal:
        terminal.expect(b"0 0\r\n")
        terminal.resize(40, 100)
        terminal.expect(b"40 100")
        terminal.resize(0, 100)
        terminal.expect(b"0 100")
        terminal.line("")
        assert terminal.finish() == 0
    assert windows(tlog) == [b"100x40"]


# Job control and background jobs.


def test_interrupt_and_quit_keys_reach_the_job_and_not_us(tlog: Path) -> None:
    with Terminal(shell(tlog)) as terminal:
        terminal.expect(rb"\$ ")
        for key, text in ((b"\x03", b"130"), (b"\x1c", b"131")):
            terminal.line("sh -c 'echo run''ning; exec sleep 1000'")
            terminal.expect(b"running")
            terminal.send(key)
            terminal.expect(rb"\$ ")
            terminal.line("echo rc=$?")
            terminal.expect(b"rc=" + text)
            terminal.expect(rb"\$ ")
        terminal.line("exit 5")
        assert terminal.finish() == 5


def test_stopped_job_comes_back_to_the_foreground(tlog: Path) -> None:
    with Terminal(shell(tlog)) as terminal:
        terminal.expect(rb"\$ ")
        terminal.line("sh -c 'echo run''ning; exec cat'")
        terminal.expect(b"running")
        terminal.line("one")
        terminal.expect(b"one.*one")
        terminal.send(b"\x1a")
        terminal.expect(b"Stopped")
        terminal.line("fg")
        terminal.expect(b"fg.*exec cat.\r\n")
        terminal.line("two")
        terminal.expect(b"two.*two")
        terminal.send(b"\x04")
        terminal.expect(rb"\$ ")
        terminal.line("exit")
        assert terminal.finish() == 0


def test_recorded_shell_suspends_to_the_shell_it_came_from(tlog: Path) -> None:
    with Terminal(["bash", "--norc", "--noprofile", "-i"]) as terminal:
        terminal.expect(rb"\$ ")
        before = mode(terminal)
        terminal.line(" ".join(shell(tlog)) + "; echo ended=$?")
        terminal.expect(b"ended.*\\$ ")
        for _ in range(2):
            terminal.line("suspend")
            terminal.expect(b"Stopped")
            terminal.expect(rb"\$ ")
            assert termios.tcgetattr(terminal.fd)[0] == before[0]
            terminal.line("echo out''side $PPID")
            terminal.expect(b"outside")
            terminal.line("fg")
            terminal.expect(b"norc")
            terminal.line("echo in''side")
            terminal.expect(b"inside")
        terminal.line("exit 3")
        terminal.expect(b"exit\r\n")
    assert b"inside" in output(tlog)
    assert b"outside" not in output(tlog)


def test_shell_that_is_stopped_with_nobody_to_wake_it_stays_so_until_it_is_woken(
    tlog: Path,
) -> None:
    with Terminal(rec(tlog, "-c", "echo $$.; kill -STOP $$; echo woken")) as terminal:
        shell = int(terminal.expect(rb"(\d+)\.\r\n").group(1))
        state = Path(f"/proc/{shell}/stat")
        wait_until(lambda: b") T " in state.read_bytes(), "it does not stop")
        time.sleep(0.2)
        assert b") T " in state.read_bytes()
        os.kill(shell, signal.SIGCONT)
        assert terminal.finish() == 0
    assert terminal.seen.endswith(b"\r\nwoken\r\n")


def test_background_job_that_holds_the_terminal_does_not_hold_us(tlog: Path) -> None:
    with Terminal(rec(tlog, "-c", "trap '' HUP; sleep 60 & echo $!")) as terminal:
        began = time.monotonic()
        assert terminal.finish() == 0
        assert time.monotonic() - began < 10
    os.kill(int(terminal.seen), signal.SIGKILL)


def test_background_job_that_writes_without_end_does_not_hold_us(tlog: Path) -> None:
    with Terminal(rec(tlog, "-c", "trap '' HUP; yes & echo pid=$!")) as terminal:
        assert terminal.finish() == 0
    found = re.search(rb"pid=(\d+)", terminal.seen)
    assert found is not None
    assert output(tlog).startswith(terminal.seen[:1000])


def test_background_job_on_the_pipes_delays_no_status(tlog: Path, tmp_path: Path) -> None:
    go = tmp_path / "go"
    wait = f"while [ ! -e {go} ]; do sleep 0.02; done"
    command = f"({wait}; echo late; echo late2 >&2) & echo early; exit 6"
    process = subprocess.Popen(
        rec(tlog, "-c", command), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=clean_environment(),
    )  # fmt: skip
    assert process.wait(timeout=20) == 6
    go.touch()
    out, err = process.communicate(timeout=20)
    assert (out, err) == (b"early\nlate\n", b"late2\n")
    wait_until(lambda: b'"event":"end"' in tlog.read_bytes(), "the recording does not end")
    assert sorted(output(tlog).splitlines()) == [b"early", b"late", b"late2"]
    assert messages(tlog)[-1].extra["status"] == 6  # type: ignore[index]


def test_left_over_job_holds_only_the_descriptors_that_it_has(tlog: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        rec(tlog, "-c", "(exec <&- 2>&-; exec sleep 1000) & echo $!"),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=clean_environment(),
    )  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    sleeper = int(process.stdout.readline())
    assert process.wait(timeout=20) == 0
    # Without us, stderr would end here, and stdout with the job.
    assert process.stderr.read() == b""
    assert select.select([process.stdout], [], [], 0.1)[0] == []
    os.kill(sleeper, signal.SIGKILL)
    assert process.stdout.read() == b""
    wait_until(lambda: b'"event":"end"' in tlog.read_bytes(), "the recording does not end")


# Pipes and other descriptors.


def test_random_bytes_pass_unchanged(tlog: Path) -> None:
    data = os.urandom(600_000)
    done = run(rec(tlog, "cat"), data=data)
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()
    assert output(tlog) == data


def test_random_bytes_are_recorded_both_ways(tlog: Path) -> None:
    data = os.urandom(300_000)
    assert run(rec(tlog, "--log-input", "cat"), data=data).stdout == data
    recorded = events(tlog)
    for kind in (INPUT, OUTPUT):
        assert b"".join(part for _, k, part in recorded if k == kind) == data


def test_three_megabytes_of_zeros_pass_unchanged(tlog: Path) -> None:
    data = bytes(3_000_000)
    assert run(rec(tlog, "cat"), data=data).stdout == data
    assert output(tlog) == data


def test_shell_that_writes_before_it_reads_does_not_stand_still(tlog: Path) -> None:
    data = b"line\n" * 200_000
    done = run(rec(tlog, "--log-input", "-c", "seq 200000; cat"), data=data)
    assert done.stdout.endswith(data)
    assert len(done.stdout) == len(data) + sum(len(f"{n}\n") for n in range(1, 200_001))
    assert typed(tlog) == data


@pytest.mark.parametrize("option", ["--log-input", "--log-input=no"])
def test_end_of_input_is_passed_on(tlog: Path, option: str) -> None:
    done = run(rec(tlog, option, "-c", "cat; echo end"), data=b"data\n")
    assert done.stdout == b"data\nend\n"


def test_command_that_does_not_read_its_input_ends_at_once(tlog: Path) -> None:
    read, write = os.pipe()
    process = subprocess.Popen(
        rec(tlog, "--log-input", "echo", "done"), stdin=read, stdout=subprocess.PIPE,
        env=clean_environment(),
    )  # fmt: skip
    os.close(read)
    assert process.communicate(timeout=20)[0] == b"done\n"
    os.close(write)


@pytest.mark.parametrize("blocks", [1, 4, 8])
def test_users_limit_of_file_sizes_is_the_commands_and_not_ours(tlog: Path, blocks: int) -> None:
    script = "ulimit -Sf; ulimit -Hf; seq 9999; head -c 99999 /dev/zero >big"
    command = f"cd {tlog.parent}; ulimit -Sf {blocks}; {' '.join(rec(tlog, '-c'))} '{script}'"
    done = run(["bash", "-c", command])
    assert done.returncode == 153
    assert b"ttyscribe" not in done.stderr
    assert done.stdout.startswith(b"%d\nunlimited\n1\n" % blocks)
    assert output(tlog) == done.stdout + done.stderr
    assert (tlog.parent / "big").stat().st_size == blocks * 1024


@pytest.mark.parametrize("blocks", [1, 4])
def test_limit_of_file_sizes_without_room_for_a_recording_refuses_it(
    tmp_path: Path, blocks: int
) -> None:
    tlog = tmp_path / "a.tlog"
    command = f"ulimit -f {blocks}; {' '.join(rec(tlog, 'echo', 'in'))}"
    env = clean_environment(XDG_STATE_HOME=str(tmp_path / "state"))
    done = run(["bash", "-c", command], env=env)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"File too large" in done.stderr
    assert list((tmp_path / "state/ttyscribe/spool").iterdir()) == []


def test_limit_of_file_sizes_that_is_reached_makes_the_session_wait_and_not_spin(
    tmp_path: Path,
) -> None:
    tlog = tmp_path / "a.tlog"
    script = "echo in; read x; seq 99999; exit 7"
    command = f"ulimit -f 8; exec {' '.join(rec(tlog, '-c'))} '{script}'"
    env = clean_environment(XDG_STATE_HOME=str(tmp_path / "state"))
    with Terminal(["bash", "-c", command], env=env) as terminal:
        terminal.expect(b"in\r\n")
        terminal.line("")
        terminal.expect(b"the terminal waits.*File too large")
        before = cpu(terminal.pid)
        assert not select.select([terminal.fd], [], [], 1.5)[0]
        assert cpu(terminal.pid) - before < 30
        terminal.kill(signal.SIGTERM)
        terminal.expect(b"File too large")
        assert terminal.finish(15) == 129


def cpu(pid: int) -> int:
    """The processor time of a process so far, in clock ticks (1/100 s)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_reader_that_goes_away_ends_the_command_as_without_us(tlog: Path) -> None:
    command = " ".join(rec(tlog, "--", "yes"))
    done = run(["bash", "-c", f"{command} | head -n 1; echo ${{PIPESTATUS[0]}}"])
    assert done.stdout == b"y\n141\n"
    assert messages(tlog)[-1].extra["signal"] == "PIPE"  # type: ignore[index]


def test_slow_reader_of_a_tiny_pipe_gets_everything(tlog: Path) -> None:
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    process = subprocess.Popen(rec(tlog, "seq", "30000"), stdout=write, env=clean_environment())
    os.close(write)
    got = b""
    while data := os.read(read, 97 if len(got) < 20000 else 65536):
        got += data
    os.close(read)
    assert process.wait(timeout=20) == 0
    assert got == b"".join(b"%d\n" % n for n in range(1, 30001))
    assert output(tlog) == got


def test_non_blocking_pipe_of_the_caller_gets_everything_and_stays_so(tlog: Path) -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    process = subprocess.Popen(rec(tlog, "seq", "30000"), stdout=write, env=clean_environment())
    assert not os.get_blocking(write)
    os.close(write)
    with open(read, "rb") as file:
        got = file.read()
    assert process.wait(timeout=20) == 0
    assert got == b"".join(b"%d\n" % n for n in range(1, 30001))


def test_slow_terminal_gets_everything(tlog: Path) -> None:
    with Terminal(rec(tlog, "seq", "20000")) as terminal:
        for _ in range(50):
            select.select([terminal.fd], [], [], 10)
            terminal.seen += os.read(terminal.fd, 100)
        assert terminal.finish() == 0
    assert terminal.seen == b"".join(b"%d\r\n" % n for n in range(1, 20001))
    assert output(tlog) == terminal.seen


def test_the_callers_terminal_and_pipes_stay_blocking(tlog: Path) -> None:
    check = "import os; print(*[os.get_blocking(fd) for fd in range(3)])"
    command = f"{' '.join(rec(tlog, 'true'))}; {sys.executable} -c '{check}'"
    with Terminal(["sh", "-c", command]) as terminal:
        terminal.finish()
    assert terminal.seen == b"True True True\r\n"
    assert run(["sh", "-c", command]).stdout == b"True True True\n"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("option", ["--log-input", "-q"])
def test_closed_descriptors_are_closed_for_the_command_too(
    tmp_path: Path, tlog: Path, closed: str, option: str
) -> None:
    shown = tmp_path / "shown"
    look = f"for n in 0 1 2; do [ -e /proc/$$/fd/$n ] && echo $n; done >{shown}"
    bare = run(["sh", "-c", f"sh -c '{look}' {closed}"])
    expected = shown.read_bytes()
    done = run(["sh", "-c", f"{' '.join(rec(tlog, option, '--', 'sh', '-c'))} '{look}' {closed}"])
    assert shown.read_bytes() == expected
    assert done.returncode == bare.returncode
    assert messages(tlog)[-1].extra is not None


def test_input_from_a_file_and_from_nowhere(tmp_path: Path, tlog: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"from a file\n" * 10000)
    for option in ("-q", "--log-input"):
        for path, expected in ((source, source.read_bytes()), (Path("/dev/null"), b"")):
            tlog.unlink(missing_ok=True)
            with open(path, "rb") as file:
                got = subprocess.run(
                    rec(tlog, option, "cat"), stdin=file, capture_output=True, timeout=30,
                    env=clean_environment(), check=True,
                ).stdout  # fmt: skip
            assert got == expected
            assert typed(tlog) == (expected if option == "--log-input" else b"")


def test_output_into_a_file_is_whole(tmp_path: Path, tlog: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"before\n")
    with open(target, "ab") as file:
        subprocess.run(rec(tlog, "seq", "100000"), stdout=file, timeout=30, check=True)
    assert target.read_bytes() == b"before\n" + output(tlog)
    assert len(output(tlog)) == 588895


def test_stdout_and_stderr_in_one_pipe_keep_their_order(tlog: Path) -> None:
    script = "for i in $(seq 300); do echo o$i; echo e$i >&2; done"
    done = run(["sh", "-c", f"{' '.join(rec(tlog))} -c '{script}' 2>&1"])
    assert done.stdout == b"".join(b"o%d\ne%d\n" % (n, n) for n in range(1, 301))
    assert output(tlog) == done.stdout


@pytest.mark.parametrize("option", ["--log-input", "-q"])
def test_one_socket_for_all_three(tlog: Path, option: str) -> None:
    ours, theirs = socket.socketpair()
    process = subprocess.Popen(
        rec(tlog, option, "-c", "cat; echo err >&2; exit 2"),
        stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=theirs.fileno(),
        env=clean_environment(),
    )  # fmt: skip
    theirs.close()
    data = b"through a socket\n" * 20000
    got = b""
    ours.setblocking(False)
    sent = 0
    closed = False
    while True:
        readable, writable, _ = select.select([ours], [] if closed else [ours], [], 30)
        assert readable or writable
        if readable:
            part = ours.recv(65536)
            if not part:
                break
            got += part
        if writable and sent < len(data):
            sent += ours.send(data[sent:])
        elif writable:
            ours.shutdown(socket.SHUT_WR)
            closed = True
    assert process.wait(timeout=20) == 2
    assert got == data + b"err\n"
    assert output(tlog) == got


@pytest.mark.parametrize("option", ["--log-input", "-q"])
def test_socket_as_input_is_no_way_past_the_recording(tlog: Path, option: str) -> None:
    # As sshd starts a command: one pair of sockets for input and output, another for errors.
    ours, theirs = socket.socketpair()
    errors, their_errors = socket.socketpair()
    script = "echo hello; echo more >&0; read word; echo got $word; cat"
    with subprocess.Popen(
        rec(tlog, option, "-c", script), stdin=theirs.fileno(), stdout=theirs.fileno(),
        stderr=their_errors.fileno(), env=clean_environment(),
    ) as process:  # fmt: skip
        theirs.close()
        their_errors.close()
        ours.sendall(b"word\nrest\n")
        ours.shutdown(socket.SHUT_WR)
        got = b"".join(iter(lambda: ours.recv(65536), b""))
        assert errors.recv(100) == b""
        assert process.wait(timeout=20) == 0
    assert got == output(tlog) == b"hello\nmore\ngot word\nrest\n"


def test_socket_as_input_alone_is_no_way_past_the_recording(tlog: Path) -> None:
    ours, theirs = socket.socketpair()
    with subprocess.Popen(
        rec(tlog, "-c", "echo hello; cat; echo more >&0; exit 4"), stdin=theirs.fileno(),
        stdout=subprocess.PIPE, env=clean_environment(),
    ) as process:  # fmt: skip
        theirs.close()
        ours.sendall(b"data\n")
        ours.shutdown(socket.SHUT_WR)
        assert process.communicate(timeout=20)[0] == b"hello\ndata\n"
        assert process.returncode == 4
    assert ours.recv(100) == b"more\n"
    assert b"more\n" in output(tlog)


def test_socket_whose_user_is_gone_ends_the_writer_as_without_us(tlog: Path) -> None:
    ours, theirs = socket.socketpair()
    with subprocess.Popen(
        rec(tlog, "-q", "--", "yes"), stdin=theirs.fileno(), stdout=theirs.fileno(),
        env=clean_environment(),
    ) as process:  # fmt: skip
        theirs.close()
        assert ours.recv(2) == b"y\n"
        ours.close()
        # A writer that just waits for room in a socket gets an error and no signal.
        assert process.wait(timeout=20) in (1, -signal.SIGPIPE)


def test_terminal_output_with_piped_input(tlog: Path) -> None:
    argv = ["sh", "-c", f"seq 3 | {' '.join(rec(tlog, '--log-input', 'cat'))}"]
    with Terminal(argv) as terminal:
        assert terminal.finish() == 0
    assert terminal.seen == b"1\r\n2\r\n3\r\n"
    assert typed(tlog) == b"1\n2\n3\n"


def test_terminal_input_with_piped_output(tlog: Path) -> None:
    script = "tty; echo to-err >&2; read x; echo got $x"
    argv = ["sh", "-c", f"{' '.join(rec(tlog, '-c'))} '{script}' | cat"]
    with Terminal(argv) as terminal:
        # As cat writes to it too, the terminal goes on making the line ends.
        terminal.expect(b"/dev/pts/[^\n]*\r\n.*to-err\r\n|to-err\r\n.*/dev/pts/[^\n]*\r\n")
        terminal.line("word")
        terminal.expect(b"got word")
        assert terminal.finish() == 0
    assert b"got word\n" in output(tlog)
    assert b"to-err\n" in output(tlog)


def test_terminal_opened_for_writing_alone_still_takes_keys(tlog: Path) -> None:
    script = "echo up; read x </dev/tty; echo got $x"
    command = f"{' '.join(rec(tlog, '-c'))} '{script}' </dev/null >/dev/tty 2>/dev/null"
    with Terminal(["sh", "-c", command]) as terminal:
        terminal.expect(b"up")
        terminal.line("key")
        terminal.expect(b"got key")
        assert terminal.finish() == 0


def test_paste_of_a_megabyte_arrives_whole(tlog: Path, tmp_path: Path) -> None:
    target = tmp_path / "pasted"
    command = f"stty raw -echo; echo up; head -c 1000000 >{target}"
    with Terminal(rec(tlog, "--log-input", "-c", command)) as t:
        t.expect(b"up")
        data = os.urandom(1_000_000)
        t.send(data)
        assert t.finish() == 0
    assert target.read_bytes() == data
    assert typed(tlog) == data


def test_hang_up_of_the_terminal_ends_the_session_and_the_recording(tlog: Path) -> None:
    terminal = Terminal(rec(tlog, "--", "sh", "-c", "echo up; exec sleep 1000"))
    terminal.expect(b"up")
    terminal.close()
    wait_until(lambda: b'"event":"end"' in tlog.read_bytes(), "the recording does not end")
    assert messages(tlog)[-1].extra["signal"] == "HUP"  # type: ignore[index]


def test_terminal_that_the_user_may_not_open_is_not_waited_for() -> None:
    # As after su: the terminal's file belongs to somebody else.
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o777)
        tlog = Path(folder) / "a.tlog"
        argv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
                *rec(tlog, "-c", "echo up; exec yes")]  # fmt: skip
        env = clean_environment(HOME=folder, XDG_STATE_HOME=folder)
        with Terminal(argv, env=env) as terminal:
            terminal.expect(b"up")
            # Nobody reads what yes(1) writes, until the recorder can deliver no more.
            size = 0
            while size != (size := tlog.stat().st_size):
                time.sleep(0.1)
            terminal.kill(signal.SIGTERM)
            wait_until(lambda: b'"event":"end"' in tlog.read_bytes(), "the recorder is stuck", 8)


def test_full_pipe_that_the_user_may_not_open_keeps_nothing_else_back() -> None:
    # As in the recorder service, whose pipes are another user's.
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o777)
        script = "head -c 65536 /dev/zero; sleep 0.5; head -c 5000 /dev/zero; echo err >&2; exit 3"
        with subprocess.Popen(
            ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
             *rec(Path(folder) / "a.tlog", "-c", script)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=clean_environment(HOME=folder, XDG_STATE_HOME=folder),
        ) as process:  # fmt: skip
            assert process.stdout is not None and process.stderr is not None
            try:
                assert select.select([process.stderr], [], [], 10)[0], "the recorder is stuck"
                assert process.stderr.readline() == b"err\n"
                assert process.stdout.read() == bytes(70536)
                assert process.wait(timeout=10) == 3
            finally:
                process.kill()


def test_pipe_that_somebody_else_fills_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink, "_reopen", lambda fd, mode: -1)
    read, write = os.pipe()
    others = os.open(f"/proc/self/fd/{write}", os.O_WRONLY | os.O_NONBLOCK)
    written = os.write(others, b"x" * 100_000)
    to_user = sink.Sink(write)
    data = os.urandom(200_000)
    signal.setitimer(signal.ITIMER_REAL, 5)  # the end of a test that waits
    to_user.write(data)
    assert to_user.pending == data
    got = os.read(read, written)
    while to_user.pending:
        to_user.drain()
        got += os.read(read, 5000)
    signal.setitimer(signal.ITIMER_REAL, 0)
    to_user.close()
    os.close(write)
    with open(read, "rb") as rest:
        os.close(others)
        assert got + rest.read() == b"x" * written + data


def test_signal_to_a_recorder_on_pipes_is_passed_to_the_command(tlog: Path) -> None:
    process = subprocess.Popen(
        rec(tlog, "-c", "trap 'echo told; exit 9' TERM; echo up; while :; do sleep 0.02; done"),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=clean_environment(),
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    process.terminate()
    assert process.stdout.read() == b"told\n"
    assert process.wait(timeout=20) == 9


def test_signals_that_the_caller_ignores_stay_ignored(tlog: Path) -> None:
    command = f"trap '' HUP INT; {' '.join(rec(tlog, 'grep', 'SigIgn', '/proc/self/status'))}"
    with_us = run(["sh", "-c", command]).stdout
    bare = run(["sh", "-c", "trap '' HUP INT; grep SigIgn /proc/self/status"]).stdout
    assert with_us == bare


def test_command_sees_no_descriptor_of_ours(tlog: Path) -> None:
    bare = run(["sh", "-c", "ls /proc/self/fd"]).stdout
    assert run(rec(tlog, "-c", "ls /proc/self/fd")).stdout == bare
    with Terminal(rec(tlog, "ls", "-C", "/proc/self/fd")) as terminal:
        terminal.finish()
    assert terminal.seen.split() == bare.split()


def test_recorder_stays_small_in_a_long_flood(tlog: Path) -> None:
    # A fault that keeps what is delivered would show within megabytes.
    process = subprocess.Popen(
        [*MAIN, "rec", "-o", str(tlog), "-c", "yes | head -c 60000000; echo; sleep 1000"],
        stdout=subprocess.PIPE, env=clean_environment(),
    )  # fmt: skip
    assert process.stdout is not None
    left = 60_000_000
    while left:
        left -= len(os.read(process.stdout.fileno(), min(left, 1 << 20)))
    resident = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())
    process.terminate()
    process.wait(timeout=20)
    assert resident is not None
    assert int(resident[1]) < 40_000
