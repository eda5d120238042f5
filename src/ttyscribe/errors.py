# SPDX-License-Identifier: Apache-2.0
"""The errors a user can meet, and how text of unknown origin is shown to them.

Every error is one line for a person: what failed, on which file, line and key,
why, and what to do now. A traceback is shown only with --debug.
"""

from __future__ import annotations

import os

# Exit statuses, as documented in the help of every command.
FAILED = 1  # something could not be done
USAGE = 2  # the command line is wrong
NOT_EXECUTABLE = 126  # the shell or command may not run
NOT_FOUND = 127  # the shell or command does not exist


NO_DESCRIPTOR = "no file descriptor is left; raise the limit of open files (ulimit -n)"


class TtyscribeError(Exception):
    """An error with a message a user can act on, and the exit status it leads to."""

    status = FAILED


class UsageError(TtyscribeError):
    """The command line is wrong."""

    status = USAGE


class ConfigError(TtyscribeError):
    """A configuration is wrong or must not be trusted; names file, line, column and key."""


class PolicyError(TtyscribeError):
    """Who is recorded can't be told."""


class FormatError(TtyscribeError):
    """A recording breaks the message format; names where, the recording and the message id."""


class ReaderError(TtyscribeError):
    """A recording's store can't be read."""


class WriterError(TtyscribeError):
    """A recording's store can't be opened or written.

    code is the exit status that the session itself ended with, None if there was none.
    kept tells that nothing is lost: what could not be written waits in the spool.
    """

    code: int | None = None
    kept = False


class SpoolError(TtyscribeError):
    """What is captured can't be kept on disk, or what was kept can't be read."""


class TerminalError(TtyscribeError):
    """The system has no pty, pipe or process left for a session."""


class LockError(TtyscribeError):
    """What is recorded already can't be told or registered; names the lock folder."""


class ServiceError(TtyscribeError):
    """The recorder service is missing or does not answer."""


class SpawnError(TtyscribeError):
    """The shell or command could not be started; the status is 126 or 127 as in a shell."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def reason(error: OSError) -> str:
    """The operating system's reason alone: "No such file or directory"."""
    return error.strerror or (os.strerror(error.errno) if error.errno else str(error))


def printable(text: str | bytes) -> str:
    """Text of unknown origin made safe for a terminal and for one line.

    Control characters, escapes, line separators and undecodable bytes become
    backslash escapes; everything else is kept.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    """A backslash escape; of the byte, where Python's surrogateescape stands for one."""
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
