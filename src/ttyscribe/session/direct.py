# SPDX-License-Identifier: Apache-2.0
"""Direct mode: one process is both the user's and the recorder."""

from __future__ import annotations

import os

from ttyscribe.errors import (
    NOT_EXECUTABLE,
    SpawnError,
    TerminalError,
    WriterError,
    printable,
)
from ttyscribe.session.outage import Outage
from ttyscribe.session.outcome import Outcome
from ttyscribe.session.pump import Pump
from ttyscribe.terminal import RawMode, keep_only, leave_inherited, open_ends, spawn, window_of
from ttyscribe.terminal.job import gives_control, is_in_foreground, is_outlived, shares_keys
from ttyscribe.terminal.raw import use_lines
from ttyscribe.terminal.signals import ENDING, HANG_UPS, KEYBOARD, KeySignals, die_by, forget
from ttyscribe.terminal.spawn import (
    end_shell,
    is_undone,
    is_watched,
    name_terminal,
    stands_apart,
    stop_by,
    stop_too,
)
from ttyscribe.terminal.stops import Stops

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Mapping, Sequence

    from ttyscribe.session.lock import Lock
    from ttyscribe.session.pump import Log
    from ttyscribe.session.utmp import LoginRecord
    from ttyscribe.terminal import Child, Ends
    from ttyscribe.terminal.mode import PtyMode
else:
    import _signal as signal


# What the admin is told of a session that is over, and not in the recording as a whole.
NOT_COMPLETE = "a recording is not complete"


def record_session(
    child: Child,
    fds: tuple[int, int, int],
    recording: Log,
    start: Mapping[str, object],
    *,
    log_output: bool = True,
    hide_passwords: bool = True,
    on_outage: str = "freeze",
    tell_admin: Callable[[str], None] | None = None,
    begun: Callable[[], None] | None = None,
    lock: Lock | None = None,
    login_record: LoginRecord | None = None,
    relay_all: bool = False,
) -> Outcome:
    """Run child for the user at the descriptors fds, recording; return how it ended.

    fds stand for standard input, output and error, -1 for one that is closed.
    start is the start member of the first message. on_outage tells what happens
    when no more can be recorded: "freeze" the terminal until it can, or "end" the
    session. tell_admin is called with one line if the recording's end waits in the spool,
    because its writer is down, or is lost when nobody waits for us; begun is
    called once the session is sure to be recorded. lock is held on the shell's terminal,
    and login_record tells of it, while the session lasts. With relay_all the bytes of all
    pipes pass through us, even where they are not logged. The terminal has its mode back
    when this returns or raises. Raises SpawnError if the child can't be started,
    and WriterError if the recording could not be written in full; its
    code then tells how the session itself ended. Once the child has started, nothing else is
    raised: whatever failed, it is not to be started again.
    """
    ends = open_ends(
        fds,
        os.getpid(),
        log_input=recording.log_input or relay_all,
        log_output=log_output or relay_all,
    )
    if lock is not None and ends.slave >= 0:
        lock.hold_terminal(ends.slave)
    window = window_of(ends.terminal) if ends.terminal >= 0 else None
    recording.start(start, window)
    if begun is not None:
        begun()
    session = _Direct(child, recording, fds, ends, hide_passwords, on_outage, tell_admin)
    session.lock = lock
    if login_record is None or ends.master < 0:
        return session.run()
    session.login_record = login_record
    login_record.add(ends.master, str(start.get("remote", "")))
    return session.run()


class _Direct:
    """One session in direct mode: signals, the shell's end, and the pump."""

    def __init__(
        self,
        child: Child,
        recording: Log,
        fds: tuple[int, int, int],
        ends: Ends,
        hide_passwords: bool,
        on_outage: str,
        tell_admin: Callable[[str], None] | None,
    ) -> None:
        self._child = child
        self._recording = recording
        self._fds = fds
        self._ends = ends
        self._hide_passwords = hide_passwords
        self._end_at_outage = on_outage == "end"
        self._tell_admin = tell_admin
        self._shares_keys = ends.terminal >= 0 and shares_keys(ends.terminal, os.getpid())
        self._keys: KeySignals | None = None
        self._stops = Stops()
        self._raw: RawMode | None = None
        self._mode: PtyMode | None = None
        if ends.terminal >= 0:
            from ttyscribe.terminal.mode import PtyMode

            self._mode = PtyMode(ends.master)
            self._raw = RawMode(ends.terminal, ends.whole, None if self._shares_keys else b"")
        self._pid = 0
        self._wait_status: int | None = None
        self._killed_by = 0
        self._wake = -1
        self._noted: set[int] = set()
        self.login_record: LoginRecord | None = None
        self.lock: Lock | None = None
        # With none of our own the shell gets none either, and who means it sends us signals.
        self._controlled = self._raw is not None and gives_control(os.getpid())
        self._is_outlived = self._raw is not None and is_outlived(ends.terminal, os.getpid())

    def run(self) -> Outcome:
        try:
            return self._run()
        except Exception as error:
            if not self._pid or (isinstance(error, WriterError) and error.code is not None):
                raise
            raise self._fault(error, self._outcome()) from error

    def _run(self) -> Outcome:
        self._catch_signals()
        pump = self._pump = Pump(self._ends, self._recording, hide_passwords=self._hide_passwords)
        end = self._end_at_once if self._end_at_outage else None
        pump.on_freeze = Outage(self._recording, self._ends.terminal, 2, end, pump.show)
        pump.on_hang_up = self._forget_login
        pump.on_output_end = self._leave_ended
        pump.watch(self._wake, self._on_signal)
        keyboard, keys = pump.keyboard, None
        if self._raw is not None and keyboard is not None and self._shares_keys:
            from ttyscribe.session.keys import SignalKeys

            keys = keyboard.keys = SignalKeys(
                self._ends.master, self._controlled, self._use_keys, self._ask_for_keys
            )
            # Nobody tells us of a key that stops or ends whoever started us, and not the shell.
            keyboard.is_ours = lambda: is_in_foreground(self._ends.terminal)
            keyboard.on_lost = self._lose_terminal
        if self._keys is not None:
            pump.watch(self._keys.fd, self._on_key_signals)
        try:
            if self._raw is not None and keyboard is not None:
                if is_in_foreground(self._ends.terminal):
                    keyboard.read_ahead(self._ends.slave)
                self._raw.enter()
                if self._child.is_interactive:
                    forget(self._child.held)
                if not self._take():
                    use_lines(self._ends.master)
            early = []
            if self._keys is None:
                # From now on no key of the terminal sends one.
                early = forget(self._child.held)
                signal.pthread_sigmask(signal.SIG_UNBLOCK, self._child.held)
            slave = self._ends.slave
            name_terminal(self._child, self._ends.terminal, slave)
            try:
                self._pid = spawn(
                    self._child, _three(self._ends.child), slave, controlled=self._controlled
                )
            except (SpawnError, TerminalError, OSError) as error:
                status = error.status if isinstance(error, SpawnError) else NOT_EXECUTABLE
                self._recording.finish({"event": "end", "status": status}, self._told_to_end)
                raise
            self._leave_unused()
            self._ends.close_childs()
            for number in early:
                # A key's are for all of the job, and a shell whose job goes on does so too.
                os.killpg(self._pid, number)
            if keys is not None and self._controlled:
                keys.begin(self._child.group)
            pump.run()
        except Exception as error:
            if not self._pid:
                raise
            # A fault of ours ends the session: nothing goes on unrecorded.
            outcome = None if self._wait_status is None else self._outcome()
            self._end_at_once()
            raise self._failed(error, outcome) from error
        finally:
            if self._raw is not None:
                self._raw.leave()
            if self._keys is not None:
                # With the shell its keys have ended: from now on a signal is meant for us.
                pump.unwatch(self._keys.fd)
                self._keys.close()
        outcome = self._outcome()
        self._forget_login()
        if self.lock is not None:
            # It stands for no further recording, and holds the pty.
            self.lock.release()
        if self._wait_status is not None and pump.left_over(keep_pty=self._is_outlived):
            self._leave_rest_to_a_child(outcome)
        else:
            pump.close()
            self._finish(outcome)
        if self._killed_by:
            die_by(self._killed_by)
        if self._pump.complaint:
            self._complain(self._pump.complaint)
            if outcome.code() == 0:
                # The shell saw it all taken; without us its own write would have failed.
                return Outcome(1)
        return outcome

    def _leave_unused(self) -> None:
        """Leave what only the shell has to do with."""
        leave_inherited()
        if self._ends.child[0] == self._fds[0] >= 0:
            keep_only(set(), self._fds[:1])

    def _leave_ended(self) -> None:
        """Who waits for the end of an output that the shell has closed is not to wait for us."""
        keep_only(self._pump.in_use(), [fd for fd in self._fds if fd >= 0])

    def _forget_login(self) -> None:
        """Take the login record back, for which the pty must still be there."""
        if self.login_record is not None and self._ends.master >= 0:
            self.login_record.remove(self._ends.master)
            self.login_record = None

    def _outcome(self) -> Outcome:
        if self._wait_status is None:
            self._reap()
        if self._wait_status is None:
            # It outlives its terminal, as a shell may that ignores SIGHUP.
            return Outcome(0, self._killed_by or signal.SIGHUP)
        return Outcome.of(self._wait_status)

    def _finish(self, outcome: Outcome) -> None:
        try:
            self._recording.finish(outcome.member(), self._told_to_end)
        except WriterError as error:
            if error.kept and self._tell_admin is not None:
                self._tell_admin(str(error))
                return
            error.code = outcome.code()
            raise

    @staticmethod
    def _complain(line: str) -> None:
        try:
            os.write(2, f"{line}\n".encode("utf-8", "replace"))
        except OSError:
            pass

    def _failed(self, error: Exception, outcome: Outcome | None) -> WriterError:
        """What a fault of ours becomes; what was captured before it is still written.

        outcome is the shell's, None if it was we who ended it.
        """
        failed = self._fault(error, outcome or Outcome(1))
        ended = outcome or Outcome(0, signal.SIGHUP)
        try:
            self._recording.finish(ended.member(), self._told_to_end)
        except Exception as second:  # the fault may be the recording's own
            failed.args = (f"{failed}; the end of the recording is not written: {second}",)
        return failed

    @staticmethod
    def _fault(error: Exception, outcome: Outcome) -> WriterError:
        fault = WriterError(f"the recorder failed: {type(error).__name__}: {error}")
        fault.code = outcome.code()
        return fault

    def _leave_rest_to_a_child(self, outcome: Outcome) -> None:
        """Jobs that outlive the shell still write: record them without keeping the caller waiting.

        The caller sees the shell's end now, and the end of the pipes when those
        jobs end, just as without us.
        """
        try:
            if os.fork():
                return
        except OSError:
            # No process is left, as where those jobs are too many. The caller has to wait.
            self._pump.run_rest()
            self._pump.close()
            self._finish(outcome)
            return
        status = 1
        try:
            # The shell's own signals no longer concern us, only being told to end.
            for number in ENDING:
                signal.signal(number, signal.SIG_IGN if number != signal.SIGTERM else _noted)
            self._recording.forked()
            self._pump.run_rest(lambda used: keep_only(used, range(3)))
            self._finish(outcome)
            status = 0
        except Exception as error:
            lost = error if isinstance(error, WriterError) else self._fault(error, outcome)
            if self._tell_admin is not None:
                self._tell_admin(f"{NOT_COMPLETE}: {lost}")
            self._complain(f"ttyscribe: {printable(str(lost))}")
        finally:
            os._exit(status)

    def _catch_signals(self) -> None:
        self._wake, write = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        watched = (*ENDING, signal.SIGCHLD, signal.SIGWINCH, signal.SIGCONT)
        for number in watched:
            # What the caller ignores (nohup) stays ignored, by us and by the shell.
            if signal.getsignal(number) != signal.SIG_IGN or number == signal.SIGCHLD:
                signal.signal(number, _noted)
        # What the caller blocked, the shell gets blocked, but we have to hear of its end.
        held = self._child.held
        self._child.blocked = signal.pthread_sigmask(signal.SIG_UNBLOCK, {*watched} - {*held})
        if self._shares_keys and self._controlled:
            self._keys = KeySignals(held)

    def _on_signal(self) -> None:
        self._note_signals()
        while self._noted:
            # What wakes us is acted on before what stops us: it came behind that, or was for it.
            number = signal.SIGCONT if signal.SIGCONT in self._noted else min(self._noted)
            self._noted.discard(number)
            self._act_on(number)

    def _note_signals(self) -> None:
        try:
            self._noted.update(os.read(self._wake, 512))
        except BlockingIOError:
            pass

    def _on_key_signals(self) -> None:
        keyboard = self._pump.keyboard
        assert self._keys is not None and keyboard is not None
        running = self._wait_status is None
        self._keys.act(running, self._typed, keyboard.signal_job, self._to_us)

    def _typed(self, number: int) -> None:
        assert self._pump.keyboard is not None
        if number == signal.SIGTSTP:
            self._stops.typed()
        self._pump.keyboard.type_key(number)

    def _to_us(self, number: int) -> None:
        if number == signal.SIGTSTP:
            stop_by(number, self._is_woken)
        else:
            self._act_on(number)

    def _use_keys(self, keys: bytes) -> bool:
        assert self._raw is not None
        self._raw.use_keys(keys)
        return True

    def _ask_for_keys(self) -> bool:
        self._on_key_signals()
        return True

    def _act_on(self, number: int) -> None:
        if number == signal.SIGCHLD:
            self._reap()
            if self.login_record is not None:
                self.login_record.reap()
        elif number in self._ending():
            # A real terminal's end: the shell is hung up, and we end as we were told to.
            self._killed_by = number
            self._pump.hang_up()
        elif number == signal.SIGWINCH and self._raw is not None:
            self._pump.resize()
        elif number == signal.SIGCONT and self._raw is not None:
            self._stops.woken()
            if self._wait_status is None:
                self._take()
                self._kill(number)
        else:
            self._pass_on(number)

    def _ending(self) -> Sequence[int]:
        """The signals that end us, and are not the shell's."""
        if self._wait_status is not None:
            return ENDING
        return HANG_UPS if self._controlled else ()

    def _told_to_end(self) -> bool:
        """Whether we were told to end, when nothing is left to do but to write."""
        try:
            return any(number in ENDING for number in os.read(self._wake, 512))
        except BlockingIOError:
            return False

    def _pass_on(self, number: int) -> None:
        """It is meant for the shell, which we stand for."""
        # The keyboard's own (INT, QUIT) reach it without us; what it makes of them, we follow.
        if number not in KEYBOARD or stands_apart(self._pid):
            self._kill(number)

    def _reap(self) -> None:
        if self._wait_status is not None or not self._pid:
            return
        try:
            pid, status = os.waitpid(self._pid, os.WNOHANG | os.WUNTRACED)
        except ChildProcessError:
            pid, status = self._pid, 0
        if pid == 0:
            return
        if os.WIFSTOPPED(status):
            if self._raw is None or not is_undone(os.WSTOPSIG(status), self._pid, self._controlled):
                self._stop_with_shell()
            return
        self._wait_status = status
        # One that is killed does not tell how it would have left the terminal.
        if not os.WIFSIGNALED(status):
            self._keep_mode()
        self._pump.shell_ended()

    def _is_woken(self) -> bool:
        self._note_signals()
        return signal.SIGCONT in self._noted

    def _stop_with_shell(self) -> None:
        """The shell suspended itself: so do we, if somebody is there to wake us."""
        # Else it stays so until it is sent a CONT, or we are, as it would alone.
        if self._stops.is_overtaken or self._is_woken():
            self._kill(signal.SIGCONT)
        elif self._raw is not None and is_watched(self._controlled):
            self._keep_mode()
            self._raw.leave()
            if self._stops.is_of_key and not is_in_foreground(self._ends.terminal):
                # Nobody waits for us to stop as well; we are woken with our job.
                self._lose_terminal()
            else:
                stop_too(self._is_woken)
                self._take()
                self._pump.resize()
                self._kill(signal.SIGCONT)
        self._stops.over()

    def _take(self) -> bool:
        """Take the terminal, or leave it alone while it is another job's; whether it is taken."""
        assert self._raw is not None
        taken = self._raw.enter_again()
        keyboard = self._pump.keyboard
        if self._ends.master >= 0 and keyboard is not None and self._mode is not None:
            self._mode.shown(taken=taken, processes=self._raw.took_output)
            if taken:
                keyboard.take()
            else:
                keyboard.leave(self._look)
        return taken

    def _keep_mode(self) -> None:
        """Have the terminal be left as the shell leaves its own."""
        if self._mode is None or self._raw is None or self._ends.master < 0:
            return
        if self._raw.keep(self._mode.change()):
            self._mode.forget()

    def _lose_terminal(self) -> None:
        if self._raw is not None and self._pump.keyboard is not None:
            self._raw.leave()
            self._pump.keyboard.leave(self._look)

    def _look(self) -> None:
        if is_in_foreground(self._ends.terminal) and self._wait_status is None:
            self._take()
            self._pump.resize()

    def _kill(self, number: int) -> None:
        if self._wait_status is None:
            try:
                os.kill(self._pid, number)
            except ProcessLookupError:
                pass

    def _end_at_once(self) -> None:
        """What can't be recorded may not go on, hung up or not."""
        self._pump.hang_up()
        if self._wait_status is None:
            self._wait_status = end_shell(self._pid)
        self._pump.shell_ended()


def _three(fds: list[int]) -> tuple[int, int, int]:
    return fds[0], fds[1], fds[2]


def _noted(number: int, frame: object) -> None:
    """The wakeup descriptor has told the pump already."""
