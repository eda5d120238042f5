# SPDX-License-Identifier: Apache-2.0
"""The whole machine, for tests that log in: one at a time, and left as it was."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.system import sides
from tests.system.machine import (
    CONFIG,
    FOLDERS,
    LOCK,
    LOG,
    SERVICE_USER,
    SOCKET,
    Machine,
    User,
    account,
    make_user,
)
from tests.system.ownmachine import OwnMachine
from tests.system.sides import Side, Sshd

# It shows what differs.
pytest.register_assert_rewrite("tests.system.comparing")


@pytest.fixture(scope="module")
def machine_lock() -> Iterator[None]:
    """This machine's accounts, /etc/ttyscribe and the recorder's socket, for one module's tests."""
    with open(LOCK, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="module")
def machine(machine_lock: None) -> Iterator[Machine]:
    """The machine with a configuration of its own and no recorder; put back in the end."""
    with contextlib.ExitStack() as undo:
        undo.enter_context(_moved_aside(CONFIG))
        undo.enter_context(_moved_aside(SOCKET))
        options = ("--system", "--user-group", "--shell=/usr/sbin/nologin")
        undo.enter_context(account(SERVICE_USER, *options))
        CONFIG.mkdir(mode=0o755)
        for folder, mode in FOLDERS:
            undo.enter_context(_folder(folder, mode))
        undo.enter_context(_moved_aside(LOG / "recordings.tlog"))
        machine = Machine()
        machine.configure()
        try:
            yield machine
        finally:
            for process in machine.recorders:
                process.terminate()
                process.wait(timeout=20)


@pytest.fixture(scope="module")
def user(machine: Machine) -> Iterator[User]:
    """A user whose login shell is the recorder."""
    with make_user("ttyscribe-one") as user:
        yield user


@pytest.fixture(scope="module")
def other(machine: Machine) -> Iterator[User]:
    """Another one."""
    with make_user("ttyscribe-two") as user:
        yield user


@pytest.fixture(scope="module")
def sshd(machine: OwnMachine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A real sshd, on a machine of the test file's own."""
    server = Sshd(tmp_path_factory.mktemp("sshd") / "server", pam=False)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def bash(machine: OwnMachine, sshd: Sshd) -> Iterator[Side]:
    """The user with bash alone."""
    side = sides.plain_bash(machine, sshd)
    yield side
    side.disconnect()


@pytest.fixture(scope="module", params=("direct", "service"))
def ours(machine: OwnMachine, sshd: Sshd, request: pytest.FixtureRequest) -> Iterator[Side]:
    """The user with the recording login shell, in both of its ways."""
    with sides.recording(machine, sshd, request.param) as side:
        yield side


@contextlib.contextmanager
def _folder(path: Path, mode: int) -> Iterator[None]:
    """A folder of the service's, whoever's it was before."""
    made = not path.exists()
    path.mkdir(exist_ok=True, parents=True)
    before = path.stat()
    path.chmod(mode)
    shutil.chown(path, SERVICE_USER, SERVICE_USER)
    try:
        yield
    finally:
        if made:
            shutil.rmtree(path, ignore_errors=True)
        elif path.exists():
            os.chown(path, before.st_uid, before.st_gid)
            path.chmod(before.st_mode & 0o7777)


@contextlib.contextmanager
def _moved_aside(path: Path) -> Iterator[None]:
    """A path that is free for the time of the block."""
    aside = path.with_name(f"{path.name}.aside-{os.getpid()}")
    there = os.path.lexists(path)
    if there:
        path.rename(aside)
    try:
        yield
    finally:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        if there and aside.parent.exists():
            aside.rename(path)
