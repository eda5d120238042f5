# SPDX-License-Identifier: Apache-2.0
"""The lock: which shells are within a recorded terminal, and what users can't forge."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ptyprocess import PtyProcess

from ttyscribe.errors import LockError
from ttyscribe.session import lock as lock_module
from ttyscribe.session.lock import acquire

SOURCES = str(Path(lock_module.__file__).parents[2])

# Stands for the login shell: says what it would do, to the file that is its argument.
LOGIN = f"""
import os, sys
sys.path.insert(0, {SOURCES!r})
from ttyscribe.session import lock
from ttyscribe.session.lock import acquire
# The test may run in an audit session.
lock.audit_session = lambda pid: lock.NO_SESSION
folder, kind, answer = sys.argv[1:4]
held = acquire(kind, "nested", folder)
with open(answer + ".new", "w") as file:
    file.write("bare" if held is None else "recorded")
os.rename(answer + ".new", answer)
if held is not None:
    held.release()
"""

# A recorder of one shell: registers its pty, runs the command in it, and relays.
RECORDER = f"""
import os, pty, sys, termios, fcntl, tty
sys.path.insert(0, {SOURCES!r})
from ttyscribe.session import lock
from ttyscribe.session.lock import acquire
# The test may run in an audit session.
lock.audit_session = lambda pid: lock.NO_SESSION
folder, kind = sys.argv[1:3]
held = acquire(kind, "rec-1", folder)
assert held is not None, "recorded already"
if os.isatty(0):
    tty.setraw(0)
master, slave = os.openpty()
held.hold_terminal(slave)
if os.fork() == 0:
    os.setsid()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for fd in range(3):
        os.dup2(slave, fd)
    os.execvp(sys.argv[3], sys.argv[3:])
os.write(1, b"ready " + os.ttyname(slave).encode() + b"\\n")
try:
    os.wait()
finally:
    held.release()
"""


class Scene:
    """A lock folder, and logins and recorders that are real processes."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.folder = base / "lock"
        self.folder.mkdir(mode=0o1777)
        self.folder.chmod(0o1777)
        self.login_script = base / "login.py"
        self.login_script.write_text(LOGIN)
        self.recorder_script = base / "recorder.py"
        self.recorder_script.write_text(RECORDER)
        self.cleanup = contextlib.ExitStack()
        self._answers = 0

    def login(self, kind: str = "terminal") -> tuple[list[str], Callable[[], str]]:
        """A command that stands for the login shell, and what waits for its decision."""
        self._answers += 1
        answer = self.base / f"answer-{self._answers}"
        command = [sys.executable, str(self.login_script), str(self.folder), kind, str(answer)]

        def decision() -> str:
            until(answer.exists)
            return answer.read_text()

        return command, decision

    def record(self, *command: str, kind: str = "terminal") -> PtyProcess:
        """Start a recorder of command in a terminal of its own; return when it is registered."""
        process = PtyProcess.spawn(
            [sys.executable, str(self.recorder_script), str(self.folder), kind, *command]
        )
        self.cleanup.callback(end, process)
        seen = b""
        while b"ready /dev/pts/" not in seen or b"\n" not in seen.partition(b"ready ")[2]:
            seen += process.read()
        process.inner = seen.partition(b"ready ")[2].split()[0].decode()
        return process

    def decide(self, *around: str, kind: str = "terminal") -> str:
        """What a login decides that is started by the command around, in a new terminal."""
        command, decision = self.login(kind)
        process = PtyProcess.spawn([*around, *command])
        self.cleanup.callback(end, process)
        return decision()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def end(process: PtyProcess) -> None:
    process.terminate(force=True)
    process.close()


def entries(scene: Scene) -> list[str]:
    return sorted(path.name for path in scene.folder.iterdir())


@pytest.fixture
def scene() -> Iterator[Scene]:
    # Other users must reach it, and pytest's folders are closed to them.
    base = Path(f"/tmp/ttyscribe-lock-{os.getpid()}-{time.monotonic_ns()}")
    base.mkdir(mode=0o755)
    base.chmod(0o777)
    found = Scene(base)
    try:
        yield found
    finally:
        found.cleanup.close()
        shutil.rmtree(base)


def test_a_login_in_a_terminal_of_its_own_is_recorded(scene: Scene) -> None:
    scene.record("sleep", "60")
    assert scene.decide() == "recorded"


def test_a_login_without_any_terminal_is_recorded(scene: Scene) -> None:
    scene.record("sleep", "60")
    command, decision = scene.login()
    subprocess.run(command, check=True, start_new_session=True, stdin=subprocess.DEVNULL)
    assert decision() == "recorded"


@pytest.mark.parametrize(
    "around",
    [
        [],
        ["bash", "-c", '"$@"; exit', "bash"],
        ["sh", "-c", '"$@" </dev/null >/dev/null 2>&1; exit', "sh"],
        ["sh", "-c", '"$@" </dev/null 2>&1 | cat; exit', "sh"],
        ["setpriv", "--reuid", "65534", "--clear-groups"],
        ["script", "-qc", "PLACE", "/dev/null"],
        ["su", "-P", "root", "-c", "PLACE"],
    ],
    ids=["directly", "shell", "redirected", "in a pipe", "another user", "script", "su with a pty"],
)
def test_a_login_within_a_recorded_terminal_starts_bare(scene: Scene, around: list[str]) -> None:
    command, decision = scene.login()
    if "PLACE" in around:
        whole = [" ".join(command) if word == "PLACE" else word for word in around]
    else:
        whole = [*around, *command]
    scene.record(*whole)
    assert decision() == "bare"


def test_an_unprivileged_recorder_is_found_by_another_user_within_its_terminal(
    scene: Scene,
) -> None:
    command, decision = scene.login()
    recorder = [sys.executable, str(scene.recorder_script), str(scene.folder), "terminal"]
    process = PtyProcess.spawn(
        ["setpriv", "--reuid=1", "--regid=1", "--clear-groups", *recorder, *command]
    )
    scene.cleanup.callback(end, process)
    assert decision() == "bare"


@pytest.mark.parametrize("how", ["debugging", "in the background"])
def test_a_login_through_a_server_started_by_hand_in_a_recorded_terminal_is_recorded(
    scene: Scene, how: str
) -> None:
    """A server whose standard descriptors are the recorded terminal, but that does not relay it."""
    command, decision = scene.login()
    server = scene.base / "server.py"
    server.write_text(
        "import os, pty, sys, tty\n"
        f"if {how!r} == 'in the background':\n"
        # As under a shell that edits its next command line.
        "    tty.setraw(0)\n"
        "    os.fork() and os._exit(os.wait()[1])\n"
        "    os.setpgid(0, 0)\n"
        "pid, master = pty.fork()\n"
        "if not pid: os.execvp(sys.argv[1], sys.argv[1:])\n"
        "os.waitpid(pid, 0)\n"
    )
    scene.record(sys.executable, str(server), *command)
    assert decision() == "recorded"


def test_a_login_on_a_terminal_that_another_user_relays_is_recorded(scene: Scene) -> None:
    """Such a relay may keep to itself what it gets."""
    command, decision = scene.login()
    relay = scene.base / "relay.py"
    relay.write_text(
        "import os, pty, sys, tty\n"
        "tty.setraw(0)\n"
        "read, write = os.pipe()\n"
        "pid, master = pty.fork()\n"
        "if not pid: os.read(read, 1), os.execvp(sys.argv[1], sys.argv[1:])\n"
        "os.setresuid(65534, 65534, 65534)\n"
        "os.write(write, b'x')\n"
        "os.waitpid(pid, 0)\n"
    )
    scene.record(sys.executable, str(relay), *command)
    assert decision() == "recorded"


def test_a_killed_recorder_leaves_no_lock(scene: Scene) -> None:
    """And the next recorder of that terminal's number takes its entry away."""
    recorder = scene.record("sleep", "60")
    (left,) = entries(scene)
    os.kill(recorder.pid, signal.SIGKILL)
    recorder.wait()
    assert entries(scene) == [left]
    registry = lock_module._Registry(str(scene.folder))
    assert registry._holder(left, left.partition(".")[0]) == (None, -1)
    registry.close()
    scene.record("sleep", "60")
    assert left not in entries(scene)
    assert len(entries(scene)) == 1


def test_an_entry_of_a_live_process_that_does_not_hold_it_is_no_lock(scene: Scene) -> None:
    """A pid that was given to another process since."""
    command, decision = scene.login()
    process = PtyProcess.spawn(["sh", "-c", 'read go; "$@"', "sh", *command])
    scene.cleanup.callback(end, process)
    key = key_of(terminal_of(process))
    (scene.folder / f"{key}.{0:020d}-{process.pid}").write_text(f"{key} {process.pid} rec\n")
    process.write(b"\n")
    assert decision() == "recorded"


def test_a_user_can_not_claim_the_terminal_of_a_login_of_theirs(scene: Scene) -> None:
    """The forged entry is written, named and locked as a recorder's would be."""
    command, decision = scene.login()
    process = PtyProcess.spawn(
        ["sh", "-c", 'read go; exec setpriv --reuid=1 --clear-groups "$@"', "sh", *command]
    )
    scene.cleanup.callback(end, process)
    path = terminal_of(process)
    os.chown(path, 1, -1)
    forger = subprocess.Popen(
        [sys.executable, "-c", FORGER, path, str(scene.folder)], stdout=subprocess.PIPE
    )
    scene.cleanup.callback(forger.wait)
    scene.cleanup.callback(forger.kill)
    assert forger.stdout is not None
    assert forger.stdout.readline() == b"held\n"
    assert len(entries(scene)) == 1
    process.write(b"\n")
    assert decision() == "recorded"


FORGER = f"""
import os, sys, time
sys.path.insert(0, {SOURCES!r})
os.setuid(1)
from ttyscribe.session.lock import acquire
held = acquire("terminal", "forged", sys.argv[2])
held.hold_terminal(os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY))
print("held", flush=True)
time.sleep(60)
"""


def test_what_is_planted_in_the_folder_neither_blocks_nor_counts(scene: Scene) -> None:
    command, decision = scene.login()
    process = PtyProcess.spawn(["sh", "-c", 'read go; "$@"', "sh", *command])
    scene.cleanup.callback(end, process)
    key = key_of(terminal_of(process))
    os.mkfifo(scene.folder / f"{key}.1-1")
    (scene.folder / f"{key}.2-1").symlink_to("/dev/zero")
    (scene.folder / f"{key}.3-1").mkdir()
    (scene.folder / f"{key}.4-1").write_bytes(b"\xff" * 1000)
    process.write(b"\n")
    assert decision() == "recorded"


def test_the_number_of_a_recorded_terminal_is_not_given_away_while_it_is_held(
    scene: Scene,
) -> None:
    held = acquire("terminal", "rec", str(scene.folder))
    assert held is not None
    master, slave = os.openpty()
    name = os.ttyname(slave)
    held.hold_terminal(slave)
    os.close(master)
    os.close(slave)
    pairs = [os.openpty() for _ in range(8)]
    assert name not in [os.ttyname(slave) for _, slave in pairs]
    held.release()
    pairs.append(os.openpty())
    assert os.ttyname(pairs[-1][1]) == name
    for pair in pairs:
        for fd in pair:
            os.close(fd)
    assert entries(scene) == []


def test_a_tmux_pane_starts_bare_while_its_server_shows_it_on_a_recorded_terminal(
    scene: Scene,
) -> None:
    """And is recorded once nothing recorded is attached to the server, which lives on."""
    socket = str(scene.base / "tmux")
    tmux = ["tmux", "-f", "/dev/null", "-S", socket]
    scene.cleanup.callback(subprocess.run, [*tmux, "kill-server"], capture_output=True)
    os.environ.setdefault("TERM", "xterm")
    attached = scene.record(*tmux, "new-session", "sh")
    until(lambda: clients(tmux))

    command, decision = scene.login()
    subprocess.run([*tmux, "split-window", " ".join(command)], check=True)
    assert decision() == "bare"

    os.kill(attached.pid, signal.SIGKILL)
    attached.wait()
    until(lambda: not clients(tmux))
    command, decision = scene.login()
    subprocess.run([*tmux, "new-window", " ".join(command)], check=True)
    assert decision() == "recorded"


def clients(tmux: list[str]) -> bytes:
    return subprocess.run([*tmux, "list-clients"], capture_output=True).stdout


def test_sessions_without_an_audit_session_are_locked_by_terminal(scene: Scene) -> None:
    scene.record("sleep", "60", kind="session")
    assert scene.decide(kind="session") == "recorded"
    command, decision = scene.login("session")
    scene.record(*command, kind="session")
    assert decision() == "bare"


def test_of_an_audit_session_one_is_recorded_and_a_recycled_id_is_free_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel of a test machine may know no audit sessions; what it says is stood in for."""
    monkeypatch.setattr(lock_module, "audit_session", lambda pid: 7)
    recorder = os.fork()
    if recorder == 0:
        acquire("session", "first", str(scene.folder))
        signal.pause()
    scene.cleanup.callback(os.waitpid, recorder, 0)
    scene.cleanup.callback(os.kill, recorder, signal.SIGKILL)
    until(lambda: any(name.startswith("session-7.") for name in entries(scene)))
    assert acquire("session", "second", str(scene.folder)) is None
    assert len(entries(scene)) == 1

    scene.cleanup.pop_all()
    os.kill(recorder, signal.SIGKILL)
    os.waitpid(recorder, 0)
    third = acquire("session", "third", str(scene.folder))
    assert third is not None
    third.release()
    assert entries(scene) == []


def test_a_user_can_not_claim_an_audit_session_that_is_not_theirs(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    forger = os.fork()
    if forger == 0:
        os.setuid(1)
        monkeypatch.setattr(lock_module, "audit_session", lambda pid: 8)
        acquire("session", "forged", str(scene.folder))
        signal.pause()
    scene.cleanup.callback(os.waitpid, forger, 0)
    scene.cleanup.callback(os.kill, forger, signal.SIGKILL)
    until(lambda: any(name.startswith("session-8.") for name in entries(scene)))
    ours = os.getpid()
    monkeypatch.setattr(lock_module, "audit_session", lambda pid: 8 if pid == ours else 3)
    held = acquire("session", "ours", str(scene.folder))
    assert held is not None
    held.release()


def test_no_lock_asks_for_no_folder() -> None:
    held = acquire("none", "rec", "/nonexistent")
    assert held is not None
    held.hold_terminal(-1)
    held.release()


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda folder: folder.rmdir(), "No such file or directory"),
        (lambda folder: folder.chmod(0o777), "its users can remove each other's locks"),
        (lambda folder: folder.chmod(0o755), "not writable"),
        (lambda folder: folder.chmod(0o700), "Permission denied"),
        (lambda folder: (folder.rmdir(), folder.symlink_to("/tmp")), "Not a directory"),
    ],
)
def test_an_unusable_folder_is_one_clear_error(
    scene: Scene, spoil: Callable[[Path], object], why: str
) -> None:
    spoil(scene.folder)
    pid = os.fork()
    if pid == 0:
        os.setuid(1)
        try:
            acquire("terminal", "rec", str(scene.folder))
        except LockError as error:
            (scene.base / "error").write_text(str(error))
        os._exit(0)
    os.waitpid(pid, 0)
    message = (scene.base / "error").read_text()
    assert message.startswith(f"{scene.folder}: can't be used as lock folder: {why}; ")
    assert "\n" not in message


def test_the_lock_costs_a_login_little_even_among_many_recordings(scene: Scene) -> None:
    for number in range(300):
        (scene.folder / f"pts-1-{number:x}.{0:020d}-1").write_text("x")
    master, slave = os.openpty()
    began = time.perf_counter()
    held = acquire("terminal", "rec", str(scene.folder))
    assert held is not None
    held.hold_terminal(slave)
    assert time.perf_counter() - began < 0.05
    held.release()
    os.close(master)
    os.close(slave)


def terminal_of(process: PtyProcess) -> str:
    return os.readlink(f"/proc/{process.pid}/fd/0")


def key_of(path: str) -> str:
    status = os.stat(path)
    return lock_module._terminal_key(status.st_dev, status.st_rdev)


def test_lack_of_a_descriptor_is_told_as_that(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    master, slave = os.openpty()
    held = acquire("terminal", "rec", str(tmp_path), os.getppid())
    assert held is not None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    last = os.dup(0)
    os.close(last)
    # The file that is locked gets the last one.
    resource.setrlimit(resource.RLIMIT_NOFILE, (last + 1, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            held.hold_terminal(slave)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        held.release()
        os.close(master)
        os.close(slave)
