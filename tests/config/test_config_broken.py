# SPDX-License-Identifier: Apache-2.0
"""What a configuration that is refused still says about its own failure."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ttyscribe import config
from ttyscribe.config.broken import values_at_failure
from ttyscribe.errors import ConfigError

USER = 12345
CHOSEN = '"on_failure": "allow", "on_failure_root": "deny", "shell": "/bin/sh"'
WRONG = '"latency": "soon"'


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not below /tmp, which a user could write to.
    with tempfile.TemporaryDirectory(dir="/run") as name:
        folder = Path(name)
        (folder / "rec-session.conf.d").mkdir()
        yield folder


def chosen(folder: Path, name: str = "ttyscribe-rec-session") -> tuple[str, str, str]:
    with pytest.raises(ConfigError):
        config.load("rec-session", name=name, user=USER, folder=str(folder))
    values = values_at_failure({}, name, USER, str(folder))
    return values["on_failure"], values["on_failure_root"], values["shell"]


BUILT_IN = ("deny", "allow", "/bin/bash")


def test_mistake_elsewhere_takes_nothing_from_the_choice(folder: Path) -> None:
    (folder / "rec-session.conf").write_text(f'{{{CHOSEN}, {WRONG}, "no such": 1}} // end')
    assert chosen(folder) == ("allow", "deny", "/bin/sh")
    assert chosen(folder, "-ttyscribe-rec-session-shell-bin-zsh")[2] == "/bin/zsh"


def test_later_file_changes_the_choice(folder: Path) -> None:
    (folder / "rec-session.conf").write_text(f"{{{CHOSEN}}}")
    (folder / "rec-session.conf.d/9.conf").write_text(f'{{"on_failure": "deny", {WRONG}}}')
    assert chosen(folder) == ("deny", "deny", "/bin/sh")


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"on_failure": "maybe"}', "\udcff", '{"shell": "sh"}']
)
def test_choice_that_is_not_whole_is_none(folder: Path, text: str) -> None:
    (folder / "rec-session.conf").write_text(f"{{{CHOSEN}}}")
    data = text.encode(errors="surrogateescape")
    (folder / "rec-session.conf.d/9.conf").write_bytes(data)
    assert chosen(folder) == BUILT_IN


def test_no_choice_comes_of_whatever_goes_wrong(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "rec-session.conf").write_text(f"{{{CHOSEN}, {WRONG}}}")
    assert chosen(folder)[0] == "allow"

    def fail(text: str) -> object:
        raise SystemError("a fault of the interpreter's")

    monkeypatch.setattr("ttyscribe.config.fast.parse", fail)
    values = values_at_failure({}, "ttyscribe-rec-session", USER, str(folder))
    assert (values["on_failure"], values["on_failure_root"], values["shell"]) == BUILT_IN


def test_file_that_the_user_could_change_chooses_nothing(folder: Path) -> None:
    file = folder / "rec-session.conf"
    file.write_text(f"{{{CHOSEN}}}")
    file.chmod(0o666)
    assert chosen(folder) == BUILT_IN


def test_choice_is_none_where_a_link_leads_nowhere(folder: Path) -> None:
    (folder / "rec-session.conf").write_text(f"{{{CHOSEN}}}")
    (folder / "rec-session.conf.d/9.conf").symlink_to("/srv/nowhere.conf")
    assert chosen(folder) == BUILT_IN
