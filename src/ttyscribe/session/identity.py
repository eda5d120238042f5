# SPDX-License-Identifier: Apache-2.0
"""Who and what is recorded: the fields that all messages of a recording share."""

from __future__ import annotations

import os
import time

from ttyscribe import bounded
from ttyscribe.errors import SpoolError
from ttyscribe.tlog import Identity, escape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# The kernel's "no audit session", and "no login uid".
NO_SESSION = 4294967295
# What no terminal's name is longer than; users can set any.
_TERM_MAX = 128


def identify(user: str, environ: Mapping[bytes, bytes], pid: int | None = None) -> Identity:
    """The identity of a recording that begins now for the process pid (default: this one)."""
    pid = os.getpid() if pid is None else pid
    return Identity(
        host_name(),
        recording_id(pid),
        clean(user),
        shortened(environ.get(b"TERM", b""), _TERM_MAX),
        audit_session(pid),
        time.time_ns() // 1_000_000,
    )


def recording_id(pid: int) -> str:
    """A host-unique id: boot id, pid and the process's start time, the numbers in hex."""
    boot = _read("/proc/sys/kernel/random/boot_id").decode().strip().replace("-", "")
    # Field 2 is the name in parentheses, which may hold anything; 22 counts from the file's start.
    start = int(_read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[19])
    return f"{boot}-{pid:x}-{start:x}"


def audit_session(pid: int) -> int:
    """The audit session id of a process; NO_SESSION where there is none."""
    return _audit(pid, "sessionid")


def login_uid(pid: int) -> int:
    """The uid that a process's session logged in with, whatever it became; NO_SESSION for none."""
    return _audit(pid, "loginuid")


def _audit(pid: int, name: str) -> int:
    try:
        return int(_read(f"/proc/{pid}/{name}"))
    except (OSError, ValueError):
        return NO_SESSION


def host_name() -> str:
    """The host's name as the kernel has it, with the domain of /etc/hosts or the name if known.

    Nothing is asked over a network: a login must not wait for a name server, and
    an unresolvable name is not an error.
    """
    name = os.uname().nodename
    if "." in name:
        return clean(name)
    try:
        hosts = _read("/etc/hosts", 1 << 16).decode("utf-8", "replace")
    except OSError:
        return clean(name)
    prefix = name + "."
    for line in hosts.splitlines():
        for word in line.partition("#")[0].split()[1:]:
            if word.startswith(prefix):
                return clean(word)
    return clean(name)


def user_name(uid: int) -> str:
    """The name of a uid; its number if it has none, or the name service does not answer."""
    names, _ = bounded.ask(_account(uid, "pw_name"))
    return os.fsdecode(names[0].encode("utf-8", "surrogateescape")) if names else str(uid)


def home_of(uid: int) -> bytes:
    """The home folder of a uid. Raises SpoolError, as the spool is what asks for it."""
    homes, failure = bounded.ask(_account(uid, "pw_dir"))
    if not homes:
        raise SpoolError(
            f"there is no place for the spool: HOME names none, and the home of uid {uid} could"
            f" not be looked up: {failure}; set HOME"
        )
    return homes[0].encode("utf-8", "surrogateescape")


def _account(uid: int, field: str) -> Iterator[str]:
    """What the name service knows of a uid. Runs in a child."""
    import pwd

    try:
        account = pwd.getpwuid(uid)
    except KeyError:
        raise LookupError("the name service does not know it") from None
    yield os.fsencode(getattr(account, field)).decode("utf-8", "surrogateescape")


def clean(text: str | bytes) -> str:
    """Text that UTF-8 can hold: what it can't becomes the replacement character."""
    if isinstance(text, str):
        text = os.fsencode(text)
    return text.decode("utf-8", "replace")


def shortened(text: str | bytes, room: int) -> str:
    """Clean text, cut with a "…" where it takes more than room bytes (from 3 up) in JSON."""
    text = clean(text)
    # A character that does not fit ends it, so that no more than room needs to be looked at.
    data = text[: room + 1].encode()
    _, count, _, cut = escape.fit(data, 0, room)
    if not cut:
        return text
    _, count, _, _ = escape.fit(data, 0, room - 3)
    return text[:count] + "…"


def _read(path: str, size: int = 4096) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, size)
    finally:
        os.close(fd)
