# SPDX-License-Identifier: Apache-2.0
"""The shell that a login shell's name stands for, and the shells that are valid ones."""

from __future__ import annotations

import os
import sys

MOST_BYTES = 1 << 18  # of a list of shells
# Ours, and the one that does the same.
_LOGIN_SHELLS = ("ttyscribe-rec-session", "tlog-rec-session")


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


def is_login_shell(path: str) -> bool:
    """Whether path is a recording login shell, by its name, a link's or that of one installed.

    To start it in the place of the real shell would begin recordings without end.
    """
    for name in (path, os.path.realpath(path)):
        if name.rpartition("/")[2].partition("-shell-")[0] in _LOGIN_SHELLS:
            return True
    # Another name of its file. The interpreter is in PREFIX/lib/ttyscribe/bin.
    prefix = sys.executable.rpartition("/lib/ttyscribe/")[0]
    try:
        status = os.stat(path)
        ours = os.stat(f"{prefix or '/usr'}/bin/{_LOGIN_SHELLS[0]}")
    except (OSError, ValueError):
        return False
    return (status.st_dev, status.st_ino) == (ours.st_dev, ours.st_ino)


def valid_shells(path: str) -> list[str]:
    """The login shells that the system's list names; none if it can't be read."""
    try:
        with open(path, "rb") as lines:
            data = lines.read(MOST_BYTES)
    except OSError:
        return []
    shells = (line.partition(b"#")[0].strip() for line in data.split(b"\n"))
    return [os.fsdecode(shell) for shell in shells if shell]
