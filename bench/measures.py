# SPDX-License-Identifier: Apache-2.0
"""What is measured: each function takes one sample of one recorder."""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import host
import subjects
import text
from terminal import Program, memory, run

MB = 1_000_000
MIB = 1 << 20


class Sizes(NamedTuple):
    """How much of everything; the quick run takes less."""

    rounds: int
    keys: int
    sessions: int
    long_session: bool


FULL = Sizes(rounds=5, keys=3000, sessions=20, long_session=True)
QUICK = Sizes(rounds=2, keys=500, sessions=5, long_session=False)


class Bench:
    """The scratch folder with its texts, and the environment of what is run."""

    def __init__(self, scratch: Path, sizes: Sizes) -> None:
        self.scratch = scratch
        self.sizes = sizes
        self.output = scratch / "recording"
        self.environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": str(scratch),
            "SHELL": "/bin/sh",
            "TERM": "xterm-256color",
            "LANG": "C.UTF-8",
        }

    def login_environment(self, subject: str) -> dict[str, str]:
        """Has the login shell record to a file, ours in its own process as tlog's does."""
        settings: dict[str, object] = {
            "notice": "",
            "writer": "file",
            "file": {"path": str(self.output)},
        }
        if subject == "ttyscribe":
            settings["service"] = "off"
        return {**self.environment, "TLOG_REC_SESSION_CONF_TEXT": json.dumps(settings)}

    def text(self, size: int) -> Path:
        """A file of this many bytes of text, made once."""
        path = self.scratch / f"text-{size}"
        if not path.exists():
            text.write(path, size)
        return path

    def recording(self, size: int) -> Path:
        """A recording of that text by tlog-rec, made once."""
        path = self.scratch / f"recording-{size}"
        if not path.exists():
            run(subjects.tlog(path, ["cat", str(self.text(size))]), self.environment)
        return path

    def fresh(self) -> Path:
        self.output.unlink(missing_ok=True)
        return self.output

    def record(self, subject: str, command: list[str]) -> list[str]:
        return subjects.RECORDERS[subject](self.fresh(), command)


class Row(NamedTuple):
    """One line of the table: a figure that a measure gives."""

    title: str
    unit: str
    digits: int
    goal: str = ""  # for ttyscribe / tlog: ">= 1.8" or "<= 0.5"
    absolute: bool = False  # the goal is for the figure itself


class Measure(NamedTuple):
    """Something to measure; sample gives a figure for each row."""

    name: str
    rows: list[Row]
    subjects: list[str]
    sample: Callable[[Bench, str], list[float]]
    once: bool = False
    service: bool = False  # the recorder service runs meanwhile


def bulk(bench: Bench, subject: str) -> list[float]:
    """`cat` of 27 MB to a file: MB/s from exec to exit, and CPU seconds of all processes."""
    source = bench.text(27 * MB)
    result = run(bench.record(subject, ["cat", str(source)]), bench.environment)
    size = source.stat().st_size
    if result.received < size:
        raise RuntimeError(f"{subject}: {size - result.received} bytes never reached the terminal")
    check_recorded(bench, subject, size)
    return [size / MB / result.seconds, result.cpu]


def check_recorded(bench: Bench, subject: str, size: int) -> None:
    """Nobody is fast by not recording."""
    if subject == "bare":
        return
    got = bench.output.stat().st_size if bench.output.exists() else 0
    if got < size:
        raise RuntimeError(f"{subject}: recorded {got} bytes of {size}")


def journal(bench: Bench, subject: str) -> list[float]:
    """The same with 5 MB to the journal: MB/s."""
    source = bench.text(5 * MB)
    result = run(subjects.journal(subject, ["cat", str(source)]), bench.environment)
    return [source.stat().st_size / MB / result.seconds]


def start(bench: Bench, subject: str) -> list[float]:
    """Recording `true`, from exec to exit: ms."""
    result = run(bench.record(subject, ["true"]), bench.environment)
    check_recorded(bench, subject, 1)
    return [result.seconds * 1e3]


def login(bench: Bench, subject: str) -> list[float]:
    """`-c true` by the login shell, from exec to exit: ms."""
    bench.fresh()
    result = run(subjects.login(subject, bench.scratch), bench.login_environment(subject))
    check_recorded(bench, subject, 1)
    return [result.seconds * 1e3]


def echo(bench: Bench, subject: str) -> list[float]:
    """A key typed, to its echo by the recorded program: p50 and p99 in µs."""
    command = ["sh", "-c", "stty raw -echo; printf READY; exec cat"]
    program = Program(bench.record(subject, command), bench.environment)
    try:
        program.expect(b"READY")
        times = []
        for _ in range(bench.sizes.keys):
            begin = time.perf_counter()
            os.write(program.fd, b"x")
            program.expect(b"x")
            times.append((time.perf_counter() - begin) * 1e6)
    finally:
        program.kill()
    cuts = statistics.quantiles(times, n=100)
    return [cuts[49], cuts[98]]


def replay(bench: Bench, subject: str) -> list[float]:
    """Play a recording of the 27 MB by tlog-rec, from exec to exit: MB/s."""
    source = bench.text(27 * MB)
    result = run(subjects.player(subject, bench.recording(27 * MB)), bench.environment)
    size = source.stat().st_size
    if result.received < size:
        raise RuntimeError(f"{subject}: {size - result.received} bytes were not played")
    return [size / MB / result.seconds]


def idle(bench: Bench, subject: str) -> list[float]:
    """Memory of a recording that waits: MiB (PSS) each, with several at once."""
    command = ["sh", "-c", "printf READY; exec sleep 300"]
    programs: list[Program] = []
    try:
        for number in range(bench.sizes.sessions):
            output = bench.scratch / f"idle-{number}"
            output.unlink(missing_ok=True)
            recorder = subjects.RECORDERS[subject](output, command)
            programs.append(Program(recorder, bench.environment))
        for program in programs:
            program.expect(b"READY")
        total = sum(memory(program.pid, {"sleep"}) for program in programs)
    finally:
        for program in programs:
            program.kill()
    return [total / MIB / len(programs)]


def service_login(bench: Bench, subject: str) -> list[float]:
    """`-c true` by the login shell, recorded by the service, from exec to exit: ms."""
    if subject != "ttyscribe":
        return login(bench, subject)
    before = host.service_recording().stat().st_size if host.service_recording().exists() else 0
    result = run([str(subjects.LAUNCHER), "-c", "true"], bench.environment)
    if host.service_recording().stat().st_size <= before:
        raise RuntimeError("the service recorded nothing")
    return [result.seconds * 1e3]


def service_idle(bench: Bench, subject: str) -> list[float]:
    """What a session that waits adds, in MiB (PSS) of all its processes, with several at once."""
    if subject != "ttyscribe":
        return idle(bench, subject)
    recorder = host.service_pid()
    before = memory(recorder, set())
    programs: list[Program] = []
    try:
        for _ in range(bench.sizes.sessions):
            shell = [str(subjects.LAUNCHER), "-c", "printf READY; exec sleep 300"]
            programs.append(Program(shell, bench.environment))
        for program in programs:
            program.expect(b"READY")
        total = sum(memory(program.pid, {"sleep"}) for program in programs)
        total += memory(recorder, set()) - before
    finally:
        for program in programs:
            program.kill()
    return [total / MIB / len(programs)]


def mirror(bench: Bench, subject: str) -> list[float]:
    """What the spool costs of the throughput of the 27 MB, in percent: five runs each, by turns."""
    source = bench.text(27 * MB)
    command = bench.record(subject, ["cat", str(source)])
    without = [*subjects.UNSPOOLED, *command[len(subjects.OURS) + 1 :]]
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(5):
        for way, argv in zip(seconds, (command, without), strict=True):
            bench.fresh()
            way.append(run(argv, bench.environment).seconds)
            check_recorded(bench, subject, source.stat().st_size)
    spooled, bare = (statistics.median(way) for way in seconds)
    return [(1 - bare / spooled) * 100]


def pipe(bench: Bench, subject: str) -> list[float]:
    """1 GB through the login shell's `-c cat` without a terminal, bytes compared: MB/s."""
    source = bench.text(1000 * MB)
    bench.fresh()
    begin = time.perf_counter()
    shell = ["bash", "-c"] if subject == "bare" else subjects.login(subject, bench.scratch)[:2]
    environment = bench.login_environment(subject)
    with source.open("rb") as stdin:
        process = subprocess.Popen(
            [*shell, "cat"], stdin=stdin, stdout=subprocess.PIPE, env=environment
        )
        assert process.stdout is not None
        digest = hashlib.sha256()
        while data := process.stdout.read(1 << 20):
            digest.update(data)
    if process.wait() != 0:
        raise RuntimeError(f"{subject}: exit status {process.returncode}")
    seconds = time.perf_counter() - begin
    with source.open("rb") as file:
        if hashlib.file_digest(file, "sha256").digest() != digest.digest():
            raise RuntimeError(f"{subject}: other bytes came out than went in")
    check_recorded(bench, subject, source.stat().st_size)
    bench.fresh()
    return [source.stat().st_size / MB / seconds]


def long(bench: Bench, subject: str) -> list[float]:
    """Memory over 1 GB: MiB (PSS), the median, and the last quarter less the first."""
    source = bench.text(27 * MB)
    rounds = 1000 * MB // source.stat().st_size + 1
    loop = f"i=0; while [ $i -lt {rounds} ]; do cat {source}; i=$((i+1)); done"
    program = Program(bench.record(subject, ["sh", "-c", loop]), bench.environment)
    samples: list[int] = []
    received = 0
    step = rounds * source.stat().st_size // 40
    while data := program.read():
        received += len(data)
        if received // step > len(samples):
            samples.append(memory(program.pid, {"sh", "cat"}))
    program.finish()
    bench.fresh()
    figures = [sample / MIB for sample in samples if sample]
    quarter = len(figures) // 4
    growth = statistics.median(figures[-quarter:]) - statistics.median(figures[:quarter])
    return [statistics.median(figures), growth]


ALL = list(subjects.RECORDERS)
RECORDING = ALL[1:]
TWO = ["ttyscribe", "tlog"]

MEASURES = [
    Measure(
        "bulk",
        [
            Row("`cat` of 27 MB, to a file", "MB/s", 1, ">= 1.8"),
            Row("CPU for it, `cat` included", "s", 2, "<= 0.5"),
        ],
        ALL,
        bulk,
    ),
    Measure("journal", [Row("`cat` of 5 MB, to the journal", "MB/s", 1, ">= 1.2")], TWO, journal),
    Measure(
        "echo",
        [
            Row("key to echo, p50", "µs", 0, "<= 1.5"),
            Row("key to echo, p99", "µs", 0, "<= 1.5"),
        ],
        ALL,
        echo,
    ),
    Measure("start", [Row("recording `true`, exec to exit", "ms", 1)], ALL, start),
    Measure(
        "login", [Row("login shell `-c true`, without the service", "ms", 1)], ["bare", *TWO], login
    ),
    Measure("replay", [Row("replay of the 27 MB", "MB/s", 1, ">= 0.9")], TWO, replay),
    Measure("idle", [Row("memory of an idle recording", "MiB", 1)], RECORDING, idle),
    Measure(
        "service-login",
        [Row("login shell `-c true`, by the service", "ms", 1, "<= 1.5")],
        TWO,
        service_login,
        service=True,
    ),
    Measure(
        "service-idle",
        [Row("memory that an idle session by the service adds", "MiB", 1, "<= 2")],
        TWO,
        service_idle,
        service=True,
    ),
    Measure(
        "mirror",
        [Row("what the spool costs of the bulk throughput", "%", 1, "<= 10", absolute=True)],
        ["ttyscribe"],
        mirror,
        once=True,
    ),
    Measure(
        "pipe",
        [Row("1 GB through `-c cat` without a terminal", "MB/s", 1)],
        ["bare", "ttyscribe"],
        pipe,
        once=True,
    ),
    Measure(
        "long",
        [
            Row("memory during 1 GB, one session", "MiB", 1),
            Row("its growth over the 1 GB", "MiB", 1),
        ],
        TWO,
        long,
        once=True,
    ),
]
