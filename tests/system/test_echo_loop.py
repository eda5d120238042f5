# SPDX-License-Identifier: Apache-2.0
"""A session that shows its own recording as it grows does not feed itself."""

from __future__ import annotations

import json
import os
import select
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import ptyprocess
import pytest

ROUNDS = 4
# More than the filter's constant rate makes of messages in a second, in every form below.
BOUND = 150_000
# After this many seconds the loop runs at its constant rate, which follows half a megabyte as
# fast as it comes; unbounded, each second doubles it. Some forms take a while to begin.
SETTLES = 18
LIMIT = 60
MEASURED = 8


def run_for(
    argv: list[str], seconds: float, sample: Path | None = None, at_most: float = 0
) -> list[int]:
    """Run argv on a pty for so long; the size of sample, or else of what was shown, each second.

    Or longer, up to at_most seconds, until it has come to its rate.
    """
    process = ptyprocess.PtyProcess.spawn(argv)
    sizes: list[int] = []
    shown = 0
    began = time.monotonic()
    try:
        while len(sizes) < seconds or (len(sizes) < at_most and rate(sizes) >= BOUND):
            if select.select([process.fd], [], [], 0.05)[0]:
                shown += len(os.read(process.fd, 65536))
            if time.monotonic() - began > len(sizes) + 1:
                sizes.append(shown if sample is None else sample.stat().st_size)
    finally:
        process.terminate(force=True)
    return sizes


def test_tail_of_the_own_recording_comes_to_rest(tmp_path: Path) -> None:
    file = tmp_path / "own.tlog"
    command = f"until [ -s {file} ]; do :; done; exec tail -n +1 -f {file}"
    argv = [sys.executable, "-I", "-m", "ttyscribe", "rec", "-q", "-o", str(file)]
    sizes = run_for([*argv, "--latency", "1", "-c", command], ROUNDS + 2, file)
    # A latency is a second: whatever was still to be echoed is, and then there is quiet.
    assert sizes[-1] == sizes[-2] == sizes[-3]
    assert sizes[-1] < 20_000


FILE_FORMS = [
    "tail -n +1 -f {} | stdbuf -o0 fold -w 200",
    "tail -n +1 -f {} | grep --line-buffered --color=always user",
    "less +F {}",
    # The id is in no line as a whole.
    "tail -n +1 -f {} | stdbuf -o0 fold -w 20",
]
JOURNAL_FORMS = ["short", "json", "json-pretty", "verbose"]
Loops = dict[str, Future[list[int]]]


# From the first test on, so that the others don't add to the time.
@pytest.fixture(scope="module", autouse=True)
def loops(journald: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loops]:
    """A session for each form that shows its own recording, all at once: they mostly wait."""
    record = [sys.executable, "-I", "-m", "ttyscribe", "rec", "-q", "--latency", "1"]
    running: Loops = {}
    with ThreadPoolExecutor(len(FILE_FORMS) + len(JOURNAL_FORMS)) as pool:
        for form in FILE_FORMS:
            file = tmp_path_factory.mktemp("echo") / "own.tlog"
            command = f"until [ -s {file} ]; do :; done; {form.format(file)}"
            argv = [*record, "-o", str(file), "-c", command]
            running[form] = pool.submit(run_for, argv, SETTLES + MEASURED, file, LIMIT)
        for form in JOURNAL_FORMS:
            # The shell's parent is what records.
            command = f"exec journalctl --no-pager --follow --output={form} --lines=3 _PID=$PPID"
            argv = [*record, "--writer", "journal", "-c", command]
            running[form] = pool.submit(run_for, argv, SETTLES + MEASURED, None, LIMIT)
        yield running


@pytest.mark.parametrize("form", FILE_FORMS)
def test_the_own_recording_in_another_form_grows_at_a_constant_rate(
    form: str, loops: Loops
) -> None:
    sizes = loops[form].result()
    assert rate(sizes) < BOUND, sizes
    # It is a loop that goes on, and nothing of it is left out.
    assert sizes[-1] > sizes[-1 - MEASURED]


@pytest.mark.parametrize("form", JOURNAL_FORMS)
def test_the_journal_followed_in_any_form_grows_at_a_constant_rate(
    form: str, loops: Loops
) -> None:
    sizes = loops[form].result()
    assert sizes[-1] > 0
    assert rate(sizes) < BOUND, sizes


def rate(sizes: list[int]) -> float:
    """The growth in a second, the median of the last MEASURED: one of them may be the burst."""
    last = sizes[-1 - MEASURED :]
    return statistics.median(after - before for before, after in pairwise(last))


def test_what_is_elided_is_named_and_is_in_the_recording(tmp_path: Path) -> None:
    file = tmp_path / "own.tlog"
    command = f"until [ -s {file} ]; do :; done; exec timeout 3 tail -n +1 -f {file}"
    argv = [sys.executable, "-I", "-m", "ttyscribe", "rec", "-q", "-o", str(file)]
    subprocess.run([*argv, "--latency", "1", "-c", command], stdout=subprocess.PIPE, check=False)
    messages = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    notes = [message.get("ttyscribe", {}) for message in messages]
    elided = [note for note in notes if note.get("event") == "elided"]
    assert elided
    ids = {message["id"] for message in messages}
    assert all({note["first"], note["last"]} <= ids for note in elided)
    assert notes[-1]["bytes_out"] >= sum(note["bytes"] for note in elided)
