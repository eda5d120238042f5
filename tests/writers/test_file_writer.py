# SPDX-License-Identifier: Apache-2.0
"""The file writer, on real file systems and with real limits."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.driving import REC, Terminal, clean_environment, messages, output, run, wait_until

from ttyscribe.errors import WriterError
from ttyscribe.events import Message
from ttyscribe.writers.file import FileWriter


def message(data: bytes) -> Message:
    return Message(data, "rec", "user", 0, 1)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_new_file_is_for_its_owner_alone_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "a.tlog"
    old = os.umask(0)
    try:
        FileWriter(str(path)).close()
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_symbolic_link_is_refused_and_its_target_untouched(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    link.symlink_to(target)
    with pytest.raises(WriterError, match="symbolic link"):
        FileWriter(str(link))
    assert not target.exists()


def test_terminal_is_refused_and_shows_nothing() -> None:
    master, slave = os.openpty()
    with pytest.raises(WriterError, match="it is a terminal"):
        FileWriter(os.ttyname(slave))
    os.set_blocking(master, False)
    with pytest.raises(BlockingIOError):
        os.read(master, 1)
    os.close(master)
    os.close(slave)
    # The recorder's own, by the name that each process has for it.
    with Terminal([*REC, "-y", "--file-path=/dev/tty", "echo", "in"]) as terminal:
        terminal.expect(b"ttyscribe rec: /dev/tty: can't record into it: it is a terminal\r\n")
        assert terminal.finish() == 1
        assert terminal.seen.count(b"\n") == 1
    assert FileWriter(os.devnull).write([message(b"gone")]) == 1


def test_each_message_is_a_line_behind_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "a.tlog"
    path.write_bytes(b"before\n")
    writer = FileWriter(str(path))
    assert writer.write([message(b"one"), message(b"two")]) == 2
    assert path.read_bytes() == b"before\none\ntwo\n"
    writer.close()


def test_line_that_a_crash_cut_off_is_ended_first(tmp_path: Path) -> None:
    path = tmp_path / "a.tlog"
    path.write_bytes(b'{"ver":"2.3","hos')
    writer = FileWriter(str(path))
    writer.write([message(b"one")])
    writer.write([message(b"two")])
    assert path.read_bytes() == b'{"ver":"2.3","hos\none\ntwo\n'
    writer.close()


def test_removed_file_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.tlog"
    path.write_bytes(b"torn")
    writer = FileWriter(str(path))
    path.unlink()
    writer.write([message(b"one")])
    assert path.read_bytes() == b"one\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    writer.close()


def test_full_disk_takes_whole_lines_or_none_and_goes_on_once_there_is_room(small: Path) -> None:
    path, ballast = small / "a.tlog", small / "ballast"
    ballast.write_bytes(bytes(40 << 10))
    writer = FileWriter(str(path))
    waiting = [message(b"%04d" % number + b"x" * 993) for number in range(64)]
    expected = b"".join(m.data + b"\n" for m in waiting)
    with pytest.raises(WriterError, match="can't write"):
        while waiting:
            taken = writer.write(waiting)
            del waiting[:taken]
    held = path.read_bytes()
    assert held == expected[: len(held)]
    assert held.endswith(b"x\n")
    assert 0 < len(waiting) < 64
    ballast.unlink()
    while waiting:
        try:
            taken = writer.write(waiting)
        except WriterError:
            break
        del waiting[:taken]
    assert path.read_bytes() == expected[: len(expected) - 998 * len(waiting)]
    writer.close()


def test_session_on_a_disk_that_is_full_for_a_while_is_recorded_whole(small: Path) -> None:
    path, ballast = small / "a.tlog", small / "ballast"
    ballast.write_bytes(bytes(48 << 10))
    with Terminal([*REC, "-o", str(path), "--latency=1", "-c", "seq 4000; echo full; read x"]) as t:
        t.expect(b"full\r\n")
        wait_until(lambda: os.statvfs(small).f_bavail == 0, "the disk does not fill")
        ballast.unlink()
        t.line("")
        assert t.finish() == 0
    assert output(path) == t.seen


def test_session_on_a_full_disk_goes_on_and_says_at_its_end_where_the_rest_is(small: Path) -> None:
    path, ballast = small / "a.tlog", small / "ballast"
    ballast.write_bytes(bytes(56 << 10))
    with Terminal([*REC, "-o", str(path), "--", "seq", "20000"],
                  env=clean_environment(XDG_STATE_HOME=str(small.parent))) as terminal:  # fmt: skip
        assert terminal.finish() == 1  # the command succeeded, the writing did not
    lines = terminal.seen.splitlines()
    assert lines[:20000] == [b"%d" % number for number in range(1, 20001)]
    assert len(lines) == 20001
    assert lines[-1].startswith(f"ttyscribe rec: {path}: can't write: ".encode())
    assert b"ttyscribe recover" in lines[-1]
    # What it took is whole.
    assert path.read_bytes().endswith(b"}\n")
    assert terminal.seen.startswith(output(path))


def test_recorders_that_share_a_file_do_not_cut_into_each_other(tmp_path: Path) -> None:
    path = tmp_path / "shared.tlog"
    running = [
        subprocess.Popen(
            [*REC, "-o", str(path), "--payload=500", "-c", f"seq {start} {start + 9999}"],
            stdout=subprocess.DEVNULL,
            env=clean_environment(),
        )
        for start in range(10000, 60000, 10000)
    ]
    assert [process.wait(timeout=30) for process in running] == [0] * 5
    by_recording: dict[str, list[bytes]] = {}
    for line in path.read_bytes().splitlines(keepends=True):
        (found,) = messages(line)
        by_recording.setdefault(found.rec, []).append(line)
    assert len(by_recording) == 5
    shown = {output(b"".join(lines)) for lines in by_recording.values()}
    assert shown == {
        b"".join(b"%d\n" % n for n in range(start, start + 10000))
        for start in range(10000, 60000, 10000)
    }


def test_recording_goes_on_in_a_new_file_when_the_old_one_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "a.tlog"
    with Terminal([*REC, "-o", str(path), "--latency=1", "-c", "read x; echo got $x"]) as terminal:
        wait_until(path.exists, "no file")
        wait_until(lambda: path.stat().st_size, "no first message")
        path.unlink()
        terminal.line("it")
        assert terminal.finish() == 0
    assert b"got it" in path.read_bytes()


def test_path_must_be_given() -> None:
    with pytest.raises(WriterError, match="needs a path"):
        FileWriter("")


def test_unwritable_path_is_one_line_for_another_user(tmp_path: Path) -> None:
    folder = Path("/tmp")
    path = folder / f"ttyscribe-test-{os.getpid()}.tlog"
    path.write_bytes(b"")
    path.chmod(0o600)
    try:
        done = run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *REC,
                    "-o", path, "true"])  # fmt: skip
    finally:
        path.unlink()
    assert done.returncode == 1
    assert done.stderr == (
        f"ttyscribe rec: {path}: can't open for writing: Permission denied\n".encode()
    )


def test_line_that_another_is_just_writing_is_not_taken_for_a_torn_one(tmp_path: Path) -> None:
    path = tmp_path / "shared.tlog"
    FileWriter(str(path)).close()
    # Large lines: a file grows by a page at a time, for whoever looks at it meanwhile.
    code = (
        "import sys\n"
        "from ttyscribe.events import Message\n"
        "from ttyscribe.writers.file import FileWriter\n"
        "writer = FileWriter(sys.argv[1])\n"
        "line = Message(b'x' * 600_000, 'rec', 'user', 0, 1)\n"
        "for _ in range(150): writer.write([line])\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, path]) as process:
        while process.poll() is None:
            writer = FileWriter(str(path))
            writer.write([message(b"y")])
            writer.close()
    assert process.returncode == 0
    lines = path.read_bytes().split(b"\n")
    assert lines.count(b"x" * 600_000) == 150
    assert [line for line in lines if line not in (b"x" * 600_000, b"y")] == [b""]


def test_two_who_find_the_same_torn_line_end_it_once(tmp_path: Path) -> None:
    path = tmp_path / "shared.tlog"
    path.write_bytes(b"torn")
    first, second = FileWriter(str(path)), FileWriter(str(path))
    first.write([message(b"one")])
    second.write([message(b"two")])
    assert path.read_bytes() == b"torn\none\ntwo\n"
    first.close()
    second.close()
