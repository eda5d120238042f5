# SPDX-License-Identifier: Apache-2.0
"""With input logged, what is typed at a password prompt is stored as stars."""

from __future__ import annotations

import socket
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from tests.driving import REC, Terminal, typed, wait_until


@pytest.fixture
def tlog(tmp_path: Path) -> Path:
    return tmp_path / "a.tlog"


def rec(tlog: Path, *arguments: str) -> list[str]:
    return [*REC, "-o", str(tlog), "--log-input", *arguments]


def test_read_without_echo_is_stars_with_its_enter(tlog: Path) -> None:
    command = "stty -echo; printf 'Password: '; read p; stty echo; echo; echo length ${#p}"
    with Terminal(rec(tlog, "--", "sh", "-c", command)) as terminal:
        terminal.expect(b"Password: ")
        terminal.line("s3cret")
        terminal.expect(b"length 6")
        assert terminal.finish() == 0
    assert typed(tlog) == b"******\r"
    assert b"s3cret" not in tlog.read_bytes()


def test_getpass_is_a_star_for_each_character(tlog: Path) -> None:
    program = "import getpass; print('length', len(getpass.getpass('Password: ')))"
    with Terminal(rec(tlog, sys.executable, "-c", program)) as terminal:
        terminal.expect(b"Password: ")
        terminal.line("geheim-ß€")
        terminal.expect(b"length 9")
        assert terminal.finish() == 0
    assert typed(tlog) == b"*********\r"


def test_read_s_of_an_interactive_bash_is_stars(tlog: Path) -> None:
    with Terminal(rec(tlog, "--", "bash", "--norc", "--noprofile", "-i")) as terminal:
        terminal.expect(rb"\$ ")
        # What bash prints in front of the prompt says that the terminal hides by then.
        terminal.line("read -s -p \"Pass\"word: p && echo length ${#p}")
        terminal.expect(b"Password:")
        wait_until(lambda: hides(terminal), "the shell's terminal goes on to echo")
        terminal.line("s3cret")
        terminal.expect(b"length 6")
        terminal.line("exit")
        terminal.finish()
    assert b"\r******\rexit\r" in typed(tlog)
    assert b"s3cret" not in tlog.read_bytes()


def test_prompt_of_ssh_itself_is_stars(tlog: Path, tmp_path: Path) -> None:
    key = tmp_path / "host_key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    config = tmp_path / "sshd_config"
    config.write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {key}\nPidFile none\nUsePAM no\n"
        "PasswordAuthentication yes\nStrictModes no\n"
    )
    server = subprocess.Popen(["/usr/sbin/sshd", "-D", "-f", config])
    ask = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
    ask += ["-o", "PreferredAuthentications=password", "-o", "NumberOfPasswordPrompts=1"]
    try:
        wait_until(lambda: listens(port), "sshd does not listen")
        command = ["ssh", "-p", str(port), *ask, "nobody-of-this-name@127.0.0.1"]
        with Terminal(rec(tlog, "--", *command)) as terminal:
            terminal.expect(b"password: ")
            terminal.line("s3cret")
            terminal.expect(b"Permission denied")
            assert terminal.finish() == 255
    finally:
        server.terminate()
        server.wait()
    assert typed(tlog) == b"******\r"
    assert b"s3cret" not in tlog.read_bytes()


def hides(terminal: Terminal) -> bool:
    """Whether the terminal of the recorder's child has its echo off."""
    (child,) = Path(f"/proc/{terminal.pid}/task/{terminal.pid}/children").read_text().split()
    with open(f"/proc/{child}/fd/0", "rb", buffering=0) as inner:
        return not termios.tcgetattr(inner)[3] & termios.ECHO


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_line_typed_in_readline_is_kept(tlog: Path) -> None:
    with Terminal(rec(tlog, "--", "bash", "--norc", "--noprofile", "-i")) as terminal:
        terminal.expect(rb"\$ ")
        terminal.line("echo vis''ible")
        terminal.expect(b"visible")
        terminal.expect(rb"\$ ")
        terminal.line("exit")
        terminal.finish()
    assert typed(tlog) == b"echo vis''ible\rexit\r"


def test_line_typed_at_an_echoing_prompt_is_kept(tlog: Path) -> None:
    with Terminal(rec(tlog, "-c", "printf 'Name: '; read name; echo got $name")) as terminal:
        terminal.expect(b"Name: ")
        terminal.line("alice")
        terminal.expect(b"got alice")
        terminal.finish()
    assert typed(tlog) == b"alice\r"


def test_keys_in_a_full_screen_program_are_kept(tlog: Path, tmp_path: Path) -> None:
    target = tmp_path / "written"
    # A name that fits into the line that tells it.
    vim = f"cd {tmp_path} && exec vim -u NONE -n written"
    with Terminal(rec(tlog, "-c", vim)) as terminal:
        terminal.expect(rb"written.*\[New")
        terminal.send(b"isome text")
        terminal.expect(b"some text")
        # An escape by itself, not the beginning of a key's sequence.
        terminal.send(b"\x1b")
        terminal.expect(b"some|\x1b")
        terminal.send(b":wq\r")
        assert terminal.finish() == 0
    assert target.read_text() == "some text\n"
    assert b"isome text\x1b:wq\r" in typed(tlog)
