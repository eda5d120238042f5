# SPDX-License-Identifier: Apache-2.0
"""A login that su, sudo or a script starts at root's prompt, against bash: keys, jobs, modes."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.driving import Terminal, wait_until
from tests.system.comparing import (
    AS_USER,
    asleep,
    at_a_root_prompt,
    compared,
    ended,
    root_prompt,
    screen,
    state_of,
    without_notices,
)
from tests.system.ownmachine import USER, OwnMachine, own_machine
from tests.system.sides import PATH, Result, Side

from ttyscribe.events import OUTPUT
from ttyscribe.terminal.job import Job
from ttyscribe.tlog import Decoder

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnMachine]:
    with own_machine(tmp_path_factory.mktemp("machine")) as machine:
        machine.add_user(USER)
        yield machine


def test_a_shell_under_su_suspends_to_the_shell_it_came_from(bash: Side, ours: Side) -> None:
    def session(side: Side) -> Result:
        side.enter()
        with root_prompt(side, "-i", term="xterm") as terminal:
            terminal.line(f"su {USER}")
            terminal.expect(rb"ready\$ ")
            for _ in range(2):
                terminal.line("suspend")
                terminal.expect(rb"Stopped.*root# ")
                # Each key is the outer shell's.
                for word in ("id -un", "stty -a | grep -o ' echo '", "jobs"):
                    terminal.line(word)
                    terminal.expect(rb"root# ")
                terminal.line("fg")
                terminal.expect(rb"su \S+\r\n.*ready\$ ")
                terminal.line("id -un; stty size")
                terminal.expect(rb"\d+ \d+\r\n.*ready\$ ")
            terminal.line("exit 4")
            terminal.expect(rb"root# ")
            terminal.line("echo status $?")
            terminal.expect(rb"status 4\r\n")
        # What the line editors draw aside.
        shown = [line for line in screen(terminal).split(b"\r\n") if line and b"\x1b" not in line]
        return Result(b"\n".join(shown), b"", 0)

    compared(bash, ours, session)


STOPPABLE = {
    "sudo -i command": f"sudo -u {USER} -i sleep 1001",
    "sudo -i commands": f"sudo -u {USER} -i sh -c 'sleep 1001; echo and on'",
    "su --session-command": f"su {USER} --session-command 'sleep 1001'",
    "no sudo": f"setpriv --reuid {USER} --regid {USER} --clear-groups $SH -c 'sleep 1001'",
}


@pytest.mark.parametrize("name", STOPPABLE)
def test_the_key_that_stops_a_job_stops_one_of_another_user(
    bash: Side, ours: Side, name: str
) -> None:
    """Typed at a shell, they are jobs of that shell's."""
    line = STOPPABLE[name]

    def stopped(side: Side) -> Result:
        side.enter()
        with root_prompt(side, "--noediting", "-i") as terminal:
            terminal.line(line)
            for _ in range(2):
                wait_until(lambda: asleep(side, "1001"), "no job")
                terminal.send(b"\x1a")
                terminal.expect(rb"Stopped.*root# ")
                for word in ("id -un", "stty -a | grep -o ' echo '", "jobs"):
                    terminal.line(word)
                    terminal.expect(rb"root# ")
                terminal.line("fg")
                terminal.expect(rb"fg\r\n.*\r\n")
            wait_until(lambda: asleep(side, "1001"), "no job")
            terminal.send(b"\x03")
            terminal.expect(rb"root# ")
            terminal.line("echo status $?.")
            terminal.expect(rb"status \d+\..*root# ")
        return Result(screen(terminal), b"", 0)

    compared(bash, ours, lambda side: without_notices(stopped(side)))
    assert not ours.machine.running("sleep")


IN_A_JOB = {
    "pipeline": "$SH -c 'sleep 1005' | cat",
    "its end": "seq 3 | $SH -c 'sleep 1005'",
    "script": "sh -c '$SH -c \"sleep 1005\"; true'",
}


@pytest.mark.parametrize("name", IN_A_JOB)
def test_the_key_that_stops_a_job_stops_its_other_programs(
    bash: Side, ours: Side, name: str
) -> None:
    def stopped(side: Side) -> Result:
        side.enter()
        env = {
            "PATH": PATH, "TERM": "dumb", "PS1": "user# ", "SH": side.shell,
            "HOME": f"/home/{USER}", "LOGNAME": USER,
        }  # fmt: skip
        options = ["--reuid", USER, "--regid", USER, "--clear-groups"]
        shell = ["bash", "--norc", "--noediting", "-i"]
        with Terminal(["setpriv", *options, *shell], env=env, cwd="/") as terminal:
            terminal.expect(rb"user# ")
            terminal.line(IN_A_JOB[name])
            for _ in range(2):
                wait_until(lambda: asleep(side, "1005"), "no job")
                terminal.send(b"\x1a")
                terminal.expect(rb"Stopped.*user# ")
                terminal.line("fg")
                terminal.expect(rb"fg\r\n.*\r\n")
            wait_until(lambda: asleep(side, "1005"), "no job")
            # The shell that waits for the script does not wait for what shows the key.
            shown = screen(terminal).replace(b"^Z", b"")
            terminal.send(b"\x03")
            terminal.expect(rb"user# ")
        return Result(shown, b"", 0)

    compared(bash, ours, lambda side: without_notices(stopped(side)))
    assert not ours.machine.running("sleep")


COMMANDS_IN_JOBS = {
    "loop": f"while true; do su {USER} -c 'sleep 1008'; done",
    "script": f"sh -c 'su {USER} -c \"sleep 1008\"; echo next'",
    "script, --session-command": f"sh -c 'su {USER} --session-command \"sleep 1008\"; echo next'",
    "script, no sudo": f"sh -c '{AS_USER} -c \"sleep 1008\"; echo next'",
    "script with sudo": f"bash -c 'sudo -u {USER} -i sleep 1008; echo next'",
    "pipeline": f"su {USER} --session-command 'sleep 1008' | cat; echo ${{PIPESTATUS[*]}}",
    "trap": f"su {USER} --session-command 'trap \"echo trapped\" INT; sleep 1008; echo end'",
    "own key": f"su {USER} --session-command 'stty intr ^X; echo x; sleep 1008; echo end'",
    "jobs": f"bash -c \"su {USER} --session-command 'set -m; sleep 1008; echo end'; echo next\"",
    "ignored": f"(trap '' INT; su {USER} --session-command 'python3 ~/handles'; echo next $?)",
    "key that comes back": f"sh -c 'su {USER} --session-command \"stty -isig; sleep 1; stty isig;"
    " sleep .5; sleep 1008; echo end\"; echo next'",
}
# As a pager does, whoever started it may ignore the key.
HANDLES = """\
import os, signal, subprocess
signal.signal(signal.SIGINT, lambda *_: os._exit(9))
subprocess.run(["sleep", "1008"])
"""


TYPED = [(b"\x03", name) for name in COMMANDS_IN_JOBS if name != "own key"]
TYPED += [(b"\x1c", "pipeline"), (b"\x1c", "trap"), (b"\x18", "own key")]


@pytest.mark.parametrize(("key", "name"), TYPED)
def test_a_key_is_for_all_of_the_job_that_a_command_is_a_part_of(
    bash: Side, ours: Side, name: str, key: bytes
) -> None:
    def typed(side: Side) -> Result:
        side.enter()
        Path(f"/home/{USER}/handles").write_text(HANDLES)
        with root_prompt(side, "--noediting", "-i") as terminal:
            terminal.line("ulimit -c 0")
            terminal.expect(rb"root# ")
            terminal.line(COMMANDS_IN_JOBS[name] + "; echo status $?.")
            wait_until(lambda: asleep(side, "1008"), "no job")
            terminal.send(key)
            terminal.expect(rb"root# ")
            terminal.line("stty -a | grep -owE -e '-?(icanon|echo|opost|isig)'")
            terminal.expect(rb"icanon\r?\n.*root# ")
        # A key that is su's alone is shown by nobody, and what su says is for a raw terminal.
        shown = re.sub(rb"\^[C\\X]|\r|(?<=: ) *\d+(?= )", b"", screen(terminal))
        return Result(shown, b"", 0)

    compared(bash, ours, lambda side: without_notices(typed(side)))
    assert not ours.machine.running("sleep", "1008")


def is_cooked(terminal: Terminal) -> bool:
    return bool(termios.tcgetattr(terminal.fd)[3] & termios.ICANON)


def wait_until_given_back(terminal: Terminal) -> None:
    """Until root's shell reads lines again, and all that is typed at it."""
    wait_until(lambda: is_cooked(terminal), "the terminal is not given back")
    for number in (2, 3, 4):
        terminal.line(f"echo typed-$((40+{number}))")
        terminal.expect(b"typed-4%d\r\n.*root# " % number)


@contextlib.contextmanager
def root_shell(side: Side, name: str) -> Iterator[Terminal]:
    """Root's shell of that name, which edits no lines, at its prompt."""
    options = {"bash": ["--norc", "--noediting"], "dash": [], "zsh": ["-f", "+Z"]}[name]
    env = {"PATH": PATH + ":/usr/sbin:/sbin", "TERM": "dumb", "PS1": "root# ", "SH": side.shell}
    with Terminal([name, *options, "-i"], env=env) as terminal:
        terminal.expect(rb"root# ")
        yield terminal


@pytest.mark.parametrize("outer", ["bash", "dash", "zsh"])
def test_a_script_that_a_key_has_stopped_goes_on_with_its_login(
    bash: Side, ours: Side, outer: str
) -> None:
    """And the terminal is meanwhile as its own shell had it."""

    def stopped(side: Side) -> Result:
        side.enter()
        modes = []
        with root_shell(side, outer) as terminal:
            script = "sleep 1009; head -n 1"
            terminal.line(f"sh -c 'su {USER} --session-command \"{script}\"; echo next'")
            for _ in range(2):
                wait_until(lambda: asleep(side, "1009"), "no job")
                terminal.send(b"\x1a")
                terminal.expect(rb"root# ")
                # It is given back by our job, of which the shell awaits only the script.
                wait_until(lambda: is_cooked(terminal), "the terminal is not given back")
                modes_of = "stty -a | grep -owE -e '-?(icanon|echo|opost|isig|icrnl)'"
                terminal.line(f"echo modes=$({modes_of}).")
                modes.append(terminal.expect(rb"modes=([-a-z][^.]*)\..*root# ").group(1))
                terminal.line("fg")
                terminal.expect(rb"sh -c")
            wait_until(lambda: asleep(side, "1009"), "no job")
            for job in side.machine.running("sleep", "1009", whole=True):
                os.kill(job, signal.SIGTERM)
            terminal.line("a line")
            terminal.expect(rb"a line\r\n.*a line\r\n.*next\r\n.*root# ")
        return Result(b"\n".join(modes), b"", 0)

    compared(bash, ours, lambda side: without_notices(stopped(side)))


@pytest.mark.parametrize("outer", ["bash", "dash"])
def test_a_terminal_that_a_key_took_from_su_is_its_shells(
    bash: Side, ours: Side, outer: str
) -> None:
    """With su -c no key is for us: the script stops, and neither su nor its command does."""

    def stopped(side: Side) -> Result:
        side.enter()
        with root_shell(side, outer) as terminal:
            terminal.line(f"sh -c 'su {USER} -c \"sleep 1011; head -n 1\"; echo next'")
            wait_until(lambda: asleep(side, "1011"), "no job")
            terminal.send(b"\x1a")
            terminal.expect(rb"root# ")
            wait_until_given_back(terminal)
            terminal.line("fg")
            terminal.expect(rb"sh -c")
            wait_until(lambda: asleep(side, "1011"), "no job")
            for job in side.machine.running("sleep", "1011", whole=True):
                os.kill(job, signal.SIGTERM)
            terminal.line("a line")
            terminal.expect(rb"a line\r+\n.*a line\r+\n.*next\r+\n.*root# ")
            return Result(b"", b"", is_cooked(terminal))

    compared(bash, ours, lambda side: without_notices(stopped(side)))


SURVIVORS = [
    (b"\x03", f"find /tmp -maxdepth 0 -exec su {USER} --session-command 'LINE' \\;"),
    (b"\x1a", f"sh -c \"su {USER} --session-command 'LINE'\""),
]


@pytest.mark.parametrize(("key", "line"), SURVIVORS)
def test_a_terminal_is_given_back_by_a_program_that_a_key_leaves_alone(
    bash: Side, ours: Side, key: bytes, line: str
) -> None:
    """Whoever started it has left it with the terminal."""
    line = line.replace("LINE", 'trap "" INT TSTP; sleep 1014')

    def typed(side: Side) -> Result:
        side.enter()
        with root_shell(side, "dash") as terminal:
            terminal.line(line)
            wait_until(lambda: asleep(side, "1014"), "no job")
            terminal.send(key)
            terminal.expect(rb"root# ")
            wait_until_given_back(terminal)
            left = side.machine.running("sleep", "1014", whole=True)
            states = [state_of(pid) for pid in left]
            for pid in left:
                os.kill(pid, signal.SIGKILL)
        return Result(repr(states).encode(), b"", 0)

    compared(bash, ours, typed)


# What is set of the terminal, and whether it is for the outer shell too.
MODE_SETTERS = {
    "su -c": f"su {USER} -c 'stty -echoctl -ixon intr ^B'",
    "su --session-command": f"su {USER} --session-command 'stty -echo -opost min 3 erase ^H'",
    "sudo": f"sudo -u {USER} -i stty cs7 parenb -icanon",
    "repaired": f"stty -echo -onlcr -echoe susp ^A; su {USER} -c 'stty sane'",
    "in a pipeline": f"su {USER} -c 'stty -ixon -icrnl; echo text' | cat",
    "in a script": f"sh -c 'su {USER} -c \"stty -ixon\"; su {USER} -c \"stty -a; stty quit ^P\"'",
    "by a command that fails": f"su {USER} -c 'stty -iexten; exit 3'",
    "output repaired": f"stty -opost; su {USER} -c 'stty sane'",
    "all but raw repaired": f"stty cbreak -echo -opost; su {USER} -c 'stty sane'",
    "by a job that goes on": f"su {USER} -c 'sleep 1015 & stty -isig'",
}


@pytest.mark.parametrize("name", MODE_SETTERS)
def test_the_terminal_keeps_the_mode_that_was_set(bash: Side, ours: Side, name: str) -> None:
    def typed(side: Side) -> Result:
        side.enter()
        with root_shell(side, "dash") as terminal:
            shows = "echo over=$?; stty -a; stty sane; echo typed-$((40+2))"
            terminal.line(f"{MODE_SETTERS[name]}; {shows}")
            shown = terminal.expect(rb"over=(\d.*)typed-42").group(1)
        for pid in side.machine.running("sleep", "1015"):
            os.kill(pid, signal.SIGKILL)
        return without_notices(Result(shown.replace(b"\r", b""), b"", 0))

    compared(bash, ours, typed)


def test_the_terminal_of_a_shell_that_is_killed_has_its_own_mode(ours: Side) -> None:
    """As a rule what it ran sets that right again, a moment too late for us to see it."""
    ours.enter()
    with root_shell(ours, "dash") as terminal:
        terminal.line(f"su {USER} -c 'stty -icanon -echo; kill -9 $$'; echo over=$?; stty -a")
        terminal.expect(rb"over=137.* icanon .* echo ")


@pytest.mark.parametrize(("stopped", "then"), [("raw -echo", "sane"), ("-opost", "opost")])
def test_a_mode_that_a_shell_stopped_with_does_not_stay(
    bash: Side, ours: Side, stopped: str, then: str
) -> None:
    def typed(side: Side) -> Result:
        side.enter()
        with root_shell(side, "dash") as terminal:
            terminal.line(f"su {USER} -s $SH")
            terminal.expect(rb"ready\$ ")
            terminal.line(f"stty {stopped}; suspend")
            terminal.expect(rb"Stopped.*root# ")
            terminal.send(b"fg\n")
            terminal.expect(rb"su ")
            terminal.send(b"\n")
            terminal.expect(rb"ready\$ ")
            terminal.send(f"stty {then}; exit\n".encode())
            terminal.expect(rb"root# ")
            terminal.send(b"stty -a; echo typed-$((40+2))\n")
            shown = terminal.expect(rb"speed.*typed-42").group(0)
        return Result(shown.replace(b"\r", b""), b"", 0)

    compared(bash, ours, typed)


def test_the_terminal_keeps_the_mode_of_a_shell_that_stops(bash: Side, ours: Side) -> None:
    """And of one that goes on, until it ends."""

    def typed(side: Side) -> Result:
        side.enter()
        modes = []

        def mode(terminal: Terminal) -> None:
            terminal.line("stty -a; echo typed-$((40+2))")
            modes.append(terminal.expect(rb"speed.*typed-42").group(0))
            terminal.expect(rb"[#$] ")

        with root_shell(side, "dash") as terminal:
            terminal.line(f"su {USER} -s $SH")
            terminal.expect(rb"ready\$ ")
            for change in ("-ixon intr ^B", "ixon -echok"):
                terminal.line(f"stty {change}; suspend")
                terminal.expect(rb"Stopped.*root# ")
                mode(terminal)
                terminal.line("fg")
                terminal.expect(rb"fg.*su")
                terminal.line("")
                terminal.expect(rb"ready\$ ")
                mode(terminal)
            terminal.line("stty -echoe; exit")
            terminal.expect(rb"root# ")
            mode(terminal)
        return Result(b"\n".join(modes).replace(b"\r", b""), b"", 0)

    compared(bash, ours, typed)


@pytest.mark.parametrize("shell", ["dash -i", "zsh -f -i", "tcsh -f", "bash --norc -i"])
def test_a_shell_gives_the_terminal_back_to_the_group_it_came_from(
    bash: Side, ours: Side, shell: str
) -> None:
    line = f"su {USER} --session-command 'PS1=ready\\$\\  exec {shell}'"

    def session(side: Side) -> Result:
        side.enter()
        with root_prompt(side, "--noediting", "-i") as terminal:
            terminal.line(line)
            terminal.expect(rb"ready\$ |> ")
            if "dash" not in shell:
                terminal.line("suspend")
                terminal.expect(rb"[Ss]topped.*root# ")
                wait_until_given_back(terminal)
                terminal.line("fg")
                terminal.expect(rb"fg\r\n")
            terminal.line("exit 3")
            terminal.expect(rb"root# ")
            terminal.line("echo status $?.")
            status = terminal.expect(rb"status (\d+)\.").group(1)
        return Result(status, b"", 0)

    compared(bash, ours, session)


def test_a_shell_whose_leader_is_killed_ends(ours: Side) -> None:
    ours.enter()
    with root_prompt(ours, "-i", term="xterm") as terminal:
        terminal.line(f"su {USER}")
        terminal.expect(rb"ready\$ ")
        terminal.line("sleep 1012 & ps -o comm= $PPID; kill -KILL $PPID")
        terminal.expect(rb"kill -KILL.*root# ")
        terminal.line("echo status $?.")
        terminal.expect(rb"status \d+\.\r\n")
    wait_until(lambda: all(ended(ours).values()), "a recording has no end")
    for job in ours.machine.running("sleep", "1012"):
        os.kill(job, signal.SIGKILL)


SIGNALLED = {
    "timeout": f"timeout -s INT .5 {AS_USER} -c 'sleep 1010; echo end'",
    "timeout su": f"timeout -s INT .5 su {USER} --session-command 'sleep 1010; echo end'",
    "timeout sudo": f"timeout -s QUIT .5 sudo -u {USER} -i sh -c 'sleep 1010; echo end'",
    "a job": f"{AS_USER} -c 'sleep 1010; echo end' & sleep .5; kill -INT %1; wait",
}


@pytest.mark.parametrize("name", SIGNALLED)
def test_a_signal_to_all_of_a_job_is_for_all_of_the_shells(
    bash: Side, ours: Side, name: str
) -> None:
    line = "ulimit -c 0; " + SIGNALLED[name]

    def signalled(side: Side) -> Result:
        found = without_notices(at_a_root_prompt(side, line))
        # Bash tells of a job's end at its next prompt, or not at all.
        return Result(re.sub(rb"\[1\]\+[^\n]*\n", b"", found.out), b"", 0)

    compared(bash, ours, signalled)
    assert not ours.machine.running("sleep", "1010")


def test_a_job_of_another_user_ends_with_the_terminal(
    bash: Side, ours: Side, tmp_path: Path
) -> None:
    told = tmp_path / "told"
    for path in [tmp_path, *tmp_path.parents[:-2]]:
        path.chmod(0o755)

    def cut(side: Side) -> Result:
        side.enter()
        told.write_text("")
        told.chmod(0o666)
        with root_prompt(side, "-i") as terminal:
            script = f"trap 'echo told >>{told}; exit 3' HUP; echo ready; sleep 1004"
            terminal.line(f'sudo -u {USER} -i sh -c "{script}"')
            terminal.expect(rb"ready\r+\n")
            # With bash, too, a job that is just starting may hear nothing of it.
            wait_until(lambda: asleep(side, "1004"), "no job")
            terminal.hang_up()
        # The trap waits for sleep, which has to be told as well.
        wait_until(lambda: not side.machine.running("sleep", "1004"), "it goes on")
        # By the terminal, by its shell, or by both.
        wait_until(told.read_text, "the shell is not told")
        return Result(b"", b"", 0)

    compared(bash, ours, cut)
    wait_until(lambda: all(ended(ours).values()), "a recording has no end")


def test_nothing_is_stopped_that_nobody_could_wake(bash: Side, ours: Side) -> None:
    """As where ssh -t starts sudo: the session's leader is in the job itself."""

    def typed(side: Side) -> Result:
        side.enter()
        script = "echo ready; read line; echo got $line"
        env = {"PATH": PATH + ":/usr/sbin:/sbin", "TERM": "dumb"}
        command = ["sh", "-c", f"sudo -u {USER} -i sh -c '{script}'; echo status $?"]
        with Terminal(command, env=env) as terminal:
            terminal.expect(rb"ready\r+\n")
            terminal.send(b"\x1aa line\n")
            terminal.expect(rb"status \d+")
        # sudo's own terminal may come late to make the line ends.
        shown = terminal.seen[terminal.seen.index(b"ready") :].replace(b"\r\r", b"\r")
        return Result(shown, b"", 0)

    compared(bash, ours, typed)


JOBS = {
    "setpriv &": f"{AS_USER} -c 'echo hi; sleep .2; echo there' & wait",
    "sudo -i &": f"sudo -u {USER} -i echo hi & wait",
    "su -c &": f"su {USER} -c 'echo hi; sleep .2; echo there' & wait",
    "in a script": f"bash -c 'timeout 20 sudo -u {USER} -i echo hi; echo rc=$?'",
    "in a script, no sudo": f"bash -c \"timeout 20 {AS_USER} -c 'echo hi'; echo rc=\\$?\"",
}  # fmt: skip


@pytest.mark.parametrize("name", JOBS)
def test_a_job_in_the_background_is_not_stopped(bash: Side, ours: Side, name: str) -> None:
    compared(bash, ours, lambda side: without_notices(at_a_root_prompt(side, JOBS[name])))


PIPELINES = {
    "into another program": f"su {USER} -c 'seq 3; sleep .5' | cat",
    "both ours": f"su {USER} -c 'sleep .5; echo a' | su {USER} -c cat",
    "the input": f"seq 3 | su {USER} -c 'sleep .5; cat; tty | tr 0-9 N'",
    "out and err": f"su - {USER} <<<'seq 3; sleep .5; seq 3 >&2' 2>&1 | tee /dev/null",
    "several at once": f"seq 3 | xargs -P3 -I% su {USER} -c 'sleep 0.%; echo n%'",
}


@pytest.mark.parametrize("name", PIPELINES)
def test_the_other_programs_of_a_pipeline_make_line_ends(
    bash: Side, ours: Side, name: str
) -> None:
    compared(bash, ours, lambda side: without_notices(at_a_root_prompt(side, PIPELINES[name])))


def test_two_sessions_at_once_give_the_terminal_back(bash: Side, ours: Side) -> None:
    line = f"(su {USER} -c 'sleep .6; echo a' & su {USER} -c 'sleep .9; echo b'; wait)"

    def both(side: Side) -> Result:
        # The first one's line may find the terminal without output processing.
        found = without_notices(at_a_root_prompt(side, line))
        return Result(re.sub(rb"\r*\n", b"\n", found.out), b"", 0)

    compared(bash, ours, both)


LEFT = {
    "su -c": f"su {USER} -c 'JOB &'",
    "su - -c": f"su - {USER} -c 'JOB & sleep .2'",
    "redirected": f"su {USER} -c 'JOB >/dev/null 2>&1 </dev/null &'",
    "in a pipeline": f"su {USER} -c 'JOB >/dev/null &' | cat",
    "sudo -i": f"sudo -u {USER} -i sh -c 'JOB & sleep .2'",
    "su --session-command": f"su {USER} --session-command 'JOB & sleep .2'",
}


@pytest.mark.parametrize("name", LEFT)
def test_what_is_left_in_the_background_goes_on(bash: Side, ours: Side, name: str) -> None:
    def left(side: Side) -> Result:
        shown = without_notices(at_a_root_prompt(side, LEFT[name].replace("JOB", "sleep 3001")))
        jobs = side.machine.running("sleep", "3001")
        states = [Path(f"/proc/{job}/stat").read_text().split(")")[1][:2] for job in jobs]
        for job in jobs:
            os.kill(job, signal.SIGKILL)
        return Result(shown.out, repr(states).encode(), 0)

    compared(bash, ours, left)
    wait_until(lambda: all(ended(ours).values()), "a recording has no end")


def test_what_goes_on_in_the_background_is_shown_and_recorded(bash: Side, ours: Side) -> None:
    go = Path(f"/home/{USER}/go")
    job = f"while [ ! -e {go} ]; do sleep .1; done; seq 3; echo la''te; cat; echo rc=$?"

    def session(side: Side) -> Result:
        side.enter()
        go.unlink(missing_ok=True)
        with root_prompt(side, "--noediting", "-i") as terminal:
            terminal.line(f"su {USER} -c '(exec </dev/null; {job}) &'; echo status $?.")
            terminal.expect(rb"status 0\.\r\n.*root# ")
            # Each key is the outer shell's, and the terminal is that user's again.
            for word in ("echo typed-$((40+2))", "stat -c %U:%a $(tty) | sed s/x/x/"):
                terminal.line(word)
                terminal.expect(rb"typed-42\r\n.*root# |:\d+\r\n.*root# ")
            go.touch()
            terminal.expect(rb"rc=0\r\n")
        return without_notices(Result(screen(terminal), b"", 0))

    ours.enter()
    before = set(ours.recordings())
    compared(bash, ours, session)
    wait_until(lambda: all(ended(ours).values()), "the recording has no end")
    (rec,) = set(ours.recordings()) - before
    decoder = Decoder()
    events = [event for message in ours.recordings()[rec] for event in decoder.decode(message)]
    assert b"late" in b"".join(data for _, kind, data in events if kind == OUTPUT)


def test_a_job_in_the_background_leaves_the_keyboard_alone(bash: Side, ours: Side) -> None:
    lines = [f"echo typed-$((40+{number}))" for number in range(9)]
    job = f"{AS_USER} -c 'sleep 2' & su {USER} -c 'sleep 2' & sleep .5"

    def typed(side: Side) -> Result:
        found = without_notices(at_a_root_prompt(side, job, *lines))
        return Result(re.sub(rb"\[\d\][^\n]*\n", b"", found.out), b"", 0)

    compared(bash, ours, typed)


def test_a_job_that_comes_to_the_foreground_gets_the_keyboard(bash: Side, ours: Side) -> None:
    def session(side: Side) -> Result:
        side.enter()
        with root_prompt(side, "-i") as terminal:
            script = f"/home/{USER}/script-{side.name}"
            Path(script).write_text("sleep 1; read line; echo got $line\n")
            terminal.line(f"{AS_USER} {script} &")
            terminal.expect(rb"root# ")
            terminal.line("fg")
            terminal.expect(rb"fg\r\n")
            time.sleep(1.5)
            terminal.line("a line")
            got = terminal.expect(rb"(\na line\r\ngot a line\r\n).*root# ").group(1)
        return Result(got, b"", 0)

    compared(bash, ours, session)


@pytest.mark.parametrize("by_name", [False, True])
def test_a_login_that_is_stopped_from_outside_stays_so_until_it_is_continued(
    bash: Side, ours: Side, by_name: bool
) -> None:
    def session(side: Side) -> Result:
        side.enter()
        with side.ssh_terminal() as terminal:
            terminal.expect(rb"ready\$ ")
            terminal.line("echo $$.$PPID.")
            shell, parent = map(int, terminal.expect(rb"[\r\n](\d+)\.(\d+)\.\r\n").groups())
            terminal.expect(rb"ready\$ ")
            os.kill(shell, signal.SIGSTOP)
            wait_until(lambda: state_of(shell) == "T", "it does not stop")
            time.sleep(0.5)
            stopped = state_of(shell)
            terminal.line("echo typed-$((40+2))")
            # The login itself is another process than the shell.
            os.kill(parent if by_name and side.recorded else shell, signal.SIGCONT)
            terminal.expect(rb"typed-42\r\n.*ready\$ ")
            terminal.line("exit 4")
            return Result(stopped.encode(), b"", terminal.finish())

    compared(bash, ours, session)


def test_a_shell_that_no_terminal_controls_is_stopped_by_no_key_of_it(
    bash: Side, ours: Side
) -> None:
    """As vim has it, which stops all of its group."""
    line = f"su {USER} -c 'kill -TSTP $$; kill -TTIN 0; sh -c \"kill -TSTP 0\"; echo on'"
    compared(bash, ours, lambda side: without_notices(at_a_root_prompt(side, line)))


def test_su_stops_with_a_shell_that_no_terminal_controls(bash: Side, ours: Side) -> None:
    def session(side: Side) -> Result:
        side.enter()
        with root_prompt(side, "--noediting", "-i") as terminal:
            terminal.line(f"su {USER} -c 'kill -STOP $$; echo back'")
            terminal.expect(rb"Stopped.*root# ")
            terminal.line("echo typed-$((40+2))")
            terminal.expect(rb"typed-42\r\n.*root# ")
            terminal.line("fg")
            terminal.expect(rb"back\r\n.*root# ")
        return without_notices(Result(screen(terminal), b"", 0))

    compared(bash, ours, session)


# The last one: what it kills leaves a recording without its end.
def test_the_keys_are_the_outer_shells_while_a_login_is_stopped_from_outside(
    bash: Side, ours: Side
) -> None:
    """The user may do that to a root who became them, to get what is typed next."""

    def session(side: Side) -> Result:
        side.enter()
        with root_prompt(side, "--noediting", "-i") as terminal:
            terminal.line(f"su {USER} -c 'echo ready; cat'")
            terminal.expect(rb"ready\r+\n")
            (su,) = side.machine.running("su", USER)
            (login,) = (pid for pid in side.machine.processes() if Job(pid).parent == su)
            os.kill(login, signal.SIGSTOP)
            terminal.expect(rb"Stopped.*root# ")
            for number in range(8):
                terminal.line(f"echo $(id -u)-{number}")
                terminal.expect(rb"[\r\n]0-%d\r\n.*root# " % number)
                # Whoever else reads there is to have had the time to come back to it.
                time.sleep(0.1)
            terminal.line("kill -KILL %1")
            terminal.line("wait; stty -a | grep -ow icanon")
            terminal.expect(rb"[\r\n]icanon\r\n")
        # It is stopped still, and logged in.
        for pid in (login, *side.machine.running("cat", whole=True)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return Result(b"", b"", 0)

    compared(bash, ours, session)
