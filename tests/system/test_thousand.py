# SPDX-License-Identifier: Apache-2.0
"""A thousand sessions at once, each typing: none is lost, and what each costs is printed."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.driving import wait_until
from tests.system.machine import Login, Machine, User, make_user

from ttyscribe.events import OUTPUT
from ttyscribe.recorder.loginrecord import RECORD, USER_PROCESS
from ttyscribe.tlog import Decoder

pytestmark = [pytest.mark.system, pytest.mark.xdist_group("installed")]

SESSIONS = 1000
USERS = 8
KEYS = 5
COMMAND = ("-c", "echo ready; exec cat")
PTYS = Path("/proc/sys/kernel/pty/max")
LIMIT = 120.0


@pytest.fixture
def room() -> Iterator[None]:
    """Enough ptys for this machine, and descriptors for this process."""
    before = PTYS.read_text()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if int(before) < 3 * SESSIONS:
        PTYS.write_text(str(3 * SESSIONS))
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4 * SESSIONS)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    PTYS.write_text(before)


def logged_in_since(utmp: Path, when: float) -> list[bytes]:
    """The terminals that utmp has users on who came after when."""
    records = RECORD.iter_unpack(utmp.read_bytes())
    return [line for kind, _, line, *_, at, _, _ in records if kind == USER_PROCESS and at > when]


def pss(pid: int) -> int:
    """The memory of a process in KiB, shared pages by share."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def test_a_thousand_sessions_type_at_once(machine: Machine, room: None, utmp: Path) -> None:
    machine.messages()
    with contextlib.ExitStack() as stack:
        users = [stack.enter_context(make_user(f"ttyscribe-t{n}")) for n in range(USERS)]
        service = machine.start_recorder("--max-sessions-per-user", str(SESSIONS))
        begin, day = time.monotonic(), time.time()
        logins = started(stack, users)
        there = time.monotonic() - begin
        assert len(machine.sessions(service)) == SESSIONS
        delays = [one for _ in range(KEYS) for one in typed(logins)]
        alone = sorted(echo(login) for login in logins[:200])
        recorders = statistics.mean(pss(pid) for pid in machine.sessions(service)[::20])
        clients = statistics.mean(pss(login.pid) for login in logins[::20])
        for login in logins:
            login.send(b"\r\x04")
        for login in logins:
            assert login.finish(LIMIT) == 0
        wait_until(lambda: machine.sessions(service) == [], "recorders do not end", LIMIT)
        assert not logged_in_since(utmp, day)
        took = time.monotonic() - begin
        machine.stop_recorder(service)
    print(
        f"\n{SESSIONS} sessions there in {there:.1f} s, over in {took:.1f} s;"
        f" PSS of a recorder {recorders:.0f} KiB, of its client {clients:.0f} KiB;"
        f" keystroke to echo: one at a time p50 {alone[100] * 1e6:.0f} us,"
        f" p99 {alone[198] * 1e6:.0f} us;"
        f" all {SESSIONS} at once p50 {statistics.median(delays) * 1e3:.0f} ms,"
        f" most {max(delays) * 1e3:.0f} ms"
    )
    assert sorted(recorded(machine)) == sorted(login.seen for login in logins)


class HighLogin(Login):
    """A login whose descriptor may be beyond what select(2) can name."""

    def send(self, data: bytes) -> None:
        os.write(self.fd, data)

    def _read(self, timeout: float) -> bool:
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        if not poll.poll(max(timeout, 0) * 1000):
            return False
        try:
            data = os.read(self.fd, 65536)
        except OSError:
            return False
        self.seen += data
        return bool(data)


def started(stack: contextlib.ExitStack, users: list[User]) -> list[HighLogin]:
    """All sessions, in small groups: all at once would only change their order."""
    logins: list[HighLogin] = []
    while len(logins) < SESSIONS:
        group = [
            stack.enter_context(
                HighLogin(users[(len(logins) + n) % USERS], ["-c", "echo ready; exec cat"])
            )
            for n in range(min(20, SESSIONS - len(logins)))
        ]
        for number, login in enumerate(group, len(logins)):
            login.expect(rb"ready\r\n", LIMIT)
            login.line(f"session {number}")
            login.expect(b"session %d\r\nsession %d\r\n" % (number, number), LIMIT)
        logins += group
    return logins


def echo(login: HighLogin) -> float:
    """Seconds from a key to its echo."""
    begin = time.perf_counter()
    os.write(login.fd, b"k")
    login.expect(b"k", LIMIT)
    return time.perf_counter() - begin


def typed(logins: list[HighLogin]) -> list[float]:
    """A key in every session at once: seconds to each one's echo."""
    begin = time.perf_counter()
    for login in logins:
        os.write(login.fd, b"k")
    waiting = {login.fd: login for login in logins}
    poll = select.poll()
    for fd in waiting:
        poll.register(fd, select.POLLIN)
    delays = []
    while waiting:
        ready = poll.poll(LIMIT * 1000)
        assert ready, f"{len(waiting)} sessions show nothing"
        for fd, _ in ready:
            delays.append(time.perf_counter() - begin)
            poll.unregister(fd)
            waiting.pop(fd).expect(b"k")
    return delays


def recorded(machine: Machine) -> list[bytes]:
    """The output of each recording."""
    decoders: dict[str, Decoder] = {}
    shown: dict[str, bytes] = {}
    for message in machine.messages():
        decoder = decoders.setdefault(message.rec, Decoder())
        for _, kind, data in decoder.decode(message):
            if kind == OUTPUT:
                shown[message.rec] = shown.get(message.rec, b"") + data
    return list(shown.values())
