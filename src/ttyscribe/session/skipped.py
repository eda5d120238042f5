# SPDX-License-Identifier: Apache-2.0
"""The recording of a command whose contents are not recorded: one message that tells of it."""

from __future__ import annotations

import os
import time

from ttyscribe.session.identity import clean, shortened

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ttyscribe.config.views import RecSession
    from ttyscribe.errors import WriterError
    from ttyscribe.session.recording import Recording
    from ttyscribe.session.skip import Skip

# Bytes of the command's JSON in the message.
_COMMAND_ROOM = 1024


class SkippedLog:
    """Takes a Recording's place: counts the bytes each way, and writes one message at the end.

    recording must log neither input nor output. The message tells the command,
    the rule by which it was skipped, when it started and ended (UTC), its status,
    and the bytes each way.
    """

    log_input = False
    paused_until = 0

    def __init__(self, recording: Recording, skip: Skip, command: str) -> None:
        self._recording = recording
        self._member = {
            "event": "skipped",
            "rule": skip.rule,
            "command": shortened(command, _COMMAND_ROOM),
            "program": clean(skip.program),
        }

    @property
    def error(self) -> WriterError | None:
        return self._recording.error

    @property
    def full(self) -> bool:
        return self._recording.full

    @property
    def holds(self) -> bool:
        return self._recording.holds

    @property
    def waiting(self) -> int:
        return self._recording.waiting

    def now(self) -> int:
        """Nanoseconds since the recording began."""
        return self._recording.now()

    def start(self, member: Mapping[str, object], window: bytes | None) -> None:
        """Keep when the command started, and from where, also for recovery."""
        self._member["start"] = utc(time.time())
        self._member["remote"] = str(member.get("remote", ""))
        self._recording.start_in_silence(self._member)

    def log(self, kind: str, data: bytes) -> None:
        """Count what passes."""
        self._recording.log(kind, data)

    def tick(self) -> None:
        self._recording.tick()

    def due(self) -> int | None:
        return self._recording.due()

    def forked(self) -> None:
        self._recording.forked()

    def finish(
        self, member: Mapping[str, object], stop: Callable[[], bool] | None = None
    ) -> None:
        """Write the message. Raises WriterError as Recording does."""
        ended = {name: value for name, value in member.items() if name != "event"}
        self._recording.finish({**self._member, "end": utc(time.time()), **ended}, stop)


def skip_for(
    values: RecSession,
    arguments: Sequence[str],
    environ: Mapping[bytes, bytes],
    fds: Sequence[int],
    is_plain_git: bool,
) -> Skip | None:
    """The rule by which a login's command is not recorded; None if it is recorded.

    arguments are the login shell's; only "-c COMMAND" without a terminal is asked about.
    is_plain_git is what skip.asks_git said.
    """
    if not values["skip"]["enabled"] or len(arguments) != 2 or arguments[0] != "-c":
        return None
    if any(fd >= 0 and os.isatty(fd) for fd in fds):
        return None
    from ttyscribe.session.skip import skip_rule

    commands = values["skip"]["commands"]
    return skip_rule(arguments[1], commands, values["shell"], environ, is_plain_git)


def without_contents(values: RecSession) -> RecSession:
    """values with nothing logged but what the SkippedLog says."""
    log = {**values["log"], "input": False, "output": False, "window": False}
    return {**values, "log": log}  # type: ignore[typeddict-item]  # the same keys


def utc(seconds: float) -> str:
    """A time as "2026-11-22T20:42:38Z"."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
