# SPDX-License-Identifier: Apache-2.0
"""A session that shows its own recording as it grows does not feed itself."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path

import ptyprocess

ROUNDS = 4


def run_for(argv: list[str], seconds: float, sample: Path) -> list[int]:
    """Run argv on a pty for so long; the size of the file sample at each second."""
    process = ptyprocess.PtyProcess.spawn(argv)
    sizes: list[int] = []
    began = time.monotonic()
    try:
        while len(sizes) < seconds:
            if select.select([process.fd], [], [], 0.05)[0]:
                os.read(process.fd, 65536)
            if time.monotonic() - began > len(sizes) + 1:
                sizes.append(sample.stat().st_size)
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
