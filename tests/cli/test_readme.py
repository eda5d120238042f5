# SPDX-License-Identifier: Apache-2.0
"""Every command that README.md shows is run as it stands there.

A block that begins with ```sh is run by bash on a terminal, with -e, in the order of
the page. All of them share one scratch folder, which is also HOME and where the
checkout's files appear, so a block may use what an earlier one made. Where an
interactive shell comes up, `echo hello` and `exit` are typed.

A block is treated differently if one of these stands on the line before it:

    <!-- not run: REASON -->             it is only looked at
    <!-- run in CI: REASON -->           it is run where CI is set, and undone after it:
                                         the machine's installation and its users demo*
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import ptyprocess
import pytest

from ttyscribe.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PROMPT = "demo$ "
TIMEOUT = 60.0
MARKER = re.compile(r"<!-- (not run|run in CI): (.+) -->")


class Block(NamedTuple):
    """A block of commands in the page."""

    line: int
    text: str
    marker: str  # "", "not run" or "run in CI"


def blocks() -> list[Block]:
    lines = README.read_text("utf-8").splitlines() if README.exists() else []
    found = []
    for number, line in enumerate(lines):
        if line.strip() == "```sh":
            end = lines.index("```", number)
            marker = MARKER.fullmatch(lines[number - 1].strip()) if number else None
            text = "\n".join(lines[number + 1 : end]) + "\n"
            found.append(Block(number + 2, text, marker[1] if marker else ""))
    return found


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like the checkout, for what the commands write."""
    folder = tmp_path_factory.mktemp("readme")
    for path in ROOT.iterdir():
        if path.name != ".git":
            (folder / path.name).symlink_to(path)
    return folder


@pytest.fixture(scope="module")
def machine() -> Iterator[None]:
    """Removes what the blocks install on this machine, and the users they make."""
    if os.path.exists("/usr/bin/ttyscribe") or os.path.exists("/etc/ttyscribe"):
        pytest.fail("ttyscribe is installed on this machine; the test would remove it")
    try:
        yield
    finally:
        subprocess.run([ROOT / "packaging/uninstall", "--purge"], check=True)
        # What a block wrote there by hand.
        for folder in ("/etc/ttyscribe", "/var/spool/ttyscribe"):
            shutil.rmtree(folder, ignore_errors=True)
        users = subprocess.run(["getent", "passwd"], capture_output=True, text=True, check=True)
        for name in re.findall(r"^(demo\w*):", users.stdout, re.MULTILINE):
            subprocess.run(["userdel", "--force", "--remove", name], check=False)


def run_block(block: Block, scratch: Path) -> str:
    """Run a block on a terminal; what it showed. Fails the test if it fails."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(scratch),
        "LANG": "C.UTF-8",
        "TERM": "xterm-256color",
        # dash takes its prompt from the environment and reads no file.
        "SHELL": "/bin/dash",
        "PAGER": "cat",
        "PS1": PROMPT,
    }
    process = ptyprocess.PtyProcess.spawn(
        ["/bin/bash", "-e", "-c", block.text], cwd=str(scratch), env=environment
    )
    outer = ""
    with contextlib.suppress(FileNotFoundError):  # it is over already
        outer = os.readlink(f"/proc/{process.pid}/fd/0")
    keys = [b"echo hello\r", b"exit\r"]
    seen = ""
    typed = 0
    deadline = time.monotonic() + TIMEOUT
    try:
        while True:
            if select.select([process.fd], [], [], 0.2)[0]:
                try:
                    seen += process.read(65536).decode("utf-8", "replace")
                except EOFError:
                    break
            elif waits_at_prompt(seen, process.pid, outer):
                process.write(keys[typed % len(keys)])
                typed += 1
            if time.monotonic() > deadline:
                pytest.fail(f"README.md:{block.line}: not done in {TIMEOUT:.0f} s:\n{seen}")
        process.wait()
    finally:
        process.close(force=True)
    status = process.exitstatus
    assert status == 0, f"README.md:{block.line}: exit status {status}:\n{seen}"
    return seen


def waits_at_prompt(seen: str, pid: int, outer: str) -> bool:
    """Whether a recorded shell is there and its prompt is the last thing shown.

    A replayed prompt is none: while playing, nobody sits at another terminal.
    """
    if not re.search(r"[$#>] (\x1b\[[?0-9;]*[a-zA-Z])*$", seen):
        return False
    for member in descendants(pid):
        try:
            terminal = os.readlink(f"/proc/{member}/fd/0")
        except OSError:
            continue
        if terminal.startswith("/dev/pts/") and terminal != outer:
            return True
    return False


def descendants(pid: int) -> list[int]:
    """All processes below pid."""
    found = []
    waiting = [pid]
    while waiting:
        for task in Path(f"/proc/{waiting.pop()}/task").glob("*/children"):
            try:
                children = [int(child) for child in task.read_text().split()]
            except OSError:
                continue
            found += children
            waiting += children
    return found


def marked(*markers: str) -> list[object]:
    return [
        pytest.param(block, id=f"line {block.line}")
        for block in blocks()
        if block.marker in markers
    ]


def test_the_page_shows_commands() -> None:
    assert len(blocks()) >= 2


@pytest.mark.xdist_group("readme")
@pytest.mark.usefixtures("journald", "utmp")
@pytest.mark.parametrize("block", marked(""))
def test_commands_of_the_page_work_as_typed(block: Block, scratch: Path) -> None:
    run_block(block, scratch)


@pytest.mark.system
@pytest.mark.xdist_group("installed")
@pytest.mark.usefixtures("journald", "utmp")
@pytest.mark.skipif("CI" not in os.environ, reason="changes this machine: only where CI is set")
@pytest.mark.parametrize("block", marked("run in CI"))
def test_commands_that_change_the_machine_work_as_typed(
    block: Block, scratch: Path, machine: None
) -> None:
    run_block(block, scratch)


def test_every_subcommand_that_the_page_names_exists() -> None:
    text = README.read_text("utf-8")
    named = set(re.findall(r"(?:^|[`\s])(?:\./)?ttyscribe ([a-z][a-z-]+)", text, re.MULTILINE))
    code = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL))
    shown = {name for name in named if re.search(rf"ttyscribe {name}\b", code)}
    assert shown <= set(COMMANDS)


def test_every_program_of_the_checkout_that_the_page_runs_exists() -> None:
    text = "".join(block.text for block in blocks())
    programs = re.findall(r"^\s*(?:sudo )?((?:\./|packaging/|bench/|\.ci/)[\w/-]+)", text, re.M)
    assert programs
    assert [path for path in programs if not os.access(ROOT / path, os.X_OK)] == []
