# SPDX-License-Identifier: Apache-2.0
"""The recorders that are compared, as command lines."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# As the checkout's ./ttyscribe starts it.
OURS = [str(ROOT / ".venv/bin/python3"), "-I", str(ROOT / "src/ttyscribe/__main__.py")]
# `rec` as it would be without a spool, to tell what that costs.
UNSPOOLED = [
    *OURS[:2],
    "-c",
    (
        "import os, sys, ttyscribe.session.setup as setup; setup.Spool = lambda *a, **k: None\n"
        "from ttyscribe.cli.rec import main; os._exit(main(sys.argv[1:]))"
    ),
]
LAUNCHER = ROOT / ".venv/bin/ttyscribe-rec-session"

Recorder = Callable[[Path, list[str]], list[str]]


def bare(output: Path, command: list[str]) -> list[str]:
    return command


def ttyscribe(output: Path, command: list[str]) -> list[str]:
    return [*OURS, "rec", "-q", "-o", str(output), "--", *command]


def tlog(output: Path, command: list[str]) -> list[str]:
    # Its command is a file, not a name.
    program = shutil.which(command[0]) or command[0]
    return ["tlog-rec", "-o", str(output), program, *command[1:]]


def script(output: Path, command: list[str]) -> list[str]:
    return ["script", "-q", "-e", "-c", "exec " + shlex.join(command), str(output)]


def asciinema(output: Path, command: list[str]) -> list[str]:
    line = "exec " + shlex.join(command)
    return ["asciinema", "rec", "-q", "--overwrite", "-c", line, str(output)]


# In the order of the table's columns; "bare" is the terminal without a recorder.
RECORDERS: dict[str, Recorder] = {
    "bare": bare,
    "ttyscribe": ttyscribe,
    "tlog": tlog,
    "script": script,
    "asciinema": asciinema,
}


def journal(name: str, command: list[str]) -> list[str]:
    """Record to the journal with one of the two that can."""
    if name == "ttyscribe":
        return [*OURS, "rec", "-q", "-w", "journal", "--", *command]
    return ["tlog-rec", "-w", "journal", shutil.which(command[0]) or command[0], *command[1:]]


def login(name: str, scratch: Path) -> list[str]:
    """`-c true` by a login shell. Ours under tlog's name, so that it reads the same settings."""
    if name == "bare":
        return ["bash", "-c", "true"]
    if name == "tlog":
        return ["tlog-rec-session", "-c", "true"]
    link = scratch / "tlog-rec-session"
    if not link.is_symlink():
        link.symlink_to(LAUNCHER)
    return [str(link), "-c", "true"]


def player(name: str, recording: Path) -> list[str]:
    if name == "ttyscribe":
        return [*OURS, "play", "-g", "end", str(recording)]
    return ["tlog-play", "-g", "end", "-i", str(recording)]


def available(name: str) -> str:
    """Why a subject can't take part, or "" if it can."""
    program = {"tlog": "tlog-rec", "script": "script", "asciinema": "asciinema"}.get(name)
    if program and not shutil.which(program):
        return f"{program} is not installed"
    return ""
