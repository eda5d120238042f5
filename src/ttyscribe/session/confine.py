# SPDX-License-Identifier: Apache-2.0
"""How a skipped command is executed: confined by the kernel (launcher/confine.c)."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def can_confine() -> bool:
    """Whether there is the program that does it, and the kernel can."""
    path = _confiner()
    return path != "" and os.spawnve(os.P_WAIT, path, [path], {}) == 0


def confined(path: str, argv: Sequence[str], *, only: Sequence[str] = ()) -> tuple[str, list[str]]:
    """The program to execute for path with argv, and its arguments.

    only are the files and folders of which it, and what it starts, may execute; any, if none
    are given.
    """
    return _confiner(), ["ttyscribe-confine", *only, "--", path, *argv]


def _confiner() -> str:
    import sys

    path = sys.executable.rpartition("/")[0] + "/ttyscribe-confine"
    return path if os.access(path, os.X_OK) else ""
