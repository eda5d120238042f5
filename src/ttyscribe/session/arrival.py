# SPDX-License-Identifier: Apache-2.0
"""Whether a recording that was sent to the journal is there.

journald takes a message from its socket and may drop it nonetheless, for its rate
limit or for want of room, without telling the sender. So the recorder service
leaves the header of a spool file when a recording has ended, as a note of what was
sent; this compares it with the journal.
"""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ttyscribe.errors import TtyscribeError, WriterError, reason
from ttyscribe.session import spoolfolder
from ttyscribe.session.recovery import BAD, UNREADABLE, Left, Recovered
from ttyscribe.session.stores import own_journal

if TYPE_CHECKING:
    from ttyscribe.tlog import Identity

# What a recording is whose messages are not all in the journal.
MISSING = "missing"
# A note whose recording has gaps ends so.
REPORTED = ".missing"
# journald needs a moment to write, and a busy one more, before what is not there counts as
# missing; in seconds.
SETTLE = 2.0
PATIENCE = 30.0
# A note that can't be looked at goes after a day, for they would fill the spool.
_KEPT = 86400
# Gaps that are listed at the most.
_LISTED = 10
_JOURNALS = ("/var/log/journal", "/run/log/journal")


def check(folder: str, *, again: bool = False) -> Iterator[Recovered]:
    """Look for the recordings of which folder has notes; those with gaps, each once.

    A note is removed when all has arrived, and renamed to end in .missing when
    something has not after PATIENCE, whose state is MISSING. again looks at those,
    too. One that can't be looked at yet is WAITING, with the problem. Raises SpoolError
    if folder can't be used.
    """
    if not os.path.lexists(folder):
        return
    at = spoolfolder.open_folder(folder, make=False)
    endings = (spoolfolder.SENT, REPORTED) if again else (spoolfolder.SENT,)
    try:
        for name in sorted(os.listdir(at)):
            if name.endswith(endings):
                done = _check_note(at, folder, name)
                if done is not None:
                    yield done
    finally:
        os.close(at)


def may_read(namespace: str) -> bool:
    """Whether this process can tell what is in the journal of a namespace, "" for the main one."""
    try:
        with open("/etc/machine-id", encoding="ascii") as file:
            name = file.read(64).strip() + (f".{namespace}" if namespace else "")
    except (OSError, ValueError):
        return False
    for folder in _JOURNALS:
        try:
            os.close(os.open(f"{folder}/{name}/system.journal", os.O_RDONLY | os.O_CLOEXEC))
            return True
        except PermissionError:
            return False
        except OSError:
            continue
    # There is none at all, so nothing is kept from us.
    return True


def _check_note(at: int, folder: str, name: str) -> Recovered | None:
    """What is missing of one note's recording; None for nothing, or if it can't be told."""
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        fd = os.open(name, flags, dir_fd=at)
    except OSError:
        return None
    try:
        age = time.time() - os.fstat(fd).st_mtime
        if 0 <= age < SETTLE:
            return None
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        left = Left(fd)
        if not may_read(left.namespace):
            if age > _KEPT:
                os.unlink(name, dir_fd=at)
            return _untold(f"{folder}/{name}", left)
        gaps = _gaps(_ids(left.identity, left.namespace), left.delivered)
        if not gaps:
            os.unlink(name, dir_fd=at)
            return None
        if age < 0:
            # The clock was set back since: the note's time counts anew.
            os.utime(fd)
        if age < PATIENCE:
            return None
        # Where the clock was set back meanwhile, entries are older than their recording.
        gaps = _gaps(_ids(left.identity, left.namespace, since=0), left.delivered)
        if not gaps:
            os.unlink(name, dir_fd=at)
            return None
        kept = name.removesuffix(spoolfolder.SENT).removesuffix(REPORTED) + REPORTED
        os.rename(name, kept, src_dir_fd=at, dst_dir_fd=at)
        return _report(f"{folder}/{kept}", left, gaps)
    except BlockingIOError:
        return None  # somebody else looks
    except (WriterError, OSError, ImportError) as error:
        done = Recovered(f"{folder}/{name}")
        done.problem = reason(error) if isinstance(error, OSError) else str(error)
        return done
    except (TtyscribeError, ValueError) as error:
        done = Recovered(f"{folder}/{name}")
        done.state = UNREADABLE
        done.problem = f"{error}; it is kept as {name}{BAD}"
        os.rename(name, name + BAD, src_dir_fd=at, dst_dir_fd=at)
        return done
    finally:
        os.close(fd)


def _ids(identity: Identity, namespace: str, since: float | None = None) -> set[int]:
    """The ids of a recording's messages that are in the journal.

    since is where to begin, in seconds since 1970; None: where the recording began.
    """
    reader = own_journal(namespace)
    found = set()
    try:
        reader.seek_realtime(identity.start / 1000 - 1 if since is None else since)
        while fields := reader.get_next():
            rec = fields.get("TLOG_REC")
            if rec == identity.rec:
                found.add(int(fields["TLOG_ID"]))
            elif rec is None and (id := _id(fields.get("MESSAGE", b""), identity.rec)):
                found.add(id)
    finally:
        reader.close()
    return found


def _id(line: bytes, rec: str) -> int:
    """A message's id, if it is one of rec; else 0."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return 0
    if not isinstance(message, dict) or message.get("rec") != rec:
        return 0
    id = message.get("id")
    return id if isinstance(id, int) else 0


def _gaps(found: set[int], last: int) -> list[tuple[int, int]]:
    """The runs of ids from 1 to last that are not found, each its first and last."""
    gaps = []
    expected = 1
    for id in [*sorted(id for id in found if 0 < id <= last), last + 1]:
        if id > expected:
            gaps.append((expected, id - 1))
        expected = id + 1
    return gaps


def _untold(path: str, left: Left) -> Recovered:
    done = Recovered(path)
    done.rec, done.user, done.ended = left.identity.rec, left.identity.user, True
    user = pwd.getpwuid(os.geteuid()).pw_name
    done.problem = (
        f"whether it arrived in the journal can't be told, which user {user} may not read; "
        "the group systemd-journal may"
    )
    return done


def _report(path: str, left: Left, gaps: list[tuple[int, int]]) -> Recovered:
    done = Recovered(path)
    done.state = MISSING
    done.rec, done.user, done.ended = left.identity.rec, left.identity.user, True
    ids = ", ".join(f"{a}-{b}" if a < b else f"{a}" for a, b in gaps[:_LISTED])
    more = " and more" if len(gaps) > _LISTED else ""
    count = sum(b - a + 1 for a, b in gaps)
    done.problem = (
        f"{count} of {left.delivered} messages are not in the journal (ids {ids}{more}): "
        f"journald dropped them, or removed them to make room; noted in {path}"
    )
    return done
