# SPDX-License-Identifier: Apache-2.0
"""The manual pages are well-formed, and say of options and settings what the program says."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from tests.driving import MAIN

from ttyscribe.cli import COMMANDS
from ttyscribe.config import PROGRAMS, load
from ttyscribe.config.describe import settings

MAN = Path(__file__).resolve().parents[2] / "man"
PAGES = sorted(path.name for path in MAN.iterdir())
OURS = {"ttyscribe"} | {f"ttyscribe-{name}" for name in COMMANDS}

# What a help line says before its description: "  -w TEXT, --writer TEXT   Where ...".
OPTION_LINE = re.compile(r"\s{1,8}(-.*?)(?:\s{2,}.*)?$")
OPTION = re.compile(r"(?:^|, )(--?[A-Za-z][\w-]*)(\[?[ =][^,]*)?")


def page_of(command: str) -> Path:
    """The page of a command, whatever its section."""
    (page,) = MAN.glob(f"ttyscribe-{command}.[18]")
    return page


def run(argv: list[str]) -> str:
    # groff speaks of what a terminal of this width and locale can't show.
    env = dict(os.environ, LC_ALL="C.UTF-8", MANWIDTH="80", COLUMNS="100")
    done = subprocess.run(argv, capture_output=True, text=True, env=env, check=False)
    return done.stdout + done.stderr


@functools.cache
def help_of(words: str) -> str:
    return run([*MAIN, *words.split(), "--help"])


def options_in_help(text: str) -> dict[str, bool]:
    """Every option that a help text lists, and whether it takes a value."""
    found: dict[str, bool] = {}
    for line in text.splitlines():
        listed = OPTION_LINE.match(line)
        if listed:
            pairs = OPTION.findall(listed[1])
            # Hand-written help names the value once: "-r, --reader NAME".
            found |= dict.fromkeys((name for name, _ in pairs), any(value for _, value in pairs))
    return found


def options_in_page(source: str) -> dict[str, bool]:
    """The same for a page's lists: ".It Fl w Ar TEXT , Fl -writer Ar TEXT"."""
    found: dict[str, bool] = {}
    for line in re.findall(r"^\.It (Fl .*)$", source, re.MULTILINE):
        for part in re.split(r"(?:^| , )Fl ", line)[1:]:
            name, _, rest = part.partition(" ")
            found[f"-{name}"] = "Ar" in rest.split()
    return found


def sections(source: str, macro: str) -> dict[str, str]:
    """A page's parts below each heading ".Sh TITLE" or ".Ss title"."""
    parts = re.split(rf"^\.{macro} (.*)$", source, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("page", PAGES)
def test_mandoc_finds_nothing_to_complain_about(page: str) -> None:
    lines = run(["mandoc", "-Tlint", str(MAN / page)]).splitlines()
    # What other pages this machine has, and knows of, says nothing about this one.
    other = ("referenced manual not found", "outdated mandoc.db")
    assert [line for line in lines if not any(what in line for what in other)] == []


@pytest.mark.parametrize("page", PAGES)
def test_man_formats_it_without_a_warning(page: str) -> None:
    argv = ["man", "--warnings", "--local-file", str(MAN / page)]
    done = subprocess.run(
        argv, capture_output=True, text=True, env=dict(os.environ, LC_ALL="C.UTF-8"), check=True
    )
    assert done.stderr == ""
    assert "NAME" in done.stdout


@pytest.mark.parametrize("page", PAGES)
def test_its_title_is_its_name_and_section(page: str) -> None:
    name, _, section = page.rpartition(".")
    source = (MAN / page).read_text()
    assert f"\n.Dt {name.upper()} {section}\n" in source
    assert f"\n.Nm {name}\n.Nd " in source


@pytest.mark.parametrize("page", PAGES)
def test_each_page_of_ours_that_it_refers_to_is_there(page: str) -> None:
    found = re.findall(r"^\.Xr (ttyscribe\S*) (\d)", (MAN / page).read_text(), re.MULTILINE)
    assert found
    assert {f"{name}.{section}" for name, section in found} <= set(PAGES)


def test_there_is_a_page_for_each_command_and_configuration_file() -> None:
    expected = OURS | {f"ttyscribe-{program}.conf" for program in PROGRAMS}
    assert {page.rpartition(".")[0] for page in PAGES} == expected


def test_the_main_page_lists_the_commands_and_its_options() -> None:
    source = (MAN / "ttyscribe.1").read_text()
    listed = re.findall(r"^\.It Cm (\S+)$", sections(source, "Sh")["COMMANDS"], re.MULTILINE)
    assert listed == list(COMMANDS)
    assert options_in_page(source) == options_in_help(run([*MAIN, "--help"]))


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "config"])
def test_a_page_and_its_commands_help_list_the_same_options(command: str) -> None:
    listed = options_in_help(help_of(command))
    assert "--help" in listed
    assert options_in_page(page_of(command).read_text()) == listed


def test_the_config_page_lists_the_options_of_each_action() -> None:
    source = page_of("config").read_text()
    actions = re.findall(r"^    (\w+)  ", help_of("config"), re.MULTILINE)
    assert list(sections(source, "Ss")) == actions
    for action in actions:
        part = re.split(r"^\.Sh ", sections(source, "Ss")[action], flags=re.MULTILINE)[0]
        assert options_in_page(part) == options_in_help(help_of(f"config {action}")), action


def test_the_rec_page_gives_the_same_defaults_as_the_help() -> None:
    items = re.split(r"^\.It ", page_of("rec").read_text(), flags=re.MULTILINE)
    # Each option with what is indented below it.
    helped = re.findall(r"^  -.*\n(?:   .*\n)*", help_of("rec"), re.MULTILINE)
    compared = 0
    for text in helped:
        default = re.search(r"\(default\s+(\S+?)\)", text)
        if default:
            names = options_in_help(text)
            item = next(i for i in items if names.items() <= options_in_page(f".It {i}").items())
            assert re.search(rf"\(default\s{re.escape(default[1])}\)", item), names
            compared += 1
    assert compared > 10


@pytest.mark.parametrize("command", COMMANDS)
def test_a_page_names_every_exit_status_that_the_help_names(command: str) -> None:
    told = re.search(r"^Exit status:(.*?)(?:\n\n|\Z)", help_of(command), re.MULTILINE | re.DOTALL)
    # "128+N" is no number to look for.
    numbers = set(re.findall(r"\b\d+\b(?!\+)", told[1] if told else "0 1 2"))
    explained = sections(page_of(command).read_text(), "Sh")["EXIT STATUS"]
    # Those of a shell are told as its own.
    assert numbers - {"0"} <= set(re.findall(r"\d+", explained))


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_conf_page_shows_every_setting_with_its_default(program: str) -> None:
    shown = run(["mandoc", "-Tutf8", "-Owidth=500", str(MAN / f"ttyscribe-{program}.conf.5")])
    lines = re.sub(r".\x08", "", shown).splitlines()
    for path, part in settings(program):
        below = "\n".join(lines[lines.index(f"     {path}") :]) if f"     {path}" in lines else ""
        if not below:  # a short name has its text beside it
            below = "\n".join(line for line in lines if line.startswith(f"     {path} "))
        default = json.dumps(part["default"], ensure_ascii=False)
        assert f"Default: {default}." in below.partition("\n\n")[0], path


def examples(source: str) -> list[str]:
    """The literal blocks of a page, as a reader sees them."""
    blocks = re.findall(r"^\.Bd -literal.*\n((?:.*\n)*?)\.Ed$", source, re.MULTILINE)
    return [block.replace("\\e", "\\") for block in blocks]


@pytest.mark.parametrize("page", PAGES)
def test_its_examples_use_options_that_there_are(page: str) -> None:
    for block in examples((MAN / page).read_text()):
        for line in block.replace("\\\n", " ").splitlines():
            words = line.partition("ttyscribe ")[2].partition("|")[0].split()
            if not words or words[0] not in COMMANDS:
                continue
            action = words[1] if words[0] == "config" else ""
            listed = options_in_help(help_of(f"{words[0]} {action}".strip()))
            # What stands behind -c is another program's.
            used = [word for word in words if re.match(r"--?[a-z]", word, re.IGNORECASE)]
            assert set(used) <= set(listed), line


@pytest.mark.parametrize("page", [page for page in PAGES if page.endswith((".5", "recorder.8"))])
def test_its_examples_of_configuration_are_valid(page: str, tmp_path: Path) -> None:
    name = page.removeprefix("ttyscribe-").removesuffix(".conf.5")
    program = name if name in PROGRAMS else "rec-session"
    blocks = [block for block in examples((MAN / page).read_text()) if block.startswith("{")]
    assert blocks
    for block in blocks:
        path = tmp_path / f"{program}.conf"
        path.write_text(block)
        assert load(program, files=[str(path)]).warnings == []
