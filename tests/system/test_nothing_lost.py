# SPDX-License-Identifier: Apache-2.0
"""Real faults: what the terminal received against what the recording holds in the end."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import pty
import random
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
from tests.conftest import JOURNALD, Journald
from tests.driving import MAIN, REC, clean_environment, run, wait_until

from ttyscribe.cli.rec_session import built_in_values
from ttyscribe.events import OUTPUT
from ttyscribe.session import record_session
from ttyscribe.session.identity import identify
from ttyscribe.session.recovery import WRITTEN, recover
from ttyscribe.session.setup import new_recording
from ttyscribe.terminal import Child
from ttyscribe.tlog import Decoder, parse
from ttyscribe.writers.file import FileWriter
from ttyscribe.writers.journal import JournalWriter
from ttyscribe.writers.syslog import SyslogWriter

if TYPE_CHECKING:
    from ttyscribe.writers import Writer

INSTANTS = 200
SHELL = ["/bin/bash", "--norc", "--noprofile", "-i"]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few MB in which no two places look alike, with characters of one to four bytes."""
    path = tmp_path_factory.mktemp("text") / "text"
    path.write_text("".join(f"{n:08} \x1b[1mfile-{n}\x1b[0m äé € 🙂\n" for n in range(80_000)))
    return path


def shown(text: Path) -> bytes:
    """What a terminal receives of a file."""
    return text.read_bytes().replace(b"\n", b"\r\n")


def recorded(tlog: Path) -> bytes:
    """The output that a recording's file holds, its ids checked: from 1, each once."""
    return held(tlog.read_bytes().splitlines())


def held(messages: list[bytes]) -> bytes:
    """The output that messages hold, their ids checked: from 1, each once."""
    decoder = Decoder()
    output = []
    for number, line in enumerate(messages, 1):
        message = parse(line, f"message {number}")
        assert message.id == number
        output += [data for _, kind, data in decoder.decode(message) if kind == OUTPUT]
    return b"".join(output)


def last(tlog: Path) -> dict[str, object]:
    """The member "ttyscribe" of the last message."""
    member = json.loads(tlog.read_bytes().splitlines()[-1]).get("ttyscribe")
    assert isinstance(member, dict)
    return member


class Recorder:
    """A recorder in a process forked from this one, and its user's terminal."""

    def __init__(
        self,
        folder: Path,
        argv: list[str],
        writer: Callable[[], Writer],
        *,
        limit: int = 1 << 30,
        sync: Literal["none", "second", "always"] = "second",
        on_outage: str = "freeze",
        queue_limit: int | None = None,
        tlog: Path | None = None,
        through_pipe: bool = False,
    ) -> None:
        self.seen = b""
        self._expected = 0
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            try:
                if through_pipe:
                    # One that nobody reads, and that is never closed.
                    _, pipe = os.pipe()
                    for fd, to in ((os.open(os.devnull, os.O_RDONLY), 0), (pipe, 1), (pipe, 2)):
                        os.dup2(fd, to)
                values = built_in_values()
                values["writer"] = "file" if tlog is not None else "journal"
                values["file"]["path"] = str(tlog or "")
                values["latency"] = 1
                values["spool"] = {"limit": limit, "sync": sync}
                identity = identify("alice", {b"TERM": b"xterm"})
                recording = new_recording(values, writer(), identity, str(folder))
                if queue_limit is not None:
                    recording._queue_limit = queue_limit
                record_session(
                    Child(argv[0], list(argv), dict(os.environb)),
                    (0, 1, 2),
                    recording,
                    {"event": "start"},
                    on_outage=on_outage,
                    tell_admin=tell_kept,
                )
            except BaseException as error:
                os.write(2, repr(error).encode())
            finally:
                os._exit(0)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))

    def read(self, enough: int = sys.maxsize) -> None:
        """Read what the terminal receives, up to about enough bytes or its end."""
        self.seen += received(self.fd, enough)

    def expect(self, text: bytes, timeout: float = 30) -> None:
        """Read until the terminal shows text."""
        deadline = time.monotonic() + timeout
        while (at := self.seen.find(text, self._expected)) < 0:
            left = deadline - time.monotonic()
            ready = select.select([self.fd], [], [], max(left, 0))[0]
            assert ready, f"no {text!r} in {self.seen[-2000:]!r}"
            self.seen += os.read(self.fd, 65536)
        self._expected = at + len(text)

    def shell(self) -> None:
        """Wait until the shell asks for something to do."""
        self.expect(b"\x1b[?2004h")

    def line(self, text: str) -> None:
        os.write(self.fd, text.encode() + b"\r")

    def kill(self) -> None:
        """End it at this instant, and see what the terminal still received."""
        os.kill(self.pid, signal.SIGKILL)
        self.finish()

    def finish(self) -> None:
        """Read to the end, and wait for it."""
        self.read()
        os.waitpid(self.pid, 0)
        os.close(self.fd)


def tell_kept(line: str) -> None:
    os.write(1, f"KEPT: {line}".encode())


def into_file(tlog: Path, folder: Path, argv: list[str], **more: Any) -> Recorder:
    return Recorder(folder, argv, lambda: FileWriter(str(tlog)), tlog=tlog, **more)


def received(fd: int, enough: int) -> bytes:
    """What the terminal receives, up to about enough bytes or its end."""
    parts = []
    size = 0
    while size < enough:
        try:
            data = os.read(fd, min(65536, enough - size))
        except OSError:
            break
        if not data:
            break
        parts.append(data)
        size += len(data)
    return b"".join(parts)


def test_recorder_killed_at_any_instant_loses_nothing(tmp_path: Path, text: Path) -> None:
    size, expected = text.stat().st_size, shown(text)
    chance = random.Random(20240607)
    cut_off = 0
    for number in range(INSTANTS):
        tlog, folder = tmp_path / f"{number}.tlog", tmp_path / f"{number}.spool"
        recorder = into_file(tlog, folder, ["/bin/cat", str(text)])
        # From the first bytes to the last, and some microseconds on.
        recorder.read(int(size ** chance.random()))
        for _ in range(chance.randrange(3000)):
            pass
        recorder.kill()
        seen = recorder.seen
        assert seen
        done = list(recover(str(folder)))
        assert [one.state for one in done] in ([], [WRITTEN]), done[0].problem
        kept = recorded(tlog)
        assert kept.startswith(seen), f"instant {number}: {len(seen)} seen, {len(kept)} kept"
        assert expected.startswith(kept), f"instant {number}: something is doubled"
        if done:
            cut_off += 1
            assert last(tlog)["event"] == "end"
            assert list(folder.iterdir()) == []
        tlog.unlink()
    assert cut_off > INSTANTS * 0.8


def test_recorder_killed_while_its_writer_is_down_loses_nothing(
    tmp_path: Path, text: Path
) -> None:
    # More than waits in memory, so that the rest is in the spool alone.
    for number in range(10):
        tlog, folder = tmp_path / f"{number}.tlog", tmp_path / f"{number}.spool"
        with full_disk(tmp_path / "disk") as disk:
            target = disk.folder / "a.tlog"
            recorder = into_file(
                target, folder, ["/bin/cat", str(text)], queue_limit=100_000
            )
            recorder.read(300_000 * (number + 1))
            recorder.kill()
            disk.enlarge()
            (one,) = recover(str(folder))
            assert one.state == WRITTEN, one.problem
            kept = recorded(target)
        assert kept.startswith(recorder.seen)
        assert shown(text).startswith(kept)
        assert not tlog.exists()


class Disk:
    """A small file system."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self) -> None:
        """Leave no room on it."""
        with contextlib.suppress(OSError), (self.folder / "filling").open("wb", 0) as file:
            while True:
                file.write(bytes(4096))

    def free(self) -> None:
        (self.folder / "filling").unlink()

    def enlarge(self) -> None:
        subprocess.run(["mount", "-o", "remount,size=64m", str(self.folder)], check=True)


@contextlib.contextmanager
def full_disk(folder: Path, size: str = "256k") -> Iterator[Disk]:
    """A file system of this size at folder."""
    folder.mkdir(exist_ok=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(folder)], check=True
    )
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_full_disk_is_waited_out(tmp_path: Path) -> None:
    with full_disk(tmp_path / "disk") as disk:
        tlog = disk.folder / "a.tlog"
        recorder = into_file(tlog, tmp_path / "spool", SHELL)
        recorder.shell()
        recorder.line("echo be''fore")
        recorder.expect(b"before")
        disk.fill()
        recorder.line("for i in {1..20000}; do echo line $i; done; echo fu''ll")
        recorder.expect(b"full")
        disk.free()
        disk.enlarge()
        recorder.line("echo af''ter; exit")
        recorder.finish()
        assert recorded(tlog) == recorder.seen
        assert last(tlog)["status"] == 0
    assert list((tmp_path / "spool").iterdir()) == []


def test_removed_file_is_made_anew_and_gets_the_rest(tmp_path: Path) -> None:
    tlog = tmp_path / "a.tlog"
    recorder = into_file(tlog, tmp_path / "spool", SHELL)
    recorder.shell()
    recorder.line("echo be''fore")
    recorder.expect(b"before")
    wait_until(lambda: b"before" in tlog.read_bytes(), "the message")
    kept = tlog.rename(tmp_path / "moved")
    kept.unlink()
    recorder.line("echo af''ter; exit")
    recorder.finish()
    ids = [json.loads(line)["id"] for line in tlog.read_bytes().splitlines()]
    assert ids == list(range(ids[0], ids[-1] + 1))
    assert b"after" in tlog.read_bytes()


# The limit of the spool.


def test_full_spool_freezes_the_terminal_which_goes_on_by_itself(
    tmp_path: Path, text: Path
) -> None:
    with full_disk(tmp_path / "disk") as disk:
        tlog = disk.folder / "a.tlog"
        recorder = into_file(
            tlog, tmp_path / "spool", ["/bin/cat", str(text)], limit=2 << 20, queue_limit=100_000
        )
        recorder.expect(b"ttyscribe: the terminal waits")
        recorder.expect(b"spool.limit")
        before = recorder.seen
        size = sum(path.stat().st_blocks * 512 for path in (tmp_path / "spool").iterdir())
        assert size <= 2 << 20
        disk.enlarge()
        recorder.finish()
        assert recorder.seen.startswith(before)
        assert b"ttyscribe: the recording goes on" in recorder.seen
        assert recorded(tlog) == shown(text)
    assert list((tmp_path / "spool").iterdir()) == []


def test_full_spool_ends_the_session_where_the_admin_wants_that(
    tmp_path: Path, text: Path
) -> None:
    with full_disk(tmp_path / "disk") as disk:
        tlog = disk.folder / "a.tlog"
        recorder = into_file(
            tlog,
            tmp_path / "spool",
            ["/bin/cat", str(text)],
            limit=1 << 20,
            queue_limit=100_000,
            on_outage="end",
        )
        recorder.finish()
        before, _, said = recorder.seen.partition(b"\r\nttyscribe: the session ends, because")
        assert b"spool.limit" in said
        assert b"KEPT" in said
        disk.enlarge()
        (one,) = recover(str(tmp_path / "spool"))
        assert (one.state, one.ended) == (WRITTEN, True)
        kept = recorded(tlog)
        assert kept.startswith(before)
        assert shown(text).startswith(kept)
        assert last(tlog)["signal"] == "HUP"


def test_why_the_terminal_waits_is_the_last_line_on_it(tmp_path: Path, text: Path) -> None:
    with full_disk(tmp_path / "disk") as disk:
        tlog = disk.folder / "a.tlog"
        recorder = into_file(
            tlog, tmp_path / "spool", ["/bin/cat", str(text)], limit=1 << 20, queue_limit=100_000
        )
        recorder.expect(b"\r\nttyscribe: the terminal waits")
        while select.select([recorder.fd], [], [], 0.5)[0]:
            recorder.seen += os.read(recorder.fd, 65536)
        last_line = recorder.seen.rstrip(b"\r\n").rpartition(b"\r\n")[2]
        assert last_line.startswith(b"ttyscribe: the terminal waits")
        disk.enlarge()
        recorder.finish()
        assert recorded(tlog) == shown(text)


@pytest.mark.parametrize("through", ["terminal", "pipe"])
def test_outage_ends_a_session_whose_output_nobody_reads(
    tmp_path: Path, text: Path, through: str
) -> None:
    with full_disk(tmp_path / "disk", "8k") as disk:
        tlog = disk.folder / "a.tlog"
        alive, pid = tmp_path / "alive", tmp_path / "pid"
        # It goes on without its output, and would do so unrecorded.
        loop = f"while sleep 0.1; do : >{alive}; done"
        script = f"echo $$ >{pid}; trap '' HUP PIPE; cat {text} & {loop}"
        recorder = into_file(
            tlog, tmp_path / "spool", ["/bin/sh", "-c", script], limit=100_000, queue_limit=20_000,
            on_outage="end", through_pipe=through == "pipe",
        )  # fmt: skip
        try:
            wait_until(alive.exists, "it does not start")
            wait_until(lambda: time.time() - alive.stat().st_mtime > 1.5, "it goes on")
        finally:
            for left in (int(pid.read_text()), recorder.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(left, signal.SIGKILL)
            os.close(recorder.fd)
            os.waitpid(recorder.pid, 0)


def test_spool_on_a_full_disk_freezes_the_terminal_too(tmp_path: Path, text: Path) -> None:
    with full_disk(tmp_path / "disk") as target, full_disk(tmp_path / "other", "2m") as disk:
        tlog = target.folder / "a.tlog"
        recorder = into_file(
            tlog, disk.folder / "spool", ["/bin/cat", str(text)], queue_limit=100_000
        )
        recorder.expect(b"ttyscribe: the terminal waits")
        recorder.expect(b"No space left on device")
        disk.enlarge()
        recorder.expect(b"ttyscribe: the recording goes on")
        target.enlarge()
        recorder.finish()
        assert recorded(tlog) == shown(text)


@pytest.mark.parametrize("size", ["8k", "24k", "100k", "160k", "300k"])
def test_recorder_killed_while_its_spools_disk_is_full_has_shown_nothing_unrecorded(
    tmp_path: Path, text: Path, size: str
) -> None:
    with full_disk(tmp_path / "target", "8k") as target, full_disk(tmp_path / "disk", size) as disk:
        tlog, folder = target.folder / "a.tlog", disk.folder / "spool"
        recorder = into_file(tlog, folder, ["/bin/cat", str(text)], queue_limit=20_000)
        recorder.expect(b"ttyscribe: the terminal waits")
        recorder.expect(b"the spool is full: No space left on device")
        target.enlarge()
        kept = check_killed(recorder, folder, tlog)
        assert shown(text).startswith(kept)


def test_small_disk_of_the_spool_is_enough_while_the_writer_works(
    tmp_path: Path, text: Path
) -> None:
    with full_disk(tmp_path / "disk", "128k") as disk:
        tlog, folder = tmp_path / "a.tlog", disk.folder / "spool"
        recorder = into_file(tlog, folder, ["/bin/cat", str(text)])
        recorder.finish()
        assert recorder.seen == recorded(tlog) == shown(text)


def test_idle_sessions_spools_disk_that_fills_up_keeps_back_what_comes_then(
    tmp_path: Path, text: Path
) -> None:
    with full_disk(tmp_path / "disk") as disk:
        tlog, folder = tmp_path / "a.tlog", disk.folder / "spool"
        recorder = into_file(tlog, folder, SHELL)
        recorder.shell()
        recorder.line("echo be''fore")
        recorder.expect(b"before")
        wait_until(lambda: b"before" in tlog.read_bytes(), "the message")
        disk.fill()
        recorder.line(f"cat {text}")
        recorder.expect(b"ttyscribe: the terminal waits")
        check_killed(recorder, folder, tlog)


def check_killed(recorder: Recorder, folder: Path, tlog: Path) -> bytes:
    """Kill a recorder that waits; the recording, which has what the terminal received before."""
    recorder.kill()
    seen = recorder.seen.partition(b"\r\nttyscribe: the terminal waits")[0]
    assert [one.problem for one in recover(str(folder)) if one.state != WRITTEN] == []
    kept = recorded(tlog)
    assert kept.startswith(seen), f"{len(seen)} seen, {len(kept)} kept"
    return kept


def test_session_goes_on_where_it_waited_when_its_spools_disk_has_room(
    tmp_path: Path, text: Path
) -> None:
    with full_disk(tmp_path / "disk", "64k") as disk:
        tlog, folder = tmp_path / "a.tlog", disk.folder / "spool"
        recorder = into_file(tlog, folder, ["/bin/cat", str(text)])
        recorder.expect(b"ttyscribe: the terminal waits")
        disk.enlarge()
        recorder.finish()
        assert b"ttyscribe: the recording goes on" in recorder.seen
        assert recorded(tlog) == shown(text)
        assert list(folder.iterdir()) == []


# journald and syslog.


class OwnJournal:
    """A journald of a namespace of its own, to be stopped and started."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.socket = Path(f"/run/systemd/journal.{name}/socket")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            [JOURNALD, self.name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until(lambda: served(self.socket), "journald")

    def stop(self) -> None:
        """End it when it has read what it was sent."""
        assert self._process is not None
        self.sync()
        self._process.terminate()
        self._process.wait(timeout=30)
        self._process = None

    def sync(self) -> None:
        subprocess.run(
            ["journalctl", f"--namespace={self.name}", "--sync"], check=True, timeout=30
        )

    def messages(self) -> list[bytes]:
        """All messages of recordings, in the order in which they came."""
        self.sync()
        shown = subprocess.run(
            ["journalctl", f"--namespace={self.name}", "-o", "cat", "-t", "ttyscribe"],
            check=True, capture_output=True, timeout=30,
        )  # fmt: skip
        return [line for line in shown.stdout.splitlines() if line.startswith(b'{"ver"')]

    def remove(self) -> None:
        if self._process is not None:
            self.stop()
        for pattern in (f"run/log/journal/*.{self.name}", f"var/log/journal/*.{self.name}",
                        f"run/systemd/journal.{self.name}"):  # fmt: skip
            for folder in Path("/").glob(pattern):
                shutil.rmtree(folder)


def served(path: Path) -> bool:
    """Whether somebody reads from a socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


@pytest.fixture
def own_journal() -> Iterator[OwnJournal]:
    name = f"ttyscribe-test-{os.getpid()}"
    drop_in = Path(f"/run/systemd/journald@{name}.conf.d/test.conf")
    drop_in.parent.mkdir(parents=True)
    drop_in.write_text("[Journal]\nRateLimitIntervalSec=0\nRateLimitBurst=0\n")
    journal = OwnJournal(name)
    try:
        journal.start()
        yield journal
    finally:
        journal.remove()
        shutil.rmtree(drop_in.parent)


@pytest.mark.parametrize("into", ["journal", "syslog"])
def test_stopped_log_daemon_gets_everything_once_and_in_order_when_it_is_back(
    tmp_path: Path, own_journal: OwnJournal, into: str
) -> None:
    path = str(own_journal.socket)

    def writer() -> Writer:
        if into == "journal":
            return JournalWriter("info", augment=True, path=path)
        return SyslogWriter("authpriv", "info", str(own_journal.socket.with_name("dev-log")))

    recorder = Recorder(tmp_path / "spool", SHELL, writer, queue_limit=50_000)
    recorder.shell()
    recorder.line("echo be''fore")
    recorder.expect(b"before")
    wait_until(lambda: b"before" in b"".join(own_journal.messages()), "the message")
    own_journal.stop()
    own_journal.socket.unlink(missing_ok=True)
    own_journal.socket.with_name("dev-log").unlink(missing_ok=True)
    recorder.line("for i in {1..20000}; do echo line $i; done; echo do''wn")
    recorder.expect(b"down")
    own_journal.start()
    recorder.line("echo af''ter; exit")
    recorder.finish()
    assert held(own_journal.messages()) == recorder.seen
    assert list((tmp_path / "spool").iterdir()) == []
    if into == "journal":
        # In whichever namespace it is.
        match = "TLOG_REC=" + json.loads(own_journal.messages()[0])["rec"]
        told = subprocess.run([*MAIN, "cat", "-M", match], capture_output=True, check=True)
        assert told.stdout == recorder.seen


def test_recorder_into_the_journal_killed_at_any_instant_doubles_nothing(
    tmp_path: Path, text: Path, journald: Journald
) -> None:
    from systemd import journal

    chance = random.Random(5)
    for number in range(12):
        folder = tmp_path / f"{number}"
        augment = bool(number % 3)
        recorder = Recorder(
            folder,
            ["/bin/cat", str(text)],
            functools.partial(JournalWriter, "info", augment=augment),
            queue_limit=100_000,
        )
        recorder.read(chance.randrange(400_000))
        recorder.kill()
        (one,) = recover(str(folder))
        assert one.state == WRITTEN, one.problem
        journald.sync()
        reader = journal.Reader(converters={"MESSAGE": bytes})
        reader.data_threshold = 0
        reader.add_match(SYSLOG_IDENTIFIER="ttyscribe")
        reader.seek_tail()
        found: list[bytes] = []
        while not found or b'"id":1,' not in found[-1]:
            entry = reader.get_previous()
            assert entry, "the first message is not in the journal"
            if one.rec.encode() in entry["MESSAGE"]:
                found.append(entry["MESSAGE"])
        kept = held(found[::-1])
        assert kept.startswith(recorder.seen)
        assert shown(text).startswith(kept)


# The command line.


def test_next_recording_delivers_what_the_last_could_not(tmp_path: Path) -> None:
    env = clean_environment(XDG_STATE_HOME=str(tmp_path / "state"))
    spool = tmp_path / "state/ttyscribe/spool"
    with full_disk(tmp_path / "disk", "64k") as disk:
        tlog = disk.folder / "a.tlog"
        first = run([*REC, "-o", tlog, "seq", "40000"], env=env)
        assert first.returncode == 1
        assert first.stdout == run(["seq", "40000"]).stdout
        assert b"waits in" in first.stderr
        assert b"'ttyscribe recover'" in first.stderr
        assert len(list(spool.iterdir())) == 1
        still = run([*MAIN, "recover", "--json", "--spool", spool], env=env)
        assert still.returncode == 1
        assert json.loads(still.stdout)["state"] == "waiting"
        disk.enlarge()
        second = run([*REC, "-o", tmp_path / "b.tlog", "true"], env=env)
        assert (second.returncode, second.stderr) == (0, b"")
        wait_until(lambda: not list(spool.iterdir()), "the recovery in the background")
        assert recorded(tlog) == first.stdout
        assert last(tlog)["status"] == 0
    nothing = run([*MAIN, "recover", "--spool", spool], env=env)
    assert (nothing.returncode, nothing.stdout) == (0, b"nothing to recover\n")


def test_recover_says_what_became_of_each_recording(tmp_path: Path, text: Path) -> None:
    folder, tlog = tmp_path / "spool", tmp_path / "a.tlog"
    recorder = into_file(tlog, folder, ["/bin/cat", str(text)])
    recorder.read(5000)
    recorder.kill()
    (folder / "x.spool").write_bytes(b"garbage\x1b[2J")
    done = run([*MAIN, "recover", "--spool", folder])
    assert done.returncode == 1
    first, second = sorted(done.stdout.decode().splitlines())
    assert "x.spool: can't be recovered: it is too short" in first
    assert "of alice:" in second
    assert "cut off, and ends as recovered" in second
    assert [path.name for path in folder.iterdir()] == ["x.spool.bad"]


def test_root_recovers_a_users_spool_with_the_users_rights() -> None:
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        check_rights(Path(place))


def check_rights(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    recorder = into_file(tmp_path / "a.tlog", folder, ["/bin/sh", "-c", "cat /etc/passwd; read x"])
    recorder.read(10)
    recorder.kill()
    (path,) = folder.iterdir()
    before = (tmp_path / "a.tlog").read_bytes()
    for changed in (folder, path):
        os.chown(changed, 65534, 65534)
    done = run([*MAIN, "recover", "--spool", folder])
    # The target is root's, which the user who made the spool may not write.
    assert done.returncode == 1
    assert b"Permission denied" in done.stdout
    assert (tmp_path / "a.tlog").read_bytes() == before
