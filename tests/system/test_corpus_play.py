# SPDX-License-Identifier: Apache-2.0
"""Recordings that tlog-rec made of real programs, played by us and by tlog-play."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import ptyprocess
import pytest

from ttyscribe.player.filter import TerminalFilter

CORPUS = sorted((Path(__file__).parent.parent / "corpus").glob("*.tlog"))
TTYSCRIBE = [sys.executable, "-I", "-m", "ttyscribe"]

# The terminal got this from tlog-rec itself, after the recorded program's output.
TLOG_REC_END = b"\r\n"
# tlog-play writes its string's terminating zero as well.
TLOG_PLAY_END = b"\x1b[0m\x1b[?25h\r\n\0"

pytestmark = [pytest.mark.system, pytest.mark.parametrize("path", CORPUS, ids=lambda p: p.stem)]


def on_pty(*command: str) -> bytes:
    process = ptyprocess.PtyProcess.spawn(list(command), dimensions=(24, 80))
    parts = []
    while True:
        try:
            data = os.read(process.fd, 65536)
        except OSError:
            break
        if not data:
            break
        parts.append(data)
    process.wait()
    assert process.exitstatus == 0
    return b"".join(parts)


def raw(path: Path) -> bytes:
    data = Path(f"{path}.raw").read_bytes()
    assert data.endswith(TLOG_REC_END)
    return data.removesuffix(TLOG_REC_END)


@pytest.mark.parametrize("command", ["play", "cat"])
def test_pipe_gets_what_the_terminal_got(command: str, path: Path) -> None:
    done = subprocess.run([*TTYSCRIBE, command, path], capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == raw(path)


def test_tlog_play_plays_the_same(path: Path, utmp: Path) -> None:
    played = on_pty("tlog-play", "-g", "end", "-i", str(path))
    assert played == raw(path) + TLOG_PLAY_END


def test_terminal_gets_the_same_but_for_queries_and_sizes(path: Path) -> None:
    played = on_pty(*TTYSCRIBE, "play", "-g", "end", str(path))
    screen = TerminalFilter()
    expected = screen.feed(raw(path)) + screen.finish()
    if path.stem == "shell-resize":
        # Asked for in a hurry, this terminal did not obey.
        assert b"\x1b[8;40;120t" in played
        played = played.replace(b"\x1b[8;40;120t", b"").replace(b"\x1b[8;20;60t", b"")
    title = b"\x1b[22;0t"
    assert played.replace(title, b"").startswith(expected.replace(title, b""))
