# SPDX-License-Identifier: Apache-2.0
"""The syslog and journal writers, and the rate limit, through real sockets and a real journald."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.driving import REC, messages, output, run

from ttyscribe.errors import WriterError
from ttyscribe.events import Message
from ttyscribe.writers import socket as log_socket
from ttyscribe.writers.journal import JournalWriter, field
from ttyscribe.writers.limit import LimitedWriter
from ttyscribe.writers.syslog import SyslogWriter

if TYPE_CHECKING:
    from tests.conftest import Journald


def message(size: int, number: int) -> Message:
    return Message(b"x" * size, "rec", "user", 7, number)


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    path = str(tmp_path / "log")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path)
        sock.settimeout(10)
        yield sock, path


def test_syslog_message_has_facility_priority_stamp_and_ident(
    listener: tuple[socket.socket, str],
) -> None:
    sock, path = listener
    writer = SyslogWriter("local3", "warning", path)
    assert writer.write([Message(b'{"a":"\x7f"}', "rec", "user", 0, 1)]) == 1
    got = sock.recv(4096)
    head, _, text = got.partition(b": ")
    assert head.startswith(b"<%d>" % (19 * 8 + 4))
    assert head.endswith(b" ttyscribe[%d]" % os.getpid())
    # A daemon would rewrite the control character.
    assert text == b'{"a":"\\u007f"}'
    writer.close()


def test_syslog_daemon_that_is_busy_takes_the_rest_later(
    listener: tuple[socket.socket, str],
) -> None:
    sock, path = listener
    writer = SyslogWriter("authpriv", "info", path)
    waiting = [message(1000, number) for number in range(3000)]
    taken = writer.write(waiting)
    assert 0 < taken < 3000
    got = 0
    while got < 3000:
        sock.recv(4096)
        got += 1
        taken += writer.write(waiting[taken:])
    assert taken == 3000
    writer.close()


def test_syslog_daemon_that_was_restarted_is_found_again(
    listener: tuple[socket.socket, str],
) -> None:
    sock, path = listener
    writer = SyslogWriter("authpriv", "info", path)
    writer.write([message(10, 1)])
    sock.close()
    with pytest.raises(WriterError, match="syslog"):
        writer.write([message(10, 2)])
    Path(path).unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as again:
        again.bind(path)
        assert writer.write([message(10, 2)]) == 1
        assert again.recv(100).endswith(b"x" * 10)
    writer.close()


class Stream:
    """A syslog daemon that listens on a stream, and what it was sent on its connections."""

    def __init__(self, path: str) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()
        self._connection: socket.socket | None = None
        self.received = b""

    def read(self) -> int:
        """Take what is there; how much that was."""
        before = len(self.received)
        with contextlib.suppress(BlockingIOError):
            if self._connection is None:
                self._listener.setblocking(False)
                self._connection, _ = self._listener.accept()
                self._connection.setblocking(False)
            while data := self._connection.recv(65536):
                self.received += data
        return len(self.received) - before

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._listener.close()


@pytest.fixture
def stream(tmp_path: Path) -> Iterator[tuple[Stream, str]]:
    path = str(tmp_path / "stream")
    one = Stream(path)
    yield one, path
    one.close()


def test_syslog_daemon_on_a_stream_gets_each_message_ended(stream: tuple[Stream, str]) -> None:
    daemon, path = stream
    writer = SyslogWriter("local3", "warning", path)
    assert writer.write([message(10, 1), message(20, 2)]) == 2
    daemon.read()
    texts = daemon.received.split(b"\0")
    assert [text.partition(b"]: ")[2] for text in texts] == [b"x" * 10, b"x" * 20, b""]
    assert all(text.startswith(b"<%d>" % (19 * 8 + 4)) for text in texts[:2])
    writer.close()


@pytest.mark.parametrize(("size", "count"), [(100, 200), (100_000, 8)])
def test_stream_that_takes_part_of_a_message_gets_the_rest_of_it_and_no_more(
    stream: tuple[Stream, str], size: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon, path = stream
    monkeypatch.setattr(log_socket, "_SEND_BUFFER", 8192)
    # Each call is in another second.
    at = iter(range(1_000_000))
    monkeypatch.setattr(time, "localtime", lambda: time.gmtime(next(at)))
    writer = SyslogWriter("authpriv", "info", path)
    waiting = [Message(b"%d:" % n + b"x" * size, "rec", "user", 7, n) for n in range(count)]
    calls = taken = 0
    while taken < len(waiting):
        taken += writer.write(waiting[taken:])
        calls += 1
        daemon.read()
        assert len(daemon.received) < 2 * count * (size + 100), "it is repeated"
    assert calls > 1
    texts = daemon.received.split(b"\0")
    assert texts.pop() == b""
    assert [text.partition(b"]: ")[2] for text in texts] == [one.data for one in waiting]
    assert not [text for text in texts if text.count(b"ttyscribe[") != 1]
    writer.close()


def test_stream_that_was_restarted_in_a_message_gets_it_anew(
    stream: tuple[Stream, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon, path = stream
    monkeypatch.setattr(log_socket, "_SEND_BUFFER", 8192)
    writer = SyslogWriter("authpriv", "info", path)
    assert writer.write([message(300_000, 1)]) == 0
    daemon.read()
    daemon.close()
    Path(path).unlink()
    again = Stream(path)
    while not writer.write([message(300_000, 1)]):
        again.read()
    again.read()
    assert again.received.partition(b"]: ")[2] == b"x" * 300_000 + b"\0"
    again.close()
    # Nor does it matter that it listens for datagrams now.
    Path(path).unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(path)
        assert writer.write([message(10, 2)]) == 1
        assert other.recv(100).endswith(b"]: " + b"x" * 10)
    writer.close()


@pytest.mark.parametrize("number", range(2))
def test_nobody_listening_is_named(tmp_path: Path, number: int) -> None:
    path = str(tmp_path / "none")
    with pytest.raises(WriterError, match="is (syslog|journald) running"):
        if number:
            SyslogWriter("authpriv", "info", path)
        else:
            JournalWriter("info", augment=True, path=path)


def test_unknown_names_are_named() -> None:
    for facility, priority in (("nosuch", "info"), ("auth", "loud")):
        with pytest.raises(WriterError, match="nosuch|loud"):
            SyslogWriter(facility, priority)


def test_journal_field_with_a_line_end_goes_by_length() -> None:
    assert field(b"A", "b") == b"A=b\n"
    assert field(b"A", "b\nc") == b"A\n\x03\0\0\0\0\0\0\0b\nc\n"


@pytest.mark.parametrize("augment", [True, False])
def test_session_in_the_journal_has_its_fields(journald: Journald, augment: bool) -> None:
    mark = f"mark-{os.getpid()}-{augment}"
    done = run([*REC, "-w", "journal", "--journal-priority=notice",
                f"--journal-augment={augment}", "-c", f"echo {mark}; seq 3000"])  # fmt: skip
    assert done.returncode == 0
    journald.sync()
    text = subprocess.run(
        ["journalctl", "-o", "json", "--all", "--since=-60s", "SYSLOG_IDENTIFIER=ttyscribe"],
        capture_output=True, check=True,
    ).stdout  # fmt: skip
    entries = [json.loads(line) for line in text.splitlines()]
    # Without the lines for the admin.
    entries = [e for e in entries if str(e["MESSAGE"]).startswith("{")]
    first = next(e for e in entries if mark in e["MESSAGE"])
    rec = json.loads(first["MESSAGE"])["rec"]
    own = [e for e in entries if json.loads(e["MESSAGE"]).get("rec") == rec]
    recording = b"".join(e["MESSAGE"].encode() + b"\n" for e in own)
    assert output(recording) == done.stdout
    assert {e["PRIORITY"] for e in own} == {"5"}
    if augment:
        fields = [(e["TLOG_REC"], e["TLOG_USER"], int(e["TLOG_ID"])) for e in own]
        assert fields == [(rec, m.user, m.id) for m in messages(recording)]
        assert all(int(e["TLOG_SESSION"]) == json.loads(e["MESSAGE"])["session"] for e in own)
    else:
        assert not any(name.startswith("TLOG_") for e in own for name in e)


class Store:
    """A store that takes everything unless it is busy."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.busy = False

    def write(self, messages: Sequence[Message]) -> int:
        if self.busy:
            return 0
        self.ids += [message.id for message in messages]
        return len(messages)

    def stored_in(self) -> int:
        return -1

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        pass


def test_limit_drops_what_exceeds_the_burst_and_counts_it_as_done() -> None:
    store = Store()
    writer = LimitedWriter(store, 1, 100, "drop")
    assert writer.write([message(40, number) for number in range(1, 6)]) == 5
    assert store.ids == [1, 2]


def test_limit_keeps_to_what_it_dropped_when_the_store_is_busy() -> None:
    store = Store()
    store.busy = True
    writer = LimitedWriter(store, 1, 100, "drop")
    assert writer.write([message(90, 1)]) == 0
    store.busy = False
    assert writer.write([message(90, 1)]) == 1
    store.busy = True
    # The second fits into what is left, the first no more.
    assert writer.write([message(80, 2), message(5, 3)]) == 1
    store.busy = False
    assert writer.write([message(5, 3)]) == 1
    assert store.ids == [1, 3]


def test_limit_delays_what_exceeds_the_burst() -> None:
    store = Store()
    writer = LimitedWriter(store, 1, 100, "delay")
    assert writer.write([message(40, number) for number in range(1, 6)]) == 2
    assert store.ids == [1, 2]
    assert writer.write([message(40, 3)]) == 0


def test_message_larger_than_the_burst_passes_a_full_bucket() -> None:
    store = Store()
    assert LimitedWriter(store, 1, 100, "delay").write([message(500, 1)]) == 1
