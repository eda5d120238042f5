# SPDX-License-Identifier: Apache-2.0
"""Runs a program on a terminal that takes everything at once, and watches it."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import termios
import time
from pathlib import Path
from typing import NamedTuple

TIMEOUT = 300.0


class Run(NamedTuple):
    """One program run to its end."""

    seconds: float  # from before the fork to the end of the program
    cpu: float  # user + system of the program and all that it started and waited for
    received: int  # bytes that the terminal got
    status: int


class Program:
    """A program on a pseudo-terminal of 80x24."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.command = command
        self.begin = time.perf_counter()
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            try:
                fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
                os.execvpe(command[0], command, environment)
            finally:
                os._exit(127)

    def read(self) -> bytes:
        """What the program wrote next, b"" after its end."""
        if not select.select([self.fd], [], [], TIMEOUT)[0]:
            self.kill()
            raise TimeoutError(f"nothing from {self.command} in {TIMEOUT:.0f} s")
        try:
            return os.read(self.fd, 65536)
        except OSError:  # EIO: nobody has the terminal open any more
            return b""

    def expect(self, mark: bytes) -> None:
        """Read until the mark has come."""
        seen = b""
        while mark not in seen:
            data = self.read()
            if not data:
                raise RuntimeError(f"{self.command} ended early: {seen!r}")
            seen = (seen + data)[-4096:]

    def finish(self) -> Run:
        """Read to the end and wait for the program."""
        received = 0
        while data := self.read():
            received += len(data)
        _, status, usage = os.wait4(self.pid, 0)
        seconds = time.perf_counter() - self.begin
        os.close(self.fd)
        cpu = usage.ru_utime + usage.ru_stime
        return Run(seconds, cpu, received, os.waitstatus_to_exitcode(status))

    def kill(self) -> None:
        """Hang up, and wait until all is gone."""
        members = [self.pid, *descendants(self.pid)]
        os.close(self.fd)
        for pid in reversed(members):
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                pass
        os.waitpid(self.pid, 0)


def run(command: list[str], environment: dict[str, str]) -> Run:
    """Run a program to its end; raises RuntimeError if it fails."""
    result = Program(command, environment).finish()
    if result.status != 0:
        raise RuntimeError(f"exit status {result.status}: {' '.join(command)}")
    return result


def descendants(pid: int) -> list[int]:
    """All processes below pid, parents before children."""
    found = []
    waiting = [pid]
    while waiting:
        parent = waiting.pop()
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                children = [int(child) for child in task.read_text().split()]
            except OSError:
                continue
            found += children
            waiting += children
    return found


def memory(pid: int, but: set[str]) -> int:
    """Bytes (PSS) of pid and the processes below it, without the commands named in `but`.

    PSS shares what several processes map among them.
    """
    total = 0
    for member in [pid, *descendants(pid)]:
        try:
            if Path(f"/proc/{member}/comm").read_text().strip() in but:
                continue
            for line in Path(f"/proc/{member}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        except (OSError, ProcessLookupError):
            continue
    return total
