# SPDX-License-Identifier: Apache-2.0
"""Recovery: what a recorder that is gone left in the spool reaches its writer after all.

The frames go through an encoder in the state of the last checkpoint, so the same
messages come out with the same ids, byte for byte. Those that the writer is
known to have are left out, by the id in the spool's header and by what the store
itself holds (ttyscribe.session.stores); syslog can't be asked, so there the messages
of the write that was cut off may appear twice.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import stat
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, TypeVar
from zlib import crc32

from ttyscribe.errors import SpoolError, TtyscribeError, WriterError, printable, reason
from ttyscribe.session import spoolfile, spoolfolder
from ttyscribe.session.recording import encode
from ttyscribe.session.stores import complete_line, last_written
from ttyscribe.tlog import Encoder, Identity, escape
from ttyscribe.tlog.encode import is_cut_off
from ttyscribe.writers import open_writer

_T = TypeVar("_T")

if TYPE_CHECKING:
    from ttyscribe.events import Message
    from ttyscribe.writers import Writer

WRITTEN = "written"
WAITING = "waiting"
UNREADABLE = "unreadable"

BAD = ".bad"
# Messages that are written at once, in bytes.
_BATCH = 1 << 20
# How long a store may take nothing, in seconds.
_PATIENCE = 5.0
# The same, and the pause, where a rate limit of the store itself lets nothing through.
_LIMITED_PATIENCE = 40.0
_LIMITED_PAUSE = 0.05
# How long the clock that stamps files stands still at the most, in nanoseconds (HZ=100).
_TICK = 10_000_000
# An empty file this old, in seconds, is no recorder's that is just starting.
_STALE = 60
_LONGEST_HEADER = 1 << 20
_WINDOW = re.compile(rb"[0-9]{1,9}x[0-9]{1,9}")
# The fewest characters that a byte of JSON holds (one in six), with some room.
_PAYLOAD_MAX = 1 << 30


class Recovered:
    """What became of one spool file: state is WRITTEN, WAITING or UNREADABLE.

    messages counts those written now. rec and user are "" where they can't be read.
    problem says why something is left, "" otherwise. ended tells that the recording
    had its end, and was not cut off. What was sent to the journal and is not there
    has a state of its own (ttyscribe.session.arrival).
    """

    __slots__ = ("ended", "messages", "path", "problem", "rec", "state", "user")

    def __init__(self, path: str) -> None:
        self.path = path
        self.state = WAITING
        self.rec = ""
        self.user = ""
        self.messages = 0
        self.ended = False
        self.problem = ""

    def __str__(self) -> str:
        """One line for a person."""
        if self.state == UNREADABLE:
            return f"{printable(self.path)}: can't be recovered: {printable(self.problem)}"
        name = f"recording {printable(self.rec)} of {printable(self.user)}"
        count = "1 message" if self.messages == 1 else f"{self.messages} messages"
        if self.state == WRITTEN:
            what = "it was whole" if self.ended else "it was cut off, and ends as recovered"
            return f"{name}: {count} written; {what}"
        if self.ended:
            return f"{name}: {printable(self.problem)}"
        return f"{name}: {count} written, the rest waits: {printable(self.problem)}"


def recover(folder: str) -> Iterator[Recovered]:
    """Deliver what recorders that are gone left in folder, one recording after the other.

    A file that can't be read is renamed to end in .bad; one whose writer is down
    is left as it is. Raises SpoolError if folder can't be used; a missing one
    holds nothing.
    """
    try:
        os.lstat(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        raise SpoolError(f"{folder}: can't use the spool folder: {reason(error)}") from None
    at = spoolfolder.open_folder(folder, make=False)
    try:
        for name in sorted(os.listdir(at)):
            if name.endswith(spoolfolder.SUFFIX):
                done = _recover_file(at, folder, name)
                if done is not None:
                    yield done
    finally:
        os.close(at)


def _recover_file(at: int, folder: str, name: str) -> Recovered | None:
    """Recover one file; None if there is nothing to be done about it."""
    done = Recovered(f"{folder}/{name}")
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        fd = os.open(name, flags, dir_fd=at)
    except FileNotFoundError:
        return None
    except OSError as error:
        done.state = UNREADABLE
        done.problem = reason(error)
        return done
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None  # the recording is going on, or somebody else recovers it
        status = os.fstat(fd)
        if not status.st_nlink:
            return None
        if stat.S_ISREG(status.st_mode) and not status.st_size:
            if time.time() - status.st_mtime > _STALE:
                os.unlink(name, dir_fd=at)
            return None
        try:
            if not stat.S_ISREG(status.st_mode):
                raise SpoolError("it is no regular file")
            left = Left(fd)
            if not left.began:
                os.unlink(name, dir_fd=at)
                return None
            done.rec, done.user = left.identity.rec, left.identity.user
            _deliver(left, done, folder)
            done.ended = left.ended
        except (WriterError, OSError) as error:
            done.problem = reason(error) if isinstance(error, OSError) else str(error)
        except (TtyscribeError, ValueError, OverflowError) as error:
            done.state = UNREADABLE
            done.problem = f"{error}; it is kept as {name}{BAD}"
            os.rename(name, name + BAD, src_dir_fd=at, dst_dir_fd=at)
        else:
            done.state = WRITTEN
            if left.look_for:
                spoolfolder.cut(fd, at, name, left.start)
            else:
                os.unlink(name, dir_fd=at)
    finally:
        os.close(fd)
    return done


class Left:
    """A spool file that its recorder left, read and checked; fd is open on it.

    Raises SpoolError if it is not one.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.size = os.fstat(fd).st_size
        head = os.pread(fd, spoolfile.JSON_AT, 0)
        if len(head) < spoolfile.JSON_AT:
            raise SpoolError("it is too short for a spool file")
        magic, version, self.start, length, check = spoolfile.HEAD.unpack_from(head)
        if magic != spoolfile.MAGIC:
            raise SpoolError("it is no spool file")
        if version != spoolfile.VERSION:
            # Not bad, but another program's: that one can recover it.
            raise WriterError(f"it is a spool file of version {version}, not {spoolfile.VERSION}")
        if spoolfile.JSON_AT + length > min(self.start, _LONGEST_HEADER):
            raise SpoolError("its header is damaged")
        about = os.pread(fd, length, spoolfile.JSON_AT)
        if len(about) < length or crc32(about) != check:
            raise SpoolError("its header is damaged")
        self._read_about(_object(about))
        (self.delivered,) = spoolfile.DELIVERED.unpack_from(head, spoolfile.DELIVERED_AT)
        slots = [slot for at in spoolfile.SLOTS_AT if (slot := _slot(head, at)) is not None]
        if not slots:
            raise SpoolError("it has no whole checkpoint")
        self.generation, self.state, self.bytes_in, self.bytes_out = max(slots)
        # All before a checkpoint is delivered.
        self.delivered = max(self.delivered, self.state[0] - 1)
        # Milliseconds that the store is known to cover.
        self.stored_until = 0
        self.ended = False

    @property
    def began(self) -> bool:
        """Whether anything was captured; a session may fail to start behind its recorder."""
        frames = spoolfile.frames(self.fd, self.start, self.generation, self.size)
        return self.generation > 1 or next(frames, None) is not None

    def messages(self) -> Iterator[Message]:
        """The recording's messages from the last checkpoint to its end.

        If the recorder came to no end, the last has an end that says so.
        """
        encoder = Encoder(self.identity, self.payload)
        encoder.restore(self.state)
        now = 0
        until: dict[str, object] = {}
        for kind, at, data, bytes_in, bytes_out, _ in spoolfile.frames(
            self.fd, self.start, self.generation, self.size
        ):
            now = max(now, at)
            self.bytes_in, self.bytes_out = bytes_in, bytes_out
            yield from encode(encoder, now, kind, _checked(kind, data))
            if kind == spoolfile.UNTIL:
                until = _object(data)
            if kind == spoolfile.END:
                self.ended = True
                return
        member: dict[str, object] = {
            "event": "end",
            "recovered": True,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
        }
        if until:
            # How many bytes passed was in its recorder's memory alone.
            member = {**until, "recovered": True}
        now = max(now or self._elapsed(), self.stored_until * 1_000_000)
        yield from encoder.finish(now, member)
        if encoder.next_id <= self.delivered:
            # After a power cut the store may have more than the spool; the end goes behind it.
            encoder.next_id = self.delivered + 1
            yield from encoder.note(now, member)

    def mark_delivered(self, id: int) -> None:
        """Note that the store has the messages up to id."""
        os.pwrite(self.fd, spoolfile.DELIVERED.pack(id), spoolfile.DELIVERED_AT)

    def _elapsed(self) -> int:
        """Nanoseconds from the recording's beginning to the last change of the file.

        The clock for that stands still between the kernel's ticks, and may have been set.
        """
        changed = os.fstat(self.fd).st_mtime_ns + _TICK
        return max(0, changed - self.identity.start * 1_000_000)

    def _read_about(self, about: Mapping[str, object]) -> None:
        who: dict[str, object] = _member(about, "identity", dict)
        self.identity = Identity(
            _member(who, "host", str),
            _member(who, "rec", str),
            _member(who, "user", str),
            _member(who, "term", str),
            _whole(who, "session"),
            _whole(who, "start"),
        )
        self.payload = _whole(about, "payload")
        if not 32 <= self.payload <= _PAYLOAD_MAX:
            raise SpoolError("its payload is out of bounds")
        syslog, journal = _member(about, "syslog", dict), _member(about, "journal", dict)
        writer = _member(about, "writer", str)
        path = _member(_member(about, "file", dict), "path", str)
        self.file = path if writer == "file" else ""
        self.look_for = about.get("look_for") is True
        # The journal's; an older version did not note it.
        self.namespace = _member({"namespace": "", **journal}, "namespace", str)
        if "/" in self.namespace:
            raise SpoolError("its journal namespace is none")
        self.writer = {
            "writer": writer,
            "file": {"path": path},
            "syslog": {name: _member(syslog, name, str) for name in ("facility", "priority")},
            "journal": {
                "priority": _member(journal, "priority", str),
                "augment": _member(journal, "augment", bool),
            },
            # What waited has no reason to be slowed down, nor dropped.
            "limit": {"action": "pass"},
        }


def _deliver(left: Left, done: Recovered, folder: str) -> None:
    """Write what the store does not have yet. Raises WriterError if it can't be written."""
    id, left.stored_until = last_written(
        left.writer, left.identity, left.fd, left.namespace, left.delivered
    )
    # A file that has less than the spool noted lost it in a power cut.
    left.delivered = id if left.file and id else max(left.delivered, id)
    missing = (message for message in left.messages() if message.id > left.delivered)
    first = next(missing, None)
    if first is None:
        return
    # Before the writer is open, which would end the cut-off line as it is.
    if left.file and complete_line(left.file, first.data):
        left.mark_delivered(first.id)
        done.messages += 1
        batch = []
    else:
        batch = [first]
    writer = open_writer(
        left.writer,  # type: ignore[arg-type]  # checked; the rest is not used
        folder,
        left.namespace,
    )
    try:
        size = 0
        for message in missing:
            batch.append(message)
            size += len(message.data)
            if size > _BATCH:
                _write(left, writer, batch, done)
                size = 0
        _write(left, writer, batch, done)
    finally:
        writer.close()


def _write(left: Left, writer: Writer, batch: list[Message], done: Recovered) -> None:
    since = time.monotonic()
    while batch:
        taken = writer.write(batch)
        if taken:
            left.mark_delivered(batch[taken - 1].id)
            done.messages += taken
            del batch[:taken]
            since = time.monotonic()
            continue
        limited = not left.file and writer.fileno() < 0
        if time.monotonic() - since > (_LIMITED_PATIENCE if limited else _PATIENCE):
            raise WriterError("the writer is busy")
        time.sleep(_LIMITED_PAUSE if limited else 0.002)


def _slot(
    head: bytes, at: int
) -> tuple[int, tuple[int, bytes, bytes, bytes], int, int] | None:
    """A checkpoint: generation, the encoder's state, bytes of input and output; None if torn."""
    data = head[at : at + spoolfile.SLOT.size]
    if crc32(data[:-4]).to_bytes(4, "little") != data[-4:]:
        return None
    generation, next_id, bytes_in, bytes_out, window, in_tail, out_tail, _ = (
        spoolfile.SLOT.unpack(data)
    )
    if next_id < 1:
        return None
    if not is_cut_off(in_tail) or not is_cut_off(out_tail):
        return None
    if window and (window[:1] != b"=" or not _WINDOW.fullmatch(window[1:])):
        return None
    return generation, (next_id, window, in_tail, out_tail), bytes_in, bytes_out


def _checked(kind: int, data: bytes) -> bytes:
    """A frame's data, fit for the encoder. Raises SpoolError."""
    if kind == spoolfile.WINDOW and not _WINDOW.fullmatch(data):
        raise SpoolError("it holds a window size that is none")
    if kind in (spoolfile.NOTE, spoolfile.END, spoolfile.UNTIL):
        return escape.value(_object(data))
    if kind not in (spoolfile.OUTPUT, spoolfile.INPUT, spoolfile.WINDOW, spoolfile.FLUSH):
        raise SpoolError(f"it holds something of an unknown kind ({kind})")
    return data


def _object(data: bytes) -> dict[str, object]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise SpoolError(f"it holds JSON that is none: {error}") from None
    if not isinstance(value, dict):
        raise SpoolError("it holds JSON that is no object")
    return value


def _member(value: Mapping[str, object], name: str, kind: type[_T]) -> _T:
    found = value.get(name)
    if not isinstance(found, kind):
        raise SpoolError(f"its header has no proper '{printable(name)}'")
    return found


def _whole(value: Mapping[str, object], name: str) -> int:
    found = _member(value, name, int)
    if not 0 <= found < 1 << 62:
        raise SpoolError(f"its header has a '{name}' out of bounds")
    return found
