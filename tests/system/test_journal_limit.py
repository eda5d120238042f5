# SPDX-License-Identifier: Apache-2.0
"""A journald that drops what comes too fast, and recordings that stay below its limit."""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.system.test_nothing_lost import OwnJournal, Recorder, held

from ttyscribe.events import Message
from ttyscribe.session.recovery import WRITTEN, recover
from ttyscribe.writers.journal import JournalWriter

BURST = 200
SENT = 2000


@pytest.fixture
def limited() -> Iterator[OwnJournal]:
    """A journald that takes 200 messages in half a second (times four, with much free space)."""
    name = f"ttyscribe-limit-{os.getpid()}"
    drop_in = Path(f"/run/systemd/journald@{name}.conf.d/test.conf")
    drop_in.parent.mkdir(parents=True)
    drop_in.write_text(
        f"[Journal]\nStorage=volatile\nRateLimitIntervalSec=500ms\nRateLimitBurst={BURST}\n"
    )
    journal = OwnJournal(name)
    try:
        journal.start()
        yield journal
    finally:
        journal.remove()
        shutil.rmtree(drop_in.parent)


def in_a_service(journal: OwnJournal) -> socket.socket:
    """Have this process counted as a service, as its standard output would by systemd."""
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stream.connect(str(journal.socket.with_name("stdout")))
    stream.sendall(b"test\nttyscribe-test.service\n6\n0\n0\n0\n0\nbegin\n")
    journal.sync()
    return stream


def send(writer: JournalWriter, count: int) -> None:
    """Send this many messages, however often the writer is busy."""
    waiting = [
        Message(b'{"ver":"2.3","rec":"r","id":%d}' % id, "r", "alice", 0, id)
        for id in range(1, count + 1)
    ]
    while waiting:
        del waiting[: writer.write(waiting)]
        if waiting:
            time.sleep(0.002)
    writer.close()


def test_journald_eats_what_comes_too_fast(limited: OwnJournal) -> None:
    """What the limit is for: without it, messages vanish."""
    with in_a_service(limited):
        send(JournalWriter("info", augment=True, path=str(limited.socket)), SENT)
        assert BURST <= len(limited.messages()) < SENT


def test_writer_that_stays_below_the_limit_loses_nothing(
    limited: OwnJournal, tmp_path: Path
) -> None:
    with in_a_service(limited):
        writer = JournalWriter("info", augment=True, path=str(limited.socket), folder=str(tmp_path))
        send(writer, SENT)
        assert len(limited.messages()) == SENT


def test_recording_waits_in_the_spool_while_the_terminal_goes_on(
    limited: OwnJournal, tmp_path: Path
) -> None:
    folder = tmp_path / "spool"
    lines = 200_000
    size = lines * len("200000\r\n")

    def writer() -> JournalWriter:
        # Open as long as the recorder lives.
        in_a_service(limited).detach()
        return JournalWriter("info", augment=True, path=str(limited.socket), folder=str(folder))

    began = time.monotonic()
    recorder = Recorder(folder, ["/usr/bin/seq", "-w", str(lines)], writer, queue_limit=50_000)
    recorder.read(size)
    shown = time.monotonic() - began
    recorder.finish()
    written = time.monotonic() - began
    messages = limited.messages()
    assert len(messages) > BURST
    assert held(messages) == recorder.seen
    assert shown < written / 2
    assert list(folder.glob("*.spool")) == []


def test_recovery_elsewhere_writes_to_the_services_namespace_within_its_limit(
    limited: OwnJournal, tmp_path: Path
) -> None:
    folder = tmp_path / "spool"
    here = Path("/run/systemd/journal")
    here.mkdir(parents=True, exist_ok=True)

    def writer() -> JournalWriter:
        in_a_service(limited).detach()
        # As systemd does for LogNamespace=.
        assert ctypes.CDLL(None).unshare(0x00020000) == 0
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        subprocess.run(["mount", "--bind", str(limited.socket.parent), str(here)], check=True)
        return JournalWriter("info", augment=True, folder=str(folder))

    recorder = Recorder(folder, ["/usr/bin/seq", "-w", "200000"], writer, queue_limit=50_000)
    recorder.read(1_200_000)
    recorder.kill()
    with in_a_service(limited):
        (one,) = recover(str(folder))
    assert one.state == WRITTEN, one.problem
    assert one.messages > BURST
    assert held(limited.messages()).startswith(recorder.seen)
