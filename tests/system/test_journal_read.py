# SPDX-License-Identifier: Apache-2.0
"""Recordings in a real journal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import ptyprocess
import pytest
from systemd import journal

if TYPE_CHECKING:
    from tests.conftest import Journald

TTYSCRIBE = [sys.executable, "-I", "-m", "ttyscribe"]

pytestmark = pytest.mark.system


def message(rec: str, id: int, text: str) -> str:
    return json.dumps({
        "ver": "2.3", "host": "h", "rec": rec, "user": "u", "term": "xterm", "session": 1,
        "id": id, "pos": id, "time": 1567504805.5, "timing": f">{len(text)}", "in_txt": "",
        "in_bin": [], "out_txt": text, "out_bin": [],
    })  # fmt: skip


def send(rec: str, id: int, text: str, **fields: str) -> None:
    journal.send(message(rec, id, text), TLOG_REC=rec, TLOG_ID=str(id), **fields)


def cat(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*TTYSCRIBE, "cat", *arguments], capture_output=True, timeout=60, stdin=subprocess.DEVNULL
    )


@pytest.fixture
def rec(journald: Journald) -> str:
    """A recording of two messages, among other entries, in the journal."""
    rec = f"{uuid.uuid4().hex}-1-1"
    send(rec, 1, "one ", TTYSCRIBE_TEST="a")
    journal.send("no message of a recording", TTYSCRIBE_TEST="a")
    send(rec, 2, "two", TTYSCRIBE_TEST="b")
    journald.sync()
    return rec


def test_match_picks_a_recording(rec: str) -> None:
    done = cat("-M", f"TLOG_REC={rec}")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"one two", b"")


def test_same_field_means_or_and_different_fields_mean_and(rec: str) -> None:
    both = cat("-M", f"TLOG_REC={rec}", "-M", "TTYSCRIBE_TEST=a", "-M", "TTYSCRIBE_TEST=b")
    assert both.stdout == b"one two"
    second = ["-M", f"TLOG_REC={rec}", "-M", "TTYSCRIBE_TEST=b"]
    assert b"message 1 missing before it" in cat(*second).stderr
    assert cat("--lax", *second).stdout == b"two"
    assert cat("-M", f"TLOG_REC={rec}", "-M", "TTYSCRIBE_TEST=c").returncode == 1


@pytest.mark.parametrize("word", ["OR", "+"])
def test_or_joins_groups_as_journalctl_does(rec: str, word: str) -> None:
    symbols = [f"TLOG_REC={rec}", "TLOG_ID=1", word, f"TLOG_REC={rec}", "TLOG_ID=2"]
    done = cat(*(part for symbol in symbols for part in ("-M", symbol)))
    assert (done.stdout, done.returncode) == (b"one two", 0)
    listed = subprocess.run(
        ["journalctl", "-q", "-o", "cat", *("+" if s == "OR" else s for s in symbols)],
        capture_output=True, check=True,
    )  # fmt: skip
    assert len(listed.stdout.splitlines()) == 2


def test_and_joins_groups_of_which_each_must_match(rec: str) -> None:
    symbols = [f"TLOG_REC={rec}", "AND", "TLOG_ID=1", "OR", "TTYSCRIBE_TEST=b"]
    assert cat(*(part for s in symbols for part in ("-M", s))).stdout == b"one two"


def test_since_and_until_bound_the_search(rec: str, journald: Journald) -> None:
    middle = time.time()
    send(rec, 3, " three")
    journald.sync()
    match = ["-M", f"TLOG_REC={rec}"]
    assert cat(*match, "-U", f"@{middle:.6f}").stdout == b"one two"
    assert cat(*match, "-S", f"@{middle:.6f}").stdout == b" three"
    assert cat(*match, "-S", str(int(middle) - 60)).stdout == b"one two three"
    assert cat(*match, "-S", "-20min", "-U", "+1h").stdout == b"one two three"
    assert cat(*match, "-S", "tomorrow").returncode == 1


def test_several_recordings_are_listed(rec: str, journald: Journald) -> None:
    other = f"{uuid.uuid4().hex}-2-2"
    send(other, 1, "other")
    journald.sync()
    done = cat("-M", f"TLOG_REC={rec}", "-M", f"TLOG_REC={other}")
    assert (done.returncode, done.stdout) == (1, b"")
    assert f"{rec}  u@h  2019-09-03 10:00:05 UTC  2 messages\n".encode() in done.stderr
    assert f"{other}  u@h  ".encode() in done.stderr
    assert done.stderr.endswith(b"holds 2 recordings; choose one with -M TLOG_REC=REC\n")


def test_damage_names_the_cursor(rec: str, journald: Journald) -> None:
    send(rec, 5, "five")
    journald.sync()
    done = cat("-M", f"TLOG_REC={rec}")
    assert (done.returncode, done.stdout) == (1, b"one two")
    line = done.stderr.decode()
    assert line.startswith("ttyscribe cat: journal cursor s=")
    assert f"recording {rec}, message 5: messages 3 to 4 missing" in line
    cursor = line.removeprefix("ttyscribe cat: journal cursor ").partition(":")[0]
    found = subprocess.run(
        ["journalctl", "-q", "-o", "cat", "-n", "1", f"--cursor={cursor}"],
        capture_output=True, check=True,
    )  # fmt: skip
    assert json.loads(found.stdout)["id"] == 5


def test_message_longer_than_the_bindings_limit_is_whole(journald: Journald) -> None:
    rec = f"{uuid.uuid4().hex}-3-3"
    send(rec, 1, "x" * 300_000)
    journald.sync()
    assert cat("-M", f"TLOG_REC={rec}").stdout == b"x" * 300_000


def test_directory_of_journal_files(rec: str) -> None:
    machine = Path("/etc/machine-id").read_text().strip()
    for base in ("/run/log/journal", "/var/log/journal"):
        if os.path.isdir(f"{base}/{machine}"):
            done = cat("-D", f"{base}/{machine}", "-M", f"TLOG_REC={rec}")
            assert done.stdout == b"one two"
            return
    raise AssertionError("journald keeps no files")


def test_missing_namespace_and_directory_are_one_line(journald: Journald) -> None:
    for option in (["-D", "/nonexistent"], ["-N", "ttyscribe-nonexistent"]):
        done = cat(*option, "-M", "TLOG_REC=x")
        assert (done.returncode, done.stderr.count(b"\n")) == (1, 1), done.stderr


def test_followed_recording_is_copied_as_it_comes(rec: str) -> None:
    process = subprocess.Popen(
        [*TTYSCRIBE, "cat", "-f", "-M", f"TLOG_REC={rec}"], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        seen = b""
        while seen != b"one two":
            seen += os.read(process.stdout.fileno(), 4096)
        send(rec, 3, "three")
        assert os.read(process.stdout.fileno(), 4096) == b"three"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_recording_of_tlog_is_played(journald: Journald, utmp: Path) -> None:
    before = time.time()
    process = ptyprocess.PtyProcess.spawn(
        ["tlog-rec", "-w", "journal", "--journal-augment=true", "echo", "from-tlog"]
    )
    while True:
        try:
            if not os.read(process.fd, 4096):
                break
        except OSError:
            break
    process.wait()
    assert process.exitstatus == 0
    journald.sync()
    # tlog-rec itself is the sender that journald vouches for.
    done = cat("-M", "_COMM=tlog-rec", "-S", f"@{before:.6f}")
    assert (done.returncode, done.stdout) == (0, b"from-tlog\r\n")
