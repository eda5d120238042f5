# SPDX-License-Identifier: Apache-2.0
"""A fault of the recorder's own, once a session has begun."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from ttyscribe import config
from ttyscribe.errors import WriterError
from ttyscribe.recorder import child, wire
from ttyscribe.terminal import open_ends


class Log:
    """Takes a recording's place."""

    log_input = False
    error = None
    holds = full = False
    paused_until = waiting = 0

    def __init__(self, failure: Exception | None) -> None:
        self.failure = failure
        self.ended: Mapping[str, object] = {}

    def now(self) -> int:
        return 0

    def finish(self, member: Mapping[str, object], stop: Callable[[], bool] | None = None) -> None:
        self.ended = member
        if self.failure is not None:
            raise self.failure


def broken(pump: object) -> None:
    raise KeyError("what")


@pytest.mark.parametrize(
    ("failure", "more"), [(None, ""), (WriterError("no room"), "; no room"), (OSError("x"), "")]
)
def test_fault_of_the_pump_ends_session_and_recording_with_one_alert(
    monkeypatch: pytest.MonkeyPatch, failure: Exception | None, more: str
) -> None:
    told: list[str] = []
    monkeypatch.setattr(child, "alert", told.append)
    monkeypatch.setattr("ttyscribe.session.pump.Pump.run", broken)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    null = os.open(os.devnull, os.O_RDWR)
    hello = wire.Hello(b"-x", b"012", False, {}, [], [])
    peer: Any = SimpleNamespace(uid=7, pid=os.getpid())
    marks: list[bool] = []
    session = child.Session(ours, peer, hello, (null, null, null), marks.append)
    session.values = config.built_in("rec-session")  # type: ignore[assignment]
    log: Any = Log(failure)
    session._record(log, open_ends(session.fds, os.getpid(), log_input=False, log_output=False))
    session._finish(log)
    with theirs:
        assert [theirs.recv(wire.PACKET_MAX)[:1] for _ in range(2)] == [wire.RECORD, wire.END]
        done = theirs.recv(wire.PACKET_MAX)
    assert done == wire.DONE + b"ttyscribe: the recorder failed: KeyError: 'what'"
    assert log.ended == {"event": "end", "signal": "HUP"}
    assert marks == [True, False]
    failed = "the recorder failed: KeyError: 'what'"
    assert told == [f"user 7: a recording is not complete: {failed}{more}"]
