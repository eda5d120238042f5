# SPDX-License-Identifier: Apache-2.0
"""The same entry on both sides, and what there is to see and wait for at a root's prompt."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.driving import Terminal
from tests.system import sides
from tests.system.ownmachine import NOTICE, USER
from tests.system.sides import PATH, Result, Side

from ttyscribe.terminal.job import Job

TIMEOUT = 30
# Typed at root's prompt, it becomes the user's login shell.
AS_USER = f"setpriv --reuid {USER} --regid {USER} --clear-groups env HOME=/home/{USER} $SH"


def compared(
    bash: Side, ours: Side, entry: Callable[[Side], Result], *, terminal: bool = False
) -> None:
    """Run entry on both sides and compare; ours must have been recorded."""
    bash.enter()
    expected = sides.masked(entry(bash))
    ours.enter()
    before = ours.log_size()
    found, notices = sides.without_notice(sides.masked(entry(ours)))
    assert found == expected
    assert notices == (1 if terminal else 0)
    assert ours.log_size() > before, "not recorded"


def without_notices(result: Result) -> Result:
    """result without notices, where it is no matter whether there are any."""
    return sides.without_notice(result)[0]


@contextlib.contextmanager
def root_prompt(side: Side, *options: str, term: str = "dumb") -> Iterator[Terminal]:
    """A root's bash on a terminal, at its prompt; SH is the side's shell."""
    env = {"PATH": PATH + ":/usr/sbin:/sbin", "TERM": term, "PS1": "root# ", "SH": side.shell}
    with Terminal(["bash", "--norc", *options], env=env) as terminal:
        terminal.expect(rb"root# ")
        yield terminal


def screen(terminal: Terminal) -> bytes:
    return terminal.seen.replace(NOTICE.rstrip("\n").encode() + b"\r\n", b"")


def at_a_root_prompt(side: Side, line: str, *after: str) -> Result:
    """What a root's shell shows of a line on a terminal, and of those that come after it."""
    side.enter()
    with root_prompt(side, "--noediting", "-i") as terminal:
        for each in (line, *after):
            terminal.line(each + "; echo status $?.")
            terminal.expect(rb"status \d+\.\r?\n.*root# ", timeout=TIMEOUT)
        terminal.line("stty -a | grep -owE -e '-?(icanon|echo|opost|isig)'")
        terminal.expect(rb"icanon\r?\n.*root# ")
    shown = re.sub(rb"\[1\] \d+", b"[1] PID", screen(terminal))
    # A terminal that another one shows has made line ends of its own.
    return Result(shown.replace(b"\r\r", b"\r"), b"", 0)


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def asleep(side: Side, seconds: str) -> bool:
    """Whether a sleep itself runs, not only who is to start it, and is not stopped.

    And who is to wait for it does: su, once woken, wakes what a key has stopped meanwhile.
    """
    jobs = side.machine.running("sleep", seconds, whole=True)
    return any(all(state_of(pid) == "S" for pid in line_of(job)) for job in jobs)


def line_of(pid: int) -> Iterator[int]:
    """A process, and those that it comes from."""
    while pid not in (0, 1, os.getpid()):
        yield pid
        pid = Job(pid).parent


def ended(side: Side) -> dict[str, bool]:
    """For each recording whether its last message is the end."""
    return {
        rec: (found[-1].extra or {}).get("event") == "end"
        for rec, found in side.recordings().items()
    }
