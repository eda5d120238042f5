# SPDX-License-Identifier: Apache-2.0
"""The order of the layers, and what the environment may decide."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ttyscribe.config import ConfigError, broken, built_in, dump, fast, load, loader
from ttyscribe.errors import UsageError

NAME = "-ttyscribe-rec-session"
CONF = "TLOG_REC_SESSION_CONF_"


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def test_each_layer_wins_over_those_before_it(tmp_path: Path) -> None:
    main = write(tmp_path / "rec.conf", '{"latency": 1, "payload": 101, "log": {"input": true}}')
    drop_in = write(tmp_path / "rec.conf.d/a.conf", '{"latency": 2, "limit": {"rate": 2}}')
    file = write(tmp_path / "mine.conf", '{"latency": 3, "limit": {"burst": 3}}')
    loaded = load(
        "rec",
        folder=str(tmp_path),
        environ={
            "TLOG_REC_CONF_FILE": file,
            "TLOG_REC_CONF_TEXT": '{"latency": 4, "writer": "journal"}',
        },
        command_line={"latency": 5},
    )
    assert loaded.values["latency"] == 5
    origins = {
        "latency": "command line",
        "payload": f"{main}:1:16",
        "log.input": f"{main}:1:40",
        "log.output": "built-in",
        "limit.rate": f"{drop_in}:1:26",
        "limit.burst": f"environment TLOG_REC_CONF_FILE: {file}:1:26",
        "writer": "environment TLOG_REC_CONF_TEXT",
    }
    assert {path: loaded.origin(path) for path in origins} == origins


def test_the_place_of_one_name_of_a_list_is_known(tmp_path: Path) -> None:
    file = write(tmp_path / "rec-session.conf", '{"session_recording": {\n"users": ["a",\n  "b"]}}')
    loaded = load("rec-session", folder=str(tmp_path))
    assert loaded.origin("session_recording.users[1]") == f"{file}:3:3"


def test_a_list_replaces_an_earlier_one(tmp_path: Path) -> None:
    write(tmp_path / "rec-session.conf", '{"session_recording": {"users": ["a", "b"]}}')
    write(tmp_path / "rec-session.conf.d/x.conf", '{"session_recording": {"users": "c"}}')
    loaded = load("rec-session", folder=str(tmp_path))
    assert loaded.values["session_recording"]["users"] == ["c"]


def test_without_any_file_the_built_in_values_count(tmp_path: Path) -> None:
    assert load("play", folder=str(tmp_path)).values == built_in("play")


def test_a_file_asked_for_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"x\.conf: can't be read: No such file"):
        load("rec", files=[str(tmp_path / "x.conf")])


def test_the_login_shell_ignores_the_users_configuration_and_says_so(tmp_path: Path) -> None:
    environ = {CONF + "FILE": "/nonexistent", CONF + "TEXT": '{"writer": "file"'}
    loaded = load("rec-session", folder=str(tmp_path), environ=environ, name=NAME)
    assert loaded.values == built_in("rec-session")
    assert [line.partition(":")[0] for line in loaded.warnings] == [
        f"environment {CONF}FILE",
        f"environment {CONF}TEXT",
    ]


def test_the_login_shell_takes_it_where_the_file_says_so(tmp_path: Path) -> None:
    write(tmp_path / "rec-session.conf", '{"env": {"conf": true}}')
    file = write(tmp_path / "mine.conf", '{"latency": 3, "payload": 64}')
    environ = {CONF + "FILE": file, CONF + "TEXT": '{"latency": 4}'}
    loaded = load("rec-session", folder=str(tmp_path), environ=environ, name=NAME)
    assert (loaded.values["latency"], loaded.values["payload"]) == (4, 64)
    assert loaded.warnings == []


def test_the_environment_can_not_allow_itself(tmp_path: Path) -> None:
    environ = {CONF + "TEXT": '{"env": {"conf": true}, "latency": 4}'}
    loaded = load("rec-session", folder=str(tmp_path), environ=environ, name=NAME)
    assert loaded.values["latency"] == 10


def test_sssds_shell_is_taken_if_it_is_a_login_shell(tmp_path: Path) -> None:
    shells = write(tmp_path / "shells", "# valid\n/bin/zsh # yes\n\n/bin/sh\n")
    for shell, expected in (("/bin/zsh", "/bin/zsh"), ("/bin/evil", "/bin/bash")):
        loaded = load(
            "rec-session",
            folder=str(tmp_path),
            environ={"TLOG_REC_SESSION_SHELL": shell},
            name=NAME,
            shells=shells,
        )
        assert loaded.values["shell"] == expected
        assert bool(loaded.warnings) == (expected != shell)
    assert loaded.origin("shell") == "built-in"


def test_under_tlogs_name_the_environment_counts_as_in_tlog(tmp_path: Path) -> None:
    environ = {CONF + "TEXT": '{"latency": 4}', "TLOG_REC_SESSION_SHELL": "/opt/my/shell"}
    loaded = load("rec-session", folder=str(tmp_path), environ=environ, name="-tlog-rec-session")
    assert (loaded.values["latency"], loaded.values["shell"]) == (4, "/opt/my/shell")
    assert loaded.origin("shell") == "environment TLOG_REC_SESSION_SHELL"
    assert loaded.warnings == []


def test_under_tlogs_name_tlogs_files_are_read(tmp_path: Path) -> None:
    file = write(tmp_path / "tlog-rec.conf", '{"latency": 7}')
    write(tmp_path / "rec.conf", '{"latency": 8}')
    loaded = load("rec", folder=str(tmp_path), name="/usr/bin/tlog-rec")
    assert loaded.origin("latency") == f"{file}:1:2"
    assert loader.default_file("rec", loader.TLOG_FOLDER, True) == "/etc/tlog/tlog-rec.conf"


def test_play_reads_the_environment_except_under_tlogs_name(tmp_path: Path) -> None:
    environ = {"TLOG_PLAY_CONF_TEXT": '{"lax": true}'}
    assert load("play", folder=str(tmp_path), environ=environ).values["lax"] is True
    # tlog-play 12.1 has no such variable.
    loaded = load("play", folder=str(tmp_path), environ=environ, name="tlog-play")
    assert loaded.values["lax"] is False


def test_a_wrong_file_is_one_line_even_without_pydantic(tmp_path: Path) -> None:
    write(tmp_path / "rec.conf", '{"latency": 0}')
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from ttyscribe.config import ConfigError, load\n"
        "try: load('rec', folder=sys.argv[2])\n"
        "except ConfigError as error: print(error)"
    )
    source = os.path.dirname(os.path.dirname(os.path.dirname(loader.__file__)))
    shown = subprocess.run(
        [sys.executable, "-IS", "-c", code, source, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert shown.startswith(f"{tmp_path}/rec.conf: not valid; 'ttyscribe config check' would say")


def test_a_wrong_variable_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"environment TLOG_REC_CONF_TEXT:1:13: latency: 0 is"):
        load("rec", folder=str(tmp_path), environ={"TLOG_REC_CONF_TEXT": '{"latency": 0}'})
    for value in ("", "/nonexistent"):
        with pytest.raises(ConfigError, match=r"environment TLOG_REC_CONF_FILE: .*No such file"):
            load("rec", folder=str(tmp_path), environ={"TLOG_REC_CONF_FILE": value})


@pytest.mark.parametrize(
    "name",
    [
        "tlog-rec-session",
        "tlog-rec-session-shell-bin-zsh",
        "-tlog-rec-session-shell-bin-zsh",
        "tlog-rec-session-shell--bin",
        "a-shell-b-shell-c",
        "tlog-rec-session-shell-",
        "tlog-rec-session-shell",
        "-shell-bin-sh",
        "/usr/bin/tlog-rec-session-shell-usr-bin-fish",
        "/x-shell-y/tlog-rec-session",
    ],
)
def test_a_shell_in_the_name_means_what_it_means_to_tlog(name: str) -> None:
    shown = subprocess.run(
        [name, "--configuration"],
        executable="/usr/bin/tlog-rec-session",
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    theirs = fast.parse(shown)
    assert isinstance(theirs, dict)
    assert load("rec-session", name=name, folder="/nonexistent").values["shell"] == theirs["shell"]


def test_a_backslash_in_the_name_keeps_a_dash() -> None:
    name = r"ttyscribe-rec-session-shell-opt-my\-tools-zsh\\"
    loaded = load("rec-session", name=name, folder="/nonexistent")
    assert loaded.values["shell"] == "/opt/my-tools/zsh\\"
    assert loaded.origin("shell").startswith("symbolic link ttyscribe-rec-session-shell-")


def test_a_shell_in_the_name_wins_over_the_environments(tmp_path: Path) -> None:
    loaded = load(
        "rec-session",
        folder=str(tmp_path),
        environ={"TLOG_REC_SESSION_SHELL": "/bin/sh"},
        name="ttyscribe-rec-session-shell-bin-zsh",
    )
    assert loaded.values["shell"] == "/bin/zsh"


def test_a_wrong_option_is_a_usage_error_naming_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--limit-rate: '-1' is not valid; allowed: a whole"):
        load("rec", folder=str(tmp_path), command_line={"limit": {"rate": -1}})


def test_the_file_writer_of_a_login_shell_needs_a_file(tmp_path: Path) -> None:
    file = write(tmp_path / "rec-session.conf", '{\n"writer": "file"}')
    with pytest.raises(ConfigError, match=rf'{file}:2:1: writer: "file" needs a file'):
        load("rec-session", folder=str(tmp_path))


@pytest.mark.parametrize(
    "shell",
    [
        "/usr/bin/ttyscribe-rec-session",
        "/usr/bin/ttyscribe-rec-session-shell-bin-zsh",
        "/usr/local/bin/tlog-rec-session",
        "{folder}/link",
        "{folder}/another-name",
    ],
)
def test_the_login_shell_itself_is_no_shell_to_record(
    shell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would start itself, and that itself."""
    launcher = Path(write(tmp_path / "bin/ttyscribe-rec-session", ""))
    monkeypatch.setattr(sys, "executable", f"{tmp_path}/lib/ttyscribe/bin/python3")
    (tmp_path / "link").symlink_to(launcher)
    (tmp_path / "another-name").hardlink_to(launcher)
    shell = shell.format(folder=tmp_path)
    text = f'{{"on_failure": "allow", "shell": "{shell}"}}'
    file = write(tmp_path / "rec-session.conf", text)
    with pytest.raises(ConfigError) as error:
        load("rec-session", folder=str(tmp_path))
    assert str(error.value) == (
        f"{file}:1:25: shell: {shell} records; name the shell that it is to start"
    )
    # Nor is it what a login gets that is let in unrecorded.
    values = broken.values_at_failure({}, NAME, 0, str(tmp_path))
    assert (values["on_failure"], values["shell"]) == ("allow", "/bin/bash")


def test_the_configuration_shown_is_a_configuration(tmp_path: Path) -> None:
    for program in loader.PROGRAMS:
        text = dump(built_in(program))
        assert fast.accept(text, fast.load_schema(program)) == built_in(program)


def test_the_environment_of_this_process_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "TLOG_REC_CONF_TEXT", '{"latency": 0}')
    assert load("rec", folder=str(tmp_path)).values["latency"] == 10
