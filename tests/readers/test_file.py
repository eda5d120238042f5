# SPDX-License-Identifier: Apache-2.0
"""Recordings in files, syslog text files and pipes."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from ttyscribe.errors import FormatError, ReaderError
from ttyscribe.readers import SeveralRecordings
from ttyscribe.readers import file as file_module
from ttyscribe.readers.file import FileReader


def message(rec: str = "r1", id: int = 1, text: str = "x", **more: object) -> bytes:
    fields: dict[str, object] = {
        "ver": "2.3", "host": "h", "rec": rec, "user": "u", "term": "xterm", "session": 1,
        "id": id, "pos": id * 10, "time": 1567504805.0 + id / 100, "timing": f">{len(text)}",
        "in_txt": "", "in_bin": [], "out_txt": text, "out_bin": [],
    }  # fmt: skip
    return json.dumps(fields | more, separators=(",", ":"), ensure_ascii=False).encode()


def write(path: Path, *lines: bytes) -> str:
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return str(path)


def read(path: str, match: str | None = None) -> list[bytes]:
    reader = FileReader(path, match)
    try:
        reader.check()
        return [entry[0] for entry in reader.entries() if entry is not None]
    finally:
        reader.close()


def test_every_line_is_an_entry_with_its_place(tmp_path: Path) -> None:
    path = write(tmp_path / "f", message(id=1), b"", message(id=2))
    reader = FileReader(path)
    entries = list(reader.entries())
    assert entries == [(message(id=1), f"{path}:1"), (message(id=2), f"{path}:3")]
    assert list(reader.entries()) == entries, "a second look starts anew"


def test_match_picks_one_of_several_recordings(tmp_path: Path) -> None:
    spaced = json.dumps(json.loads(message("r2", 2)), indent=None).encode()
    path = write(tmp_path / "f", message("r1", 1), message("r2", 1), message("r1", 2), spaced)
    assert read(path, "r1") == [message("r1", 1), message("r1", 2)]
    assert read(path, "r2") == [message("r2", 1), spaced]


def test_several_recordings_are_listed(tmp_path: Path) -> None:
    path = write(tmp_path / "f", message("r1", 1), message("r2", 1), message("r1", 2))
    with pytest.raises(SeveralRecordings, match="holds 2 recordings; choose one with -m REC") as e:
        read(path)
    assert [str(found) for found in e.value.recordings] == [
        "r1  u@h  2019-09-03 10:00:05 UTC  2 messages",
        "r2  u@h  2019-09-03 10:00:05 UTC  1 message",
    ]


def test_recorded_text_can_not_pose_as_another_recording(tmp_path: Path) -> None:
    fake = 'say "rec":"r2" ' + message("r2").decode()
    path = write(tmp_path / "f", message("r1", 1, fake), message("r1", 2, fake))
    assert len(read(path)) == 2
    with pytest.raises(ReaderError, match="holds no recording 'r2'"):
        read(path, "r2")


@pytest.mark.parametrize(
    "head",
    [
        b"Nov 22 10:00:00 host ttyscribe[12]: ",
        b"<86>Nov  2 10:00:00 host tlog: ",
        b"2026-11-22T10:00:00.123456+00:00 host -tlog-rec-session[1]: ",
    ],
)
def test_messages_are_found_in_a_syslog_file(tmp_path: Path, head: bytes) -> None:
    path = write(
        tmp_path / "auth.log",
        b"Nov 22 10:00:00 host sshd[1]: Accepted publickey for {alice}",
        head + message(id=1),
        b'Nov 22 10:00:00 host app[1]: {"other": 1}',
        b"",
        head + message(id=2),
        b"last message repeated",
    )
    assert read(path) == [message(id=1), message(id=2)]
    assert read(path, "r1") == [message(id=1), message(id=2)]


def test_file_that_is_neither_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "f", b"root:x:0:0:\x1b[31m", message())
    with pytest.raises(FormatError, match=r":1: 'root:x:0:0:\\x1b\[31m' is neither"):
        read(path)


def test_empty_file_holds_no_recording(tmp_path: Path) -> None:
    with pytest.raises(ReaderError, match="holds no recording"):
        read(write(tmp_path / "f"))
    with pytest.raises(ReaderError, match="holds no recording"):
        read(write(tmp_path / "g", b"Nov 22 10:00:00 host sshd[1]: hello"))


def test_last_line_without_line_end_counts_if_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(message(id=1) + b"\n" + message(id=2))
    assert len(read(str(path))) == 2


def test_cut_off_last_line_is_an_error_after_what_comes_before(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(message(id=1) + b"\n" + message(id=2)[:50])
    entries = FileReader(str(path)).entries()
    assert next(entries) == (message(id=1), f"{path}:1")
    with pytest.raises(FormatError, match=f"{path}:2: the last line is cut off"):
        next(entries)


def test_what_a_power_cut_left_empty_is_passed_over(tmp_path: Path) -> None:
    """ext4 knows a file's size before its last bytes: they are NULs."""
    lines = message(id=1), bytes(50), bytes(20) + message(id=2), message(id=3)
    path = write(tmp_path / "f", *lines)
    assert read(path) == read(path, "r1") == [message(id=number) for number in (1, 2, 3)]


def test_directory_and_missing_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(ReaderError, match=f"cannot read {tmp_path}: it is a directory"):
        FileReader(str(tmp_path))
    with pytest.raises(ReaderError, match="none: No such file or directory"):
        FileReader(str(tmp_path / "none"))


def test_endless_line_is_refused_before_it_takes_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_module, "LINE_MAX", 1 << 20)
    path = tmp_path / "f"
    with path.open("wb") as file:
        file.write(b'{"ver":"2.3')
        file.truncate(1 << 32)  # sparse
    with pytest.raises(FormatError, match=":1: the line is longer than 1 MiB"):
        read(str(path))


def test_followed_file_gives_lines_as_they_are_completed(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(message(id=1) + b"\n" + message(id=2)[:20])
    entries = FileReader(str(path)).entries(follow=True)
    assert next(entries) == (message(id=1), f"{path}:1")
    assert next(entries) is None
    with path.open("ab") as file:
        file.write(message(id=2)[20:] + b"\n")
    assert next(entries) == (message(id=2), f"{path}:2")
    assert next(entries) is None
    path.write_bytes(b"")
    with pytest.raises(ReaderError, match="became shorter"):
        next(entries)


def test_pipe_never_blocks_and_can_be_read_again(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    opened: list[int] = []
    writer = threading.Thread(target=lambda: opened.append(os.open(fifo, os.O_WRONLY)))
    writer.start()
    reader = FileReader(str(fifo), rewindable=True)
    writer.join()
    entries = reader.entries()
    assert next(entries) is None
    os.write(opened[0], message(id=1) + b"\n")
    assert next(entries) == (message(id=1), f"{fifo}:1")
    os.write(opened[0], message(id=2) + b"\n")
    os.close(opened[0])
    assert [entry and entry[1] for entry in entries] == [f"{fifo}:2"]
    assert [entry and entry[1] for entry in reader.entries()] == [f"{fifo}:1", f"{fifo}:2"]
    reader.close()


def test_last_entry_is_found_from_the_end(tmp_path: Path) -> None:
    path = write(tmp_path / "f", *(message("r1", n) for n in range(1, 50)), message("r2", 1))
    last = FileReader(path, "r1").last()
    assert last is not None
    assert last[0] == message("r1", 49)
