# SPDX-License-Identifier: Apache-2.0
"""Full-screen programs show the same screen with and without the recording login shell."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.system import sides
from tests.system.ownmachine import USER, OwnMachine, own_machine
from tests.system.sides import Side, Sshd

pytestmark = pytest.mark.system

HOME = Path(f"/home/{USER}")
SIZE = (80, 24)
LARGER = (101, 31)
TIMEOUT = 20.0
# A screen is taken to be complete when it has not changed for this long, in seconds.
REST = 0.3
# Some screens of vttest are the same as the one before; a key that comes early is lost there.
SAME = 1.5


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnMachine]:
    with own_machine(tmp_path_factory.mktemp("machine")) as machine:
        machine.add_user(USER)
        furnish_home()
        yield machine


class Screen:
    """A login of USER in a terminal of 80 by 24, and what is seen there."""

    def __init__(self, side: Side, folder: Path) -> None:
        side.enter()
        self._tmux = ["tmux", "-S", str(folder / f"tmux-{side.name}"), "-f", "/dev/null"]
        self._columns, self._rows = SIZE
        # A login, as getty and sshd make one: the outer tmux's own variables are not its user's.
        self._run(
            "new-session", "-d", "-x", str(SIZE[0]), "-y", str(SIZE[1]),
            f"env -u TMUX -u TMUX_PANE su - {USER}",
        )  # fmt: skip
        self._run("set", "-g", "status", "off", ";", "set", "-g", "remain-on-exit", "on")
        self.until(r"ready\$ ?$")
        self.keys("clear", "Enter")
        self.until(r"\Aready\$ ?$")

    def keys(self, *keys: str) -> None:
        """Press keys, as tmux names them."""
        self._run("send-keys", *keys)

    def resize(self, columns: int, rows: int) -> None:
        self._run("resize-window", "-x", str(columns), "-y", str(rows))

    def seen(self) -> str:
        shown = self._run("capture-pane", "-p", "-e").rstrip("\n")
        cursor = self._run("display", "-p", "#{cursor_x},#{cursor_y} #{alternate_on}")
        return masked(shown) + "\n" + cursor

    def until(self, pattern: str, rest: float = REST, before: str = "") -> str:
        """The screen, once it matches and has not changed for rest seconds.

        If it is as before, it may be that of the step before, for as long as SAME.
        """
        deadline = time.monotonic() + TIMEOUT
        since, last = time.monotonic(), ""
        while True:
            text = masked(self._run("capture-pane", "-p").rstrip("\n"))
            seen = self.seen()
            wanted = SAME if seen == before else rest
            if seen != last:
                since, last = time.monotonic(), seen
            elif re.search(pattern, text) and time.monotonic() - since >= wanted:
                return seen
            assert time.monotonic() < deadline, f"no {pattern!r}:\n{text}"
            time.sleep(0.03)

    def until_same(self, expected: str) -> None:
        """Wait until the screen is as expected, which it is to stay."""
        deadline = time.monotonic() + TIMEOUT
        while self.seen() != expected and time.monotonic() < deadline:
            time.sleep(0.03)
        assert self.seen() == expected

    def close(self) -> None:
        subprocess.run([*self._tmux, "kill-server"], check=False, capture_output=True)

    def _run(self, *words: str) -> str:
        env = {"PATH": os.environ["PATH"], "TERM": "xterm-256color", "LANG": "C.UTF-8"}
        done = subprocess.run([*self._tmux, *words], capture_output=True, env=env, check=False)
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout.decode()


class Step(NamedTuple):
    """Keys to press, and what is on the screen then: pattern, and all of it unless it is live."""

    keys: tuple[str, ...]
    pattern: str
    live: bool = False


def program(command: str, pattern: str, *steps: Step) -> list[Step]:
    return [Step((command, "Enter"), pattern), *steps]


PROGRAMS = {
    "vttest": program(
        "vttest", "Enter choice number",
        Step(("1", "Enter"), r"The screen should be cleared|frame of E"),
        *[Step(("Enter",), "Push <RETURN>") for _ in range(5)],
        Step(("Enter",), "Enter choice number"),
        Step(("2", "Enter"), "Push <RETURN>"),
        *[Step(("Enter",), "Push <RETURN>") for _ in range(7)],
    ),
    "vttest, character sets": program(
        "vttest", "Enter choice number",
        Step(("3", "Enter"), "DEC Special graphics"),
    ),
    "vttest, double size": program(
        "vttest", "Enter choice number",
        Step(("4", "Enter"), "Push <RETURN>"),
        *[Step(("Enter",), "Push <RETURN>") for _ in range(4)],
    ),
    "vim": program(
        "vim -n -u NONE -N text", "line 1",
        Step(("o", "typed äé €", "Escape", ":syntax on", "Enter"), "typed"),
        Step((":vsplit | split", "Enter", "G", "C-b"), "line"),
        Step(("/line 77", "Enter"), "line 77"),
        Step((":qa!", "Enter"), r"ready\$ ?$"),
    ),
    "less": program(
        "less text", "line 1",
        Step(("Space",), "line 30"),
        Step(("/line 150", "Enter"), "line 150"),
        Step(("G",), "END"),
        Step(("q",), r"ready\$ ?$"),
    ),
    "tmux": program(
        "tmux -L inner -f tmux.conf new", r"ready\$ ?$",
        Step(("C-b", "%"), r"│ready\$"),
        Step(("C-b", '"'), "─"),
        Step(("seq 5 | cat -n", "Enter"), r"5\t?\s+5"),
        Step(("C-b", "z"), r"5\t?\s+5"),
    ),
    "htop": [
        Step(("htop", "Enter"), "F1Help", live=True),
        Step(("F1",), "CPU usage bar"),
    ],
    "mc": program(
        "mc -u -d work/within work/within", "1Help",
        Step(("Down", "Down"), "1Help"),
        Step(("F9",), "Left"),
        Step(("Down",), "File listing"),
        Step(("Escape", "Escape"), "1Help"),
        Step(("F1",), "Help"),
        Step(("Escape", "Escape"), "1Help"),
    ),
    "whiptail": program(
        "whiptail --title Setup --menu 'Choose one' 15 50 4 a First b Second c Third", "First",
        Step(("Down",), "Second"),
        Step(("Tab",), "Ok"),
        Step(("Enter",), r"b.*ready\$ ?$"),
    ),
    "dialog": program(
        "dialog --no-shadow --title Setup --gauge 'Copying' 8 50 40 </dev/null;"
        " dialog --title Setup --form 'Who' 12 50 3 Name 1 1 '' 1 10 20 20 Host 2 1 x 2 10 20 20",
        "Name",
        Step(("alice", "Down", "C-u", "host.example"), "host.example"),
        Step(("Tab", "Enter"), "(?s)alice.*host.example"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_program_shows_the_same_screens(
    machine: OwnMachine, sshd: Sshd, ours: Side, tmp_path: Path, name: str
) -> None:
    steps = PROGRAMS[name]
    expected = screens(machine, sshd, tmp_path, name, steps)
    before = ours.log_size()
    recorded = Screen(ours, tmp_path)
    before_it = ""
    try:
        for step, wanted in zip(steps, expected, strict=True):
            recorded.keys(*step.keys)
            if step.live:
                recorded.until(step.pattern, 0)
            else:
                if wanted == before_it:
                    time.sleep(SAME)
                recorded.until_same(wanted)
            before_it = wanted
        assert ours.log_size() > before
    finally:
        recorded.close()


def test_window_size_follows(machine: OwnMachine, sshd: Sshd, ours: Side, tmp_path: Path) -> None:
    plain, recorded = Screen(sides.plain_bash(machine, sshd), tmp_path), Screen(ours, tmp_path)
    try:
        for screen in (plain, recorded):
            screen.keys("vim -n -u NONE -N text", "Enter")
        recorded.until_same(plain.until("line 1"))
        for size in (LARGER, (40, 10), SIZE):
            for screen in (plain, recorded):
                screen.resize(*size)
            recorded.until_same(plain.until("line 1"))
        for screen in (plain, recorded):
            screen.keys(":q", "Enter")
            screen.until(r"ready\$ ?$")
            screen.keys("stty size; echo $LINES $COLUMNS; tput cols", "Enter")
        recorded.until_same(plain.until("24 80\n24 80"))
    finally:
        plain.close()
        recorded.close()


SEEN: dict[str, list[str]] = {}


def screens(
    machine: OwnMachine, sshd: Sshd, folder: Path, name: str, steps: list[Step]
) -> list[str]:
    """What steps show with bash alone."""
    if name not in SEEN:
        screen = Screen(sides.plain_bash(machine, sshd), folder)
        try:
            found: list[str] = []
            for step in steps:
                screen.keys(*step.keys)
                rest = 0 if step.live else REST
                found.append(screen.until(step.pattern, rest, found[-1] if found else ""))
            SEEN[name] = found
        finally:
            screen.close()
    return SEEN[name]


def masked(text: str) -> str:
    """The screen without what differs from one moment to the next."""
    text = re.sub(r"(?m)^Hint: .*$", "Hint", text)
    return re.sub(r"[\d.]+[MG] ?/ ?[\d.]+[MG] \(\d+%\)", "SPACE", text)


def furnish_home() -> None:
    (HOME / "text").write_text("".join(f"line {n}\n" for n in range(1, 201)))
    (HOME / "tmux.conf").write_text("set -g status off\nset -g default-terminal screen-256color\n")
    with (HOME / ".bash_profile").open("a") as profile:
        profile.write("export LANG=C.UTF-8 TMPDIR=$HOME/tmp TMUX_TMPDIR=$HOME/tmp\n")
    (HOME / "tmp").mkdir()
    work = HOME / "work/within"
    work.mkdir(parents=True)
    for number in range(12):
        file = work / f"file{number}"
        file.write_text("x" * number * 100)
        os.utime(file, (1_700_000_000, 1_700_000_000))
    for folder in (work, work.parent):
        os.utime(folder, (1_700_000_000, 1_700_000_000))
    for path in (HOME, *HOME.rglob("*")):
        shutil.chown(path, USER, USER)
