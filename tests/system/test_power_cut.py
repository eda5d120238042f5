# SPDX-License-Identifier: Apache-2.0
"""The power fails: a file system stops at one instant, and what was not forced to it is gone."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.system.test_nothing_lost import into_file, recorded

from ttyscribe.session.recovery import WRITTEN, recover

pytestmark = pytest.mark.system

# What ends a file system as a power cut does, its own log included (linux/ext4.h).
EXT4_IOC_SHUTDOWN = 0x8004587D
NOLOGFLUSH = 2


class Disk:
    """A file system on a disk of its own, mounted at folder."""

    def __init__(self, folder: Path, image: Path) -> None:
        self.folder = folder
        self._image = image

    def mount(self) -> None:
        subprocess.run(["mount", "-o", "loop", self._image, self.folder], check=True)

    def cut(self) -> None:
        """Nothing reaches the disk any more."""
        fd = os.open(self.folder, os.O_RDONLY)
        fcntl.ioctl(fd, EXT4_IOC_SHUTDOWN, struct.pack("I", NOLOGFLUSH))
        os.close(fd)

    def power_on(self) -> None:
        """What reached it, and no memory of anything else."""
        subprocess.run(["umount", self.folder], check=True)
        # Another test's mount namespace may still have the old one, which is the disk's as long.
        old, self._image = self._image, self._image.with_suffix(".again")
        shutil.copyfile(old, self._image)
        self.mount()


@contextlib.contextmanager
def own_disk(folder: Path) -> Iterator[Disk]:
    image = folder.with_suffix(".image")
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    folder.mkdir()
    disk = Disk(folder, image)
    disk.mount()
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with own_disk(tmp_path / "disk") as disk:
        yield disk


COUNT = 'i=0; while :; do i=$((i+1)); echo "line $i äé €"; [ $((i % 50)) != 0 ] || sleep 0.01; done'


def until_cut(disk: Disk, sync: str, seconds: float) -> tuple[list[tuple[float, bytes]], bytes]:
    """Record for that long until the power fails.

    What the terminal had received by which time, in seconds before the cut; and what the
    recording has when it was recovered.
    """
    tlog, folder = disk.folder / "a.tlog", disk.folder / "spool"
    recorder = into_file(tlog, folder, ["/bin/bash", "-c", COUNT], sync=sync)
    recorder.expect(b"line 1 ")
    seen = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        recorder.read(4096)
        seen.append((time.monotonic(), recorder.seen))
    at = time.monotonic()
    disk.cut()
    recorder.expect(b"ttyscribe: the terminal waits")
    recorder.kill()
    disk.power_on()
    last = recorder.seen.partition(b"\r\nttyscribe: the terminal waits")[0]
    assert [one.problem for one in recover(str(folder)) if one.state != WRITTEN] == []
    kept = recorded(tlog) if sync == "always" else played(tlog)
    return [*((at - when, what) for when, what in seen), (0, last)], kept


def played(tlog: Path) -> bytes:
    """What can be played of a recording of which a power cut took a part."""
    play = [sys.executable, "-m", "ttyscribe", "cat", "--lax", str(tlog)]
    return subprocess.run(play, check=True, capture_output=True).stdout


@pytest.mark.parametrize("seconds", [0.1, 1.3])
def test_a_power_cut_loses_nothing_of_what_was_shown(disk: Disk, seconds: float) -> None:
    seen, kept = until_cut(disk, "always", seconds)
    # Of what is just being forced to it when it stops so, ext4 tells that it was.
    assert kept.startswith([what for before, what in seen if before > 0][-1])


def test_a_power_cut_loses_what_a_second_brought_where_that_is_enough(disk: Disk) -> None:
    seen, kept = until_cut(disk, "second", 3.2)
    # The disk itself takes its time, too.
    assert kept.startswith([what for before, what in seen if before > 1.5][-1])
