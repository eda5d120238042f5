# SPDX-License-Identifier: Apache-2.0
"""Which programs nobody but root can replace."""

from __future__ import annotations

import _stat as stat
import os

_LINKS_LIMIT = 40


def is_roots(path: str) -> bool:
    """Whether only root can change which regular, executable file the absolute path leads to."""
    todo = [part for part in reversed(path.split("/")) if part]
    at = ""
    links = 0
    try:
        if not _is_only_roots(os.lstat("/")):
            return False
        while todo:
            part = todo.pop()
            if part == ".":
                continue
            if part == "..":
                at = at.rpartition("/")[0]
                continue
            here = f"{at}/{part}"
            status = os.lstat(here)
            if stat.S_ISLNK(status.st_mode):
                links += 1
                if status.st_uid != 0 or links > _LINKS_LIMIT:
                    return False
                target = os.readlink(here)
                if target.startswith("/"):
                    at = ""
                todo += [part for part in reversed(target.split("/")) if part]
            elif not _is_only_roots(status):
                return False
            else:
                at = here
        return stat.S_ISREG(os.lstat(at or "/").st_mode) and os.access(at, os.X_OK)
    except OSError:
        return False


def _is_only_roots(status: os.stat_result) -> bool:
    return status.st_uid == 0 and not status.st_mode & 0o022
