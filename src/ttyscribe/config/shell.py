# SPDX-License-Identifier: Apache-2.0
"""The shell that a login shell's name stands for, and the shells that are valid ones."""

from __future__ import annotations

import os

MOST_BYTES = 1 << 18  # of a list of shells


def shell_in_name(name: str) -> str | None:
    """The shell that tlog's -shell- names encode, or None.

    ttyscribe-rec-session-shell-bin-zsh is /bin/zsh: each dash stands for a slash,
    and a backslash before a character keeps that character (tlog-rec-session(8);
    tlog 12.1 itself hangs on one).
    """
    _, found, code = name.partition("-shell-")
    if not found:
        return None
    shell = "/"
    kept = False
    for c in code:
        if kept or c not in "-\\":
            shell += c
            kept = False
        elif c == "-":
            shell += "/"
        else:
            kept = True
    return shell


def valid_shells(path: str) -> list[str]:
    """The login shells that the system's list names; none if it can't be read."""
    try:
        with open(path, "rb") as lines:
            data = lines.read(MOST_BYTES)
    except OSError:
        return []
    shells = (line.partition(b"#")[0].strip() for line in data.split(b"\n"))
    return [os.fsdecode(shell) for shell in shells if shell]
