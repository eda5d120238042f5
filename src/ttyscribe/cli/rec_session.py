# SPDX-License-Identifier: Apache-2.0
"""`ttyscribe rec-session`: a login shell that records what the real shell does.

Everything here is the login path: imports are counted in milliseconds, and
whatever goes wrong ends in the outcome that the admin chose (on_failure).
"""

from __future__ import annotations

import errno
import os
import sys

from ttyscribe.errors import (
    NO_DESCRIPTOR,
    ServiceError,
    SpawnError,
    TtyscribeError,
    WriterError,
    printable,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import NoReturn

    from ttyscribe.config import Loaded
    from ttyscribe.config.views import RecSession
    from ttyscribe.policy import Decision
    from ttyscribe.session.pump import Log
    from ttyscribe.terminal import Child

HELP = """\
Usage: ttyscribe-rec-session [SHELL-OPTION...] [SCRIPT [ARG...]]
   or: ttyscribe-rec-session -c [SHELL-OPTION...] COMMAND [NAME [ARG...]]
Be a login shell: start the real shell and record what it does.

  -l, --login           make the shell a login shell (as does a name with a leading dash)
  -i, --interactive     make the shell an interactive shell
  -c, --command         run the shell command COMMAND
  --configuration       print the effective configuration as JSON and exit
  -h, --help            print this help and exit; as the only argument
  -v, --version         print the version and exit; as the only argument

All other options and arguments are the real shell's. Set it as a user's shell:
  usermod --shell /usr/bin/ttyscribe-rec-session alice
and say in /etc/ttyscribe/rec-session.conf which shell it stands for, who is
recorded and where. 'ttyscribe policy alice' tells what will happen.

Exit status: the shell's own; death by signal N is death by signal N; 127 if the
shell is not there, 126 if it may not run, 1 if the session could not be recorded
and on_failure is "deny".
"""
# tlog's long options, which not every shell has.
LONG = {"--login": "-l", "--interactive": "-i", "--command": "-c"}
# The name under which SSSD and a shell's configuration hand the real shell over.
_REFUSED = "login refused, because the session can't be recorded"
_WITHOUT = "this session is not recorded"
# Descriptors put by for telling of a failure, which may be the lack of them: the way
# to the configuration is open as a whole.
_SPARE = 8
# Those that reading the configuration takes besides, and those that a session takes, as a
# rule. To have too few is found out first, and so is told as that; and before the user is
# told that the session is recorded.
_TO_READ = 4
_TO_RECORD = 16
SHELL_VARIABLE = b"TLOG_REC_SESSION_SHELL"


def main(argv: list[str] | None = None) -> int:
    """Run `ttyscribe rec-session ARGV`, or the script that pip installs for it."""
    if argv is None:
        return launched(sys.argv[0], sys.argv[1:], dict(os.environb))
    return launched("ttyscribe-rec-session", argv, dict(os.environb))


def launched(
    argv0: str,
    arguments: Sequence[str],
    environ: Mapping[bytes, bytes],
    ignored: Sequence[int] = (),
    service: str | None = None,
    held: Sequence[int] = (),
) -> int:
    """Be the login shell that was started as argv0 with arguments and environ.

    ignored are the signals that the shell is to ignore, of those that Python does, and held
    those that are blocked until it is there. service is what came of asking the recorder
    service, where the launcher did: "" if it wants us to record, else why it does not.

    Returns the exit status; does not return where the real shell takes over.
    """
    from ttyscribe.terminal import standard_descriptors

    fds = standard_descriptors()
    if len(arguments) == 1 and arguments[0] in ("-h", "--help"):
        print(HELP, end="")
        return 0
    if len(arguments) == 1 and arguments[0] in ("-v", "--version"):
        from ttyscribe import __version__

        print(f"ttyscribe rec-session {__version__}")
        return 0
    login = Login(argv0, shortened(arguments), environ, fds, ignored, held)
    login.service = service
    if list(arguments) == ["--configuration"]:
        from ttyscribe.config import dump

        try:
            print(dump(login.load().values))
        except TtyscribeError as error:
            complain(f"ttyscribe: {printable(str(error))}")
            return error.status
        return 0
    return login.run()


def shortened(arguments: Sequence[str]) -> list[str]:
    """arguments with tlog's long options as every shell has them.

    The shell's options end before the first word that is none: a script or, after -c, a
    command. What follows is that one's own.
    """
    words = list(arguments)
    for at, word in enumerate(words):
        if word in ("-", "--") or not word.startswith(("-", "+")):
            break
        words[at] = LONG.get(word, word)
    return words


class Login:
    """One login: who it is, what they want to run, and what the admin wants of it."""

    def __init__(
        self,
        argv0: str,
        arguments: Sequence[str],
        environ: Mapping[bytes, bytes],
        fds: tuple[int, int, int],
        ignored: Sequence[int] = (),
        held: Sequence[int] = (),
    ) -> None:
        self._ignored = ignored
        self._held = held
        self.argv0 = argv0
        self.arguments = list(arguments)
        self.environ = dict(environ)
        self.fds = fds
        self.uid = os.getuid()
        self.values: RecSession | None = None
        self.service: str | None = None
        self._serviced = False
        self._is_plain_git = False
        self._spare: list[int] = []
        self._has_begun = False

    def run(self) -> int:
        """Record the session as configured; return the exit status.

        Raises an exception only where no session has begun.
        """
        try:
            return self._run()
        except Exception as error:  # telling of a failure failed, as for want of memory
            if not self._has_begun:
                raise
            complain(f"ttyscribe: a recording is not complete: {type(error).__name__}")
            return 1

    def _run(self) -> int:
        try:
            self._put_by(_SPARE + _TO_READ)
            self._release_spare(_SPARE)
            if self.arguments[:1] == ["-c"] and "git-" in self.arguments[-1]:
                from ttyscribe.recorder.reach import not_dumpable
                from ttyscribe.session.skip import asks_git

                not_dumpable()
                self._is_plain_git = asks_git(self.arguments, self.environ)
            status = self._by_service()
            return self._by_ourselves() if status is None else status
        except SpawnError as error:
            complain(f"ttyscribe: {printable(str(error))}")
            return error.status
        except TtyscribeError as error:
            if isinstance(error, WriterError) and error.code is not None:
                from ttyscribe.session.direct import NOT_COMPLETE

                # The session is over, and its outcome remains what it was.
                self._tell_admin(f"{NOT_COMPLETE}: {error}")
                complain(f"ttyscribe: {printable(str(error))}")
                return error.code
            return self._cannot_record(str(error))
        except Exception as error:  # whatever it is, a login must come to the chosen outcome
            why = f"internal error: {type(error).__name__}: {error}"
            if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
                why = NO_DESCRIPTOR
            # The traceback holds what has descriptors.
            del error
            return self._cannot_record(why)

    def load(self) -> Loaded[RecSession]:
        """The configuration, by a login shell's rules of trust. Raises ConfigError."""
        from ttyscribe import config

        loaded = config.load(
            "rec-session", environ=self._text_environ(), name=self.argv0, user=self.uid
        )
        for warning in loaded.warnings:
            self._warn(warning)
        return loaded

    def _text_environ(self) -> dict[str, str]:
        return {os.fsdecode(name): os.fsdecode(value) for name, value in self.environ.items()}

    def _by_service(self) -> int | None:
        """Let the recorder service record; None if there is none or it wants us to.

        Raises ServiceError if it does not answer, and SpawnError.
        """
        if self.service is not None:
            if self.service:
                raise ServiceError(self.service)
            self._serviced = True
            return None
        from ttyscribe.recorder import reach, wire

        sock = reach.connect()
        if sock is None:
            return None
        answer = reach.ask(
            sock, self.argv0, self.arguments, self.environ, self.fds, self._is_plain_git
        )
        fields = [os.fsdecode(field) for field in answer.fields] if answer is not None else []
        if answer is None or answer.kind == wire.OTHER_VERSION:
            what = f"speaks version {fields[0]}, we {wire.VERSION}" if fields else "gives no answer"
            raise ServiceError(f"the recorder service {what}; restart it")
        self._serviced = True
        if answer.kind == wire.DIRECT:
            return None
        if answer.kind == wire.FAILED:
            outcome, path, why = fields
            return self._refused(outcome, path, why)
        if answer.kind == wire.BARE:
            self._run_bare(self._shell(fields[0]))
        self._begun(fields[1])
        shell = self._shell(fields[0])
        if len(fields) > 3:
            shell = self._program(fields[3], fields[4:], shell)
        from ttyscribe.recorder.client import run_recorded

        return self._end(*run_recorded(sock, answer, shell, self.fds, waiter()))

    def _by_ourselves(self) -> int:
        """Record in this process. Raises TtyscribeError where that can't be."""
        loaded = self.load()
        self.values = loaded.values
        if not self._serviced:
            self._without_service(loaded.values["service"])
        shell = self._shell(loaded.values["shell"])
        decision = self._decide(loaded)
        if not decision.recorded:
            self._run_bare(shell)
        # A name that could not be looked up is not asked for again.
        return self._record(shell, decision.user or str(self.uid))

    def _without_service(self, wanted: str) -> None:
        """No service listens: as the admin wants it. Raises ServiceError if it is required."""
        from ttyscribe.recorder.wire import SOCKET

        if wanted == "required":
            raise ServiceError(f"no recorder service listens at {SOCKET}; start it")
        if wanted == "preferred":
            self._warn(f"no recorder service listens at {SOCKET}; the session records itself")

    def _end(self, status: int, signal: int) -> int:
        """End as the shell did."""
        if signal:
            from ttyscribe.terminal.signals import die_by

            die_by(signal)
        return status

    def _shell(self, path: str) -> Child:
        """The real shell at path as it would have been started in our place."""
        from ttyscribe.terminal import Child
        from ttyscribe.terminal.spawn import name_for

        environ = {name: value for name, value in self.environ.items() if name != SHELL_VARIABLE}
        environ[b"SHELL"] = os.fsencode(path)
        argv = [name_for(path, self.argv0), *self.arguments]
        return Child(path, argv, environ, self._ignored, self._held)

    def _decide(self, loaded: Loaded[RecSession]) -> Decision:
        """Whether the policy wants this session recorded. Raises PolicyError."""
        from ttyscribe import policy

        name = os.fsdecode(self.environ.get(b"LOGNAME", b""))
        decision = policy.for_login(loaded.values, loaded.origin, self.uid, login=name)
        for warning in decision.warnings:
            self._warn(warning)
        return decision

    def _record(self, shell: Child, user: str) -> int:
        """Record in this process. Raises TtyscribeError where that can't be."""
        from ttyscribe.session import record_session
        from ttyscribe.session.identity import recording_id
        from ttyscribe.session.lock import acquire
        from ttyscribe.session.setup import open_recording, start_member
        from ttyscribe.session.skipped import SkippedLog, skip_for, without_contents
        from ttyscribe.session.utmp import LoginRecord

        self._put_by(_TO_RECORD)
        self._release_spare(_SPARE)
        values = self.values
        assert values is not None
        skip = skip_for(values, self.arguments, self.environ, self.fds, self._is_plain_git)
        # What is not recorded itself must not stand for a recording.
        lock = acquire(values["lock"] if skip is None else "none", recording_id(os.getpid()))
        if lock is None:
            # This terminal's recording has all that the shell will show on it.
            self._run_bare(shell)
        start = start_member(shell.argv, shell.path, self.environ)
        log: Log
        notice = ""
        if skip is not None:
            recording = open_recording(without_contents(values), user, self.environ)
            log = SkippedLog(recording, skip, self.arguments[1])
            shell = self._program(skip.path, skip.argv, shell)
        else:
            log = open_recording(values, user, self.environ)
            notice = values["notice"]
        outcome = record_session(
            shell,
            self.fds,
            log,
            start,
            log_output=values["log"]["output"],
            hide_passwords=not values["log"]["passwords"],
            on_outage=values["on_outage"],
            tell_admin=self._tell_admin,
            begun=lambda: self._begun(notice),
            lock=lock,
            login_record=LoginRecord(),
            relay_all=skip is not None,
        )
        return self._end(outcome.status, outcome.signal)

    def _program(self, path: str, argv: list[str], shell: Child) -> Child:
        """A program whose contents are not recorded, as skip.py says that it is run."""
        from ttyscribe.session.skip import environment_of
        from ttyscribe.terminal import Child

        return Child(path, argv, environment_of(shell.environ), shell.ignored, shell.held)

    def _begun(self, notice: str) -> None:
        """The session is being recorded; the shell is still to be started."""
        self._has_begun = True
        self._release_spare()
        self._give_notice(notice)

    def _put_by(self, count: int) -> None:
        """Have count more descriptors to spare. Raises OSError if there are not so many."""
        for _ in range(count):
            self._spare.append(os.dup(0))

    def _release_spare(self, left: int = 0) -> None:
        while len(self._spare) > left:
            os.close(self._spare.pop())

    def _give_notice(self, notice: str) -> None:
        """Tell the user that the session is recorded, if there is a person at a terminal."""
        if notice and all(fd >= 0 and os.isatty(fd) for fd in self.fds[:2]):
            # The terminal's own mode turns the line ends into its own.
            os.write(self.fds[1], notice.encode("utf-8", "replace"))

    def _run_bare(self, shell: Child) -> NoReturn:
        """Become the real shell. Raises SpawnError."""
        from ttyscribe.terminal import exec_shell

        for number, fd in enumerate(self.fds):
            if fd < 0:
                os.close(number)
        exec_shell(shell)

    def _cannot_record(self, why: str) -> int:
        """Recording can't begin: refuse the login or allow it, as the admin chose."""
        self._release_spare()
        if self.values is None:
            from ttyscribe.config.broken import values_at_failure

            self.values = values_at_failure(self._text_environ(), self.argv0, self.uid)
        outcome = self.values["on_failure_root" if self.uid == 0 else "on_failure"]
        why = printable(why)
        self._tell_admin(f"{_WITHOUT if outcome == 'allow' else _REFUSED}: {why}")
        return self._refused(outcome, self.values["shell"], why)

    def _refused(self, outcome: str, shell: str, why: str) -> int:
        """Tell the user, and let them in or not."""
        complain(f"ttyscribe: {_WITHOUT if outcome == 'allow' else _REFUSED}: {why}")
        if outcome != "allow":
            return 1
        try:
            self._run_bare(self._shell(shell))
        except SpawnError as error:
            complain(f"ttyscribe: {printable(str(error))}")
            return error.status

    def _tell_admin(self, line: str) -> None:
        from ttyscribe.session.alert import alert

        alert(f"user {self.uid}: {printable(line)}")

    def _warn(self, line: str) -> None:
        from ttyscribe.session.alert import warn

        warn(f"user {self.uid}: {printable(line)}")


def waiter() -> str:
    """The native waiter of this installation; "" if there is none."""
    path = sys.executable.rpartition("/")[0] + "/ttyscribe-wait"
    return path if os.access(path, os.X_OK) else ""


def built_in_values() -> RecSession:
    """What counts where the configuration can't be read."""
    from ttyscribe.config import built_in

    return built_in("rec-session")  # type: ignore[return-value]  # the model's own defaults


def complain(line: str) -> None:
    """One line for the user, if there is somewhere to put it."""
    try:
        os.write(2, line.encode("utf-8", "replace") + b"\n")
    except OSError:
        pass
