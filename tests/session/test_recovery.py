# SPDX-License-Identifier: Apache-2.0
"""Recovery from spool files as a kill or a power cut may leave them, and from hostile ones."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from zlib import crc32

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ttyscribe.errors import SpoolError, WriterError
from ttyscribe.events import INPUT, OUTPUT, WINDOW, Event, Message
from ttyscribe.session import spoolfile as layout
from ttyscribe.session.recording import Recording
from ttyscribe.session.recovery import UNREADABLE, WAITING, WRITTEN, recover
from ttyscribe.session.setup import about
from ttyscribe.session.skip import Skip
from ttyscribe.session.skipped import SkippedLog
from ttyscribe.session.spool import Spool
from ttyscribe.session.spoolfolder import SUFFIX
from ttyscribe.tlog import Decoder, Encoder, Identity, escape, parse
from ttyscribe.writers.file import FileWriter

REC = "0123456789abcdef0123456789abcdef-1-2"
PAYLOAD = 256


class Outage:
    """A file writer that is down now and then."""

    def __init__(self, path: Path) -> None:
        self.down = False
        self._file = FileWriter(str(path))

    def write(self, messages: Sequence[Message]) -> int:
        if self.down:
            raise WriterError("it is down")
        return self._file.write(messages)

    def stored_in(self) -> int:
        return -1

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        self._file.close()


class Session:
    """A recording in this process, into folder/a.tlog, with its spool in folder/spool."""

    def __init__(self, folder: Path, *, queue_limit: int = 4 << 20, sync: str = "none") -> None:
        self.folder = folder
        self.tlog = folder / "a.tlog"
        self.writer = Outage(self.tlog)
        identity = Identity("host", REC, "alice", "xterm", 3, 1_700_000_000_000)
        values = {
            "payload": PAYLOAD,
            "writer": "file",
            "file": {"path": str(self.tlog)},
            "syslog": {"facility": "authpriv", "priority": "info"},
            "journal": {"priority": "info", "augment": True},
        }
        self.spool = Spool(
            str(folder / "spool"),
            REC + SUFFIX,
            escape.value(about(values, identity)),  # type: ignore[arg-type]  # what it looks at
            limit=0,
            sync=sync,
        )
        self.recording = Recording(
            Encoder(identity, PAYLOAD),
            self.writer,
            1000,
            log_input=True,
            log_output=True,
            log_window=True,
            queue_limit=queue_limit,
            spool=self.spool,
        )
        self.time = 0
        self.recording.now = self._now  # type: ignore[method-assign]  # a clock that tests set

    def _now(self) -> int:
        return self.time

    def copy(self, to: Path) -> Path:
        """What a kill at this instant leaves: a copy of the spool and of the target."""
        shutil.copytree(self.folder, to)
        for path in (to / "spool").iterdir():
            # The copy's own target.
            data = path.read_bytes()
            other = str(to / "a.tlog").encode()
            mine = str(self.tlog).encode()
            assert len(other) == len(mine)
            path.write_bytes(reseal(data.replace(mine, other)))
        return to


def reseal(data: bytes) -> bytes:
    """The CRC of a changed header made right again."""
    magic, version, start, length, _ = layout.HEAD.unpack_from(data)
    json_at = layout.JSON_AT
    check = crc32(data[json_at : json_at + length])
    return layout.HEAD.pack(magic, version, start, length, check) + data[layout.HEAD.size :]


def replay(tlog: Path) -> list[Event]:
    """The events that a recording holds, its ids checked: from 1, each once."""
    decoder = Decoder()
    events: list[Event] = []
    lines = tlog.read_bytes().splitlines() if tlog.exists() else []
    for number, line in enumerate(lines, 1):
        message = parse(line, f"{tlog}:{number}")
        assert message.id == number
        events += decoder.decode(message)
    return events


def stream(events: list[Event], kind: str) -> bytes:
    return b"".join(data for _, of, data in events if of == kind)


def end(tlog: Path) -> dict[str, object]:
    member = json.loads(tlog.read_bytes().splitlines()[-1])["ttyscribe"]
    assert isinstance(member, dict)
    return member


texts = st.one_of(
    st.binary(max_size=40),
    st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.text(alphabet="ab \n\x1b€🙂", min_size=300, max_size=900).map(str.encode),
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just(OUTPUT), texts),
        st.tuples(st.just(INPUT), texts),
        st.tuples(
            st.just(WINDOW),
            st.builds(b"%dx%d".__mod__, st.tuples(*[st.integers(0, 65535)] * 2)),
        ),
        st.tuples(st.just("flush"), st.just(b"")),
        st.tuples(st.just("down"), st.just(b"")),
        st.tuples(st.just("up"), st.just(b"")),
        st.tuples(st.just("wait"), st.just(b"")),
    ),
    max_size=30,
)


def play(session: Session, script: list[tuple[str, bytes]]) -> None:
    """Have happen in the session what script says."""
    recording = session.recording
    for what, data in script:
        session.time += 700_000
        if what in (OUTPUT, INPUT, WINDOW):
            recording.log(what, data)
        elif what == "flush":
            session.time += 1_000_000_000_000
        elif what == "wait":
            session.time += 600_000_000
        else:
            session.writer.down = what == "down"
        recording.tick()


def expected(script: list[tuple[str, bytes]], kind: str) -> bytes:
    return b"".join(data for what, data in script if what == kind)


@pytest.mark.parametrize("queue_limit", [4 << 20, 500])
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(script=steps, data=st.data())
def test_what_was_logged_is_recovered_once_after_a_kill_at_any_step(
    tmp_path_factory: pytest.TempPathFactory,
    queue_limit: int,
    script: list[tuple[str, bytes]],
    data: st.DataObject,
) -> None:
    base = tmp_path_factory.mktemp("kill")
    (base / "live").mkdir()
    session = Session(base / "live", queue_limit=queue_limit)
    session.recording.start({"event": "start"}, b"80x24")
    stop = data.draw(st.integers(0, len(script)))
    play(session, script[:stop])
    left = session.copy(base / "copy")
    # A kill may also cut a write to the target at any byte, which the spool then knows nothing of.
    if data.draw(st.booleans()):
        spool = left / "spool" / (REC + SUFFIX)
        kept = first_kept(spool)
        with spool.open("r+b") as file:
            file.seek(layout.DELIVERED_AT)
            file.write(layout.DELIVERED.pack(kept - 1))
        lines = (left / "a.tlog").read_bytes().splitlines(keepends=True)
        sure, unsure = b"".join(lines[: kept - 1]), b"".join(lines[kept - 1 :])
        cut = data.draw(st.integers(0, len(unsure)))
        (left / "a.tlog").write_bytes(sure + unsure[:cut])
    (one,) = recover(str(left / "spool"))
    assert one.state == WRITTEN, one.problem
    assert list((left / "spool").iterdir()) == []
    events = replay(left / "a.tlog")
    for kind in (OUTPUT, INPUT):
        assert stream(events, kind) == expected(script[:stop], kind)
    assert end(left / "a.tlog") == {
        "event": "end",
        "recovered": True,
        "bytes_in": len(expected(script[:stop], INPUT)),
        "bytes_out": len(expected(script[:stop], OUTPUT)),
    }
    # The same session goes on, and ends whole.
    play(session, [*script[stop:], ("up", b""), ("wait", b"")])
    session.recording.finish({"event": "end", "status": 0})
    assert list((base / "live" / "spool").iterdir()) == []
    live = replay(session.tlog)
    for kind in (OUTPUT, INPUT):
        assert stream(live, kind) == expected(script, kind)
    # What was recovered is the same recording, byte for byte, up to the message of its end.
    whole = session.tlog.read_bytes().splitlines()
    again = (left / "a.tlog").read_bytes().splitlines()
    common = min(len(whole), len(again)) - 2
    assert again[: max(common, 0)] == whole[: max(common, 0)] or queue_limit == 500
    shutil.rmtree(base)


def first_kept(spool: Path) -> int:
    """The id of the first message that a spool file can make anew."""
    head = spool.read_bytes()[: layout.JSON_AT]
    slots = [layout.SLOT.unpack_from(head, at) for at in layout.SLOTS_AT]
    return int(max(slots)[1])


# Cut and damaged files.


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a killed recorder left: a target, and a spool with several checkpoints behind it."""
    # A long path, which a copy's own can take the place of.
    base = tmp_path_factory.mktemp("left-" + "x" * 100)
    (base / "live").mkdir()
    session = Session(base / "live")
    session.recording.start({"event": "start"}, b"80x24")
    chance = random.Random(7)
    for number in range(200):
        if number % 50 == 0:
            play(session, [("flush", b"")])
        if number == 170:
            session.writer.down = True
        words = f"{number} \u20ac\u00e4\x1b[m".encode() + chance.randbytes(5)
        play(session, [(OUTPUT, words), (INPUT, b"key %d\r" % number)])
    return session.copy(base / "copy")


def damaged(left: Path, to: Path, spool: bytes) -> tuple[Path, Path]:
    """A copy of what was left, with another spool file; the spool's folder and the target."""
    folder = to / "spool"
    shutil.rmtree(to, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    tlog = to / "a.tlog"
    shutil.copy(left / "a.tlog", tlog)
    there, here = str(left / "a.tlog").encode(), str(tlog).encode()
    assert len(here) <= len(there)
    if len(spool) >= layout.JSON_AT + len(there) and there in spool:
        here = b"/" * (len(there) - len(here)) + here
        spool = spool.replace(there, here)
        spool = reseal(spool)
    (folder / (REC + SUFFIX)).write_bytes(spool)
    return folder, tlog


def check_damaged(left: Path, folder: Path, tlog: Path, whole: list[Event]) -> None:
    """Recovery took it: a beginning of the recording is held, or the file is put aside."""
    before = tlog.read_bytes()
    done = list(recover(str(folder)))
    names = [path.name for path in folder.iterdir()]
    if not done:
        # An empty one, which a recorder may be about to fill, or one without a whole frame.
        assert names in ([REC + SUFFIX], [])
    elif done[0].state == UNREADABLE:
        assert names == [REC + SUFFIX + ".bad"]
    else:
        assert done[0].state == WRITTEN, done[0].problem
        assert names == []
    assert tlog.read_bytes().startswith(before)
    events = replay(tlog)
    for kind in (OUTPUT, INPUT):
        assert stream(whole, kind).startswith(stream(events, kind))


@pytest.fixture(scope="module")
def whole(left: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Event]:
    """What the undamaged spool is recovered to."""
    spool = (left / "spool" / (REC + SUFFIX)).read_bytes()
    folder, tlog = damaged(left, tmp_path_factory.getbasetemp() / "w", spool)
    (one,) = recover(str(folder))
    assert one.state == WRITTEN
    events = replay(tlog)
    assert b"key 199" in stream(events, INPUT)
    return events


def used(spool: bytes) -> int:
    """Where the frames end."""
    start: int = layout.HEAD.unpack_from(spool)[2]
    return start + len(spool[start:].rstrip(b"\0"))


def test_spool_is_readable_when_cut_at_any_byte(
    left: Path, whole: list[Event], tmp_path_factory: pytest.TempPathFactory
) -> None:
    spool = (left / "spool" / (REC + SUFFIX)).read_bytes()
    to = tmp_path_factory.getbasetemp() / "c"
    start = layout.HEAD.unpack_from(spool)[2]
    for size in [*range(0, start, 61), *range(start, used(spool) + 1, 7)]:
        folder, tlog = damaged(left, to, spool[:size])
        check_damaged(left, folder, tlog, whole)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_torn_sectors_leave_a_beginning_of_the_recording(
    left: Path,
    whole: list[Event],
    tmp_path_factory: pytest.TempPathFactory,
    data: st.DataObject,
) -> None:
    spool = bytearray((left / "spool" / (REC + SUFFIX)).read_bytes())
    for sector in data.draw(st.lists(st.integers(0, used(bytes(spool)) // 512), max_size=3)):
        filling = data.draw(st.one_of(st.just(bytes(512)), st.binary(min_size=512, max_size=512)))
        spool[sector * 512 : sector * 512 + 512] = filling
    folder, tlog = damaged(left, tmp_path_factory.getbasetemp() / "t", bytes(spool))
    check_damaged(left, folder, tlog, whole)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(garbage=st.binary(min_size=1, max_size=6000), magic=st.booleans())
def test_garbage_is_put_aside_with_a_warning(
    tmp_path_factory: pytest.TempPathFactory, garbage: bytes, magic: bool
) -> None:
    folder = tmp_path_factory.getbasetemp() / "g"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    head = layout.HEAD.pack(layout.MAGIC, layout.VERSION, 4096, 20, 0) if magic else b""
    (folder / "x.spool").write_bytes(head + garbage)
    (one,) = recover(str(folder))
    assert one.state == UNREADABLE
    assert one.problem
    assert [path.name for path in folder.iterdir()] == ["x.spool.bad"]


values = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8),
    st.sampled_from(["file", "journal", "syslog", {}, [], {"path": "/nonexistent/x"}, 2048]),
)  # fmt: skip


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    names=st.dictionaries(
        st.sampled_from(["identity", "payload", "writer", "file", "syslog", "journal"]), values
    ),
    state=st.tuples(
        st.integers(0, 2**64 - 1), st.binary(max_size=31), *[st.binary(max_size=7)] * 2
    ),
    frames=st.lists(
        st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 255), st.binary(max_size=20)),
        max_size=4,
    ),
)
def test_hostile_contents_with_right_checksums_are_no_crash(
    left: Path,
    tmp_path_factory: pytest.TempPathFactory,
    names: dict[str, object],
    state: tuple[int, bytes, bytes, bytes],
    frames: list[tuple[int, int, bytes]],
) -> None:
    folder = tmp_path_factory.getbasetemp() / "h"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    spool = (left / "spool" / (REC + SUFFIX)).read_bytes()
    _, _, start, length, _ = layout.HEAD.unpack_from(spool)
    said = json.loads(spool[layout.JSON_AT : layout.JSON_AT + length])
    said["file"]["path"] = str(folder / "target")
    text = json.dumps({**said, **names}).encode()
    data = layout.HEAD.pack(layout.MAGIC, layout.VERSION, start, len(text), crc32(text))
    data = data.ljust(layout.SLOTS_AT[0], b"\0")
    data += layout.pack_slot(1, state, 0, 0)
    data = data.ljust(layout.JSON_AT, b"\0") + text
    data = data.ljust(start, b"\0")
    for time, kind, content in frames:
        fixed = layout.FIXED.pack(len(content), 1, kind, time, 0, 0)
        check = crc32(content, crc32(fixed)).to_bytes(4, "little")
        data += fixed + check + content
    (folder / "x.spool").write_bytes(data)
    for one in recover(str(folder)):
        assert one.state == WRITTEN or one.problem


# What recovery leaves alone.


def test_recording_that_goes_on_is_left_alone(tmp_path: Path) -> None:
    session = Session(tmp_path)
    session.recording.start({"event": "start"}, None)
    assert list(recover(str(tmp_path / "spool"))) == []
    session.recording.finish({"event": "end", "status": 0})
    assert "recovered" not in end(session.tlog)


def test_the_end_that_recovery_writes_is_not_before_what_the_store_has(tmp_path: Path) -> None:
    """The clock that stamps files stands still for some milliseconds, and may be set."""
    session = Session(tmp_path)
    session.recording.start({"event": "start"}, None)
    session.time = 13_000_000
    session.recording.log(OUTPUT, b"x")
    session.time += 2000 * 1_000_000_000
    session.recording.tick()
    assert not session.spool.used, "no checkpoint"
    session.spool.close()
    os.utime(session.spool.path, ns=(0, 1_700_000_000_012 * 1_000_000))
    assert [done.state for done in recover(str(tmp_path / "spool"))] == [WRITTEN]
    assert stream(replay(session.tlog), OUTPUT) == b"x"
    assert end(session.tlog)["recovered"] is True


def test_what_a_power_cut_took_from_the_store_is_written_again(tmp_path: Path) -> None:
    """Though the spool had noted that the store has it."""
    session = Session(tmp_path)
    session.recording.start({"event": "start"}, None)
    text = b"".join(b"line %d\n" % number for number in range(100))
    session.recording.log(OUTPUT, text)
    session.spool.close()
    lines = session.tlog.read_bytes().splitlines(keepends=True)
    assert len(lines) > 3
    session.tlog.write_bytes(b"".join(lines[:-2]))
    assert [done.state for done in recover(str(tmp_path / "spool"))] == [WRITTEN]
    assert stream(replay(session.tlog), OUTPUT) == text


def test_skipped_command_whose_recorder_is_killed_is_told_of(tmp_path: Path) -> None:
    session = Session(tmp_path)
    skip = Skip("scp -t", "/usr/bin/scp", "/usr/bin/scp", [])
    log = SkippedLog(session.recording, skip, "scp -t")
    log.start({"event": "start", "remote": "192.0.2.7"}, None)
    assert session.tlog.read_bytes() == b""
    session.spool.close()
    (done,) = recover(str(tmp_path / "spool"))
    assert (done.state, done.messages) == (WRITTEN, 1)
    member = end(session.tlog)
    assert (member["event"], member["command"]) == ("skipped", "scp -t")
    assert (member["remote"], member["recovered"]) == ("192.0.2.7", True)
    assert "start" in member and "bytes_in" not in member


def test_session_that_never_began_leaves_nothing_behind(tmp_path: Path) -> None:
    session = Session(tmp_path)
    session.spool.close()
    assert list(recover(str(tmp_path / "spool"))) == []
    assert list((tmp_path / "spool").iterdir()) == []
    assert session.tlog.read_bytes() == b""


def test_writer_that_is_still_down_keeps_the_rest_waiting(left: Path, tmp_path: Path) -> None:
    spool = (left / "spool" / (REC + SUFFIX)).read_bytes()
    folder, tlog = damaged(left, tmp_path / "x", spool)
    before = tlog.read_bytes()
    tlog.unlink()
    tlog.mkdir()
    (one,) = recover(str(folder))
    assert (one.state, one.messages) == (WAITING, 0)
    assert "Is a directory" in one.problem
    tlog.rmdir()
    tlog.write_bytes(before)
    (one,) = recover(str(folder))
    assert one.state == WRITTEN
    assert list(recover(str(folder))) == []
    assert b"key 199" in stream(replay(tlog), INPUT)


def test_recovery_killed_before_it_removed_the_spool_doubles_nothing(
    left: Path, tmp_path: Path
) -> None:
    spool = (left / "spool" / (REC + SUFFIX)).read_bytes()
    folder, tlog = damaged(left, tmp_path / "x", spool)
    (one,) = recover(str(folder))
    once = tlog.read_bytes()
    again, _ = damaged(left, tmp_path / "y", spool)
    shutil.copy(tlog, tmp_path / "y" / "a.tlog")
    (one,) = recover(str(again))
    assert (one.state, one.messages) == (WRITTEN, 0)
    assert (tmp_path / "y" / "a.tlog").read_bytes() == once


def test_other_recordings_behind_ours_in_the_file_hide_nothing(left: Path, tmp_path: Path) -> None:
    spool = (left / "spool" / (REC + SUFFIX)).read_bytes()
    folder, tlog = damaged(left, tmp_path / "x", spool)
    ours = tlog.read_bytes()
    other = ours.replace(REC.encode(), REC.replace("-2", "-3").encode())
    tlog.write_bytes(ours + other * 200)
    (one,) = recover(str(folder))
    assert one.state == WRITTEN
    mine = [line for line in tlog.read_bytes().splitlines() if b'"%b"' % REC.encode() in line]
    ids = [json.loads(line)["id"] for line in mine]
    assert ids == list(range(1, len(ids) + 1))


def test_spool_of_another_version_is_left_for_its_own_program(left: Path, tmp_path: Path) -> None:
    spool = (left / "spool" / (REC + SUFFIX)).read_bytes()
    folder, _ = damaged(left, tmp_path / "x", spool)
    (path,) = folder.iterdir()
    path.write_bytes(spool[:8] + b"\x09" + spool[9:])
    (one,) = recover(str(folder))
    assert one.state == WAITING
    assert "version 9" in one.problem
    assert path.exists()


def test_empty_file_is_removed_only_when_no_recorder_can_be_about_to_fill_it(
    tmp_path: Path,
) -> None:
    tmp_path.chmod(0o700)
    path = tmp_path / "x.spool"
    path.touch()
    assert list(recover(str(tmp_path))) == []
    assert path.exists()
    os.utime(path, (1, 1))
    assert list(recover(str(tmp_path))) == []
    assert not path.exists()


def test_links_pipes_and_folders_are_no_spool_files(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "a.spool").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "b.spool")
    (tmp_path / "c.spool").mkdir()
    assert [one.state for one in recover(str(tmp_path))] == [UNREADABLE] * 3


def test_folder_that_others_can_write_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(SpoolError, match="can be written by others"):
        list(recover(str(tmp_path)))


def test_missing_folder_holds_nothing(tmp_path: Path) -> None:
    assert list(recover(str(tmp_path / "none"))) == []
