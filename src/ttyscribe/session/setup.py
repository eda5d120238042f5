# SPDX-License-Identifier: Apache-2.0
"""From a configuration and a user's environment to a recording that can begin."""

from __future__ import annotations

import os

from ttyscribe.session.echo import EchoFilter
from ttyscribe.session.identity import NO_SESSION, clean, identify, login_uid, shortened
from ttyscribe.session.recording import GRACE, GRACE_OF_USER, QUEUE_LIMIT, Recording
from ttyscribe.session.spool import Spool
from ttyscribe.session.spoolfolder import SERVICE_FOLDER, SUFFIX, abandoned, user_folder
from ttyscribe.terminal import raise_limits
from ttyscribe.tlog import Encoder, escape
from ttyscribe.writers import open_writer
from ttyscribe.writers.journald import namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ttyscribe.config.views import Rec, RecSession
    from ttyscribe.tlog import Identity
    from ttyscribe.writers import Writer

# What sshd, su and login tell of where the user comes from.
_REMOTE = (b"SSH_CONNECTION", b"SSH_CLIENT", b"REMOTEHOST")

# Bytes of JSON in the start's member. syslog daemons cut a message off at 8 KiB, and a user
# chooses all of these.
_COMMAND_ROOM = 1024
_ENV_ROOM = 384
_TEXT_ROOM = 192

# A message's bytes besides its payload, at the most: names, numbers, and the start's member.
_MESSAGE_HEAD = 8192


def open_recording(
    values: Rec | RecSession,
    user: str,
    environ: Mapping[bytes, bytes],
    pid: int | None = None,
    folder: str | None = None,
) -> Recording:
    """Open the writer that values ask for, and a recording of user through it.

    values are a configuration's values. folder is the spool's; without one it is
    the user's own, and what earlier recordings left there is delivered in the
    background. Raises WriterError if the writer can't be opened, SpoolError if
    there is no place for the spool.
    """
    if folder is None:
        raise_limits()
        folder = user_folder(environ)
        if abandoned(folder):
            _recover_apart(folder)
    writer = open_writer(values, folder)
    return new_recording(values, writer, identify(user, environ, pid), folder)


def new_recording(
    values: Rec | RecSession, writer: Writer, identity: Identity, folder: str
) -> Recording:
    """A recording into an open writer, as values say, with its spool in folder.

    Raises SpoolError if the spool can't be made.
    """
    log, limit = values["log"], values["limit"]
    # Somebody waits for a recorder that is the user's own.
    grace = GRACE if folder == SERVICE_FOLDER else GRACE_OF_USER
    if limit["action"] == "delay":
        # At its own rate the writer takes nothing for the time that one message needs.
        grace += (values["payload"] + _MESSAGE_HEAD) / max(limit["rate"], 1)
    return Recording(
        Encoder(identity, values["payload"]),
        writer,
        values["latency"],
        log_input=log["input"],
        log_output=log["output"],
        log_window=log["window"],
        # A delayed session slows down to the rate, so little may wait.
        queue_limit=limit["burst"] if limit["action"] == "delay" else QUEUE_LIMIT,
        slow_down=limit["action"] == "delay",
        echo=EchoFilter(identity.rec),
        grace=grace,
        look_for=looked_for(values, folder),
        spool=Spool(
            folder,
            identity.rec + SUFFIX,
            escape.value(about(values, identity, folder)),
            limit=values["spool"]["limit"],
            sync=values["spool"]["sync"],
        ),
    )


def looked_for(values: Rec | RecSession, folder: str) -> bool:
    """Whether somebody will see if the recording arrived: the service's courier.

    Users may not read the journal. What a limit drops is missing on purpose.
    """
    return (
        values["writer"] == "journal"
        and folder == SERVICE_FOLDER
        and values["limit"]["action"] != "drop"
    )


def about(values: Rec | RecSession, identity: Identity, folder: str = "") -> dict[str, object]:
    """What recovery has to know of a recording: its identity, and the settings it needs."""
    file = values["file"]["path"]
    return {
        "identity": {name: getattr(identity, name) for name in identity.__slots__},
        "payload": values["payload"],
        "writer": values["writer"],
        "look_for": looked_for(values, folder),
        # Recovery runs elsewhere.
        "file": {"path": os.path.abspath(file) if file else ""},
        "syslog": values["syslog"],
        "journal": {**values["journal"], "namespace": namespace()}
        if values["writer"] == "journal"
        else values["journal"],
    }


def _recover_apart(folder: str) -> None:
    """Recover in a process of its own, which nobody waits for and no terminal ends."""
    try:
        child = os.fork()
    except OSError:
        return  # without another process; the next login tries again
    if child:
        os.waitpid(child, 0)
        return
    try:
        if os.fork() == 0:
            os.setsid()
            nothing = os.open(os.devnull, os.O_RDWR)
            for fd in range(3):
                os.dup2(nothing, fd)
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))
            from ttyscribe.session.recovery import recover

            for _ in recover(folder):
                pass
    finally:
        os._exit(0)


def start_member(
    command: Sequence[str | bytes],
    shell: str,
    environ: Mapping[bytes, bytes],
    *,
    title: str = "",
    captured: Iterable[str] = ("SHELL", "TERM", "LANG"),
    idle_time_limit: float | None = None,
    fds: Sequence[int] = (0, 1, 2),
    pid: int | None = None,
) -> dict[str, object]:
    """The member of the first message: what was started, where and how.

    command is the whole argument vector; captured names the environment
    variables that are kept; fds are the user's standard descriptors; pid is the
    recorded process (default: this one), from which the kernel's login uid is. What is
    too long ends in "…".
    """
    from ttyscribe import __version__

    variables: list[str | bytes] = []
    for name in captured:
        value = environ.get(os.fsencode(name))
        if value is not None:
            variables += [name, value]
    kept = shortened_all(variables, _ENV_ROOM)
    remote = next((environ[name] for name in _REMOTE if name in environ), b"")
    member: dict[str, object] = {
        "event": "start",
        "version": __version__,
        "command": shortened_all(command, _COMMAND_ROOM),
        "shell": shortened(shell, _TEXT_ROOM),
        "title": shortened(title, _TEXT_ROOM),
        "env": dict(zip(kept[::2], kept[1::2], strict=False)),
        "tty": terminal_name(fds),
        "remote": shortened(remote.split(b" ")[0], _TEXT_ROOM),
    }
    uid = login_uid(os.getpid() if pid is None else pid)
    if uid != NO_SESSION:
        member["loginuid"] = uid
    if idle_time_limit is not None:
        member["idle_time_limit"] = idle_time_limit
    return member


def shortened_all(texts: Iterable[str | bytes], room: int) -> list[str]:
    """As many of texts as take room bytes in JSON; a last "…" stands for all others."""
    kept: list[str] = []
    # Less a last "…" with its quotes and comma.
    left = room - 6
    for text in texts:
        if left < 6:
            return [*kept, "…"]
        kept.append(shortened(text, left - 3))
        left -= len(escape.value(kept[-1])) + 1
    return kept


def terminal_name(fds: Sequence[int]) -> str:
    """The path of the first terminal among the descriptors fds; "" if there is none."""
    for fd in fds:
        try:
            return clean(os.ttyname(fd))
        except OSError:
            continue
    return ""
