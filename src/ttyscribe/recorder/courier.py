# SPDX-License-Identifier: Apache-2.0
"""The service's process that delivers what recorders that are gone have left."""

from __future__ import annotations

import os
import signal
import sys
import time

from ttyscribe.errors import printable
from ttyscribe.recorder import privileges
from ttyscribe.session.alert import alert
from ttyscribe.session.spoolfolder import SENT, SERVICE_FOLDER, abandoned

# How often it looks for what waits to be delivered, in seconds; and how long one that
# ended is missed.
PAUSE = 2.0
# So many different lines are remembered, to be said once each.
_TOLD_MAX = 1000


def start() -> int:
    """A process of its own that completes the recordings of recorders that are gone; its pid.

    It ends with the service; a recovery that is cut off is begun again by the next.
    """
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        privileges.keep(())
        privileges.end_with_parent()
        told: set[str] = set()
        while os.getppid() == parent:
            try:
                _deliver_abandoned(told)
                _look_for_arrivals(told)
            except Exception as error:  # there is no other courier to go on
                _tell_once(f"{type(error).__name__}: {error}", told)
            time.sleep(PAUSE)
        status = 0
    finally:
        os._exit(status)


def _deliver_abandoned(told: set[str]) -> None:
    """Complete what recorders that are gone have left."""
    if not abandoned(SERVICE_FOLDER):
        return
    from ttyscribe.session.recovery import recover

    for done in recover(SERVICE_FOLDER):
        # A writer that stays down is not told of each time.
        _tell_once(str(done), told)


def _tell_once(line: str, told: set[str]) -> None:
    """Say a line that was not said before on standard error, which is the log."""
    if len(told) > _TOLD_MAX:
        told.clear()
    if line not in told:
        told.add(line)
        print(f"ttyscribe recorder: {printable(line)}", file=sys.stderr, flush=True)


def _look_for_arrivals(told: set[str]) -> None:
    """Report what was sent to the journal and is not there; told are the problems logged before."""
    if not any(name.endswith(SENT) for name in os.listdir(SERVICE_FOLDER)):
        return
    from ttyscribe.session import arrival

    for done in arrival.check(SERVICE_FOLDER):
        if done.state == arrival.MISSING:
            alert(str(done), done.user)
        else:
            # The same for all recordings, and told of one.
            _tell_once(done.problem, told)
