# SPDX-License-Identifier: Apache-2.0
"""What is generated from the models is up to date and does what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from ttyscribe.config import built_in, fast, generate, jsonc
from ttyscribe.config.models import MODELS

PROGRAMS = tuple(MODELS)
CONF = Path(generate.CONF)


def test_the_generated_files_are_up_to_date() -> None:
    for path, text in generate.files().items():
        assert Path(path).read_text() == text, f"run python -m ttyscribe.config.generate: {path}"


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_schema_is_a_valid_json_schema(program: str) -> None:
    jsonschema.Draft202012Validator.check_schema(generate.schema(program))


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_default_file_is_valid_by_jsonschema_and_changes_nothing(program: str) -> None:
    text = (CONF / f"{program}.conf").read_text()
    parsed = jsonc.parse(text)
    assert parsed.root is not None
    assert parsed.mistakes == []
    jsonschema.validate(parsed.root.plain(), generate.schema(program))
    values = fast.accept(text, fast.load_schema(program))
    assert values is not None
    assert all(section == {} for section in values.values())


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_default_file_uncommented_has_every_built_in_value(program: str) -> None:
    text = (CONF / f"{program}.conf").read_text()
    text = re.sub(r'^( *)// (?="\w+": )', r"\1", text, flags=re.MULTILINE)
    parsed = jsonc.parse(text)
    assert parsed.root is not None
    jsonschema.validate(parsed.root.plain(), generate.schema(program))
    assert fast.accept(text, fast.load_schema(program)) == built_in(program)


@pytest.mark.parametrize("program", PROGRAMS)
def test_any_one_setting_of_the_default_file_can_be_uncommented(program: str) -> None:
    text = (CONF / f"{program}.conf").read_text()
    settings = list(re.finditer(r'// (?="\w+": )', text))
    assert settings
    for found in settings:
        changed = text[: found.start()] + text[found.end() :]
        assert fast.accept(changed, fast.load_schema(program)) is not None, found


def test_the_models_defaults_are_those_of_the_schemas() -> None:
    for program, model in MODELS.items():
        assert model().model_dump() == built_in(program)


def test_the_login_path_imports_nothing_heavy() -> None:
    heavy = "pydantic|typing|dataclasses|enum|re|json|inspect|pathlib|argparse|functools"
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from ttyscribe.config import load\n"
        "loaded = load('rec-session', environ={}, name='-ttyscribe-rec-session', user=1000,"
        " files=[sys.argv[2]], groups=())\n"
        "assert loaded.values['latency'] == 10\n"
        "print('\\n'.join(sys.modules))"
    )
    source = str(Path(generate.HERE).parent.parent)
    shown = subprocess.run(
        [sys.executable, "-IS", "-c", code, source, "/etc/tlog/tlog-rec-session.conf"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert re.findall(rf"^(?:{heavy})$", shown, re.MULTILINE) == []
