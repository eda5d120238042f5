# SPDX-License-Identifier: Apache-2.0
"""What all commands share: where errors and output go, whatever becomes of the descriptors."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.driving import MAIN, REC, Terminal, clean_environment


def redirected(argv: Sequence[str], redirection: str) -> subprocess.CompletedProcess[bytes]:
    """Run argv with the shell's redirection."""
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", *argv],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=clean_environment(),
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize(
    "words",
    [["cat", "/dev/null"], ["play", "/dev/null"], ["rec", "nosuch"], ["nosuch"], [],
     ["config", "check", "nosuch"], ["policy", "no such user"]],
)  # fmt: skip
def test_error_does_not_go_to_stdout_where_stderr_is_closed(words: list[str]) -> None:
    done = redirected([*MAIN, *words], "2>&-")
    assert done.returncode != 0
    assert done.stdout == b""


def test_list_of_recordings_does_not_go_to_stdout_where_stderr_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "two.tlog"
    for _ in range(2):
        redirected([*REC, "-o", str(path), "echo", "x"], "")
    done = redirected([*MAIN, "cat", str(path)], "2>&-")
    assert (done.returncode, done.stdout) == (1, b"")


def test_command_sees_stderr_closed_where_it_is(tmp_path: Path) -> None:
    argv = [*REC, "-o", str(tmp_path / "a.tlog"), "-c", "[ -e /dev/fd/2 ] && echo open; true"]
    assert redirected(argv, "2>&-").stdout == b""
    assert redirected(argv, "").stdout == b"open\n"


def test_advice_of_the_player_does_not_go_to_the_terminal_where_stderr_is_closed(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.tlog"
    with Terminal([*REC, "-o", str(path), "true"], size=(30, 100)) as terminal:
        assert terminal.finish() == 0
    play = ["sh", "-c", 'exec "$@" 2>&-', "sh", *MAIN, "play", str(path)]
    with Terminal(play, size=(24, 80)) as terminal:
        assert terminal.finish() == 0
    assert b"needs a terminal" not in terminal.seen
    assert b"Traceback" not in terminal.seen


@pytest.mark.parametrize(
    "words",
    [["--help"], ["--version"], ["rec", "--help"], ["play", "--help"], ["cat", "--version"],
     ["recover", "--help"], ["rec", "--configuration"], ["rec-session", "--help"]],
)  # fmt: skip
def test_output_that_can_not_be_written_is_one_line(words: list[str]) -> None:
    done = redirected([*MAIN, *words], ">/dev/full")
    assert done.returncode == 1
    assert done.stderr == f"ttyscribe {words[0]}: No space left on device\n".encode()


def test_output_whose_reader_is_gone_ends_as_by_sigpipe() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*MAIN, "rec", "--help"], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")
