# SPDX-License-Identifier: Apache-2.0
"""`ttyscribe rec`: every option, what bad input gets, and what is found in the recording."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import time
from pathlib import Path

import pytest
from tests.driving import (
    REC,
    Terminal,
    clean_environment,
    events,
    messages,
    output,
    run,
    typed,
    wait_until,
    windows,
)

from ttyscribe.errors import NOT_EXECUTABLE, NOT_FOUND
from ttyscribe.events import OUTPUT


@pytest.fixture
def tlog(tmp_path: Path) -> Path:
    return tmp_path / "a.tlog"


def rec(tlog: Path, *arguments: str) -> list[str]:
    return [*REC, "-o", str(tlog), *arguments]


def one_line(stderr: bytes, *words: str) -> None:
    """stderr is one line of ours, with the words in it."""
    text = stderr.decode()
    assert text.startswith("ttyscribe rec: "), text
    assert text.count("\n") == 1 and text.endswith("\n"), text
    for word in words:
        assert word in text


# What is recorded.


def test_output_on_the_terminal_is_in_the_recording_byte_for_byte(tlog: Path) -> None:
    with Terminal(rec(tlog, "--", "printf", r"a\tb\033[1mc\377\n")) as terminal:
        assert terminal.finish() == 0
    assert terminal.seen == b"a\tb\x1b[1mc\xff\r\n"
    assert output(tlog) == terminal.seen


def test_the_shell_of_the_environment_is_the_default_command(tlog: Path) -> None:
    env = clean_environment(SHELL="/bin/sh")
    with Terminal(rec(tlog), env=env) as terminal:
        terminal.expect(rb"\$ ")
        terminal.line("echo name:$0; exit 3")
        terminal.expect(b"name:/bin/sh")
        assert terminal.finish() == 3
    assert messages(tlog)[0].extra is not None
    assert messages(tlog)[0].extra["command"] == ["/bin/sh"]  # type: ignore[index]


def test_first_and_last_message_tell_how_it_started_and_ended(tlog: Path) -> None:
    with Terminal(rec(tlog, "-t", "a title", "-e", "COLOUR,TERM", "-i", "2.5", "--", "sh", "-c",
                      "printf 12345; exit 7"),
                  env=clean_environment(COLOUR="blue")) as terminal:  # fmt: skip
        assert terminal.finish() == 7
    first, last = messages(tlog)[0].extra, messages(tlog)[-1].extra
    assert first is not None
    assert first["event"] == "start"
    assert first["command"] == ["sh", "-c", "printf 12345; exit 7"]
    assert first["title"] == "a title"
    assert first["env"] == {"COLOUR": "blue", "TERM": "xterm"}
    assert first["idle_time_limit"] == 2.5
    assert str(first["tty"]).startswith("/dev/pts/")
    assert last == {"event": "end", "status": 7, "bytes_in": 0, "bytes_out": 5}


def test_death_by_signal_is_in_the_last_message_and_is_ours(tlog: Path) -> None:
    done = run(rec(tlog, "-c", "kill -KILL $$"))
    assert done.returncode == -signal.SIGKILL
    last = messages(tlog)[-1].extra
    assert last == {"event": "end", "signal": "KILL", "bytes_in": 0, "bytes_out": 0}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1])
def test_each_signal_that_ends_the_command_ends_us(tlog: Path, number: int) -> None:
    with Terminal(rec(tlog, "-c", f"kill -{number} $$")) as terminal:
        assert terminal.finish() == -number


def test_stdout_stderr_and_status_reach_the_caller_apart(tlog: Path) -> None:
    done = run(rec(tlog, "-c", "echo out; echo err >&2; exit 4"))
    assert (done.stdout, done.stderr, done.returncode) == (b"out\n", b"err\n", 4)
    assert sorted(output(tlog).splitlines()) == [b"err", b"out"]


def test_input_is_recorded_only_when_asked_for(tlog: Path) -> None:
    for number, (option, logged) in enumerate(
        [("--log-input", True), ("--stdin", True), ("--log-input=no", False), ("-q", False)]
    ):
        path = tlog.with_name(f"{number}.tlog")
        with Terminal(rec(path, option, "-c", "echo ready; exec cat")) as terminal:
            terminal.expect(b"ready")
            terminal.line("typed")
            terminal.expect(b"typed.*typed")
            terminal.send(b"\x04")
            assert terminal.finish() == 0
        assert typed(path) == (b"typed\r\x04" if logged else b"")


def test_output_and_windows_can_be_left_out(tlog: Path) -> None:
    with Terminal(rec(tlog, "--log-output=off", "--log-window=0", "echo", "hello")) as terminal:
        assert terminal.finish() == 0
    assert b"hello" in terminal.seen
    assert events(tlog) == []


def test_unlogged_output_passes_to_a_pipe_untouched(tlog: Path) -> None:
    done = run(rec(tlog, "--log-output=false", "-c", "echo out; echo err >&2"))
    assert (done.stdout, done.stderr) == (b"out\n", b"err\n")
    assert events(tlog) == []


def test_latency_bounds_the_wait_for_a_message(tlog: Path) -> None:
    with Terminal(rec(tlog, "--latency=1", "-c", "printf mark; exec cat")) as terminal:
        terminal.expect(b"mark")
        shown = time.monotonic()
        assert b'"mark"' not in tlog.read_bytes()
        wait_until(lambda: b'"mark"' in tlog.read_bytes(), "the message does not come", 5)
        assert 0.5 < time.monotonic() - shown < 3
        terminal.send(b"\x04")
        terminal.finish()


def test_payload_bounds_the_text_of_a_message(tlog: Path) -> None:
    done = run(rec(tlog, "--payload=100", "seq", "1000"))
    assert output(tlog) == done.stdout
    sizes = [len(message.timing) + len(message.out_txt) for message in messages(tlog)]
    assert max(sizes) <= 100
    assert len(sizes) > len(done.stdout) / 100


def test_recording_goes_to_the_state_folder_and_is_named_at_the_end(tmp_path: Path) -> None:
    state = tmp_path / "a state"
    with Terminal([*REC, "echo", "hi"], env=clean_environment(XDG_STATE_HOME=str(state))) as t:
        assert t.finish() == 0
    made = list((state / "ttyscribe").glob("*.tlog"))
    assert len(made) == 1
    assert stat.S_IMODE(made[0].stat().st_mode) == 0o600
    assert stat.S_IMODE((state / "ttyscribe").stat().st_mode) == 0o700
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZ-\d+\.tlog", made[0].name)
    command = f"ttyscribe play '{made[0]}'"
    assert command.encode() in t.seen
    assert output(made[0]) == b"hi\r\n"


def test_quiet_and_a_given_file_name_nothing_at_the_end(tmp_path: Path, tlog: Path) -> None:
    env = clean_environment(XDG_STATE_HOME=str(tmp_path))
    assert run([*REC, "-q", "true"], env=env).stderr == b""
    assert run(rec(tlog, "true")).stderr == b""


def test_existing_recording_is_appended_to_or_overwritten(tlog: Path) -> None:
    for options in ([], ["--append"], []):
        assert run(rec(tlog, *options, "echo", "one")).returncode == 0
    assert [message.id for message in messages(tlog)].count(1) == 3
    assert run(rec(tlog, "--overwrite", "echo", "two")).returncode == 0
    assert output(tlog) == b"two\n"
    assert tlog.read_bytes()[:1] == b"{"


def test_overwriting_a_torn_file_leaves_no_empty_line(tlog: Path) -> None:
    tlog.write_bytes(b'{"ver":"2.3","torn')
    assert run(rec(tlog, "--overwrite", "echo", "two")).returncode == 0
    assert output(tlog) == b"two\n"


def test_file_that_holds_no_recording_is_asked_about(tlog: Path) -> None:
    tlog.write_bytes(b"my thesis\n")
    refused = run(rec(tlog, "echo", "x"))
    assert refused.returncode == 2
    one_line(refused.stderr, "a.tlog exists and holds no recording", "--yes")
    assert tlog.read_bytes() == b"my thesis\n"
    for answer, status in ((b"\r", 2), (b"n\r", 2), (b"y\r", 0)):
        assert tlog.read_bytes() == b"my thesis\n"
        with Terminal(rec(tlog, "echo", "x")) as terminal:
            terminal.expect(rb"anyway\? \[y/N\] ")
            terminal.send(answer)
            assert terminal.finish() == status
    assert tlog.read_bytes().startswith(b'my thesis\n{"ver"')
    assert run(rec(tlog, "-y", "--overwrite", "echo", "x")).returncode == 0
    assert output(tlog) == b"x\n"


def test_raw_writes_the_output_alone(tlog: Path) -> None:
    with Terminal(rec(tlog, "--raw", "printf", r"\033[1mx\n")) as terminal:
        assert terminal.finish() == 0
    assert tlog.read_bytes() == terminal.seen == b"\x1b[1mx\r\n"
    run(rec(tlog, "--raw", "--yes", "echo", "more"))
    assert tlog.read_bytes() == terminal.seen + b"more\n"
    run(rec(tlog, "--raw", "--yes", "--overwrite", "echo", "new"))
    assert tlog.read_bytes() == b"new\n"
    assert stat.S_IMODE(tlog.stat().st_mode) == 0o600


def test_raw_asks_before_it_writes_into_anything_that_is_not_empty(tlog: Path) -> None:
    for old in (b'{"ver":"2.3"}\n', b"my thesis\n"):
        for options in (["--raw"], ["--raw", "--overwrite"]):
            tlog.write_bytes(old)
            refused = run(rec(tlog, *options, "echo", "x"))
            assert refused.returncode == 2
            one_line(refused.stderr, "a.tlog exists and is not empty", "--yes")
            assert tlog.read_bytes() == old
    tlog.write_bytes(b"")
    assert run(rec(tlog, "--raw", "echo", "x")).returncode == 0
    assert tlog.read_bytes() == b"x\n"


def test_raw_without_a_file_is_named_and_shown_as_what_it_is(tmp_path: Path) -> None:
    done = run([*REC, "--raw", "echo", "hi"], env=clean_environment(XDG_STATE_HOME=str(tmp_path)))
    (made,) = (tmp_path / "ttyscribe").glob("*.raw")
    assert done.stderr.endswith(f"replay it with: cat {made}\n".encode())
    assert made.read_bytes() == b"hi\n"


def test_overwriting_touches_nothing_where_no_recording_begins(tmp_path: Path, tlog: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/no/such/interp -x\n")
    script.chmod(0o755)
    for options, words in (
        (["--", str(script)], ["script", "/no/such/interp"]),
        (["--semaphore", str(tmp_path / "no" / "f"), "true"], ["--semaphore"]),
        (["true"], ["/proc/nope"]),
    ):
        tlog.write_bytes(b'{"ver":"2.3"}\n')
        for more in ([], ["--raw", "--yes"]):
            if more and options == ["true"]:
                continue  # it has no spool
            env = clean_environment(XDG_STATE_HOME="/proc/nope" if options == ["true"] else "")
            done = run(rec(tlog, "--overwrite", *more, *options), env=env)
            assert done.returncode != 0
            one_line(done.stderr, *words)
            assert tlog.read_bytes() == b'{"ver":"2.3"}\n'


def test_semaphore_tells_that_recording_is_set_up(tmp_path: Path, tlog: Path) -> None:
    ready = tmp_path / "ready"
    done = run(rec(tlog, "--semaphore", str(ready), "cat", str(ready)))
    assert done.stdout == b"READY"
    wrong = run(rec(tlog, "--semaphore", str(tmp_path / "no" / "x"), "true"))
    one_line(wrong.stderr, "--semaphore", "No such file")


def test_command_line_in_one_word_is_run_by_the_shell(tlog: Path) -> None:
    assert run(rec(tlog, "-c", "echo $0-$((1+2))")).stdout == b"/bin/bash-3\n"


def test_grouped_short_options_leave_the_command_alone(tlog: Path) -> None:
    done = run([*REC, "-qo", str(tlog), "--stdin", "echo", "--log-input"])
    assert done.stdout == b"--log-input\n"
    assert output(tlog) == b"--log-input\n"


def test_long_options_may_be_abbreviated_and_the_command_is_left_alone(tlog: Path) -> None:
    done = run([*REC, "--file-p", str(tlog), "--log-in", "--lat", "5", "--pay=4096",
                "echo", "--log", "--li", "--wri", "-o"])  # fmt: skip
    assert done.stdout == b"--log --li --wri -o\n"
    assert output(tlog) == done.stdout
    assert json.loads(run([*REC, "--log-in", "--lat", "5", "--conf"]).stdout)["log"]["input"]
    ambiguous = run([*REC, "--log", "true"])
    assert ambiguous.returncode == 2
    one_line(ambiguous.stderr, "--log", "--log-input", "--log-output")


def test_value_that_may_be_left_out_is_never_the_next_word(tlog: Path) -> None:
    assert run(rec(tlog, "--log-input", "echo", "x")).stdout == b"x\n"
    help_text = run([*REC, "--help"]).stdout.decode()
    for name in ("log-input", "log-output", "log-window", "journal-augment", "stdin"):
        assert f"--{name}[=BOOL]" in help_text


def test_two_dashes_end_the_options(tlog: Path) -> None:
    assert run(rec(tlog, "--", "echo", "--", "-v")).stdout == b"-- -v\n"


def test_configuration_shows_what_the_options_say() -> None:
    done = run([*REC, "--payload=4096", "--log-input", "--limit-action", "drop",
                "--journal-augment=no", "--configuration"])  # fmt: skip
    shown = json.loads(done.stdout)
    assert shown["payload"] == 4096
    assert shown["log"]["input"] is True
    assert shown["limit"]["action"] == "drop"
    assert shown["journal"]["augment"] is False


def test_help_names_every_option_and_the_exit_statuses() -> None:
    text = run([*REC, "--help"]).stdout.decode()
    for option in (
        "-w, --writer", "-o, --file-path", "--latency", "--payload", "--log-input", "--log-output",
        "--log-window", "--limit-rate", "--limit-burst", "--limit-action", "--syslog-facility",
        "--syslog-priority", "--journal-priority", "--journal-augment", "--semaphore",
        "--configuration", "--version", "--help", "-c, --command", "-t, --title", "-e, --env",
        "-i, --idle-time-limit", "--append", "--overwrite", "-q, --quiet", "--raw", "--stdin",
        "-y, --yes", "127", "126", "Examples:",
    ):  # fmt: skip
        assert option in re.sub(r"(-\w) [A-Z]+, ", r"\1, ", text), option
    assert run([*REC, "--version"]).stdout.startswith(b"ttyscribe rec ")


# The rate limit.


def test_delay_slows_the_session_to_the_rate_and_loses_nothing(tlog: Path) -> None:
    began = time.monotonic()
    with Terminal(rec(tlog, "--limit-rate=20000", "--limit-burst=4000", "--limit-action=delay",
                      "--", "seq", "5000")) as terminal:  # fmt: skip
        assert terminal.finish() == 0
    took = time.monotonic() - began
    size = tlog.stat().st_size
    assert took > (size - 4000) / 20000 * 0.8
    assert b"ttyscribe" not in terminal.seen
    assert output(tlog) == terminal.seen


def test_delay_that_needs_longer_than_the_grace_loses_nothing_at_the_end(tlog: Path) -> None:
    done = run(rec(tlog, "--limit-rate=500", "--limit-burst=500", "--limit-action=delay",
                   "--", "seq", "800"))  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert output(tlog) == done.stdout


def test_drop_leaves_a_gap_in_the_ids(tlog: Path) -> None:
    done = run(rec(tlog, "--limit-rate=1000", "--limit-burst=9000", "--limit-action=drop",
                   "--", "seq", "20000"))  # fmt: skip
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 20000
    ids = [message.id for message in messages(tlog)]
    assert ids[0] == 1
    assert ids == sorted(set(ids))
    assert len(ids) < len(done.stdout) / 2048
    assert tlog.stat().st_size < 15000


def test_pass_sets_no_limit(tlog: Path) -> None:
    done = run(rec(tlog, "--limit-rate=1", "--limit-burst=1", "--limit-action=pass",
                   "--", "seq", "20000"))  # fmt: skip
    assert output(tlog) == done.stdout


# What bad input gets.


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        (["--writer=paper"], 2, ["--writer", "paper", "file", "journal", "syslog"]),
        (["--syslog-facility=nosuch"], 2, ["--syslog-facility", "nosuch", "authpriv"]),
        (["--syslog-priority=loud"], 2, ["--syslog-priority", "loud", "warning"]),
        (["--journal-priority=loud"], 2, ["--journal-priority", "loud"]),
        (["--limit-action=wait"], 2, ["--limit-action", "wait", "delay"]),
        (["--latency=soon"], 2, ["--latency", "soon"]),
        (["--payload=many"], 2, ["--payload", "many"]),
        (["--log-input=maybe"], 2, ["--log-input", "maybe"]),
        (["-i", "0"], 2, ["--idle-time-limit", "0"]),
        (["-i", "nan"], 2, ["--idle-time-limit", "nan"]),
        (["--no-such-option"], 2, ["--no-such-option", "--help"]),
        (["--append", "--overwrite"], 2, ["--overwrite", "--append"]),
        (["--raw", "--writer=syslog"], 2, ["--raw"]),
        (["-c", "true"], 2, ["-c"]),
    ],
)
def test_wrong_option_is_one_line_and_touches_nothing(
    tlog: Path, options: list[str], status: int, words: list[str]
) -> None:
    tlog.write_bytes(b'{"ver":"2.3"}\n')
    done = run(rec(tlog, *options, "--", "true"))
    assert done.returncode == status
    one_line(done.stderr, *words)
    assert tlog.read_bytes() == b'{"ver":"2.3"}\n'


def test_numbers_out_of_range_are_one_line_each(tlog: Path) -> None:
    for option in ("--payload=1", "--latency=0", "--limit-rate=-1"):
        done = run(rec(tlog, option, "true"))
        assert done.returncode != 0
        one_line(done.stderr, option.partition("=")[0].strip("-").replace("limit-", ""))
        assert not tlog.exists()


def test_command_that_can_not_run_makes_no_recording(tmp_path: Path, tlog: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("#!/bin/sh\n")
    binary = tmp_path / "broken"
    binary.write_bytes(b"\x7fELF nonsense")
    binary.chmod(0o755)
    for command, status, word in (
        ("no-such-command", NOT_FOUND, "not found"),
        (str(tmp_path / "none"), NOT_FOUND, "not found"),
        (str(plain), NOT_EXECUTABLE, "may not be run"),
        (str(tmp_path), NOT_EXECUTABLE, "directory"),
    ):
        done = run(rec(tlog, command))
        assert done.returncode == status
        one_line(done.stderr, command, word)
        assert not tlog.exists()


def test_script_whose_interpreter_can_not_run_makes_no_recording(
    tmp_path: Path, tlog: Path
) -> None:
    script = tmp_path / "script"
    for interpreter, status in (("/no/such", NOT_FOUND), ("/etc/passwd", NOT_EXECUTABLE)):
        script.write_text(f"#! {interpreter} -x\n")
        script.chmod(0o755)
        done = run(rec(tlog, str(script)))
        assert done.returncode == status
        one_line(done.stderr, "script", interpreter)
        assert not tlog.exists()


def test_program_that_turns_out_not_to_start_is_127_with_the_terminal_restored(
    tmp_path: Path, tlog: Path
) -> None:
    # Of two interpreters in a row only the kernel sees that the second is missing.
    script, inner = tmp_path / "script", tmp_path / "inner"
    inner.write_text("#!/no/such/interpreter\n")
    script.write_text(f"#!{inner}\n")
    inner.chmod(0o755)
    script.chmod(0o755)
    with Terminal(["sh", "-c", f"{' '.join(rec(tlog, str(script)))}; echo rc=$?; stty -a"]) as t:
        assert t.finish() == 0
    assert b"rc=127" in t.seen
    assert b" icanon" in t.seen and b" echo " in t.seen
    assert messages(tlog)[-1].extra == {
        "event": "end", "status": 127, "bytes_in": 0, "bytes_out": 0
    }  # fmt: skip


def test_script_without_a_first_line_runs_as_in_a_shell(tmp_path: Path, tlog: Path) -> None:
    script = tmp_path / "script"
    script.write_text("echo plain $1\n")
    script.chmod(0o755)
    assert run(rec(tlog, str(script), "script")).stdout == b"plain script\n"


def test_places_that_take_no_recording_are_one_line_each(tmp_path: Path) -> None:
    fifo, link, target = tmp_path / "fifo", tmp_path / "link", tmp_path / "target"
    os.mkfifo(fifo)
    link.symlink_to(target)
    target.write_bytes(b"")
    for path, word in (
        (tmp_path, "directory"),
        (fifo, "pipe"),
        (link, "symbolic link"),
        (tmp_path / "no" / "a.tlog", "No such file"),
        (Path("/dev/full"), "No space left"),
        (Path("/" + "x" * 300), "name too long"),
    ):
        done = run([*REC, "-o", path, "echo", "started"])
        assert done.returncode == 1
        assert done.stdout == b""
        one_line(done.stderr, str(path), word)
    one_line(run([*REC, "--raw", "-o", link, "true"]).stderr, str(link), "symbolic link")
    assert target.read_bytes() == b""


def test_pipe_that_somebody_reads_is_refused_too(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        done = run([*REC, "-o", fifo, "echo", "started"])
    finally:
        os.close(reader)
    assert done.returncode == 1
    one_line(done.stderr, str(fifo), "no regular file")


def test_state_folder_that_can_not_be_made_is_one_line(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    done = run([*REC, "true"], env=clean_environment(XDG_STATE_HOME=str(blocked)))
    assert done.returncode == 1
    one_line(done.stderr, str(blocked), "--file-path")


def test_times_are_the_wall_clock_and_the_real_pauses(tlog: Path) -> None:
    before = time.time()
    with Terminal(rec(tlog, "-c", "echo one; read x; echo two")) as terminal:
        terminal.expect(b"one")
        pause_began = time.monotonic()
        time.sleep(0.3)
        terminal.line("")
        terminal.expect(b"two")
        pause = time.monotonic() - pause_began
        terminal.finish()
    first = messages(tlog)[0]
    assert first.time is not None and before - 1 <= first.time <= time.time()
    times = {data.strip(): at for at, kind, data in events(tlog) if kind == OUTPUT}
    one = next(at for data, at in times.items() if b"one" in data)
    two = next(at for data, at in times.items() if b"two" in data)
    assert 0.25 <= (two - one) / 1e9 <= pause + 0.3


def test_window_size_is_recorded_at_the_start(tlog: Path) -> None:
    with Terminal(rec(tlog, "stty", "size"), size=(33, 101)) as terminal:
        terminal.finish()
    assert terminal.seen == b"33 101\r\n"
    assert windows(tlog) == [b"101x33"]
