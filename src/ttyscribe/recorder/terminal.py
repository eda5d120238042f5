# SPDX-License-Identifier: Apache-2.0
"""The user's terminal while a session has it: the client sets its mode and has the signals of its
keys, and the recorder reads its keyboard. What they tell each other of that is in wire.py."""

from __future__ import annotations

import functools
import signal
from typing import TYPE_CHECKING

from ttyscribe.recorder import wire
from ttyscribe.session.keys import SignalKeys
from ttyscribe.terminal import job
from ttyscribe.terminal.mode import PtyMode

if TYPE_CHECKING:
    from collections.abc import Callable

    from ttyscribe.session.keyboard import Keyboard
    from ttyscribe.terminal import Ends

# What a client says of it.
KINDS = (wire.STOPPED, wire.RESUMED, wire.BEHIND, wire.JOB, wire.TYPED, wire.SYNC, wire.TO_JOB)
# Of all processes, proc(5).
_PID_MAX = 1 << 22


class ClientsTerminal:
    """That of the client with this pid; tell sends it a packet, and is False where that has no
    room. outlived is whether somebody else has the terminal after the session, and command
    whether the shell has one to run."""

    def __init__(
        self,
        keyboard: Keyboard,
        ends: Ends,
        pid: int,
        tell: Callable[[bytes], bool],
        *,
        outlived: bool,
        command: bool,
    ) -> None:
        """Leaves the keyboard until the client has taken the terminal."""
        self._keyboard = keyboard
        self._ends = ends
        self._tell = tell
        self._mode = PtyMode(ends.master)
        self._outlived = outlived
        self._taken = False
        controlled = job.gives_control(pid)
        # A key that comes before the pty controls the shell is a signal for nobody. It ends a
        # command, and waits for it; a shell that reads commands, it would end as well.
        self._awaits_job = command and controlled
        if job.shares_keys(ends.terminal, pid):
            keyboard.keys = SignalKeys(ends.master, controlled, self._use_keys, self._ask_for_keys)
        if outlived:
            # A client that is stopped by a signal can't tell, and another job has the keyboard.
            keyboard.is_ours = functools.partial(job.is_in_foreground, ends.terminal, pid)
        keyboard.leave()

    def heard(self, kind: bytes, fields: list[bytes]) -> None:
        """One packet, of KINDS. Raises ValueError or IndexError for what no client says."""
        keyboard = self._keyboard
        if kind == wire.STOPPED:
            self._hold_back()
        elif kind == wire.RESUMED:
            self._shown(taken=True, processes=fields[0] == b"1")
            if not self._awaits_job:
                keyboard.take()
        elif kind == wire.BEHIND:
            self._shown(taken=False, processes=False)
            keyboard.leave()
        elif kind == wire.JOB:
            if keyboard.keys is not None:
                keyboard.keys.begin(wire.within(_PID_MAX, fields[0]))
            self._awaits_job = False
            if self._taken:
                keyboard.take()
        elif kind == wire.TYPED:
            keyboard.type_key(wire.within(signal.NSIG - 1, fields[0]))
        elif kind == wire.SYNC:
            keyboard.keys_typed()
        else:
            keyboard.signal_job(wire.within(signal.NSIG - 1, fields[0]))

    def shell_ended(self) -> None:
        """Have the terminal be left as the shell left its own."""
        self._tell_mode()

    def _shown(self, *, taken: bool, processes: bool) -> None:
        self._taken = taken
        if self._ends.master >= 0:
            self._mode.shown(taken=taken, processes=processes)

    def _hold_back(self) -> None:
        """Leave the keyboard, and tell the client when it is left, as soon as it hears."""
        if self._tell_mode() and self._tell(wire.HELD):
            self._keyboard.leave()
        else:
            self._keyboard.leave(self._hold_back)

    def _tell_mode(self) -> bool:
        """Tell what of the pty's mode the terminal is to keep; False if there is no room."""
        if self._ends.master < 0 or not self._outlived or not self._taken:
            return True
        change = self._mode.change()
        if change and not self._tell(wire.MODE + change):
            return False
        self._mode.forget()
        return True

    def _use_keys(self, keys: bytes) -> bool:
        return self._tell(wire.pack(wire.KEYS, keys))

    def _ask_for_keys(self) -> bool:
        # Where nobody hears, nobody tells.
        return not self._tell(wire.SYNC)
