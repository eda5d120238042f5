# SPDX-License-Identifier: Apache-2.0
"""The echo loop: a recording shown in its own session stops growing, and nothing else is lost."""

from __future__ import annotations

import json
import os
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from systemd import journal

from ttyscribe.events import OUTPUT, Message
from ttyscribe.session.echo import EchoFilter
from ttyscribe.tlog import Encoder, Identity

REC = "0f3c52a1b7de4c6c9d1e9b7d2f1a0c44-4d2-1a2b3c"
IDENTITY = Identity("host.example", REC, "grüße", "xterm", 5, 1_700_000_000_000)
READ = 4096


def messages(texts: list[str], payload: int = 2048) -> list[Message]:
    """A message for each text, or more where one does not hold it."""
    encoder = Encoder(IDENTITY, payload)
    made: list[Message] = []
    for number, text in enumerate(texts):
        made += encoder.add(number * 1_000_000, OUTPUT, text.encode())
        made += encoder.flush()
    return made


def armed(made: list[Message]) -> EchoFilter:
    """A filter that has seen the recording's id in the output before these messages were made."""
    echo = EchoFilter(REC)
    echo.wrote(messages(["first"])[:1])
    assert echo.filter(REC.encode() + b"\r\n") == REC.encode() + b"\r\n"
    echo.wrote(made)
    return echo


def as_tail(message: Message) -> bytes:
    return message.data + b"\r\n"


def as_journalctl(message: Message) -> bytes:
    return b"Nov 22 10:00:00 host ttyscribe[77]: " + message.data + b"\r\n"


def as_journalctl_json(message: Message) -> bytes:
    entry = {"_PID": "77", "MESSAGE": message.data.decode(), "PRIORITY": "6"}
    return json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode() + b"\r\n"


SHOWN = [as_tail, as_journalctl, as_journalctl_json]


def test_output_without_the_id_is_logged_as_the_object_it_is() -> None:
    echo = EchoFilter(REC)
    data = os.urandom(READ)
    assert echo.filter(data) is data
    assert echo.take() is None


def test_the_id_is_noticed_even_when_it_comes_in_pieces() -> None:
    for cut in range(len(REC) + 1):
        echo = EchoFilter(REC)
        echo.filter(b"x" * 100 + REC[:cut].encode())
        echo.filter(REC[cut:].encode() + b"\r\n")
        made = messages(["text"])
        echo.wrote(made)
        assert echo.filter(as_tail(made[0])) == b""


@pytest.mark.parametrize(
    ("shown", "left"),
    [
        (as_tail, b""),
        (as_journalctl, b"Nov 22 10:00:00 host ttyscribe[77]: \r\n"),
        (as_journalctl_json, b'{"_PID":"77","MESSAGE":"","PRIORITY":"6"}\r\n'),
    ],
)
def test_a_message_that_is_shown_is_elided_and_counted(
    shown: Callable[[Message], bytes], left: bytes
) -> None:
    made = messages(['é "quoted" \\ back \x1b[1m\r\n', "second"])
    echo = armed(made)
    data = b"".join(map(shown, made))
    logged = echo.filter(b"before\r\n" + data + b"after\r\n")
    assert logged == b"before\r\n" + left * 2 + b"after\r\n"
    assert echo.take() == {
        "event": "elided",
        "first": 1,
        "last": 2,
        "messages": 2,
        "bytes": len(data) - 2 * len(left),
    }
    assert echo.take() is None


@pytest.mark.parametrize("shown", SHOWN)
def test_a_message_that_comes_in_two_reads_is_logged_only_up_to_where_the_first_one_ended(
    shown: Callable[[Message], bytes],
) -> None:
    (message,) = made = messages(["the text"])
    output = b"before\r\n" + shown(message)
    escaped = json.dumps(message.data.decode(), ensure_ascii=False)[1:-1].encode()
    body = escaped if escaped in output else message.data
    begins = output.index(body)
    rest = output[begins + len(body) :]
    for cut in range(begins + 1, begins + len(body)):
        echo = armed(made)
        assert echo.filter(output[:cut]) == output[:cut]
        assert echo.filter(output[cut:]) == rest


def test_a_message_larger_than_a_read_is_elided_but_for_little() -> None:
    made = messages(["x" * 60_000], payload=65536)
    echo = armed(made)
    logged = feed(echo, as_tail(made[0]), READ)
    assert len(made) == 1
    assert len(logged) < 2 * READ
    # Only the reads' ends within a piece are logged, in order, as they are.
    assert made[0].data.startswith(logged[:1000])


@pytest.mark.parametrize("shown", SHOWN)
def test_a_message_of_another_recording_or_an_altered_one_is_logged(
    shown: Callable[[Message], bytes],
) -> None:
    made = messages(["the text"])
    (message,) = made
    for data in (
        message.data.replace(b"the text", b"The text"),
        message.data.replace(b'"id":1,', b'"id":2,'),
        message.data.replace(b'"id":1,', b'"id":99999999999999999999999,'),
        message.data.replace(REC.encode(), REC[:-1].encode() + b"0"),
        message.data[:-1],
    ):
        echo = armed(made)
        altered = shown(Message(data, REC, "", 0, 1))
        assert echo.filter(altered + b"end") == altered + b"end"
        assert echo.take() is None


def test_what_follows_the_beginning_of_a_message_can_not_hide_behind_it() -> None:
    made = messages(["x" * 500])
    echo = armed(made)
    data = made[0].data[:200] + b"\r\n$ rm -rf /srv\r\n" + b"y" * 2000
    assert feed(echo, data, 150) == data


TEXT = st.text(st.sampled_from('ab"\\\n{}é\x1b'), min_size=1, max_size=30)


@given(st.lists(TEXT, min_size=1, max_size=5), st.data())
def test_logged_and_elided_are_all_there_was_and_only_messages_are_elided(
    texts: list[str], data: st.DataObject
) -> None:
    """Whatever is shown, in whatever pieces: messages whole, cut, altered, or other text."""
    made = messages(texts)
    echo = armed(made)
    parts = data.draw(st.lists(st.sampled_from(made), max_size=5))
    output = b""
    others = b""
    for message in parts:
        shown = data.draw(st.sampled_from(SHOWN))(message)
        how = data.draw(st.sampled_from(["whole", "cut", "altered", "other"]))
        if how == "cut":
            shown = shown[: data.draw(st.integers(0, len(message.data) - 1))]
        elif how == "altered":
            at = data.draw(st.integers(0, len(message.data) - 1))
            shown = shown[:at] + bytes([shown[at] ^ 1]) + shown[at + 1 :]
        elif how == "other":
            shown = b"other text " + REC.encode() + b"\r\n"
        output += shown
        if how == "other":
            others += shown
    sizes = data.draw(st.lists(st.integers(1, 700), min_size=1, max_size=10))
    logged = feed(echo, output, *sizes)
    member = echo.take()
    elided = 0 if member is None else member["bytes"]
    assert isinstance(elided, int)
    assert len(logged) + elided == len(output)
    assert is_subsequence(logged, output)
    assert is_subsequence(others, logged)


def feed(echo: EchoFilter, data: bytes, *sizes: int) -> bytes:
    logged = b""
    number = 0
    while data:
        size = sizes[number % len(sizes)]
        logged += echo.filter(data[:size])
        data = data[size:]
        number += 1
    return logged


def is_subsequence(part: bytes, whole: bytes) -> bool:
    left: Iterator[int] = iter(whole)
    return all(byte in left for byte in part)


def loop(
    shown: Callable[[Message], bytes], rounds: int, *, filtered: bool, limit: int = 1 << 22
) -> list[int]:
    """Bytes that a recording grows by in each round, in which all that is new in it is shown.

    A round ends with the message that the latency ends. Stops when a round exceeds limit.
    """
    encoder = Encoder(IDENTITY, 2048)
    echo = EchoFilter(REC)
    fresh = encoder.add(0, OUTPUT, b"$ tail -f recording\r\n" + b"text " * 2000)
    fresh += encoder.flush()
    echo.wrote(fresh)
    growth = []
    for now in range(1, rounds + 1):
        output = b"".join(map(shown, fresh))
        fresh = []
        for start in range(0, len(output), READ):
            data = output[start : start + READ]
            if filtered:
                data = echo.filter(data)
            made = encoder.add(now * 10**10, OUTPUT, data) if data else []
            echo.wrote(made)
            fresh += made
        # The marker goes along with what is logged anyway, and makes no message of its own.
        member = echo.take() if encoder.pending_since is not None else None
        made = encoder.note(now * 10**10, member) if member else encoder.flush()
        echo.wrote(made)
        fresh += made
        growth.append(sum(len(message.data) for message in fresh))
        if growth[-1] > limit:
            break
    return growth


@pytest.mark.parametrize("shown", SHOWN)
def test_the_loop_grows_without_bound_unless_it_is_filtered(
    shown: Callable[[Message], bytes],
) -> None:
    without = loop(shown, 60, filtered=False)
    with_filter = loop(shown, 60, filtered=True)
    print(f"{shown.__name__}: without {without[:5]} ... {without[-1]} in round {len(without)};")
    print(f"with {with_filter[:5]} ... {with_filter[-1]} in round {len(with_filter)}")
    assert without[-1] > 10 * without[0]
    # About one message in each latency, however long it goes on.
    assert max(with_filter[30:]) <= 1200
    assert with_filter[-1] <= with_filter[30] + 20


def as_folded(message: Message) -> bytes:
    data = message.data
    return b"".join(data[at : at + 200] + b"\r\n" for at in range(0, len(data), 200))


def as_journalctl_json_with_fields(message: Message) -> bytes:
    """All that journald adds; among it the id, in a field of its own."""
    fields = {f"_FIELD_{number}": "value of a field" for number in range(40)}
    entry = {**fields, "TLOG_REC": REC, "MESSAGE": message.data.decode()}
    return json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode() + b"\r\n"


# More bytes in a second than any bound that is one would allow.
UNBOUNDED = 700_000


def logged_in_seconds(
    shown: Callable[[Message], bytes], seconds: int, *, slowed: bool
) -> list[int]:
    """Bytes of a loop's output that are logged in each second; the last one may be UNBOUNDED."""
    encoder = Encoder(IDENTITY, 2048)
    echo = EchoFilter(REC)
    fresh = encoder.add(0, OUTPUT, b"$ tail -f recording\r\n" + b"text " * 2000)
    echo.wrote(fresh)
    shown_yet = b"".join(map(shown, fresh))
    counts = [0] * seconds
    for step in range(seconds * 500):
        now = step * 2_000_000
        if slowed and now < echo.paused_until:
            continue
        data, shown_yet = shown_yet[:READ], shown_yet[READ:]
        logged = echo.filter(data)
        echo.slow_down(logged, now)
        counts[step // 500] += len(logged)
        fresh = encoder.add(now, OUTPUT, logged) if logged else []
        if step % 500 == 499:
            fresh += encoder.flush()
        echo.wrote(fresh)
        shown_yet += b"".join(map(shown, fresh))
        if counts[step // 500] > UNBOUNDED:
            break
    return counts


@pytest.mark.parametrize("shown", [as_folded, as_journalctl_json_with_fields])
def test_a_loop_whose_messages_are_not_recognised_is_slowed_to_a_constant_rate(
    shown: Callable[[Message], bytes],
) -> None:
    without = logged_in_seconds(shown, 60, slowed=False)
    slowed = logged_in_seconds(shown, 60, slowed=True)
    print(f"{shown.__name__}: without {without[:20]}; slowed {slowed[::6]}")
    assert max(without) > UNBOUNDED
    assert sum(slowed[-10:]) <= 10 * 32768 + READ
    assert sum(slowed[-10:]) > 9 * 32768


def test_one_look_at_the_own_recording_is_not_slowed_down() -> None:
    echo = EchoFilter(REC)
    for number in range(100):
        data = REC.encode() + b" text" * 500
        echo.slow_down(echo.filter(data), number)
    assert echo.paused_until == 0
    # Nor is what comes after it.
    for number in range(1000):
        echo.slow_down(echo.filter(b"other text" * 400), number)
    assert echo.paused_until == 0


@pytest.mark.parametrize("wrapped", [b"", b" \b", b"\r\n"])
def test_the_id_is_known_again_in_reads_of_a_byte_and_where_a_line_is_wrapped(
    wrapped: bytes,
) -> None:
    echo = armed([])
    data = wrapped.join([REC[:20].encode(), REC[20:].encode()]) + b"x" * 1000
    for byte in data * 600:
        echo.slow_down(echo.filter(bytes([byte])), 0)
    assert echo.paused_until > 0


@pytest.mark.parametrize("size", [100, 4096, 65536])
@pytest.mark.parametrize("columns", [20, 42, 80])
def test_the_id_is_noticed_where_it_is_in_no_line_as_a_whole(columns: int, size: int) -> None:
    echo = EchoFilter(REC)
    line = ("x" * (columns - 7) + REC).ljust(2000, "y")
    wrapped = [line[at : at + columns] for at in range(0, len(line), columns)]
    assert REC not in "\r\n".join(wrapped)
    shown = ("\r\n".join(wrapped) + "\r\n").encode() * 1600
    for at in range(0, len(shown), size):
        echo.slow_down(echo.filter(shown[at : at + size]), 0)
    assert echo.paused_until > 0


def test_reading_the_growing_recording_to_its_end_comes_to_an_end() -> None:
    """cat of the own file: each read is logged to the end of what is still to be read."""
    encoder = Encoder(IDENTITY, 2048)
    echo = EchoFilter(REC)
    file = b""
    for number in range(100):
        made = encoder.add(number, OUTPUT, b"what was before " * 125) + encoder.flush()
        echo.wrote(made)
        file += b"".join(map(as_tail, made))
    before = len(file)
    at = 0
    while at < len(file):
        assert len(file) < 4 * before
        made = encoder.add(10**9, OUTPUT, echo.filter(file[at : at + READ]))
        echo.wrote(made)
        at += READ
        file += b"".join(map(as_tail, made))
    assert len(file) > before


def test_a_real_tail_on_a_terminal_shows_what_the_filter_recognises(tmp_path: Path) -> None:
    """The terminal turns line ends into CR LF and cuts the output into reads of its own."""
    path = tmp_path / "recording"
    made = messages(["é" * 300, "\x1b[1mtext\r\n", "x" * 6000])
    path.write_bytes(b"")
    echo = armed(made)
    master, slave = os.openpty()
    tail = subprocess.Popen(["tail", "-n", "+1", "-f", str(path)], stdout=slave)
    try:
        with open(path, "ab") as file:
            file.write(b"".join([message.data + b"\n" for message in made]) + b"end\n")
        logged = b""
        deadline = time.monotonic() + 20
        while not logged.endswith(b"end\r\n"):
            assert time.monotonic() < deadline
            logged += echo.filter(os.read(master, READ))
    finally:
        tail.kill()
        tail.wait()
        os.close(master)
        os.close(slave)
    whole = sum(len(as_tail(message)) for message in made)
    member = echo.take()
    assert member is not None
    assert (member["first"], member["last"]) == (1, len(made))
    assert member["bytes"] == whole + len(b"end\r\n") - len(logged)
    assert len(logged) < whole / 2


@pytest.mark.usefixtures("journald")
@pytest.mark.parametrize("form", ["short", "cat", "json", "verbose"])
def test_a_real_journalctl_shows_what_the_filter_recognises(form: str) -> None:
    made = messages(["é" * 300 + "\x1b[1m", "x" * 3000, "tab\t\r\n"])
    echo = armed(made)
    tag = f"ttyscribe-test-{uuid.uuid4().hex}"
    for message in [b"begin", *[message.data for message in made], b"end"]:
        journal.send(message.decode(), SYSLOG_IDENTIFIER=tag)
    subprocess.run(["journalctl", "--sync"], check=True)
    master, slave = os.openpty()
    command = ["journalctl", "--follow", "--lines=50", "--identifier", tag, "--output", form]
    process = subprocess.Popen(command, stdout=slave)
    os.set_blocking(master, False)
    try:
        shown = 0
        logged = b""
        deadline = time.monotonic() + 20
        # The last entry's own line, or the field of it.
        while not any(end in logged for end in (b": end\r\n", b"\r\nend\r\n", b'"end"', b"=end\r")):
            assert time.monotonic() < deadline, logged
            try:
                data = os.read(master, READ)
            except BlockingIOError:
                time.sleep(0.01)
                continue
            shown += len(data)
            logged += echo.filter(data)
    finally:
        process.kill()
        process.wait()
        os.close(master)
        os.close(slave)
    member = echo.take()
    assert member is not None
    assert member["last"] == len(made)
    assert shown - len(logged) == member["bytes"]
    assert shown - len(logged) > sum(len(message.data) for message in made) / 2
