# SPDX-License-Identifier: Apache-2.0
"""What a login comes to that can't be recorded, as long as nothing has begun."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING

from ttyscribe import config
from ttyscribe.errors import printable
from ttyscribe.recorder import wire
from ttyscribe.session.alert import alert

if TYPE_CHECKING:
    from ttyscribe.config.views import RecSession
    from ttyscribe.recorder.peer import Peer


def at_failure(peer: Peer | None, hello: wire.Hello | None) -> RecSession:
    """What counts where there is no configuration."""
    if peer is None or hello is None:
        return config.built_in("rec-session")  # type: ignore[return-value]  # the defaults
    from ttyscribe.config.broken import values_at_failure

    environ = {os.fsdecode(k): os.fsdecode(v) for k, v in hello.environ.items()}
    return values_at_failure(environ, os.fsdecode(hello.argv0), peer.uid)


def refuse(connection: socket.socket, peer: Peer | None, values: RecSession, why: str) -> None:
    """Tell the client that this session can't be recorded, and what the admin wants then."""
    uid = peer.uid if peer is not None else -1
    outcome = str(values["on_failure_root" if uid == 0 else "on_failure"])
    shell = str(values["shell"])
    why = printable(why)
    what = "this session is not recorded" if outcome == "allow" else "login refused"
    alert(f"user {uid}: {what}: {why}")
    with contextlib.suppress(OSError):
        connection.settimeout(1.0)
        fields = (outcome, shell, why)
        connection.send(wire.pack(wire.FAILED, *(os.fsencode(field) for field in fields)))
