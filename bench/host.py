# SPDX-License-Identifier: Apache-2.0
"""What the peers need of the machine: made for the benchmark, and removed after it."""

from __future__ import annotations

import grp
import json
import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import subjects

JOURNAL_SOCKET = "/run/systemd/journal/socket"
JOURNALD = "/lib/systemd/systemd-journald"
# No limit that drops messages, and nothing on a disk: the recorders are measured.
JOURNALD_CONF = Path("/run/systemd/journald.conf.d/ttyscribe-bench.conf")
JOURNALD_SETTINGS = """\
[Journal]
Storage=volatile
RateLimitIntervalSec=0
RateLimitBurst=0
RuntimeMaxUse=512M
ForwardToSyslog=no
"""


@contextmanager
def login_records() -> Iterator[None]:
    """/run/utmp and /run/tlog, without which tlog-rec does not start; and our folder of locks."""
    utmp = Path("/run/utmp")
    locks = Path("/run/tlog")
    ours = Path("/run/ttyscribe/lock")
    made: list[Path] = []
    if os.geteuid() == 0:
        if not ours.exists():
            made += [path for path in (ours, ours.parent) if not path.exists()]
            ours.mkdir(parents=True)
            ours.chmod(0o1777)
        if not utmp.exists():
            utmp.touch()
            made.append(utmp)
            os.chown(utmp, 0, grp.getgrnam("utmp").gr_gid)
            utmp.chmod(0o664)
        if not locks.exists():
            locks.mkdir()
            made.append(locks)
    try:
        yield
    finally:
        for path in made:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def journald_answers() -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(JOURNAL_SOCKET)
        except OSError:
            return False
    return True


@contextmanager
def journald() -> Iterator[bool]:
    """A journald: the running one, or one for the time of the benchmark; whether there is one."""
    if journald_answers():
        yield True
        return
    if os.geteuid() != 0 or not os.access(JOURNALD, os.X_OK):
        yield False
        return
    logs = Path("/run/log/journal")
    had_logs = logs.exists()
    JOURNALD_CONF.parent.mkdir(parents=True, exist_ok=True)
    JOURNALD_CONF.write_text(JOURNALD_SETTINGS)
    daemon = subprocess.Popen(
        [JOURNALD], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 10
        while not journald_answers() and daemon.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        yield journald_answers()
    finally:
        daemon.terminate()
        daemon.wait()
        JOURNALD_CONF.unlink()
        if not had_logs:
            shutil.rmtree(logs, ignore_errors=True)


SERVICE_SOCKET = Path("/run/ttyscribe/recorder.sock")
SERVICE_CONF = Path("/etc/ttyscribe/rec-session.conf")
# The service's user has to reach it, so it is in no folder of root's.
SERVICE_FOLDER = Path("/var/tmp/ttyscribe-bench")
_service: list[subprocess.Popen[bytes]] = []


def service_recording() -> Path:
    """Where the service of the benchmark records to."""
    return SERVICE_FOLDER / "recording"


def service_pid() -> int:
    return _service[-1].pid


@contextmanager
def service(environment: dict[str, str]) -> Iterator[bool]:
    """The recorder service, with its user and configuration, for the time of the benchmark."""
    if os.geteuid() != 0 or SERVICE_SOCKET.exists() or SERVICE_CONF.exists():
        yield False
        return
    made_user = False
    made_folder = not SERVICE_CONF.parent.exists()
    try:
        pwd.getpwnam("ttyscribe")
    except KeyError:
        make = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin"]
        subprocess.run([*make, "ttyscribe"], check=True)
        made_user = True
    settings = {"notice": "", "writer": "file", "file": {"path": str(service_recording())}}
    SERVICE_FOLDER.mkdir(mode=0o700, exist_ok=True)
    shutil.chown(SERVICE_FOLDER, "ttyscribe", "ttyscribe")
    SERVICE_CONF.parent.mkdir(exist_ok=True)
    SERVICE_CONF.write_text(json.dumps(settings))
    daemon = subprocess.Popen([*subjects.OURS, "recorder"], env=environment)
    _service.append(daemon)
    try:
        deadline = time.monotonic() + 10
        while not SERVICE_SOCKET.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        yield SERVICE_SOCKET.exists()
    finally:
        _service.remove(daemon)
        daemon.terminate()
        daemon.wait()
        SERVICE_CONF.unlink()
        if made_folder:
            shutil.rmtree(SERVICE_CONF.parent, ignore_errors=True)
        shutil.rmtree(SERVICE_FOLDER, ignore_errors=True)
        shutil.rmtree(SERVICE_SOCKET.parent, ignore_errors=True)
        if made_user:
            # Not while recorders of the last sessions still end.
            deadline = time.monotonic() + 10
            while subprocess.run(["userdel", "ttyscribe"], capture_output=True).returncode:
                if time.monotonic() > deadline:
                    raise RuntimeError("the user ttyscribe can't be removed")
                time.sleep(0.1)
