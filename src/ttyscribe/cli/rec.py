# SPDX-License-Identifier: Apache-2.0
"""`ttyscribe rec`: record a command or the user's shell."""

from __future__ import annotations

import argparse
import errno
import os
import stat
import sys

from ttyscribe.cli import complain
from ttyscribe.cli.options import (
    Formatter,
    Parser,
    comma_list,
    given_settings,
    positive,
    put,
    settings_options,
)
from ttyscribe.errors import (
    NOT_EXECUTABLE,
    NOT_FOUND,
    SpawnError,
    UsageError,
    WriterError,
    printable,
    reason,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ttyscribe.config.views import Rec
    from ttyscribe.session.pump import Log

DESCRIPTION = """\
Record a command, or your shell, with all that its terminal shows.

Without --file-path the recording goes to a new file in
$XDG_STATE_HOME/ttyscribe (default ~/.local/state/ttyscribe), which is named at
the end. A file that exists is appended to, unless --overwrite is given.
"""
EPILOG = """\
Examples:
  ttyscribe rec                            record your shell until you leave it
  ttyscribe rec -o work.tlog vim notes     record one command into a file
  ttyscribe rec -w journal -c 'make all'   record a shell command into the journal

Exit status: the command's own, 128+N if signal N ended it (the same signal ends
ttyscribe), 127 if it was not found, 126 if it may not run; 1 if the recording
could not be started, or not be written in full though the command succeeded;
2 for a wrong command line. Times in recordings are UTC.
"""


def main(argv: list[str]) -> int:
    """Run `ttyscribe rec` with the arguments argv; return the exit status."""
    from ttyscribe.terminal import standard_descriptors

    fds = standard_descriptors()
    p = parser()
    options, words = p.split(argv)
    arguments = p.parse_args(options)
    arguments.command = words
    if arguments.version:
        from ttyscribe import __version__

        print(f"ttyscribe rec {__version__}")
        return 0
    from ttyscribe import config

    loaded = config.load(
        "rec", environ=os.environ, name="ttyscribe-rec", command_line=command_line(arguments)
    )
    if arguments.configuration:
        print(config.dump(loaded.values))
        return 0
    for warning in loaded.warnings:
        complain(f"ttyscribe rec: {warning}")
    return record(arguments, loaded.values, fds)


def parser() -> Parser:
    """The command line of rec, up to the command."""
    p = Parser(
        "ttyscribe rec",
        usage="ttyscribe rec [OPTIONS] [--] [COMMAND [ARG...]]",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=Formatter,
    )
    settings_options(p)
    p.add_argument("--stdin", dest="log_input", metavar="BOOL", nargs="?",
                   help="the same as --log-input")  # fmt: skip
    p.add_argument("-c", "--command", dest="line", metavar="COMMAND",
                   help="run COMMAND with $SHELL -c")  # fmt: skip
    p.add_argument("-t", "--title", default="", help="a title to keep with the recording")
    p.add_argument("-e", "--env", metavar="VARS", type=comma_list, default=["SHELL", "TERM"],
                   help="names of environment variables to keep, separated by commas "
                        "(default SHELL,TERM)")  # fmt: skip
    p.add_argument("-i", "--idle-time-limit", metavar="SECONDS", type=positive,
                   help="a replay waits no longer than this where nothing happened; "
                        "the recording keeps the real times")  # fmt: skip
    where = p.add_mutually_exclusive_group()
    where.add_argument("--append", action="store_true",
                       help="add to the file if it exists (the default)")  # fmt: skip
    where.add_argument("--overwrite", action="store_true", help="empty the file if it exists")
    p.add_argument("--raw", action="store_true",
                   help="write only the output's bytes to the file, no messages")  # fmt: skip
    p.add_argument("-q", "--quiet", action="store_true",
                   help="don't name the new file at the end")  # fmt: skip
    p.add_argument("-y", "--yes", action="store_true",
                   help="don't ask before writing into a file that holds no recording")  # fmt: skip
    p.add_argument("--semaphore", metavar="FILE",
                   help='write "READY" to FILE when recording is set up')  # fmt: skip
    p.add_argument("--configuration", action="store_true",
                   help="print the effective configuration as JSON and exit")  # fmt: skip
    p.add_argument("-v", "--version", action="store_true", help="print the version and exit")
    return p


def command_line(arguments: argparse.Namespace) -> dict[str, object]:
    """The settings that the command line gives, nested as in the configuration."""
    given = given_settings(arguments)
    if arguments.raw and given.get("writer", "file") != "file":
        raise UsageError("--raw writes bytes to a file, so it goes with --writer=file alone")
    if arguments.raw:
        put(given, "writer", "file")
    return given


def record(arguments: argparse.Namespace, values: Rec, fds: tuple[int, int, int]) -> int:
    """Record as the arguments and the configuration's values say; return the exit status."""
    from ttyscribe.session import record_session
    from ttyscribe.session.setup import start_member
    from ttyscribe.terminal import Child
    from ttyscribe.terminal.signals import die_by

    environ = dict(os.environb)
    shell = os.environ.get("SHELL") or "/bin/sh"
    argv = command_of(arguments, shell)
    path = find(argv[0])
    made = ""
    if values["writer"] == "file":
        if not values["file"]["path"]:
            made = values["file"]["path"] = new_path("raw" if arguments.raw else "tlog")
        else:
            check_existing(values["file"]["path"], arguments)
    start = start_member(
        argv,
        shell,
        environ,
        title=arguments.title,
        captured=arguments.env,
        idle_time_limit=arguments.idle_time_limit,
    )
    log = values["log"]
    semaphore = open_semaphore(arguments.semaphore) if arguments.semaphore else -1
    recording = open_log(arguments, values, environ)
    # Last of all: where nothing can be recorded, the old recording stays.
    if arguments.overwrite and values["writer"] == "file":
        empty(values["file"]["path"])
    if semaphore >= 0:
        raise_semaphore(semaphore, arguments.semaphore)
    try:
        outcome = record_session(
            Child(path, argv, environ),
            fds,
            recording,
            start,
            log_output=log["output"],
            hide_passwords=not log["passwords"],
        )
    except WriterError as error:
        if error.code is None:
            raise
        complain(f"ttyscribe rec: {printable(str(error))}")
        return error.code or 1
    if made and not arguments.quiet:
        replay = "cat" if arguments.raw else "ttyscribe play"
        complain(f"ttyscribe: recorded to {made}; replay it with: {replay} {quoted(made)}")
    if outcome.signal:
        die_by(outcome.signal)
    return outcome.status


def command_of(arguments: argparse.Namespace, shell: str) -> list[str]:
    """The argument vector to run. Raises UsageError if two commands are given."""
    words: list[str] = arguments.command
    if arguments.line is None:
        return words or [shell]
    if words:
        raise UsageError("give the command either by -c or behind the options, not both")
    return [shell, "-c", arguments.line]


def find(name: str) -> str:
    """The file that runs as name, so that a command that can't start touches no recording.

    Raises SpawnError with status 127 or 126.
    """
    found = [path for path in places(name) if os.path.isfile(path)]
    for path in found:
        if os.access(path, os.X_OK):
            check_interpreter(path)
            return path
    shown = printable(name)
    if "/" in name and os.path.isdir(name):
        raise SpawnError(f"{shown}: is a directory", NOT_EXECUTABLE)
    if found:
        raise SpawnError(f"{printable(found[0])}: may not be run", NOT_EXECUTABLE)
    raise SpawnError(f"{shown}: command not found", NOT_FOUND)


def places(name: str) -> list[str]:
    """Where a command may be: itself, if it has a slash, else in each folder of PATH."""
    if "/" in name:
        return [name]
    folders = os.environ.get("PATH", os.defpath).split(":")
    return [os.path.join(folder, name) for folder in folders] if name else []


def check_interpreter(path: str) -> None:
    """Make sure that a script's interpreter can run. Raises SpawnError as find does."""
    try:
        with open(path, "rb", buffering=0) as file:
            head = file.read(256)
    except OSError:
        return  # the kernel may read what we may not
    words = head.partition(b"\n")[0][2:].split(maxsplit=1)
    if not head.startswith(b"#!") or not words or os.access(words[0], os.X_OK):
        return
    line = f"{printable(path)}: its interpreter {printable(words[0])}"
    if os.path.exists(words[0]):
        raise SpawnError(f"{line} may not be run", NOT_EXECUTABLE)
    raise SpawnError(f"{line} is not found", NOT_FOUND)


def new_path(suffix: str) -> str:
    """A path for a new recording in the user's state folder, which is made if need be."""
    import time

    state = os.environ.get("XDG_STATE_HOME", "")
    if not state.startswith("/"):
        state = os.path.expanduser("~/.local/state")
    folder = os.path.join(state, "ttyscribe")
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
    except OSError as error:
        raise WriterError(
            f"{folder}: can't make the folder for recordings: {reason(error)}; "
            "name a file with --file-path"
        ) from None
    stamp = time.strftime("%Y-%m-%dT%H-%M-%SZ", time.gmtime())
    return os.path.join(folder, f"{stamp}-{os.getpid()}.{suffix}")


def check_existing(path: str, arguments: argparse.Namespace) -> None:
    """Ask before writing into a file that holds something else than recordings.

    Raises UsageError if the user says no, or nobody can be asked.
    """
    try:
        with open(path, "rb", opener=no_follow) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return
            head = file.read(8)
    except OSError:
        return  # the writer says what is wrong with it
    if not head or arguments.yes:
        return
    if arguments.raw:
        # Bytes without messages would spoil a recording, and nothing tells a raw one.
        question = f"{printable(path)} exists and is not empty"
    elif head.startswith(b'{"ver":'):
        return
    else:
        question = f"{printable(path)} exists and holds no recording"
    what = "empty it" if arguments.overwrite else "append to it"
    if sys.stdin is None or not sys.stdin.isatty():
        raise UsageError(f"{question}; --yes does {what.replace(' it', '')} anyway")
    print(f"{question}; {what} anyway? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UsageError("nothing was recorded")


def open_log(
    arguments: argparse.Namespace, values: Rec, environ: dict[bytes, bytes]
) -> Log:
    """Open what the session is recorded into."""
    from ttyscribe.session.identity import user_name
    from ttyscribe.session.setup import open_recording

    if not arguments.raw:
        return open_recording(values, user_name(os.getuid()), environ)
    from ttyscribe.session.rawlog import RawLog

    path = values["file"]["path"]
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY
    try:
        return RawLog(os.open(path, flags, 0o600), path)
    except OSError as error:
        why = reason(error)
        if error.errno == errno.ELOOP:
            why = "it is a symbolic link, which a recording is never written through"
        raise WriterError(f"{path}: can't open for writing: {why}") from None


def empty(path: str) -> None:
    """Empty the file at path, if it is a regular one. Raises WriterError."""
    try:
        fd = no_follow(path, os.O_WRONLY)
        try:
            if stat.S_ISREG(os.fstat(fd).st_mode):
                os.ftruncate(fd, 0)
        finally:
            os.close(fd)
    except OSError as error:
        raise WriterError(f"{path}: can't empty it: {reason(error)}") from None


def open_semaphore(path: str) -> int:
    """Make sure that the file at path can tell when recording is set up. Raises UsageError."""
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOCTTY
        return os.open(path, flags, 0o600)
    except OSError as error:
        raise semaphore_error(path, error) from None


def raise_semaphore(fd: int, path: str) -> None:
    """Tell whoever waits at the open file that recording is set up. Raises UsageError."""
    try:
        with open(fd, "w", encoding="ascii") as file:
            file.write("READY")
    except OSError as error:
        raise semaphore_error(path, error) from None


def semaphore_error(path: str, error: OSError) -> UsageError:
    return UsageError(f"--semaphore: {path}: {reason(error)}")


def no_follow(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)


def quoted(path: str) -> str:
    import shlex

    return shlex.quote(path)
