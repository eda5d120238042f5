# SPDX-License-Identifier: Apache-2.0
"""`ttyscribe rec-session`: the command line and the manners of a shell."""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.driving import MAIN, run

if TYPE_CHECKING:
    from tests.conftest import Journald

SESSION = [*MAIN, "rec-session"]
LOCKS = Path("/run/ttyscribe/lock")


@pytest.fixture(autouse=True, scope="module")
def lock_folder() -> Iterator[None]:
    """What an installation makes at each boot, without which a login is a failure."""
    missing = [path for path in (LOCKS.parent, LOCKS) if not path.exists()]
    for path in missing:
        path.mkdir()
    LOCKS.chmod(0o1777)
    yield
    if missing:
        shutil.rmtree(missing[0])


def test_help_and_version_are_ours_as_the_only_argument() -> None:
    assert b"on_failure" in run([*SESSION, "--help"]).stdout
    assert run([*SESSION, "--version"]).stdout.startswith(b"ttyscribe rec-session ")


@pytest.mark.parametrize("option", ["-c", "--command"])
def test_command_runs_as_in_bash(journald: Journald, option: str) -> None:
    script = "echo $0 $1 $SHELL; echo err >&2; exit 5"
    done = run([*SESSION, option, script, "name", "arg"])
    assert done.stdout == b"name arg /bin/bash\n"
    assert (done.stderr, done.returncode) == (b"err\n", 5)


def test_login_option_makes_a_login_shell(journald: Journald) -> None:
    for options, shown in ((["-l"], b"yes\n"), (["--login"], b"yes\n"), ([], b"no\n")):
        done = run([*SESSION, *options, "-c", "shopt -q login_shell && echo yes || echo no"])
        assert done.stdout == shown


def test_words_of_a_script_or_command_are_its_own(journald: Journald, tmp_path: Path) -> None:
    words = ["--login", "--command", "x", "--interactive"]
    shown = b"".join(b"[%b]" % word.encode() for word in words)
    script = tmp_path / "args.sh"
    script.write_text('printf "[%s]" "$@"\n')
    assert run([*SESSION, str(script), *words]).stdout == shown
    for option in ("-c", "--command"):
        assert run([*SESSION, option, 'printf "[%s]" "$@"', "name", *words]).stdout == shown
    line = b'printf "[%s]" --login --command x --interactive'
    assert run([*SESSION, "-s", "--", *words], data=b'printf "[%s]" "$@"\n').stdout == shown
    assert run([*SESSION, "--login", "--command", line.decode()]).stdout == shown


def test_death_by_signal_is_ours(journald: Journald) -> None:
    assert run([*SESSION, "-c", "kill -TERM $$"]).returncode == -signal.SIGTERM


def test_input_and_its_end_reach_the_shell(journald: Journald) -> None:
    data = bytes(range(256)) * 12_000
    assert run([*SESSION, "-c", "cat; echo end"], data=data).stdout == data + b"end\n"
    assert run(SESSION, data=b"echo from stdin\n").stdout == b"from stdin\n"


def test_nobody_can_trace_it_while_it_looks_at_what_git_would_serve() -> None:
    """Who could, would have it run anything in the place of git, unrecorded."""
    code = """if True:
        import ctypes, os, sys
        from ttyscribe.cli.rec_session import launched
        from ttyscribe.session import skip
        def asked(*_):
            print("dumpable", ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), flush=True)
            os._exit(0)
        skip.asks_git = asked
        launched("-sh", ["-c", "git-upload-pack x"], dict(os.environb))
    """
    assert run([sys.executable, "-c", code]).stdout == b"dumpable 0\n"
