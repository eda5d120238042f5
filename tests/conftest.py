# SPDX-License-Identifier: Apache-2.0
"""What several rooms' tests share: journald, /run/utmp, and the corpus."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import grp
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# A job in the background has them ignored, and so would what the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)

# Tests of these folders drive real programs on real terminals, of which some (bash's job
# control, tmux, vim) race with what is typed, with and without us. Such a test may be run
# again, which the summary tells.
RACING = ("system", "session", "cli", "player", "writers", "launcher", "recorder")
# But not where a promise is tested that may not be broken one time in many.
PROMISES = (
    "test_attacks", "test_faults", "test_git", "test_interop_tlog", "test_journal_arrival",
    "test_nothing_lost", "test_power_cut", "test_recovery", "test_skip", "test_spool",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.relative_to(here).parts[0] in RACING and item.path.stem not in PROMISES:
            item.add_marker(pytest.mark.flaky(reruns=2))


# These change the machine, as those of the folder system do.
CHANGING = ("test_install", "test_readme")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Several processes run what does not get in each other's way."""
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

    class Groups(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid.partition("::")[0])

    return Groups(config, log)


@functools.cache
def group_of(name: str) -> str:
    """What a test file runs with, one at a time, while those of other groups run as well."""
    path = Path(__file__).parents[1] / name
    if "own_machine(" in path.read_text():
        return "machines of their own"
    if path.parent.name == "system" or path.stem in CHANGING:
        return "this machine"
    return name


CORPUS = Path(__file__).parent / "corpus"
JOURNAL_SOCKET = Path("/run/systemd/journal/socket")
JOURNALD = "/lib/systemd/systemd-journald"
# journald drops what comes too fast; no test may depend on the speed of the machine.
JOURNALD_DROP_IN = Path("/run/systemd/journald.conf.d/ttyscribe-test.conf")


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The folder of recordings that tlog-rec made of real programs, with what the terminal got."""
    return CORPUS


class Journald:
    """The journal daemon that serves this machine, whoever started it."""

    def sync(self) -> None:
        """Return when all that was sent before is in the journal's files."""
        subprocess.run(["journalctl", "--sync"], check=True, timeout=30)


@pytest.fixture(scope="session")
def journald() -> Iterator[Journald]:
    """A running systemd-journald; started by hand where no one serves its socket."""
    with shared("journald", start_journald, stop_journald):
        yield Journald()


@pytest.fixture(scope="session")
def utmp() -> Iterator[Path]:
    """/run/utmp as tlog needs it; where it was missing, it is removed in the end."""
    path = Path("/run/utmp")
    with shared("utmp", lambda: make_utmp(path), lambda _: path.unlink(missing_ok=True)):
        yield path


@contextlib.contextmanager
def shared(
    name: str, start: Callable[[], str | None], stop: Callable[[str], None]
) -> Iterator[None]:
    """Have something of the whole machine, together with other test runs at the same time.

    start returns what stop needs to undo it, or None where it was there already.
    The last test run that leaves calls stop.
    """
    state = Path(f"/run/ttyscribe-test-{name}")
    with open(f"{state}.gate", "w") as gate, open(f"{state}.users", "w") as users:
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(users, fcntl.LOCK_SH)
        started = start()
        if started is not None:
            state.write_text(started)
        fcntl.flock(gate, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(gate, fcntl.LOCK_EX)
            fcntl.flock(users, fcntl.LOCK_UN)
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if state.exists():
                    stop(state.read_text())
                    state.unlink()


def start_journald() -> str | None:
    """Start journald and wait until it serves its socket; its pid, or None if one runs."""
    if journal_served():
        return None
    JOURNALD_DROP_IN.parent.mkdir(parents=True, exist_ok=True)
    JOURNALD_DROP_IN.write_text("[Journal]\nRateLimitIntervalSec=0\nRateLimitBurst=0\n")
    # In a session of its own, so that a Ctrl-C of one test run leaves it to the others.
    process = subprocess.Popen(
        [JOURNALD],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 30
    while not journal_served():
        assert process.poll() is None, f"{JOURNALD} ended with {process.returncode}"
        assert time.monotonic() < deadline, f"{JOURNALD} does not serve {JOURNAL_SOCKET}"
        time.sleep(0.02)
    return str(process.pid)


def stop_journald(pid: str) -> None:
    """End the journald that a test run started, if that pid is still it."""
    JOURNALD_DROP_IN.unlink(missing_ok=True)
    try:
        if Path(f"/proc/{pid}/comm").read_text() != "systemd-journal\n":
            return
        descriptor = os.pidfd_open(int(pid))
    except (FileNotFoundError, ProcessLookupError):
        return
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        deadline = time.monotonic() + 10
        while JOURNAL_SOCKET.exists() and journal_served() and time.monotonic() < deadline:
            time.sleep(0.02)
    finally:
        os.close(descriptor)


def journal_served() -> bool:
    """Whether a daemon reads from the journal's socket; a stale one refuses."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(str(JOURNAL_SOCKET))
        except OSError:
            return False
    return True


def make_utmp(path: Path) -> str | None:
    """Make /run/utmp, root:utmp 0664, unless it is there."""
    if path.exists():
        return None
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o664)
    os.fchown(descriptor, 0, grp.getgrnam("utmp").gr_gid)
    os.fchmod(descriptor, 0o664)
    os.close(descriptor)
    return str(path)
