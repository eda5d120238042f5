# SPDX-License-Identifier: Apache-2.0
"""Driving the real program under a real terminal, and reading what it recorded."""

from __future__ import annotations

import functools
import json
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import ptyprocess
from jsonschema import Draft202012Validator

import ttyscribe.tlog
from ttyscribe.events import INPUT, OUTPUT, WINDOW, Event
from ttyscribe.tlog import Decoder, parse
from ttyscribe.tlog.decode import ParsedMessage

MAIN = [sys.executable, "-I", "-m", "ttyscribe"]
REC = [*MAIN, "rec"]
TIMEOUT = 30.0


class Terminal:
    """A program under a terminal of its own: what a person sees, types and waits for."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        env: dict[str, str] | None = None,
        cwd: str | None = None,
        size: tuple[int, int] = (24, 80),
    ) -> None:
        self._process = ptyprocess.PtyProcess.spawn(
            list(argv), env=env or clean_environment(), cwd=cwd, dimensions=size
        )
        self.seen = b""
        self._searched = 0

    @property
    def pid(self) -> int:
        pid: int = self._process.pid
        return pid

    @property
    def fd(self) -> int:
        fd: int = self._process.fd
        return fd

    def send(self, data: bytes) -> None:
        while data:
            select.select([], [self.fd], [])
            data = data[os.write(self.fd, data) :]

    def line(self, text: str) -> None:
        self.send(text.encode() + b"\r")

    def expect(self, pattern: bytes, timeout: float = TIMEOUT) -> re.Match[bytes]:
        """Wait until the terminal shows pattern behind what was expected before."""
        deadline = time.monotonic() + timeout
        while True:
            match = re.compile(pattern, re.DOTALL).search(self.seen, self._searched)
            if match is not None:
                self._searched = match.end()
                return match
            left = deadline - time.monotonic()
            if left <= 0 or not self._read(left):
                raise AssertionError(f"no {pattern!r} in {self.seen[self._searched :]!r}")

    def resize(self, rows: int, columns: int) -> None:
        self._process.setwinsize(rows, columns)

    def kill(self, number: int) -> None:
        os.kill(self.pid, number)

    def finish(self, timeout: float = TIMEOUT) -> int:
        """Read to the end; the exit status, or minus the signal that ended it."""
        deadline = time.monotonic() + timeout
        while self._read(deadline - time.monotonic()):
            pass
        assert time.monotonic() < deadline, f"it does not end: {self.seen[-500:]!r}"
        self._process.wait()
        if self._process.signalstatus is not None:
            return -int(self._process.signalstatus)
        return int(self._process.exitstatus)

    def hang_up(self) -> None:
        """Let the terminal go, as a lost connection does, and wait for the program's end."""
        self._process.fileobj.close()
        self._process.wait()

    def close(self) -> None:
        self._process.close(force=True)

    def _read(self, timeout: float) -> bool:
        ready, _, _ = select.select([self.fd], [], [], max(timeout, 0))
        if not ready:
            return False
        try:
            data = os.read(self.fd, 65536)
        except OSError:
            return False
        self.seen += data
        return bool(data)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def clean_environment(**more: str) -> dict[str, str]:
    """An environment in which programs behave the same everywhere."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/"),
        "TERM": "xterm",
        "LANG": "C.UTF-8",
        "SHELL": "/bin/bash",
        "PS1": "$ ",
        **more,
    }


def run(
    argv: Sequence[str | Path],
    *,
    data: bytes = b"",
    env: dict[str, str] | None = None,
    timeout: float = TIMEOUT,
) -> subprocess.CompletedProcess[bytes]:
    """Run a program without any terminal, on pipes."""
    return subprocess.run(
        [str(word) for word in argv],
        input=data,
        capture_output=True,
        env=env or clean_environment(),
        timeout=timeout,
        check=False,
    )


def wait_until(true: object, what: str, timeout: float = TIMEOUT) -> None:
    """Wait until the function true returns something that is."""
    assert callable(true)
    deadline = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def messages(source: Path | bytes) -> list[ParsedMessage]:
    """The messages in a file or its bytes, each valid by the schema."""
    data = source if isinstance(source, bytes) else source.read_bytes()
    where = "bytes" if isinstance(source, bytes) else str(source)
    found = []
    for number, line in enumerate(data.splitlines(), 1):
        message = parse(line, f"{where}:{number}")
        fields = json.loads(line)
        # parse has checked every byte; the schema need not, number by number.
        for name in ("in_bin", "out_bin"):
            fields[name] = fields[name][:3]
        schema().validate(fields)
        found.append(message)
    return found


def events(source: Path | bytes) -> list[Event]:
    """The events of a file of one recording."""
    decoder = Decoder()
    return [event for message in messages(source) for event in decoder.decode(message)]


def output(source: Path | bytes) -> bytes:
    return b"".join(data for _, kind, data in events(source) if kind == OUTPUT)


def typed(source: Path | bytes) -> bytes:
    return b"".join(data for _, kind, data in events(source) if kind == INPUT)


def windows(source: Path | bytes) -> list[bytes]:
    return [data for _, kind, data in events(source) if kind == WINDOW]


@functools.cache
def schema() -> Draft202012Validator:
    folder = Path(ttyscribe.tlog.__file__).parent
    return Draft202012Validator(json.loads((folder / "schema.json").read_text()))
