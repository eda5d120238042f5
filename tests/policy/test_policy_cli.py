# SPDX-License-Identifier: Apache-2.0
"""ttyscribe policy: the answer, its exit status, and what it says when it can't tell."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CONF = """\
{
    // Who is recorded.
    "session_recording": {
        "scope": "some",
        "users": ["nobody-knows-me",
                  "games"],
        "groups": "daemon"
    }
}
"""


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    path = tmp_path / "rec-session.conf"
    path.write_text(CONF)
    return path


def ask(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-m", "ttyscribe", "policy", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_recorded_user_is_exit_status_0_with_rule_and_line(conf: Path) -> None:
    run = ask("games", "--config", conf)
    assert (run.returncode, run.stderr) == (0, "")
    lines = run.stdout.splitlines()
    assert lines[0] == "games: recorded"
    assert "user 'games' is listed in users" in lines[1]
    assert f"{conf}:6:19" in lines[2]
    assert "not looked up" in lines[3]


def test_a_user_who_is_not_recorded_is_exit_status_1_with_the_groups_seen(conf: Path) -> None:
    run = ask("root", "--config", conf)
    assert (run.returncode, run.stderr) == (1, "")
    lines = run.stdout.splitlines()
    assert lines[0] == "root: not recorded"
    assert f"{conf}:4:9" in lines[2]
    assert lines[3].split() == ["groups:", "root"]


def test_an_unknown_user_is_exit_status_2_and_one_line(conf: Path) -> None:
    run = ask("nobody-knows-me", "--config", conf)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == (
        "ttyscribe policy: can't tell: user 'nobody-knows-me' is unknown to the name service\n"
    )


def test_json_answers_a_script(conf: Path) -> None:
    run = ask("daemon", "--config", conf, "--json")
    assert run.returncode == 0
    answer = json.loads(run.stdout)
    assert answer == {
        "user": "daemon",
        "recorded": True,
        "rule": "scope 'some', and group 'daemon' is listed in groups",
        "origin": f"{conf}:7:9",
        "groups": ["daemon"],
        "warnings": [],
        "error": None,
    }


def test_json_has_null_where_it_cannot_be_told(conf: Path) -> None:
    run = ask("nobody-knows-me", "--config", conf, "--json")
    assert (run.returncode, run.stderr) == (2, "")
    answer = json.loads(run.stdout)
    assert answer["recorded"] is None
    assert "unknown to the name service" in answer["error"]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('{"session_recording": {"scope": "most"}}', "scope"),
        ('{"session_recording": {"scope": "all"}', "rec-session.conf:1"),
    ],
    ids=["a scope that does not exist", "an unclosed brace"],
)
def test_a_wrong_configuration_is_exit_status_2_and_names_the_file(
    conf: Path, text: str, what: str
) -> None:
    conf.write_text(text)
    run = ask("root", "--config", conf)
    assert (run.returncode, run.stdout) == (2, "")
    assert str(conf) in run.stderr
    assert what in run.stderr
    assert run.stderr.count("\n") == 1


def test_a_missing_configuration_is_exit_status_2(tmp_path: Path) -> None:
    run = ask("root", "--config", tmp_path / "none.conf")
    assert (run.returncode, run.stdout) == (2, "")
    assert "none.conf" in run.stderr


def test_a_hostile_name_is_shown_without_its_escapes(conf: Path) -> None:
    run = ask("\x1b[31m\nroot", "--config", conf)
    assert run.returncode == 2
    assert "\x1b" not in run.stderr
    assert run.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [(), ("a", "b"), ("root", "--jso")], ids=str)
def test_a_wrong_command_line_is_exit_status_2(arguments: tuple[str, ...]) -> None:
    run = ask(*arguments)
    assert (run.returncode, run.stdout) == (2, "")
    assert "usage: ttyscribe policy" in run.stderr


def test_the_help_teaches_with_examples_and_exit_statuses() -> None:
    run = ask("--help")
    assert run.returncode == 0
    assert "ttyscribe policy alice --json" in run.stdout
    assert "2 can't tell" in run.stdout
