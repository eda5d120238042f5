# SPDX-License-Identifier: Apache-2.0
"""The command line: one module per subcommand, imported only when it runs.

A subcommand's module has `main(argv: list[str]) -> int`: the arguments after
its name in, the exit status out. Errors for the user are TtyscribeError; they
become one line on stderr here.
"""

from __future__ import annotations

import io
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from typing import NoReturn
else:
    import _signal as signal

# name: (module, one line for the help)
COMMANDS = {
    "rec": ("ttyscribe.cli.rec", "record a command or your shell"),
    "rec-session": ("ttyscribe.cli.rec_session", "be a login shell that records"),
    "play": ("ttyscribe.cli.play", "replay a recording on this terminal"),
    "cat": ("ttyscribe.cli.cat", "print a recording's exact output, for pipes"),
    "recorder": ("ttyscribe.cli.recorder", "run the recorder service"),
    "recover": ("ttyscribe.cli.recover", "complete recordings whose recorder or writer failed"),
    "config": ("ttyscribe.cli.config", "check and show the configuration"),
    "policy": ("ttyscribe.cli.policy", "tell whether a user is recorded, and why"),
}
# What is asked of ttyscribe itself.
GENERAL = ("-h", "--help", "help", "-v", "--version")


def usage() -> str:
    lines = "\n".join(f"  {name:<12} {what}" for name, (_, what) in COMMANDS.items())
    return f"""\
Usage: ttyscribe COMMAND [OPTIONS]
Record what happens on a terminal and replay it as evidence.

Commands:
{lines}

Options:
  -h, --help     show this help, or with a COMMAND that command's
  -v, --version  show the version
  --debug        before COMMAND: show a traceback with an error

Exit status: 0 done, 1 failed, 2 wrong command line; rec and rec-session end with
the status of the shell or command (128+N if signal N ended it, 127 not found,
126 may not run).
"""


class Nowhere(io.TextIOBase):
    """A standard error that is closed, for which print() would take standard output.

    It has no descriptor: 2 stays closed for the programs that we start.
    """

    def write(self, text: str, /) -> int:
        return len(text)


def entry() -> NoReturn:
    """The command ttyscribe: main, and an end at once, for Python's own way takes 4 ms."""
    import os

    # A Ctrl-C ends us as it ends other programs. As an exception it would come into the midst
    # of an import, which not every module survives.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    status = main()
    give_up_output()
    os._exit(status)


def main(argv: list[str] | None = None) -> int:
    """Run the command line argv (without the program's name); return the exit status."""
    if sys.stderr is None:
        sys.stderr = Nowhere()
    arguments = sys.argv[1:] if argv is None else argv
    debug = False
    if arguments[:1] == ["--debug"]:
        debug = True
        arguments = arguments[1:]
    name = arguments[0] if arguments else ""
    if name not in COMMANDS and name not in GENERAL:
        return unknown(name)
    return run(name, arguments[1:], debug)


def answer(asked: str) -> int:
    """Answer one of GENERAL."""
    if asked in ("-v", "--version"):
        from ttyscribe import __version__

        print(f"ttyscribe {__version__}")
    else:
        print(usage(), end="")
    return 0


def run(name: str, arguments: list[str], debug: bool) -> int:
    """Run one subcommand, turning the errors a user can meet into one line each."""
    import importlib

    from ttyscribe.errors import TtyscribeError, printable, reason

    try:
        try:
            if name in GENERAL:
                status = answer(name)
            else:
                status = importlib.import_module(COMMANDS[name][0]).main(arguments)
        except SystemExit as ended:  # argparse has shown its help, or a signal ended the player
            status = ended.code if isinstance(ended.code, int) else 0
        # What can't be written is noticed here, not in a traceback at exit.
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except TtyscribeError as error:
        if debug:
            raise
        complain(f"ttyscribe {name}: {printable(str(error))}")
        return error.status
    except BrokenPipeError:
        return 141  # 128 + SIGPIPE, as a shell would report it
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        if debug:
            raise
        where = f"{error.filename}: " if error.filename is not None else ""
        complain(f"ttyscribe {name}: {printable(str(where))}{reason(error)}")
        return 1
    finally:
        give_up_output()


def give_up_output() -> None:
    """Let nothing wait for an output that takes no more: Python would try again at exit."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        import os

        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def unknown(name: str) -> int:
    """Answer a missing or unknown command."""
    if not name:
        complain(usage().rstrip("\n"))
        return 2
    import difflib

    from ttyscribe.errors import printable

    close = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f"did you mean '{close[0]}'?" if close else "'ttyscribe --help' lists the commands"
    complain(f"ttyscribe: no such command: '{printable(name)}'; {hint}")
    return 2


def complain(line: str) -> None:
    """Print a line on stderr, if it still takes one."""
    try:
        print(line, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        pass
