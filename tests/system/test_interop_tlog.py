# SPDX-License-Identifier: Apache-2.0
"""The real tlog-play replays what we record, byte for byte."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from tests.driving import MAIN, REC, Terminal, output, run

# What tlog-play puts behind a recording, before a line end.
END = b"\x1b[0m\x1b[?25h"


def tlog_play(path: Path) -> bytes:
    with Terminal(["sh", "-c", f"stty raw; exec tlog-play -r file -g end -i {path}"]) as terminal:
        assert terminal.finish() == 0, terminal.seen[-300:]
    shown, end, rest = terminal.seen.rpartition(END)
    assert end == END
    assert rest.strip(b"\r\n\0") == b""
    return shown


def both_play(path: Path, shown: bytes) -> None:
    assert output(path) == shown
    assert run([*MAIN, "cat", path]).stdout == shown
    assert tlog_play(path) == shown


@pytest.fixture
def tlog(tmp_path: Path, utmp: Path) -> Path:
    return tmp_path / "a.tlog"


def recorded(tlog: Path, *command: str) -> bytes:
    with Terminal([*REC, "-o", str(tlog), "--", *command]) as terminal:
        assert terminal.finish() == 0
    return terminal.seen


def test_text_of_two_megabytes(tlog: Path, tmp_path: Path) -> None:
    source = tmp_path / "text"
    line = "Zeile für Zeile, строка за строкой, 一行一行 🙂\n"
    source.write_text(line * (2_000_000 // len(line.encode())))
    both_play(tlog, recorded(tlog, "cat", str(source)))


def test_random_bytes(tlog: Path, tmp_path: Path) -> None:
    source = tmp_path / "random"
    source.write_bytes(os.urandom(100_000))
    both_play(tlog, recorded(tlog, "cat", str(source)))


def test_nul_bytes_and_the_replacement_character_as_text(tlog: Path) -> None:
    shown = recorded(tlog, "printf", r"a\000b\357\277\275c\377\177d\n")
    assert shown == b"a\0b\xef\xbf\xbdc\xff\x7fd\r\n"
    both_play(tlog, shown)


def test_vim_with_a_resize(tlog: Path, tmp_path: Path) -> None:
    # Of a name that is as long as the screen is wide, vim asks whether it was read.
    vim = ["vim", "-u", "NONE", "-n", "f"]
    with Terminal([*REC, "-o", str(tlog), "--", *vim], cwd=str(tmp_path)) as t:
        t.expect(b"~")
        t.resize(30, 100)
        t.send(b"ihello\x1b:wq\r")
        assert t.finish() == 0
    both_play(tlog, t.seen)


def test_less(tlog: Path) -> None:
    with Terminal([*REC, "-o", str(tlog), "--", "less", "/etc/services"]) as terminal:
        terminal.expect(b"services")
        terminal.send(b" Gq")
        assert terminal.finish() == 0
    both_play(tlog, terminal.seen)


def test_we_replay_what_tlog_recorded(tlog: Path) -> None:
    with Terminal(["tlog-rec", "-w", "file", "-o", str(tlog), "printf", r"\033[1mx\377\n"]) as t:
        assert t.finish() == 0
    done = subprocess.run([*MAIN, "cat", str(tlog)], capture_output=True, timeout=20, check=True)
    assert done.stdout == b"\x1b[1mx\xff\r\n"
    assert t.seen.startswith(done.stdout)
