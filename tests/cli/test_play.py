# SPDX-License-Identifier: Apache-2.0
"""ttyscribe play and cat, run for real: with pipes, and on a pty."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import ptyprocess
import pytest

TTYSCRIBE = [sys.executable, "-I", "-m", "ttyscribe"]
REC = "b7147c2570a64101b6a518bae844cc97-1-2"


def message(id: int, pos: int, timing: str, text: str, **more: object) -> bytes:
    fields: dict[str, object] = {
        "ver": "2.3", "host": "h", "rec": REC, "user": "u", "term": "xterm", "session": 1,
        "id": id, "pos": pos, "time": 1567504805.0 + pos / 1000, "timing": timing,
        "in_txt": "", "in_bin": [], "out_txt": text, "out_bin": [],
    }  # fmt: skip
    return json.dumps(fields | more).encode() + b"\n"


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Ten seconds: a mark each second, an hour's pause, and the last mark."""
    path = tmp_path / "recording"
    lines = [message(n + 1, n * 1000, "=80x24>6", f"mark{n}\n") for n in range(10)]
    path.write_bytes(b"".join(lines) + message(11, 3_600_000, "=80x24>4", "last"))
    return path


def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        [*TTYSCRIBE, *map(str, arguments)],
        **{"capture_output": True, "timeout": 30, "stdin": subprocess.DEVNULL} | options,
    )


class Player:
    """ttyscribe play on a pty of its own."""

    def __init__(self, *arguments: object, size: tuple[int, int] = (24, 80)) -> None:
        self.process = ptyprocess.PtyProcess.spawn(
            [*TTYSCRIBE, "play", *map(str, arguments)], dimensions=size
        )
        self.seen = b""

    def read_until(self, mark: bytes, timeout: float = 10) -> bytes:
        """Everything up to mark, which must come."""
        deadline = time.monotonic() + timeout
        while mark not in self.seen:
            left = deadline - time.monotonic()
            assert left > 0, f"{mark!r} did not come: {self.seen!r}"
            if select.select([self.process.fd], [], [], left)[0]:
                try:
                    self.seen += os.read(self.process.fd, 65536)
                except OSError:
                    raise AssertionError(f"{mark!r} did not come: {self.seen!r}") from None
        head, _, self.seen = self.seen.partition(mark)
        return head + mark

    def type(self, keys: bytes) -> None:
        self.process.write(keys)

    def end(self, timeout: float = 10) -> tuple[int | None, bytes]:
        """The exit status, and what came until then."""
        deadline = time.monotonic() + timeout
        while True:
            assert time.monotonic() < deadline, f"it does not end: {self.seen!r}"
            if not select.select([self.process.fd], [], [], 0.1)[0]:
                continue
            try:
                data = os.read(self.process.fd, 65536)
            except OSError:
                break
            if not data:
                break
            self.seen += data
        self.process.wait()
        return self.process.exitstatus, self.seen


def mode(player: Player) -> int:
    return int(termios.tcgetattr(player.process.fd)[3]) & (termios.ICANON | termios.ECHO)


@pytest.mark.parametrize("command", ["play", "cat"])
def test_pipe_gets_the_exact_bytes_at_once(command: str, recording: Path) -> None:
    started = time.monotonic()
    done = run(command, recording)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"".join(b"mark%d\n" % n for n in range(10)) + b"last"
    assert time.monotonic() - started < 5


def test_pipe_gets_queries_too(tmp_path: Path) -> None:
    path = tmp_path / "r"
    path.write_bytes(message(1, 0, ">3", "\x1b[c"))
    assert run("play", path).stdout == b"\x1b[c"


@pytest.mark.parametrize("stdin", ["closed", "null", "pipe", "stdout and stderr closed"])
def test_play_ends_whatever_its_stdin_is(stdin: str, recording: Path) -> None:
    redirection = {
        "closed": "<&-",
        "null": "</dev/null",
        "pipe": "",
        "stdout and stderr closed": ">&- 2>&-",
    }[stdin]
    held_open, other_end = os.pipe()
    try:
        command = f'exec "$@" {redirection}'
        arguments = ["sh", "-c", command, "sh", *TTYSCRIBE, "play", "-g", "end", str(recording)]
        done = subprocess.run(arguments, stdin=held_open, capture_output=True, timeout=30)
    finally:
        os.close(held_open)
        os.close(other_end)
    if stdin == "stdout and stderr closed":
        assert (done.returncode, done.stdout) == (1, b"")
    else:
        assert (done.returncode, done.stdout[-4:]) == (0, b"last")


def test_recording_comes_from_standard_input(recording: Path) -> None:
    done = run("play", "-", stdin=None, input=recording.read_bytes())
    assert done.stdout.endswith(b"last")


@pytest.mark.parametrize("command", ["play", "cat"])
def test_several_recordings_on_a_pipe_are_listed_and_chosen(command: str, recording: Path) -> None:
    both = recording.read_bytes() + message(1, 0, ">1", "x", rec="other")
    done = run(command, "-", stdin=None, input=both)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"other  u@h  2019-09-03 10:00:05 UTC  1 message\n" in done.stderr
    assert done.stderr.endswith(b"standard input holds 2 recordings; choose one with -m REC\n")
    assert run(command, "-", "-m", "other", stdin=None, input=both).stdout == b"x"
    done = run(command, "-", "-m", "third", stdin=None, input=both)
    assert (done.returncode, done.stdout) == (1, b"")


def test_pipe_that_is_no_recording_is_refused_at_once() -> None:
    with subprocess.Popen(["yes"], stdout=subprocess.PIPE) as endless:
        done = run("cat", "-", stdin=endless.stdout)
        endless.kill()
    assert done.returncode == 1
    assert b"standard input:1: 'y' is neither" in done.stderr


def test_followed_pipe_is_copied_as_it_comes(recording: Path) -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([*TTYSCRIBE, "cat", "-f", "-"], stdin=pipe, stdout=pipe) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(message(1, 0, ">3", "one"))
        process.stdin.flush()
        assert os.read(process.stdout.fileno(), 4096) == b"one"
        process.stdin.close()
        assert process.wait(10) == 0


def test_missing_beginning_is_an_error_without_lax(recording: Path) -> None:
    lines = recording.read_bytes().splitlines(keepends=True)
    recording.write_bytes(b"".join(lines[1:]))
    done = run("cat", recording)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"message 2: message 1 missing before it; --lax plays what there is" in done.stderr
    assert run("cat", "--lax", recording).stdout.startswith(b"mark1\n")


def test_followed_recording_is_copied_as_it_grows(recording: Path) -> None:
    process = subprocess.Popen([*TTYSCRIBE, "cat", "-f", recording], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        seen = b""
        while not seen.endswith(b"last"):
            seen += os.read(process.stdout.fileno(), 4096)
        with recording.open("ab") as file:
            file.write(message(12, 3_600_001, ">4", "more"))
        assert os.read(process.stdout.fileno(), 4096) == b"more"
        process.stdout.close()
        assert process.wait(10) == 141, "its reader is gone, though nothing is written"
    finally:
        process.kill()
        process.wait()


def test_playback_keeps_the_pace_and_the_keys_change_it(recording: Path) -> None:
    player = Player(recording)
    started = time.monotonic()
    player.read_until(b"mark0\n")
    assert mode(player) == 0, "raw"
    player.read_until(b"mark1\n")
    assert 0.7 < time.monotonic() - started < 5
    player.type(b"p")
    assert b"mark3" not in read_for(player, 2.2)
    player.type(b"5G")
    player.read_until(b"mark5\n")
    player.type(b".")
    player.read_until(b"mark6\n")
    player.type(b"\x1b[D")
    assert player.read_until(b"mark1\n").count(b"mark0") == 1, "five seconds back from the start"
    player.type(b"G")
    player.read_until(b"last")
    assert player.end()[0] == 0


def read_for(player: Player, seconds: float) -> bytes:
    """What comes within a time, for what must not come."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if select.select([player.process.fd], [], [], left)[0]:
            player.seen += os.read(player.process.fd, 65536)
    return player.seen


def test_goto_and_paused_stop_there_and_quit_restores(recording: Path) -> None:
    player = Player("-p", "-g", "00:03.5", recording)
    player.read_until(b"mark3\n")
    assert b"mark4" not in read_for(player, 1.2)
    player.type(b"q")
    status, rest = player.end()
    assert status == 0
    for sequence in (b"\x1b[0m", b"\x1b[?25h", b"\x1b[r", b"\x1b[?2004l", b"\x1b[?1000l"):
        assert sequence in rest


def test_alternate_screen_is_left_only_if_it_was_entered(tmp_path: Path, recording: Path) -> None:
    assert b"1049l" not in Player("-g", "end", recording).end()[1]
    path = tmp_path / "r"
    path.write_bytes(message(1, 0, ">8", "\x1b[?1049h"))
    assert b"\x1b[?1049l" in Player("-g", "end", path).end()[1]


def test_origin_mode_is_reset_only_if_it_was_set(tmp_path: Path, recording: Path) -> None:
    # Resetting it moves the cursor to the top, and the prompt would overwrite the screen.
    assert b"\x1b[?6l" not in Player("-g", "end", recording).end()[1]
    path = tmp_path / "r"
    path.write_bytes(message(1, 0, ">5", "\x1b[?6h"))
    assert b"\x1b[?6l" in Player("-g", "end", path).end()[1]


def test_modes_that_the_recording_set_are_taken_back(tmp_path: Path, recording: Path) -> None:
    always = (
        b"\x1b[?2031l", b"\x1b[?2048l", b"\x1b[2l", b"\x1b[12h", b"\x1b[?8h", b"\x1b(B", b"\x1b)B",
    )  # fmt: skip
    noted = {
        "\x1b[?1007h": [b"\x1b[?1007l"],
        "\x1b[?1;67h": [b"\x1b[?67l"],
        "\x1b]5;0;red\x07": [b"\x1b]105\x07"],
        "\x1b]17;red\x07": [b"\x1b]113\x07", b"\x1b]114\x07", b"\x1b]117\x07", b"\x1b]119\x07"],
    }
    plain = Player("-g", "end", recording).end()[1]
    for sequence in always:
        assert sequence in plain
    path = tmp_path / "r"
    for text, resets in noted.items():
        path.write_bytes(message(1, 0, f">{len(text)}", text))
        seen = Player("-g", "end", path).end()[1]
        for sequence in resets:
            assert sequence in seen and sequence not in plain


@pytest.mark.parametrize(
    ("key", "status"),
    [
        (b"\x03", 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGUSR1, 138),
        (signal.SIGUSR2, 140), (signal.SIGALRM, 142), (signal.SIGVTALRM, 154),
        (signal.SIGPROF, 155), (signal.SIGXCPU, 152),
    ],
)  # fmt: skip
def test_signals_end_it_with_the_terminal_restored(
    key: bytes | signal.Signals, status: int, recording: Path
) -> None:
    player = Player(recording)
    player.read_until(b"mark0\n")
    if isinstance(key, bytes):
        player.type(key)
    else:
        player.process.kill(key)
    ended, rest = player.end()
    assert ended == status
    assert b"\x1b[?25h" in rest
    assert b"Traceback" not in rest


def test_persist_ignores_quit_keys(recording: Path) -> None:
    player = Player("--persist", recording)
    player.read_until(b"mark0\n")
    player.type(b"q\x03\x1c\x1a")
    player.read_until(b"mark2\n")
    player.process.kill(signal.SIGTERM)
    assert player.end()[0] == 143


def test_idle_time_limit_shortens_pauses(tmp_path: Path, recording: Path) -> None:
    started = time.monotonic()
    status, seen = Player("--idle-time-limit", "0.1", recording).end()
    assert status == 0
    assert b"last" in seen
    assert time.monotonic() - started < 8
    path = tmp_path / "r"
    extra = {"event": "start", "idle_time_limit": 0.1}
    path.write_bytes(message(1, 0, ">1+9000000>1", "ab", ttyscribe=extra))
    assert Player(path).end()[0] == 0, "the recording's own wish"


def test_status_line_comes_and_goes(recording: Path) -> None:
    player = Player("-p", "-g", "2.5", recording)
    player.read_until(b"mark2\n")
    player.type(b"?")
    line = player.read_until(b"paused")
    assert b"00:00:02 / 01:00:00  started 2019-09-03 10:00:05 UTC  1x" in line
    player.type(b"?")
    player.read_until(b"\x1b[2J")
    assert b"paused" not in player.read_until(b"mark2\n")
    player.type(b"q")
    assert player.end()[0] == 0


def test_queries_stay_off_the_terminal_even_when_split(tmp_path: Path) -> None:
    path = tmp_path / "r"
    path.write_bytes(
        message(1, 0, ">3+50>2+50>6", "a\x1b[" + "0c" + "b\x1b]11;")
        + message(2, 300, ">2+30>1", "?\x07c")
    )
    seen = Player(path).end()[1]
    assert re.match(rb"a\x18b\x18c\x18", seen), seen


def test_terminal_that_obeys_is_resized_and_given_back(tmp_path: Path) -> None:
    path = tmp_path / "r"
    path.write_bytes(message(1, 0, "=100x30>1+400>1", "ab"))
    player = Player(path)
    player.read_until(b"\x1b[8;30;100t")
    player.process.setwinsize(30, 100)
    status, rest = player.end()
    assert status == 0
    assert b"needs a terminal" not in rest
    assert b"\x1b[8;24;80t" in rest


def test_terminal_that_does_not_obey_gets_one_line(tmp_path: Path) -> None:
    path = tmp_path / "r"
    path.write_bytes(message(1, 0, "=100x30>1=90x30>1", "ab"))
    seen = Player(path).end()[1]
    assert seen.count(b"the recording needs a terminal of 100x30; this one is 80x24") == 1
    assert seen.count(b"needs a terminal") == 1


@pytest.mark.parametrize("size", ["0x0", "0x30", "999999999x1", "80x10000"])
def test_size_that_no_terminal_has_is_not_asked_for(size: str, tmp_path: Path) -> None:
    path = tmp_path / "r"
    path.write_bytes(message(1, 0, f"={size}>1+30>1", "ab"))
    status, seen = Player(path).end()
    assert status == 0
    assert b"needs a terminal" not in seen
    assert b"\x1b[8;" not in seen


def test_followed_recording_plays_what_comes(recording: Path) -> None:
    player = Player("-f", "-g", "end", recording)
    player.read_until(b"last")
    with recording.open("ab") as file:
        file.write(message(12, 3_600_100, ">4", "more"))
    player.read_until(b"more")
    player.type(b"q")
    assert player.end()[0] == 0


def test_suspended_playback_gives_the_terminal_back_and_redraws(recording: Path) -> None:
    player = Player(recording)
    player.read_until(b"mark1\n")
    os.kill(player.process.pid, signal.SIGTSTP)
    player.read_until(b"\x1b[?25h")
    os.waitid(os.P_PID, player.process.pid, os.WSTOPPED | os.WNOWAIT)
    assert mode(player) != 0
    os.kill(player.process.pid, signal.SIGCONT)
    player.read_until(b"\x1b[2J")
    player.read_until(b"mark1\n")
    player.type(b"q")
    assert player.end()[0] == 0


BAD = {
    "not JSON": (b"{oops\n", rb":12: not a tlog message: not JSON"),
    "cut off": (b'{"ver":"2.3","ho', rb":12: the last line is cut off"),
    "version 3": (message(12, 3_600_001, "", "", ver="3.0"), rb":12: .*'ver' is 3\.0"),
    "wrong type": (message(12, 3_600_001, "", "", session="x"), rb":12: .*'session'"),
    "lying timing": (message(12, 3_600_001, ">9", "x"), rb":12: .*more output text"),
    "id gap": (message(14, 3_600_001, "", ""), rb":12: .*messages 12 to 13 missing"),
    "another recording": (message(12, 3_600_001, "", "", rec="other"), rb"2 recordings.* -m REC"),
}


@pytest.mark.parametrize("command", ["play", "cat", "play on a terminal"])
@pytest.mark.parametrize("bad", list(BAD))
def test_bad_input_is_one_line_after_what_comes_before(
    bad: str, command: str, recording: Path
) -> None:
    line, error = BAD[bad]
    with recording.open("ab") as file:
        file.write(line)
    if command == "play on a terminal":
        status, seen = Player("-g", "end", recording).end()
        stdout = stderr = seen
    else:
        done = run(command, recording)
        status, stdout, stderr = done.returncode, done.stdout, done.stderr
    assert status == 1
    assert re.search(error, stderr), stderr
    assert b"Traceback" not in stderr
    if bad != "another recording":
        assert b"last" in stdout
        if command != "play on a terminal":
            assert stderr.count(b"\n") == 1


def test_lax_plays_over_a_gap(recording: Path) -> None:
    with recording.open("ab") as file:
        file.write(message(14, 3_600_001, ">3", "lax"))
    done = run("play", "--lax", recording)
    assert (done.returncode, done.stdout[-3:]) == (0, b"lax")


def test_lax_passes_over_broken_lines_with_one_warning(recording: Path) -> None:
    whole = recording.read_bytes()
    for count, more in ((1, b""), (3, b", and 2 more like it")):
        recording.write_bytes(whole)
        with recording.open("ab") as file:
            cut = message(12, 3_600_001, ">3", "cut")[:-30] + b"\n"
            file.write(cut.replace(b'"rec": ', b'"rec":'))
            file.write(message(13, 3_600_001, ">9", "x") * (count - 1))
            file.write(message(14, 3_600_001, ">3", "lax"))
        for done in (run("play", "--lax", recording), run("cat", "--lax", recording, "-m", REC)):
            assert (done.returncode, done.stdout[-7:]) == (0, b"lastlax")
            assert re.fullmatch(
                rb"ttyscribe \w+: [^\n]+:12: not a tlog message: [^\n]+; passed over%b\n" % more,
                done.stderr,
            ), done.stderr
    status, seen = Player("--lax", "-g", "end", recording).end()
    assert status == 0
    assert seen.count(b"passed over") == 1
    assert seen.index(b"\x1b[?25h") < seen.index(b"passed over")


def test_lax_needs_one_message_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "r"
    path.write_bytes(message(1, 0, "", "", ver="3.0"))
    done = run("cat", "--lax", path)
    assert done.returncode == 1
    assert b"'ver' is 3.0" in done.stderr


def test_several_recordings_are_listed_and_chosen(recording: Path) -> None:
    with recording.open("ab") as file:
        file.write(message(1, 0, ">1", "x", rec="other"))
    done = run("play", recording)
    assert done.returncode == 1
    assert f"{REC}  u@h  2019-09-03 10:00:05 UTC  11 messages\n".encode() in done.stderr
    assert b"other  u@h  2019-09-03 10:00:05 UTC  1 message\n" in done.stderr
    assert done.stderr.splitlines()[-1].endswith(b"holds 2 recordings; choose one with -m REC")
    assert run("cat", recording, "-m", "other").stdout == b"x"


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["/nonexistent"], 1), (["/tmp"], 1), (["/dev/null"], 1), ([], 2), (["-r", "es"], 2),
        (["--speed", "nan", "f"], 2), (["-g", "1:2:3:4", "f"], 2), (["-S", "soon", "-M", "A=b"], 2),
        (["-M", "lower"], 2), (["a", "b"], 2), (["--no-such"], 2), (["f", "-M", "A=b"], 2),
        (["-i", "a", "b"], 2), (["-r", "journal", "-m", "x"], 2),
    ],
)  # fmt: skip
def test_wrong_command_line_or_source_is_one_line(arguments: list[str], status: int) -> None:
    done = run("play", *arguments)
    assert (done.returncode, done.stdout) == (status, b"")
    assert re.fullmatch(rb"ttyscribe play: [^\n]+\n", done.stderr), done.stderr


def test_speed_and_lying_time_stay_interruptible(tmp_path: Path) -> None:
    path = tmp_path / "r"
    path.write_bytes(message(1, 0, ">1+999999999999999+999999999999999>1", "ab"))
    player = Player("-s", "0.001", path)
    player.read_until(b"a")
    player.type(b"G")
    player.read_until(b"b")
    assert player.end()[0] == 0


def test_slow_nonblocking_output_gets_everything(tmp_path: Path) -> None:
    path = tmp_path / "r"
    text = "0123456789" * 200
    path.write_bytes(b"".join(message(n, n, ">2000", text) for n in range(1, 501)))
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with subprocess.Popen([*TTYSCRIBE, "cat", path], stdout=writer) as process:
        os.close(writer)
        total = 0
        while data := os.read(reader, 4096):
            total += len(data)
        os.close(reader)
    assert (process.returncode, total) == (0, 1_000_000)


def test_help_names_every_option_and_the_configuration_is_valid_json() -> None:
    from ttyscribe.cli import play, source

    text = run("play", "--help").stdout.decode()
    for option in play.OPTIONS:
        assert "--" + option.partition(",")[2].rstrip("=") in text
    cat = run("cat", "--help").stdout.decode()
    for option in source.SOURCE:
        assert "--" + option.partition(",")[2].rstrip("=") in cat
    shown = json.loads(run("play", "--configuration", "-s", "2", "-M", "A=b").stdout)
    assert (shown["speed"], shown["reader"], shown["journal"]["match"]) == (2.0, "journal", ["A=b"])
