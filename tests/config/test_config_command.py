# SPDX-License-Identifier: Apache-2.0
"""`ttyscribe config`, run as an admin runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest

from ttyscribe.cli import config as command
from ttyscribe.config import built_in, generate


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    source = str(Path(generate.HERE).parent.parent)
    return subprocess.run(
        [sys.executable, "-m", "ttyscribe", "config", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": source} | environ,
    )


@pytest.fixture
def etc() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/etc") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_check_says_ok_for_each_file(tmp_path: Path) -> None:
    files = [f"/etc/tlog/tlog-{program}.conf" for program in ("rec", "rec-session", "play")]
    result = run("check", *files)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [f"{file}: ok" for file in files]


def test_check_reports_every_problem_of_every_file_and_fails(tmp_path: Path) -> None:
    one, two = tmp_path / "rec.conf", tmp_path / "play.conf"
    one.write_text('{"latecny": 3,\n "payload": 1}')
    two.write_text('{"es": {"query": "x"}, "speed": "fast"}')
    result = run("check", str(one), str(two))
    known = '"latency", "payload", "log", "limit", "syslog", "journal", "spool", "file" or "writer"'
    assert result.returncode == 1
    assert result.stdout.splitlines() == [
        f'{one}:1:2: latecny: there is no such key; did you mean "latency"? allowed: {known}',
        f"{one}:2:13: payload: 1 is out of range; allowed: a whole number from 32 to 1073741824",
        f'{two}:1:33: speed: "fast" is text; allowed: a number from 0 to 1000000',
        f"note: {two}:1:9: es.query: accepted for tlog's sake, has no effect",
    ]


def test_check_as_json_has_the_parts_of_a_problem(tmp_path: Path) -> None:
    file = tmp_path / "rec.conf"
    file.write_text('{"latecny": 3}')
    result = run("check", "--json", str(file))
    assert result.returncode == 1
    report = json.loads(result.stdout)
    assert report["ok"] is False
    (problem,) = report["files"][0]["problems"]
    assert problem["message"] == "there is no such key"
    assert (problem["line"], problem["column"], problem["key"]) == (1, 2, "latecny")
    assert problem["suggestion"] == "latency"
    assert problem["allowed"].startswith('"latency", "payload", ')
    file.write_text('{"input": true, "limit": {"rate": 1, "rate": 2}}')
    (report,) = json.loads(run("check", "--json", str(file)).stdout)["files"]
    assert [problem["suggestion"] for problem in report["problems"]] == ["log.input", None]
    assert [problem["key"] for problem in report["problems"]] == ["input", "limit.rate"]


def test_check_says_how_many_problems_it_leaves_out(tmp_path: Path) -> None:
    file = tmp_path / "rec.conf"
    file.write_text("{" + ",".join(f'"k{n}": 1' for n in range(250)) + "}")
    lines = run("check", str(file)).stdout.splitlines()
    assert len(lines) == 101
    assert lines[-1] == f"{file}: and 150 more problems"
    (report,) = json.loads(run("check", "--json", str(file)).stdout)["files"]
    assert (len(report["problems"]), report["more_problems"]) == (100, 150)


def test_check_names_a_file_it_cannot_read(tmp_path: Path) -> None:
    result = run("check", str(tmp_path / "rec.conf"))
    assert result.returncode == 1
    assert result.stdout == f"{tmp_path}/rec.conf: can't be read: No such file or directory\n"


def test_check_finds_a_file_writer_without_a_file(tmp_path: Path) -> None:
    file = tmp_path / "rec-session.conf"
    file.write_text('{"writer": "file"}')
    result = run("check", str(file))
    assert result.returncode == 1
    assert result.stdout.startswith(f'{file}:1:2: writer: "file" needs a file')


def test_check_knows_a_drop_in_by_its_folder(tmp_path: Path) -> None:
    (tmp_path / "play.conf.d").mkdir()
    file = tmp_path / "play.conf.d" / "x.conf"
    file.write_text('{"speed": 2}')
    assert run("check", str(file)).returncode == 0


def test_check_asks_whose_a_file_is_that_does_not_tell(tmp_path: Path) -> None:
    file = tmp_path / "x.conf"
    file.write_text('{"speed": 2}')
    result = run("check", str(file))
    assert (result.returncode, result.stdout) == (2, "")
    assert "add --as rec, rec-session or play" in result.stderr
    assert run("check", "--as", "play", str(file)).returncode == 0
    assert run("check", "--as", "rec", str(file)).returncode == 1


def test_the_installed_files_are_checked_together(
    etc: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (etc / "rec-session.conf").write_text('{"writer": "file"}')
    (etc / "rec-session.conf.d").mkdir()
    (etc / "rec-session.conf.d/a.conf").write_text('{"file": {"path": "/var/log/rec"}}')
    assert command.check([], None, False, str(etc)) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{etc}/rec.conf: ok (there is none; built-in values)",
        f"{etc}/rec-session.conf: ok",
        f"{etc}/rec-session.conf.d/a.conf: ok",
        f"{etc}/play.conf: ok (there is none; built-in values)",
    ]
    (etc / "rec-session.conf.d/a.conf").unlink()
    assert command.check([], None, False, str(etc)) == 1
    assert f'{etc}/rec-session.conf:1:2: writer: "file" needs' in capsys.readouterr().out


@pytest.mark.parametrize("shell", ["tlog-rec-session", "tlog-rec-session-shell-bin-zsh"])
def test_the_files_of_a_login_shell_with_tlogs_name_are_checked_where_it_is_ours(
    etc: Path, shell: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tlog = etc / "tlog"
    tlog.mkdir()
    (tlog / "tlog-rec-session.conf").write_text('{"latecny": 3}')
    users = etc / "passwd"
    users.write_text(f"alice:x:1:1:::/bin/sh\nbob:x:2:2:::{etc}/{shell}\n")
    monkeypatch.setattr(command, "LISTS", (str(etc / "no-such-list"), str(users)))
    (etc / "another-program").touch()
    (etc / "ttyscribe-rec-session").touch()
    (etc / shell).symlink_to("another-program")
    assert command.check([], "rec-session", False, str(etc), str(tlog)) == 0
    assert "tlog" not in capsys.readouterr().out
    (etc / shell).unlink()
    (etc / shell).symlink_to("ttyscribe-rec-session")
    assert command.check([], "rec-session", False, str(etc), str(tlog)) == 1
    assert f"{tlog}/tlog-rec-session.conf:1:2: latecny" in capsys.readouterr().out


def test_an_installed_file_that_anybody_could_write_is_a_problem(
    etc: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (etc / "rec-session.conf").write_text("{}")
    (etc / "rec-session.conf").chmod(0o666)
    assert command.check([], "rec-session", False, str(etc)) == 1
    assert "has mode 0666, so anybody can write to it" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["rec-session.conf", "rec-session.conf.d/a.conf", "play.conf.d"])
def test_an_installed_link_that_leads_nowhere_is_a_problem(
    etc: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (etc / "rec-session.conf.d").mkdir()
    (etc / name).symlink_to("/srv/nowhere")
    assert command.check([], None, False, str(etc)) == 1
    assert f"the link {etc / name} leads to /srv/nowhere, which is not" in capsys.readouterr().out


def test_show_prints_every_value(tmp_path: Path) -> None:
    file = tmp_path / "any.conf"
    file.write_text('{"latency": 3,\n "notice": "\\u001b[1mü\\u0085"}')
    result = run("show", "--origin", "--config", str(file))
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert f"latency = 3  # {file}:1:2" in lines
    assert f'notice = "\\u001b[1mü\\x85"  # {file}:2:2' in lines
    assert "log.input = false  # built-in" in lines
    assert len(lines) == len(command.leaves(built_in("rec-session")))
    assert "latency = 3" in run("show", "--config", str(file)).stdout.splitlines()


def test_show_as_json_has_values_and_origins(tmp_path: Path) -> None:
    file = tmp_path / "any.conf"
    file.write_text('{"speed": 2}')
    result = run("show", "--json", "--origin", "--config", str(file), "play")
    shown = json.loads(result.stdout)
    assert shown["values"] == built_in("play") | {"speed": 2.0}
    assert shown["origins"]["speed"] == {
        "layer": str(file),
        "file": str(file),
        "line": 1,
        "column": 2,
    }
    assert shown["origins"]["lax"]["layer"] == "built-in"


def test_show_takes_the_environment_for_rec(tmp_path: Path) -> None:
    result = run("show", "--origin", "rec", TLOG_REC_CONF_TEXT='{"latency": 4}')
    assert "latency = 4  # environment TLOG_REC_CONF_TEXT" in result.stdout.splitlines()


def test_show_for_a_user_refuses_what_that_user_could_write(etc: Path) -> None:
    import pwd

    file = etc / "new.conf"
    file.write_text('{"latency": 4}')
    assert "latency = 4" in run("show", "--user", "daemon", "--config", str(file)).stdout
    os.chown(file, pwd.getpwnam("daemon").pw_uid, 0)
    result = run("show", "--user", "daemon", "--config", str(file))
    assert (result.returncode, result.stdout) == (1, "")
    assert f"{file}: refused, because the recorded user could change it" in result.stderr


def test_show_for_a_user_ignores_our_environment(etc: Path) -> None:
    file = etc / "new.conf"
    file.write_text('{"env": {"conf": true}}')
    text = '{"latency": 4}'
    show = ("show", "--user", "daemon", "--config", str(file))
    result = run(*show, TLOG_REC_SESSION_CONF_TEXT=text)
    assert "latency = 10" in result.stdout.splitlines()


def test_show_names_a_user_there_is_not() -> None:
    result = run("show", "--user", "no-such-user")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "ttyscribe config: there is no user no-such-user on this system\n"


@pytest.mark.parametrize("program", ["rec", "rec-session", "play"])
def test_the_printed_default_file_is_right_by_the_printed_schema(
    program: str, tmp_path: Path
) -> None:
    schema = json.loads(run("schema", program).stdout)
    jsonschema.validate(built_in(program), schema)
    file = tmp_path / f"{program}.conf"
    file.write_text(run("default", program).stdout)
    assert run("check", str(file)).stdout == f"{file}: ok\n"


def test_help_teaches() -> None:
    result = run("--help")
    assert result.returncode == 0
    assert "ttyscribe config show --user alice" in result.stdout
