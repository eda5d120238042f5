# SPDX-License-Identifier: Apache-2.0
"""Remembers what is in place before it is changed, and puts it back; for install."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from filelist import replace


class Snapshot:
    """Files and folders as they are; each file is one that will be replaced in one step."""

    def __init__(self, files: Iterable[Path], folders: Iterable[Path]) -> None:
        self._files = {path: _File(path) for path in files}
        self._folders: dict[Path, os.stat_result] = {}
        self._missing: set[Path] = set()
        for folder in {*folders, *(path.parent for path in self._files)}:
            for above in (folder, *folder.parents):
                if not os.path.lexists(above):
                    self._missing.add(above)
        for folder in folders:
            if folder.is_dir():
                self._folders[folder] = folder.stat()

    def put_back(self) -> None:
        """As far as it is possible: what failed may fail again."""
        # What there was not at first, so that a full file system has room.
        for file in sorted(self._files.values(), key=lambda file: file.status is not None):
            with contextlib.suppress(OSError):
                file.put_back()
        for folder, status in self._folders.items():
            with contextlib.suppress(OSError):
                os.chown(folder, status.st_uid, status.st_gid)
                folder.chmod(stat.S_IMODE(status.st_mode))
        for folder in sorted(self._missing, reverse=True):
            with contextlib.suppress(OSError):
                folder.rmdir()


class _File:
    """A file's contents and owner, or where a link leads to; status is None for no file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.status = path.lstat() if os.path.lexists(path) else None
        self.data = b""
        self.leads = ""
        if self.status is not None and stat.S_ISREG(self.status.st_mode):
            self.data = path.read_bytes()
        elif self.status is not None and stat.S_ISLNK(self.status.st_mode):
            self.leads = os.readlink(path)

    def put_back(self) -> None:
        if self.status is None:
            self.path.unlink(missing_ok=True)
        elif os.path.lexists(self.path) and _same(self.path.lstat(), self.status):
            pass
        elif self.leads:
            self.path.unlink(missing_ok=True)
            self.path.symlink_to(self.leads)
        elif stat.S_ISREG(self.status.st_mode):
            replace(self.path, self.data, stat.S_IMODE(self.status.st_mode))
            os.chown(self.path, self.status.st_uid, self.status.st_gid)


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_dev, one.st_ino, one.st_mtime_ns) == (
        other.st_dev,
        other.st_ino,
        other.st_mtime_ns,
    )
