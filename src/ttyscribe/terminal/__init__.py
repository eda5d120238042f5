# SPDX-License-Identifier: Apache-2.0
"""Ptys, raw mode, window sizes, spawning the shell, and plain pipes where there is no terminal."""

from __future__ import annotations

from ttyscribe.terminal.ends import (
    Ends,
    keep_only,
    leave_inherited,
    open_ends,
    shut_down,
    standard_descriptors,
)
from ttyscribe.terminal.raw import RawMode, window_of
from ttyscribe.terminal.sink import Sink, open_nonblocking
from ttyscribe.terminal.spawn import Child, exec_shell, raise_limits, spawn

__all__ = [
    "Child",
    "Ends",
    "RawMode",
    "Sink",
    "exec_shell",
    "keep_only",
    "leave_inherited",
    "open_ends",
    "open_nonblocking",
    "raise_limits",
    "shut_down",
    "spawn",
    "standard_descriptors",
    "window_of",
]
