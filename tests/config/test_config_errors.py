# SPDX-License-Identifier: Apache-2.0
"""What is wrong in a configuration is said in one clear line each, at the right place."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ttyscribe.config import ConfigError, load
from ttyscribe.config.check import examine, notes
from ttyscribe.config.trust import LIMIT

# Text, and the beginnings of all lines that are reported of it for rec-session.conf.
CASES: dict[str, tuple[str, list[str]]] = {
    "an unclosed brace": (
        '{\n  "log": {\n    "input": true\n}\n',
        ["f:1:1: this { is never closed; } is missing"],
    ),
    "an unclosed inner brace": ('{"log": {"input": true', ["f:1:9: this { is never closed"]),
    "an unclosed list": ('{"skip": {"commands": ["a"', ["f:1:23: this [ is never closed; ]"]),
    "a missing first brace": ('"latency": 3}', ["f:1:1: { is missing before this"]),
    "nothing at all": ("", ["f:1:1: there is no configuration here; an empty one is {}"]),
    "only comments": ("// x\n", ["f:1:1: there is no configuration here"]),
    "a list": ("[]", ["f:1:1: this must be an object"]),
    "a brace too many": ('{"latency": 3}}', ["f:1:15: this } closes nothing"]),
    "a second value": ("{} {}", ["f:1:4: nothing may follow the last }"]),
    "a duplicate key": (
        '{"latency": 3,\n "payload": 64, "latency": 4}',
        ['f:2:17: latency: the key "latency" is here a second time, first in line 1'],
    ),
    "a duplicate section": (
        '{"log": {}, "log": {"input": true}}',
        ['f:1:13: log: the key "log" is here a second time'],
    ),
    "a trailing comma": ('{"latency": 3,\n}', ["f:1:14: a comma before }; take it away"]),
    "a trailing comma in a list": (
        '{"skip": {"commands": ["a", ]}}',
        ["f:1:27: a comma before ]; take it away"],
    ),
    "two commas": ('{"latency": 3,, "payload": 64}', ["f:1:15: two commas follow each other"]),
    "a missing comma": (
        '{"latency": 3\n "payload": 64}',
        ["f:1:14: a comma is missing after this"],
    ),
    "a missing colon": ('{"latency" 3}', ['f:1:11: a : is missing after the key "latency"']),
    "a missing value": ('{"latency": }', ["f:1:13: a value is missing before }"]),
    "an unclosed comment": ("{} /* x", ["f:1:4: this comment is never closed; */ is missing"]),
    "a single slash": ("{} / x", ["f:1:4: a single / means nothing"]),
    "a shell's comment": ("# x\n{}", ["f:1:1: a comment begins with //"]),
    "an unclosed text": ('{"shell": "/bin', ["f:1:11: this text is never closed"]),
    "a text over two lines": ('{"notice": "a\nb"}', ["f:1:12: this text is not closed on its"]),
    "a tab in a text": ('{"notice": "a\tb"}', ["f:1:14: a control character in a text"]),
    "an unknown escape": ('{"notice": "a\\q"}', ["f:1:14: not an escape of JSON"]),
    "half a surrogate pair": ('{"notice": "\\ud800"}', ["f:1:12: half a surrogate pair"]),
    "single quotes": (
        "{'shell': '/bin/sh'}",
        ['f:1:2: a key is in quotes: "shell"', 'f:1:11: texts are in double quotes "'],
    ),
    "no quotes": (
        "{latency: 3, writer: journal}",
        [
            'f:1:2: a key is in quotes: "latency"',
            'f:1:14: a key is in quotes: "writer"',
            'f:1:22: journal means nothing; a text is in quotes: "journal"',
        ],
    ),
    "Python's constants": ('{"log": {"input": True}}', ["f:1:19: write true, in small letters"]),
    "a leading zero": ('{"latency": 010}', ["f:1:13: 010 is not a number of JSON"]),
    "a byte order mark": ("\ufeff{}", ["f:1:1: there is a byte order mark"]),
    "a number too large": (
        '{"latency": 99999999999999999999}',
        ["f:1:13: latency: 99999999999999999999 is out of range; allowed: a whole number from 1 "],
    ),
    "a number of 5,000 digits": (
        '{"latency": ' + "9" * 5000 + "}",
        [f"f:1:13: latency: {'9' * 37}... is out of range; allowed: "],
    ),
    "a number beyond any float": (
        '{"latency": 1e999}',
        ["f:1:13: latency: 1e999 has a fraction or exponent; allowed: a whole number from 1"],
    ),
    "a number too small": (
        '{"payload": 31}',
        ["f:1:13: payload: 31 is out of range; allowed: a whole number from 32 to "],
    ),
    "a fraction": ('{"latency": 1.5}', ["f:1:13: latency: 1.5 has a fraction or exponent"]),
    "null": ('{"log": null}', ["f:1:9: log: null can't be used here; allowed: an object {...}"]),
    "a list for a section": ('{"log": []}', ["f:1:9: log: [...] is a list; allowed: an object"]),
    "text for a number": ('{"latency": "3"}', ['f:1:13: latency: "3" is text; allowed: a whole']),
    "a choice there is not": (
        '{"writer": "es"}',
        ['f:1:12: writer: "es" is not one of these; allowed: "journal", "syslog" or "file"'],
    ),
    "a relative shell": (
        '{"shell": "bash"}',
        ['f:1:11: shell: "bash" can\'t be used here; allowed: a path that begins with /'],
    ),
    "a misspelt key": (
        '{"latecny": 3}',
        ['f:1:2: latecny: there is no such key; did you mean "latency"?'],
    ),
    "a misspelt key of a section": (
        '{"log": {"imput": true}}',
        ['f:1:10: log.imput: there is no such key; did you mean "input"? allowed: "input", '],
    ),
    "a setting of the whole in a section": (
        '{"log": {"latency": 3}}',
        ['f:1:10: log.latency: there is no such key; did you mean "latency" outside of "log"? all'],
    ),
    "a setting of another section": (
        '{"log": {"rate": 3}}',
        ['f:1:10: log.rate: there is no such key; did you mean "limit": {"rate": ...} outside'],
    ),
    "a path for a key": (
        '{"log.input": true}',
        ['f:1:2: log.input: there is no such key; sections are nested objects, not names'],
    ),
    "a path in its section": (
        '{"log": {"log.imput": true}}',
        ['f:1:10: log.log.imput: there is no such key; sections are nested objects, not names'],
    ),
    "a path that leads nowhere": (
        '{"x.y": true}',
        ["f:1:2: x.y: there is no such key; sections are nested objects, not names"],
    ),
    "duplicate keys below others": (
        '{"skip": {"commands": ["a", {"b": 1, "b": 2}], "enabled": true, "enabled": true}}',
        [
            "f:1:29: skip.commands[1]: {...} is an object",
            'f:1:38: skip.commands[1].b: the key "b" is here a second time',
            'f:1:65: skip.enabled: the key "enabled" is here a second time',
        ],
    ),
    "objects nested too deeply": ('{"log":' * 10_000, ["f:1:225: nested deeper than 32 levels"]),
    "lists nested too deeply": (
        '{"skip": {"commands": ' + "[" * 10_000,
        ["f:1:53: nested deeper than 32 levels"],
    ),
    "a key outside its section": (
        '{"passwords": true}',
        ['f:1:2: passwords: there is no such key; did you mean "log": {"passwords": ...}? all'],
    ),
    "a key like no other": (
        '{"log": {"xyzzy": true}}',
        ["f:1:10: log.xyzzy: there is no such key; allowed: "],
    ),
    "an escape sequence in a key": (
        '{"\\u001b[2J": 1}',
        ["f:1:2: \\x1b[2J: there is no such key; allowed: "],
    ),
    "the third of a list": (
        '{"session_recording": {"users": ["a", "b", 3]}}',
        ["f:1:44: session_recording.users[2]: 3 is a number; allowed: text"],
    ),
    "mistakes before one that ends the parsing": (
        '{"log": {"imput": true, "output": 1 $',
        [
            "f:1:9: this { is never closed",
            'f:1:10: log.imput: there is no such key; did you mean "input"?',
            "f:1:35: log.output: 1 is a number",
            "f:1:36: a comma is missing after this",
            'f:1:37: a key is in quotes: "$"',
        ],
    ),
    "everything at once": (
        '{\n "latency": 0,\n "log": {"input": 1, "outptu": true,},\n "latency": 5\n "x": 1\n',
        [
            "f:1:1: this { is never closed",
            "f:2:13: latency: 0 is out of range",
            "f:3:19: log.input: 1 is a number; allowed: true or false",
            'f:3:22: log.outptu: there is no such key; did you mean "output"?',
            "f:3:36: a comma before }",
            'f:4:2: latency: the key "latency" is here a second time, first in line 2',
            "f:4:14: a comma is missing after this",
            "f:5:2: x: there is no such key",
        ],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_every_problem_is_reported_at_its_place(case: str) -> None:
    text, expected = CASES[case]
    _, problems = examine("rec-session", text)
    lines = [problem.line_for("f") for problem in problems]
    assert len(lines) == len(expected), lines
    for line, begins in zip(lines, expected, strict=True):
        assert line.startswith(begins), line
        assert line.isprintable()


@pytest.mark.parametrize(
    "text",
    [
        "{" + ",".join(f'"k{n}": 1' for n in range(250)) + "}",
        '{"skip": {"commands": [' + '"",' * 249 + '""]}}',
        '{"latency": 3' + ', "latency": 3' * 250 + "}",
        # Of two mistakes at one place the first is told.
        "{" + ",".join(f"latency{n}: 1" for n in range(250)) + "}",
    ],
    ids=["unknown keys", "wrong items", "duplicate keys", "two mistakes each"],
)
def test_problems_beyond_a_hundred_are_counted(text: str) -> None:
    _, problems = examine("rec-session", text)
    assert len(problems) == 100
    assert problems.more == 150


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ('{"log.input": true}', ' did you mean "log": {"input": ...}? allowed: "latency", '),
        ('{"log": {"log.imput": true}}', ' did you mean "input"? allowed: "input", '),
        ('{"log": {"writer.x": true}}', ' did you mean "writer" outside of "log"? allowed: "in'),
        ('{"x.y": true}', ' allowed: "latency", '),
    ],
)
def test_a_path_in_place_of_a_key_gets_a_hint_of_how_it_is_written(text: str, hint: str) -> None:
    (problem,) = examine("rec-session", text)[1]
    assert f"sections are nested objects, not names with dots;{hint}" in problem.line_for("f")


def test_a_comma_before_comments_is_no_mistake() -> None:
    for text in ('{"latency": 3, // "x": 1\n}', '{"skip": {"commands": ["a", /* "b" */ ]}}'):
        assert examine("rec-session", text)[1] == []


def test_what_has_no_effect_is_noted() -> None:
    text = '{\n "es": {"baseurl": "http://localhost/",\n "verbose": true}}'
    assert examine("play", text)[1] == []
    assert [note.line_for("f") for note in notes("play", text)] == [
        "f:2:9: es.baseurl: accepted for tlog's sake, has no effect",
        "f:3:2: es.verbose: accepted for tlog's sake, has no effect",
    ]


def test_a_login_gets_the_first_problem_and_the_number_of_others(tmp_path: Path) -> None:
    (tmp_path / "rec.conf").write_text('{"latency": 0, "payload": 1, "x": 2}')
    with pytest.raises(ConfigError, match=r"rec\.conf:1:13: latency: .*\(and 2 more; see 'tty"):
        load("rec", folder=str(tmp_path))


def test_a_login_gets_the_number_of_others_beyond_a_hundred(tmp_path: Path) -> None:
    (tmp_path / "rec.conf").write_text("{" + ",".join(f'"k{n}": 1' for n in range(250)) + "}")
    with pytest.raises(ConfigError, match=r"\(and 249 more; see 'tty"):
        load("rec", folder=str(tmp_path))


MANY = (1 << 18) - 100
HOSTILE: dict[str, bytes] = {
    "10,000 levels of objects": b'{"log":' * 10_000 + b"}" * 10_000,
    "10,000 levels of lists": b'{"skip": {"commands": ' + b"[" * 10_000 + b"]" * 10_000 + b"}}",
    "10,000 braces": b"{" * 10_000,
    "not UTF-8": b'{"notice":\n "\xc3\xbc\xff"}',
    "UTF-16": '{"latency": 3}'.encode("utf-16"),
    "NUL bytes": b'{"latency": 3}' + b"\0" * 1000,
    "duplicate keys": b"{" + b'"a":1,' * (MANY // 6) + b'"a":1}',
    "wrong list items": b'{"skip":{"commands":[' + b'"",' * (MANY // 3) + b'""]}}',
    "lists in a list": b'{"skip":{"commands":[' + b"[]," * (MANY // 3) + b"[]]}}",
    "slashes": b"{" + b"/" * MANY + b"}",
    "quotes": b'{"notice": "' + b'\\"' * (MANY // 2),
    "open comments": b"{" + b"/*" * (MANY // 2),
    "a long number": b'{"latency": ' + b"9" * MANY + b"}",
    "a long exponent": b'{"latency": 1e' + b"9" * MANY + b"}",
    "unknown keys": b"{" + b",".join(b'"k%d":1' % i for i in range(MANY // 11)) + b"}",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_text_gets_one_clear_line_in_well_under_a_second(case: str, tmp_path: Path) -> None:
    file = tmp_path / "rec-session.conf"
    file.write_bytes(HOSTILE[case])
    before = time.process_time()
    with pytest.raises(ConfigError) as caught:
        load("rec-session", folder=str(tmp_path))
    assert time.process_time() - before < 2  # 0.6 s at most when nothing else runs
    assert str(caught.value).startswith(f"{file}:")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


def test_the_place_of_a_byte_that_is_not_utf8_counts_characters(tmp_path: Path) -> None:
    (tmp_path / "rec.conf").write_bytes(HOSTILE["not UTF-8"])
    with pytest.raises(ConfigError, match=r"rec\.conf:2:4: the byte 0xff is not UTF-8"):
        load("rec", folder=str(tmp_path))


def test_a_file_of_100_megabytes_is_refused_unread(tmp_path: Path) -> None:
    file = tmp_path / "rec.conf"
    file.touch()
    os.truncate(file, 100_000_000)
    before = time.process_time()
    with pytest.raises(ConfigError, match=f"rec.conf: larger than {LIMIT} bytes"):
        load("rec", folder=str(tmp_path))
    assert time.process_time() - before < 0.2


def test_an_endless_file_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "rec.conf").symlink_to("/dev/zero")
    with pytest.raises(ConfigError, match=r"rec\.conf: can't be read: it is not a regular file"):
        load("rec", folder=str(tmp_path))


def test_a_fifo_does_not_hang_a_login(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "rec.conf")
    with pytest.raises(ConfigError, match="not a regular file"):
        load("rec", folder=str(tmp_path))


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "rec.conf").mkdir()
    with pytest.raises(ConfigError, match=r"rec\.conf: can't be read: it is a folder"):
        load("rec", folder=str(tmp_path))
