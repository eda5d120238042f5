# SPDX-License-Identifier: Apache-2.0
"""The spool file of a recording that goes on, and the folder it is in."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.driving import run, wait_until

from ttyscribe.errors import SpoolError, WriterError
from ttyscribe.events import OUTPUT
from ttyscribe.session import spoolfile as layout
from ttyscribe.session.recording import Recording
from ttyscribe.session.spool import Spool
from ttyscribe.session.spoolfolder import abandoned, open_folder, user_folder
from ttyscribe.tlog import Encoder, Identity
from ttyscribe.writers.file import FileWriter

STATE = (1, b"", b"", b"")
SECOND = 1_000_000_000


def make(folder: Path, *, limit: int = 0, sync: str = "none", name: str = "a.spool") -> Spool:
    return Spool(str(folder), name, b"{}", limit=limit, sync=sync)


def test_folder_and_file_are_for_their_owner_alone(tmp_path: Path) -> None:
    os.umask(0)
    try:
        spool = make(tmp_path / "state" / "spool")
    finally:
        os.umask(0o022)
    assert stat.S_IMODE((tmp_path / "state/spool").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "state/spool/a.spool").stat().st_mode) == 0o600
    spool.remove()
    assert list((tmp_path / "state/spool").iterdir()) == []


def test_file_is_locked_while_its_recorder_lives(tmp_path: Path) -> None:
    spool = make(tmp_path / "spool")
    with (tmp_path / "spool/a.spool").open() as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert not abandoned(str(tmp_path / "spool"))
    spool.close()
    assert abandoned(str(tmp_path / "spool"))


def test_existing_file_is_never_written_into(tmp_path: Path) -> None:
    make(tmp_path / "spool").close()
    before = (tmp_path / "spool/a.spool").read_bytes()
    with pytest.raises(SpoolError, match="File exists"):
        make(tmp_path / "spool")
    assert (tmp_path / "spool/a.spool").read_bytes() == before


def test_planted_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir(mode=0o700)
    (tmp_path / "spool/a.spool").symlink_to(tmp_path / "victim")
    with pytest.raises(SpoolError):
        make(tmp_path / "spool")
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda path: (path.rmdir(), path.symlink_to("/tmp")), "symbolic link"),
        (lambda path: (path.rmdir(), path.touch()), "no folder"),
        (lambda path: path.chmod(0o770), "written by others"),
        (lambda path: os.chown(path, 65534, 65534), "belongs to others"),
    ],
)
def test_folder_that_is_not_safe_is_refused(tmp_path: Path, spoil: object, why: str) -> None:
    assert callable(spoil)
    (tmp_path / "spool").mkdir(mode=0o700)
    spoil(tmp_path / "spool")
    with pytest.raises(SpoolError, match=why):
        open_folder(str(tmp_path / "spool"))


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({b"XDG_STATE_HOME": b"/x"}, "/x/ttyscribe/spool"),
        ({b"XDG_STATE_HOME": b"x", b"HOME": b"/h"}, "/h/.local/state/ttyscribe/spool"),
        ({}, "/root/.local/state/ttyscribe/spool"),
        ({b"HOME": b"/dev/null"}, "/root/.local/state/ttyscribe/spool"),
    ],
)
def test_users_folder_is_in_the_state_folder(environ: dict[bytes, bytes], folder: str) -> None:
    assert user_folder(environ) == folder


def test_frames_are_read_back_in_order(tmp_path: Path) -> None:
    spool = make(tmp_path / "spool")
    for number in range(100):
        assert spool.append(number, layout.OUTPUT, b"%d" % number, 0, number)
    read: list[bytes] = []
    while spool.behind:
        read += [frame[2] for frame in spool.read_back(300)]
    assert read == [b"%d" % number for number in range(100)]
    assert spool.append(100, layout.INPUT, b"more", 4, 99)
    assert [frame[:5] for frame in spool.read_back(1)] == [(layout.INPUT, 100, b"more", 4, 99)]
    spool.remove()


def test_checkpoints_keep_the_file_small(tmp_path: Path) -> None:
    spool = make(tmp_path / "spool")
    path = tmp_path / "spool/a.spool"
    for number in range(300):
        assert spool.append(number, layout.OUTPUT, bytes(60_000), 0, 0)
        if spool.used > 1 << 20:
            spool.checkpoint(STATE, 0, 0)
    assert path.stat().st_size < 3 << 20
    # What grew while a writer was down is given back.
    for number in range(300):
        assert spool.append(number, layout.OUTPUT, bytes(60_000), 0, 0)
    assert path.stat().st_size > 18_000_000
    spool.checkpoint(STATE, 0, 0)
    assert path.stat().st_size < 3 << 20
    spool.remove()


def test_limit_counts_all_files_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir(mode=0o700)
    (tmp_path / "spool/other.spool").write_bytes(bytes(3 << 20))
    spool = make(tmp_path / "spool", limit=4 << 20)
    number = 0
    while not spool.full:
        number += 1
        spool.append(number, layout.OUTPUT, bytes(4096), 0, 0)
    assert number < (1 << 20) // 4096
    assert "spool.limit" in spool.error
    # What is in flight then is kept all the same.
    assert spool.append(number, layout.OUTPUT, bytes(80_000), 0, 0)
    (tmp_path / "spool/other.spool").unlink()
    spool.tick(number + SECOND)
    assert not spool.full
    spool.remove()


def test_event_without_room_waits_and_comes_in_its_order(tmp_path: Path) -> None:
    spool = make(tmp_path / "spool", limit=1)
    sizes = [100_000, 50_000, 30_000, 10]
    kept = [spool.append(1, layout.OUTPUT, bytes(size), 0, 0) for size in sizes]
    assert kept == [True, False, False, False]
    assert spool.full
    assert spool.holds
    first = [len(frame[2]) for frame in spool.read_back(1 << 20)]
    spool.checkpoint(STATE, 0, 0)
    spool.tick(1)
    assert not spool.holds
    assert first + [len(frame[2]) for frame in spool.read_back(1 << 20)] == sizes
    spool.remove()


@pytest.mark.parametrize("sync", ["none", "second", "always"])
def test_file_is_forced_to_the_disk_as_often_as_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sync: str
) -> None:
    threads: list[int] = []
    done = threading.Event()
    really = os.fdatasync

    def counted(fd: int) -> None:
        threads.append(threading.get_ident())
        really(fd)
        done.set()

    monkeypatch.setattr(os, "fdatasync", counted)
    spool = make(tmp_path / "spool", sync=sync)
    for number in range(30):
        spool.append(number * SECOND // 10, layout.OUTPUT, b"x", 0, 0)
        spool.tick(number * SECOND // 10)
        if sync == "second" and number in (10, 20):
            assert done.wait(10)
            done.clear()
            while spool._syncing:
                pass
    if sync == "none":
        assert threads == []
        assert spool.due() is None
    elif sync == "always":
        assert threads == [threading.get_ident()] * 30
    else:
        assert len(threads) == 2
        assert threading.get_ident() not in threads
        assert spool.due() == 3 * SECOND
    spool.remove()


def test_writers_file_is_on_the_disk_before_the_spool_forgets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tlog = tmp_path / "a.tlog"
    on_disk: list[int] = []
    forgot = []
    sync, write, unlink = os.fdatasync, os.pwrite, os.unlink

    def fdatasync(fd: int) -> None:
        sync(fd)
        if os.readlink(f"/proc/self/fd/{fd}") == str(tlog):
            on_disk.append(os.fstat(fd).st_size)

    def check(what: str) -> None:
        forgot.append(what)
        assert on_disk[-1:] == [tlog.stat().st_size], what

    def pwrite(fd: int, data: bytes, at: int) -> int:
        if at in (layout.DELIVERED_AT, *layout.SLOTS_AT):
            check("delivered" if at == layout.DELIVERED_AT else "checkpoint")
        return write(fd, data, at)

    def removed(name: str, *, dir_fd: int) -> None:
        check("removed")
        unlink(name, dir_fd=dir_fd)

    recording = make_recording(tmp_path, "always")
    monkeypatch.setattr(os, "fdatasync", fdatasync)
    monkeypatch.setattr(os, "pwrite", pwrite)
    monkeypatch.setattr(os, "unlink", removed)
    recording.start({"event": "start"}, None)
    for _ in range(100):
        recording.log(OUTPUT, bytes(1000))
    recording.finish({"event": "end", "status": 0})
    assert set(forgot) == {"delivered", "checkpoint", "removed"}


def test_writers_file_that_can_not_be_forced_to_the_disk_keeps_the_spool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = make_recording(tmp_path, "always")
    recording.start({"event": "start"}, None)
    sync = os.fdatasync

    def fail(fd: int) -> None:
        if os.readlink(f"/proc/self/fd/{fd}").endswith(".tlog"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        sync(fd)

    monkeypatch.setattr(os, "fdatasync", fail)
    recording.log(OUTPUT, bytes(10000))
    recording.tick()
    assert recording.full
    due = recording.due()
    assert due is not None and due > 100
    with pytest.raises(WriterError, match="Input/output error; the end of the recording waits"):
        recording.finish({"event": "end", "status": 0})
    assert abandoned(str(tmp_path / "spool"))


@pytest.mark.parametrize(("seconds", "forced"), [(0, 0), (2, 1)])
def test_end_of_a_recording_is_forced_to_the_disk_where_more_than_a_second_could_be_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: int, forced: int
) -> None:
    recording = make_recording(tmp_path, "second")
    recording.start({"event": "start"}, None)
    recording._began -= seconds * SECOND
    files = forced_files(monkeypatch)
    recording.log(OUTPUT, b"x")
    recording.finish({"event": "end", "status": 0})
    assert files == [str(tmp_path / "a.tlog")] * forced


def test_writers_file_is_forced_to_the_disk_each_second_with_the_spool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = make_recording(tmp_path, "second")
    recording.start({"event": "start"}, None)
    recording._began -= 2 * SECOND
    files = forced_files(monkeypatch)
    recording.log(OUTPUT, b"x")
    recording.tick()
    wait_until(lambda: len(files) == 2, "they are not forced")
    assert [Path(file).suffix for file in files] == [".tlog", ".spool"]
    recording.finish({"event": "end", "status": 0})


def forced_files(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are forced to the disk from here on."""
    files: list[str] = []
    monkeypatch.setattr(
        os, "fdatasync", lambda fd: files.append(os.readlink(f"/proc/self/fd/{fd}"))
    )
    return files


def make_recording(folder: Path, sync: str) -> Recording:
    """A recording into a.tlog in folder."""
    return Recording(
        Encoder(Identity("h", "r", "u", "t", 1, 1_700_000_000_000), 128),
        FileWriter(str(folder / "a.tlog")),
        10,
        log_input=False,
        log_output=True,
        log_window=True,
        spool=make(folder / "spool", sync=sync),
    )


events = st.lists(
    st.one_of(
        st.tuples(st.just("o"), st.binary(max_size=100)),
        st.tuples(st.just("i"), st.text(max_size=200).map(str.encode)),
        st.tuples(st.just("o"), st.text(min_size=100, max_size=600).map(str.encode)),
        st.tuples(st.just("r"), st.just(b"80x24")),
        st.tuples(st.just("f"), st.just(b"")),
    ),
    max_size=20,
)


@settings(max_examples=300, deadline=None)
@given(before=events, after=events)
def test_encoder_goes_on_from_a_checkpoint_byte_for_byte(
    before: list[tuple[str, bytes]], after: list[tuple[str, bytes]]
) -> None:
    identity = Identity("h", "r", "u", "t", 1, 1_700_000_000_000)
    first, second = Encoder(identity, 128), Encoder(identity, 128)
    encode(first, 0, before)
    first.flush()
    fields = layout.SLOT.unpack(layout.pack_slot(2, first.state(), 0, 0))
    second.restore((fields[1], *fields[4:7]))
    assert encode(second, 1000, after) == encode(first, 1000, after)


def encode(encoder: Encoder, start: int, script: list[tuple[str, bytes]]) -> list[bytes]:
    messages = []
    for number, (kind, data) in enumerate(script, start):
        messages += (
            encoder.flush() if kind == "f" else encoder.add(number * 1_500_000, kind, data)
        )
    return [message.data for message in messages]


def test_login_path_imports_nothing_heavy_for_the_spool() -> None:
    done = run([sys.executable, "-IS", "-c", f"""
import sys
sys.path.insert(0, {str(Path(layout.__file__).parents[2])!r})
import ttyscribe.session.spool
print(*(set(sys.modules) & {{"json", "re", "typing", "dataclasses", "threading", "struct"}}))
"""])  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, b"\n", b"")
