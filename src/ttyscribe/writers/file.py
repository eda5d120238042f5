# SPDX-License-Identifier: Apache-2.0
"""Messages appended to a file, a line each. Several recorders can share one file."""

from __future__ import annotations

import os
import stat
import time

from ttyscribe.errors import WriterError, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ttyscribe.events import Message

MODE = 0o600
# How often a line that others are busy writing is waited for.
_LOOKS = 1000
_FLAGS = (
    os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NOCTTY
    | os.O_NONBLOCK
)  # fmt: skip


class FileWriter:
    """Appends to path; makes it with mode 0600. A symlink at path is refused.

    A write holds whole messages, so that recorders sharing the file don't cut
    into each other's lines. Raises WriterError if the file can't be opened.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        if not path:
            raise WriterError(
                "the file writer needs a path: set \"file\": {\"path\": ...} or --file-path"
            )
        self._torn = False
        self._fd = self._open()

    def write(self, messages: Sequence[Message]) -> int:
        # Each ends its line; joined at once, because this is what bulk output passes through.
        lines = [message.data for message in messages]
        lines.append(b"")
        try:
            self._follow_removal()
            # Another recorder may have ended that line meanwhile.
            if self._torn and self._is_torn(self._fd):
                lines[0] = b"\n" + lines[0]
            data = b"\n".join(lines)
            written = os.write(self._fd, data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise WriterError(f"{self.path}: can't write: {reason(error)}") from None
        if written == len(data):
            self._torn = False
            return len(messages)
        return self._cut_back(lines, written)

    def fileno(self) -> int:
        return -1

    def stored_in(self) -> int:
        # /dev/null and its like can't be forced to a disk.
        return self._fd if stat.S_ISREG(os.fstat(self._fd).st_mode) else -1

    def close(self) -> None:
        os.close(self._fd)

    def _open(self) -> int:
        try:
            fd = os.open(self.path, _FLAGS, MODE)
        except OSError as error:
            import errno

            why = reason(error)
            if error.errno == errno.ELOOP:
                why = "it is a symbolic link, which a recording is never written through"
            elif error.errno == errno.ENXIO:
                why = "it is a pipe that nobody reads, or a socket"
            raise WriterError(f"{self.path}: can't open for writing: {why}") from None
        status = os.fstat(fd)
        if stat.S_ISCHR(status.st_mode) and os.isatty(fd):
            # It would be shown on the screen, and kept nowhere.
            os.close(fd)
            raise WriterError(f"{self.path}: can't record into it: it is a terminal")
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISCHR(status.st_mode):
            # A pipe takes part of a line, and gives none of it back.
            os.close(fd)
            raise WriterError(f"{self.path}: can't record into it: it is no regular file")
        # A line that a crash cut off is ended before the first of ours follows it.
        self._torn = status.st_size > 0 and self._is_torn(fd)
        return fd

    def _is_torn(self, fd: int) -> bool:
        """Whether the file, which fd is of, ends within a line that nobody is just writing."""
        try:
            reader = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return True
        try:
            for _ in range(_LOOKS):
                size = os.fstat(reader).st_size
                if not size or os.pread(reader, 1, size - 1) == b"\n":
                    return False
                try:
                    # Changes nothing, and waits like any write for the one before it.
                    os.posix_fallocate(fd, 0, 1)
                except OSError:
                    time.sleep(0.001)
                if os.fstat(reader).st_size == size:
                    break
            return True
        finally:
            os.close(reader)

    def _follow_removal(self) -> None:
        """Open the path anew if the file was removed."""
        if os.fstat(self._fd).st_nlink:
            return
        fd = self._open()
        os.close(self._fd)
        self._fd = fd

    def _cut_back(self, lines: list[bytes], written: int) -> int:
        """After a short write (a full disk): take back the torn line; count the whole ones.

        lines are without their ends, and an empty one follows the last.
        """
        whole = count = 0
        for line in lines[:-1]:
            if whole + len(line) + 1 > written:
                break
            whole += len(line) + 1
            count += 1
        excess = written - whole
        end = os.fstat(self._fd).st_size
        if excess:
            try:
                # Only our own last bytes are cut: O_APPEND put them at the end, and if
                # somebody wrote behind them the size no longer fits and the line stays torn.
                if end == os.lseek(self._fd, 0, os.SEEK_CUR):
                    os.ftruncate(self._fd, end - excess)
                    excess = 0
            except OSError:
                pass
        self._torn = bool(excess)
        if not count:
            raise WriterError(f"{self.path}: can't write: the file system or a limit is full")
        return count
