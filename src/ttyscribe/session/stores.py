# SPDX-License-Identifier: Apache-2.0
"""What a store holds of a recording already, so that recovery writes nothing twice."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ttyscribe.writers.syslog import IDENT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from systemd import journal

    from ttyscribe.tlog import Identity

_CHUNK = 1 << 20
# journald reads what it was sent within this time, in seconds, or is stuck.
_SETTLE = 1.0
_SYNC_TIMEOUT = 10
_PASSED = re.compile(r"\+([0-9]{1,15})")

# A message's id, and the milliseconds from the recording's beginning to its end.
Place = tuple[int, int]
NOWHERE = (0, 0)


def last_written(
    values: Mapping[str, object], identity: Identity, spool: int, namespace: str, delivered: int
) -> Place:
    """The last message of a recording that its store holds; NOWHERE if none, or unknown.

    values are the writer's settings as for open_writer, spool the open spool file,
    namespace the journal's; delivered is the last message that the spool knows to be written.
    """
    if values["writer"] == "file":
        file = values["file"]
        assert isinstance(file, dict)
        return last_in_file(file["path"], identity.rec)
    if values["writer"] == "journal":
        _settle(spool, namespace)
        # Where the clock was set back meanwhile, entries may be older than their recording.
        is_back = os.fstat(spool).st_mtime * 1000 < identity.start
        since = 0 if is_back else identity.start - 1000
        return last_in_journal(identity, namespace, delivered, since)
    return NOWHERE


def last_in_file(path: str, rec: str) -> Place:
    """The last whole message of rec in the file; NOWHERE if there is none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return NOWHERE
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return NOWHERE
        # Quotes within a text are escaped, so only the member itself looks like this.
        member = b'"rec":%b,' % json.dumps(rec, ensure_ascii=False).encode()
        for line in _lines_backward(fd):
            if member in line and (place := _place(line, rec)) is not None:
                return place
    finally:
        os.close(fd)
    return NOWHERE


def last_in_journal(identity: Identity, namespace: str, delivered: int, since: int) -> Place:
    """The last message of this user's processes in the journal with no gap since delivered.

    What is older than since, in milliseconds since 1970, is not looked at.

    A recorder sends them in order. One that is there without those before it is not
    believed, be it forged: a message may rather be there twice than never.
    """
    found: dict[int, int] = {}
    try:
        reader = own_journal(namespace)
        reader.seek_tail()
        while fields := reader.get_previous():
            if fields["__REALTIME_TIMESTAMP"].timestamp() * 1000 < since:
                break
            rec = fields.get("TLOG_REC")
            message = fields.get("MESSAGE", b"")
            if rec not in (None, identity.rec):
                continue
            place = _place(message, identity.rec)
            if place is not None:
                found.setdefault(*place)
                if place[0] <= max(delivered, 1):
                    break
    except (ImportError, OSError, ValueError):
        pass
    last = delivered
    while last + 1 in found:
        last += 1
    return (last, found[last]) if last in found else NOWHERE


def own_journal(namespace: str) -> journal.Reader:
    """What this user, or root, sent to the journal as a recorder. Raises ImportError, OSError."""
    from systemd import journal

    reader = journal.Reader(namespace=namespace or None, converters={"MESSAGE": bytes})
    reader.data_threshold = 0
    # Anybody may send entries that look like ours, but not under these uids. Root's are what
    # it recovered for others.
    for uid in {os.geteuid(), 0}:
        reader.add_match(_UID=uid)
    # Nor by the recorders' way: what a user has them print into journald's stream comes by another.
    reader.add_match(_TRANSPORT="journal")
    reader.add_match(SYSLOG_IDENTIFIER=IDENT)
    return reader


def complete_line(path: str, line: bytes) -> bool:
    """Write the rest of line if the file ends in a beginning of it, as a kill may leave it."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return False
        start = max(0, status.st_size - len(line) - 1)
        tail = os.pread(fd, len(line) + 1, start)
        cut = tail.rpartition(b"\n")[2] if b"\n" in tail or start == 0 else b""
        if not cut or not line.startswith(cut):
            return False
        rest = line[len(cut) :] + b"\n"
        return os.write(fd, rest) == len(rest)
    except OSError:
        return False
    finally:
        os.close(fd)


def _settle(spool: int, namespace: str) -> None:
    """Let journald read what the recorder sent it last."""
    if os.geteuid() == 0:
        try:
            subprocess.run(
                ["journalctl", "--sync", *([f"--namespace={namespace}"] if namespace else [])],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=_SYNC_TIMEOUT,
                check=True,
            )
            return
        except (OSError, subprocess.SubprocessError):
            pass
    since = time.time() - os.fstat(spool).st_mtime
    time.sleep(min(max(0.0, _SETTLE - since), _SETTLE))


def _place(line: bytes, rec: str) -> Place | None:
    """Where a message is, if it is one of rec."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict) or message.get("rec") != rec:
        return None
    id, pos, timing = message.get("id"), message.get("pos"), message.get("timing")
    if not isinstance(id, int) or not isinstance(pos, int) or not isinstance(timing, str):
        return None
    return id, pos + sum(map(int, _PASSED.findall(timing)))


def _lines_backward(fd: int) -> Iterator[bytes]:
    """The whole lines of a file from the last to the first; what follows the last line end is not.

    A file that shrinks meanwhile ends early.
    """
    end = os.fstat(fd).st_size
    pieces: list[bytes] = []  # of one line, from its end
    first = True
    while end > 0:
        start = max(0, end - _CHUNK)
        lines = os.pread(fd, end - start, start).split(b"\n")
        end = start
        # The last of lines ends where the chunk read before it began.
        pieces.append(lines.pop())
        while lines:
            whole = b"".join(reversed(pieces))
            if not first:
                yield whole
            first = False
            pieces = [lines.pop()]
    if not first and pieces:
        yield b"".join(reversed(pieces))
