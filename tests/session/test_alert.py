# SPDX-License-Identifier: Apache-2.0
"""Alerts reach a log that is busy for a moment, and wait for none that is stuck."""

from __future__ import annotations

import functools
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ttyscribe.session import alert
from ttyscribe.writers.journal import JournalWriter
from ttyscribe.writers.syslog import SyslogWriter


@pytest.fixture
def busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The log that both writers send to, which can take no more until it is read."""
    path = str(tmp_path / "log")
    log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    log.bind(path)
    log.settimeout(20)
    monkeypatch.setattr(alert, "SyslogWriter", functools.partial(SyslogWriter, path=path))
    monkeypatch.setattr(alert, "JournalWriter", functools.partial(JournalWriter, path=path))
    with log, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.setblocking(False)
        try:
            while True:
                other.sendto(b"another's", path)
        except BlockingIOError:
            yield log


def test_an_alert_waits_for_a_log_that_is_busy_for_a_moment(busy: socket.socket) -> None:
    found: list[bytes] = []

    def read() -> None:
        time.sleep(0.2)
        while not found or found[-1] == b"another's":
            found.append(busy.recv(4096))

    reader = threading.Thread(target=read)
    reader.start()
    assert alert.alert("a session is not recorded")
    reader.join()
    assert found[-1].endswith(b"a session is not recorded")


def test_an_alert_waits_no_longer_than_a_login_can(busy: socket.socket) -> None:
    began = time.monotonic()
    assert not alert.alert("a session is not recorded")
    assert 0.4 < time.monotonic() - began < 5


def test_an_alert_of_whoever_may_not_wait_does_not(
    busy: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", pytest.fail)
    assert not alert.alert("a session is not recorded", patience=0)


def test_an_alert_waits_for_no_log_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "none")
    monkeypatch.setattr(alert, "SyslogWriter", functools.partial(SyslogWriter, path=path))
    monkeypatch.setattr(alert, "JournalWriter", functools.partial(JournalWriter, path=path))
    monkeypatch.setattr(time, "sleep", pytest.fail)
    assert not alert.alert("a session is not recorded")


def test_an_alert_reaches_a_log_that_listens_on_a_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "log")
    monkeypatch.setattr(alert, "SyslogWriter", functools.partial(SyslogWriter, path=path))
    none = str(tmp_path / "none")
    monkeypatch.setattr(alert, "JournalWriter", functools.partial(JournalWriter, path=none))
    with socket.socket(socket.AF_UNIX) as log:
        log.bind(path)
        log.listen(0)
        assert alert.alert("a session is not recorded")
        log.settimeout(20)
        connection, _ = log.accept()
        with connection, connection.makefile("rb") as text:
            assert text.read().endswith(b": a session is not recorded\0")


def test_an_alert_waits_no_longer_for_a_stream_that_lets_nobody_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "log")
    monkeypatch.setattr(alert, "SyslogWriter", functools.partial(SyslogWriter, path=path))
    none = str(tmp_path / "none")
    monkeypatch.setattr(alert, "JournalWriter", functools.partial(JournalWriter, path=none))
    with socket.socket(socket.AF_UNIX) as log, socket.socket(socket.AF_UNIX) as other:
        log.bind(path)
        log.listen(0)
        other.connect(path)
        began = time.monotonic()
        assert not alert.alert("a session is not recorded")
        assert 0.4 < time.monotonic() - began < 5
