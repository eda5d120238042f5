# SPDX-License-Identifier: Apache-2.0
"""Every key of every program: valid, invalid, layered, and where it came from."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ttyscribe.config import ConfigError, describe, fast, load
from ttyscribe.config.check import examine

PROGRAMS = ("rec", "rec-session", "play")
KEYS = [(program, path, part) for program in PROGRAMS for path, part in describe.settings(program)]
IDS = [f"{program}:{path}" for program, path, _ in KEYS]

# Values tried for every key; its schema says which of them are valid.
LIST = ["a", "b c"]


def others(part: fast.Schema) -> list[object]:
    """Valid values of a setting, none of them the built-in one."""
    if "x-comma-separated" in part:
        return [LIST, "a, b c"]
    if "anyOf" in part:
        return [v for p in part["anyOf"] for v in others(p)]  # type: ignore[attr-defined]
    if "enum" in part:
        return [v for v in part["enum"] if v != part.get("default")]  # type: ignore[attr-defined]
    match part["type"]:
        case "boolean":
            return [not part.get("default")]
        case "array":
            return [LIST]
        case "string":
            return ["/other path/ü"]
        case "null":
            return []
        case _:
            low = part.get("minimum", 1)
            return [value for value in (low, 77, part["maximum"]) if value != part.get("default")]


def wrong(part: fast.Schema) -> list[object]:
    """Values that a setting can't have."""
    kinds = describe.kinds(part)
    found: list[object] = [{}, {"a": 1}, -1, 10**30, [1], [[]], [""], ["a\0b"], 1e300]
    if "null" not in kinds:
        found.append(None)
    if "boolean" not in kinds:
        found += [True, False]
    if "string" not in kinds:
        found += ["", "5", "true"]
    else:
        found.append("a\0b")
    if "enum" in part:
        found += ["", "PASS", "nonsense"]
    if "array" not in kinds:
        found.append([])
    if not kinds & {"integer", "number"}:
        found += [0, 1]
    if "number" not in kinds:
        found.append(1.5)
    return found


def nested(path: str, value: object) -> dict[str, object]:
    for key in reversed(path.split(".")):
        value = {key: value}
    return value  # type: ignore[return-value]


def at(values: object, path: str) -> object:
    for key in path.split("."):
        values = values[key]  # type: ignore[index]
    return values


def normal(part: fast.Schema, value: object) -> object:
    """The value as it is in effect."""
    return LIST if "x-comma-separated" in part else value


def extra(program: str, path: str, value: object) -> dict[str, object]:
    """What a setting needs beside it to make sense."""
    if program == "rec-session" and (path, value) == ("writer", "file"):
        return {"file": {"path": "/log"}}
    return {}


@pytest.mark.parametrize(("program", "path", "part"), KEYS, ids=IDS)
def test_a_valid_value_is_in_effect(
    program: str, path: str, part: fast.Schema, tmp_path: Path
) -> None:
    file = tmp_path / f"{program}.conf"
    assert others(part)
    for value in others(part):
        text = json.dumps(nested(path, value) | extra(program, path, value))
        assert fast.accept(text, fast.load_schema(program)) is not None
        file.write_text(text)
        loaded = load(program, folder=str(tmp_path))
        assert at(loaded.values, path) == normal(part, value)


@pytest.mark.parametrize(("program", "path", "part"), KEYS, ids=IDS)
def test_a_wrong_value_is_refused_with_its_place_and_what_is_allowed(
    program: str, path: str, part: fast.Schema, tmp_path: Path
) -> None:
    file = tmp_path / f"{program}.conf"
    for value in wrong(part):
        text = "// a comment\n" + json.dumps(nested(path, value))
        file.write_text(text)
        with pytest.raises(ConfigError) as caught:
            load(program, folder=str(tmp_path))
        assert str(caught.value).startswith(f"{file}:2:")
        assert f" {path}" in str(caught.value)
        (problem, *_) = examine(program, text)[1]
        # The column of the value itself, or of the wrong one in it.
        column = len(json.dumps(nested(path, 0))) - path.count(".") - 1
        if not isinstance(value, list | dict):
            assert (problem.line, problem.column) == (2, column)
        assert problem.allowed


@pytest.mark.parametrize(("program", "path", "part"), KEYS, ids=IDS)
def test_a_later_layer_wins_and_is_named_as_the_origin(
    program: str, path: str, part: fast.Schema, tmp_path: Path
) -> None:
    one, *more = others(part)
    two = more[0] if more else part["default"]
    main = tmp_path / f"{program}.conf"
    folder = tmp_path / f"{program}.conf.d"
    folder.mkdir()
    assert load(program, folder=str(tmp_path)).origin(path) == "built-in"

    main.write_text("{\n  " + json.dumps(nested(path, one) | extra(program, path, one))[1:])
    loaded = load(program, folder=str(tmp_path))
    column = 3 + sum(len(key) + 5 for key in path.split(".")[:-1])
    assert loaded.origin(path) == f"{main}:2:{column}"
    assert at(loaded.values, path) == normal(part, one)

    drop_in = folder / "10-this.conf"
    drop_in.write_text(json.dumps(nested(path, two) | extra(program, path, two)))
    (folder / "05-earlier.conf").write_text(
        json.dumps(nested(path, one) | extra(program, path, one))
    )
    (folder / "20-ignored.conf~").write_text("{")
    (folder / ".hidden.conf").write_text("{")
    loaded = load(program, folder=str(tmp_path))
    assert loaded.origin(path).startswith(f"{drop_in}:1:")
    expected = part["default"] if two is part["default"] else normal(part, two)
    assert at(loaded.values, path) == expected

    given = normal(part, one)
    loaded = load(
        program,
        folder=str(tmp_path),
        command_line=nested(path, given) | extra(program, path, given),
    )
    assert loaded.origin(path) == "command line"
    assert at(loaded.values, path) == given


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_built_in_values_are_those_of_tlog_where_tlog_has_the_key(program: str) -> None:
    import subprocess

    shown = subprocess.run(
        [f"tlog-{program}", "--configuration"], capture_output=True, stdin=subprocess.DEVNULL
    ).stdout
    theirs = json.loads(shown[shown.index(b"{") :])
    ours = load(program, folder="/nonexistent").values
    del theirs["configuration"], theirs["args"]
    for path, value in leaves(theirs):
        assert at(ours, path) == value, path


def leaves(values: dict[str, object], prefix: str = "") -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for key, value in values.items():
        if isinstance(value, dict):
            found += leaves(value, f"{prefix}{key}.")
        else:
            found.append((prefix + key, value))
    return found


@pytest.mark.parametrize("program", PROGRAMS)
def test_tlogs_shipped_file_is_valid_unchanged_and_changes_nothing(program: str) -> None:
    file = f"/etc/tlog/tlog-{program}.conf"
    with open(file) as conf:
        assert fast.accept(conf.read(), fast.load_schema(program)) is not None
    loaded = load(program, name=f"tlog-{program}", user=os.getuid())
    assert loaded.values == load(program, folder="/nonexistent").values
