# SPDX-License-Identifier: Apache-2.0
"""The spool: what was captured, on disk before it is delivered, until a writer has it.

One file for each recording is the mirror that survives the recorder, the queue
that a writer which is down is served from, and what recovery reads. What it
looks like is told by spoolfile.py. While its recorder lives, it is locked (flock(2)).
"""

from __future__ import annotations

import _thread
import fcntl
import os
from zlib import crc32

from ttyscribe.errors import SpoolError, reason
from ttyscribe.session.spoolfile import (
    DELIVERED,
    DELIVERED_AT,
    FIXED,
    FLUSH,
    FRAME,
    HEAD,
    JSON_AT,
    MAGIC,
    PAGE,
    SLOTS_AT,
    VERSION,
    frames,
    pack_slot,
)
from ttyscribe.session.spoolfolder import cut, open_folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ttyscribe.session.spoolfile import Frame
    from ttyscribe.tlog.encode import State

# Blocks are reserved before they are needed, so that a full disk is noticed while what
# is in flight still fits: the pump holds an event of 80 KiB at the most for each stream.
# A session that never has much waiting does without, because giving reserved blocks back
# costs more than all else at its end (measured on ext4: 2 ms against 5 us). There an event
# may find no room; it is held in memory, and whoever appended it must not deliver it.
_SMALL = 16 << 10
_FIRST = 256 << 10
_STEP = 1 << 20
_MARGIN = 96 << 10
# A file that grew beyond this while its writer was down is cut when it is up again.
_KEEP = 4 << 20
_RETRY = 500_000_000
_SECOND = 1_000_000_000


class Spool:
    """The spool file of one recording that is going on.

    tip is where the next frame goes, and read_at where read_back goes on. While
    it is full nothing more should be captured; error says why. store tells the
    descriptor of the writer's own file, which is forced to the disk before the spool
    forgets what it has; -1 for none.
    """

    def __init__(self, folder: str, name: str, about: bytes, *, limit: int, sync: str) -> None:
        """Make the file name in folder, which is made too if need be.

        about is JSON. limit bounds the bytes of all files in folder, 0 does not;
        sync is "none", "second" or "always". Raises SpoolError.
        """
        self.path = f"{folder}/{name}"
        self.error = ""
        self.store: Callable[[], int] = _no_file
        self._name = name
        self._limit = limit
        self._always = sync == "always"
        self._each_second = sync == "second"
        self._full = False
        self._held: list[tuple[int, int, bytes, int, int]] = []
        self._retry_at = 0
        self._dirty = False
        self._syncing = False
        self._synced_at = 0
        self._sync_failed = ""
        self._folder = open_folder(folder)
        self._generation = 1
        self._start = (JSON_AT + len(about) + PAGE - 1) // PAGE * PAGE
        self.tip = self.read_at = self._start
        # Frames may go up to here; the blocks are sure up to allocated.
        self._reserved = self._start + _SMALL + _MARGIN
        self._allocated = 0
        self._fd = -1
        try:
            self._fd = self._create(name, about)
        except OSError as error:
            self.remove()
            raise SpoolError(
                f"{self.path}: can't make the recording's spool file: {reason(error)}"
            ) from None

    @property
    def full(self) -> bool:
        return self._full or bool(self._sync_failed)

    @property
    def used(self) -> int:
        """Bytes of frames since the last checkpoint."""
        return self.tip - self._start

    @property
    def behind(self) -> bool:
        """Whether read_back has something to read."""
        return self.read_at < self.tip

    @property
    def gone(self) -> bool:
        """Whether somebody removed the file, so that nobody will find what is in it."""
        return not os.fstat(self._fd).st_nlink

    @property
    def holds(self) -> bool:
        """Whether events wait in memory for room."""
        return bool(self._held)

    def append(self, time: int, kind: int, data: bytes, bytes_in: int, bytes_out: int) -> bool:
        """Keep one event; False if there was no room, so that it waits in memory for some.

        bytes_in and bytes_out count all that was captured up to here.
        """
        end = self.tip + FRAME + len(data)
        if end + _MARGIN > self._reserved and not self._full:
            self._grow(end, time)
        if kind == FLUSH:
            # It leads to the next checkpoint, and so to room: it goes first, and there is always
            # room for it.
            return self._write(time, kind, data, bytes_in, bytes_out)
        if (
            not self._held
            and end + FRAME <= self._reserved
            and self._write(time, kind, data, bytes_in, bytes_out)
        ):
            return True
        self._held.append((time, kind, data, bytes_in, bytes_out))
        return False

    def read_back(self, size: int) -> list[Frame]:
        """Frames from read_at on, of size bytes or one more; moves read_at behind them."""
        found = []
        until = self.read_at + size
        for frame in frames(self._fd, self.read_at, self._generation, self.tip):
            found.append(frame)
            self.read_at = frame[5]
            if self.read_at >= until:
                break
        return found

    def delivered(self, id: int) -> None:
        """The writer has taken the messages up to id."""
        if self._always and not self._sync_store():
            return
        os.pwrite(self._fd, DELIVERED.pack(id), DELIVERED_AT)
        self._dirty = True

    def checkpoint(self, state: State, bytes_in: int, bytes_out: int) -> None:
        """All frames are in messages that the writer has taken; state is the encoder's now."""
        if self._always and not self._sync_store():
            return
        generation = self._generation + 1
        slot = pack_slot(generation, state, bytes_in, bytes_out)
        os.pwrite(self._fd, slot, SLOTS_AT[generation % 2])
        self._dirty = True
        if self._always:
            # Before the frames that it stands for are written over.
            self._sync_now()
        self._generation = generation
        self.tip = self.read_at = self._start
        if self._reserved > self._start + _KEEP:
            self._reserved = self._allocated = self._start + _FIRST + _STEP
            os.ftruncate(self._fd, self._reserved)
        self._full = False
        # What waits for room can have it at the next tick.
        self._retry_at = 0

    def take_held(self) -> list[tuple[int, int, bytes]]:
        """The events that wait in memory, which then do so no more: time, kind and data."""
        held, self._held = self._held, []
        return [frame[:3] for frame in held]

    def tick(self, now: int) -> None:
        """Do what is due: force the file to the disk, try again to find room."""
        if (self._full or self._held) and now >= self._retry_at:
            self._grow(self.tip, now)
            if not self._full:
                self._put_held(now)
        if self._always and self._sync_failed and now >= self._retry_at:
            # The next checkpoint tries again.
            self._retry_at = now + _RETRY
        if self._dirty and self._each_second and now - self._synced_at >= _SECOND:
            self._synced_at = now
            if not self._syncing:
                self._dirty = False
                self._syncing = True
                self._sync_soon()

    def due(self) -> int | None:
        """When tick has something to do, in nanoseconds since the recording began."""
        waits = self._full or self._held or (self._always and self._sync_failed)
        at = self._retry_at if waits else None
        if self._dirty and self._each_second:
            sync_at = self._synced_at + _SECOND
            return sync_at if at is None else min(at, sync_at)
        return at

    def forked(self) -> None:
        """This process is a fork that goes on with the recording: its threads are gone."""
        self._syncing = False

    def may_go(self, now: int) -> bool:
        """Whether what the writer has taken is safe without us, as far as that is asked for.

        now is nanoseconds since the recording began: one of less than a second is not waited for.
        """
        if self._always or (self._each_second and now > _SECOND):
            return self._sync_store()
        return True

    def close(self) -> None:
        """Let go of the file and leave it to recovery."""
        if self._always or self._each_second:
            self._sync_now()
        os.close(self._fd)
        os.close(self._folder)

    def remove(self) -> None:
        """Remove the file: all of it is delivered, or nothing was captured."""
        if self._fd >= 0:
            try:
                os.unlink(self._name, dir_fd=self._folder)
            except OSError:
                self._empty()
            os.close(self._fd)
        os.close(self._folder)

    def leave_note(self) -> None:
        """Leave the header alone: all is sent, and it is to be seen whether it arrives."""
        try:
            cut(self._fd, self._folder, self._name, self._start)
        except OSError:
            self._empty()
        os.close(self._fd)
        os.close(self._folder)

    # Helpers.

    def _empty(self) -> None:
        """The file can't be removed, or was: leave nothing in it that recovery could take up."""
        try:
            os.ftruncate(self._fd, 0)
        except OSError:
            pass  # what is written twice is not lost

    def _create(self, name: str, about: bytes) -> int:
        fd = os.open(
            name,
            os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC,
            0o600,
            dir_fd=self._folder,
        )
        try:
            # Recovery leaves an empty file alone, so it can't come between.
            fcntl.flock(fd, fcntl.LOCK_EX)
            head = HEAD.pack(MAGIC, VERSION, self._start, len(about), crc32(about))
            slot = pack_slot(1, (1, b"", b"", b""), 0, 0)
            parts = [
                head.ljust(SLOTS_AT[0], b"\0"),
                bytes(SLOTS_AT[1] - SLOTS_AT[0]),
                slot.ljust(JSON_AT - SLOTS_AT[1], b"\0"),
                about,
            ]
            _write_all(fd, b"".join(parts), 0)
            if self._always:
                os.fsync(fd)
                os.fsync(self._folder)
        except OSError:
            os.unlink(name, dir_fd=self._folder)
            os.close(fd)
            raise
        return fd

    def _write(self, time: int, kind: int, data: bytes, bytes_in: int, bytes_out: int) -> bool:
        fixed = FIXED.pack(len(data), self._generation, kind, time, bytes_in, bytes_out)
        check = crc32(data, crc32(fixed)).to_bytes(4, "little")
        size = FRAME + len(data)
        try:
            written = os.pwritev(self._fd, (fixed, check, data), self.tip)
            if written != size:
                _write_all(self._fd, (fixed + check + data)[written:], self.tip + written)
            if self._always:
                os.fdatasync(self._fd)
        except OSError as error:
            # Nothing more is sure to have room, until blocks for it could be reserved.
            self._reserved = self.tip
            self._allocated = 0
            self._stuck(time, reason(error))
            return False
        self.tip += size
        self._dirty = True
        return True

    def _grow(self, end: int, now: int) -> None:
        """Reserve what end and the margin need; full if that can't be."""
        step = self._allocated + _STEP if self._allocated else self._start + _FIRST
        wanted = max(step, end + _MARGIN)
        try:
            if end + _MARGIN > self._reserved:
                if not self._within_limit(wanted - max(self._allocated, self.tip)):
                    self._stuck(now, f"its limit of {self._limit} bytes (spool.limit) is reached")
                    return
                os.posix_fallocate(self._fd, self._allocated, wanted - self._allocated)
                self._reserved = self._allocated = wanted
        except OSError as error:
            self._stuck(now, reason(error))
            return
        self._full = False
        self.error = ""

    def _within_limit(self, more: int) -> bool:
        if not self._limit:
            return True
        with os.scandir(self._folder) as entries:
            for entry in entries:
                try:
                    more += entry.stat(follow_symlinks=False).st_blocks * 512
                except FileNotFoundError:
                    continue
        return more <= self._limit

    def _stuck(self, now: int, why: str) -> None:
        self._full = True
        self._retry_at = now + _RETRY
        self.error = f"{self.path.rpartition('/')[0]}: the spool is full: {why}"

    def _put_held(self, now: int) -> None:
        held, self._held = self._held, []
        for number, frame in enumerate(held):
            if not self.append(*frame):
                self._held.extend(held[number + 1 :])
                # The event's own time is long over.
                self._retry_at = now + _RETRY
                return

    def _sync_store(self) -> bool:
        fd = self.store()
        if fd < 0:
            return True
        try:
            os.fdatasync(fd)
        except OSError as error:
            self._note_sync(reason(error))
            return False
        self._sync_failed = ""
        return True

    def _sync_now(self) -> None:
        try:
            os.fdatasync(self._fd)
            self._dirty = False
        except OSError as error:
            self._note_sync(reason(error))

    def _sync_soon(self) -> None:
        files = []
        try:
            for fd in (self.store(), self._fd):
                if fd >= 0:
                    files.append(os.dup(fd))
            _thread.start_new_thread(self._sync_apart, (files,))
        except (OSError, RuntimeError):
            # No descriptor or thread is left, as where the user has used them all up.
            self._sync_apart(files)

    def _sync_apart(self, files: list[int]) -> None:
        """In a thread of its own, so that a slow disk does not stop the terminal."""
        try:
            for fd in files:
                os.fdatasync(fd)
            self._note_sync("")
        except OSError as error:
            self._note_sync(reason(error))
        finally:
            for fd in files:
                os.close(fd)
            self._syncing = False

    def _note_sync(self, failed: str) -> None:
        self._sync_failed = failed
        if failed:
            self._dirty = True
            self.error = f"{self.path}: can't force the recording to the disk: {failed}"


def _no_file() -> int:
    return -1


def _write_all(fd: int, data: bytes, at: int) -> None:
    """Write data, the rest of a short write too, which then tells why it was short."""
    while data:
        written = os.pwrite(fd, data, at)
        data = data[written:]
        at += written
