# SPDX-License-Identifier: Apache-2.0
"""What play and cat have in common: the options, the configuration, and the reader they choose."""

from __future__ import annotations

import getopt
import os
import sys

from ttyscribe.cli import complain
from ttyscribe.errors import ReaderError, UsageError, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    from ttyscribe.config.views import Play
    from ttyscribe.readers import Reader

    # Settings by their path in play.conf, as far as the command line gives them.
    Given: TypeAlias = dict[str, object]

# Options, and the settings of play.conf they are; those with "=" take a value.
SOURCE = {
    "r,reader=": "reader",
    "i,file-path=": "file.path",
    "m,file-match=": "file.match",
    "M,journal-match=": "journal.match",
    "S,journal-since=": "journal.since",
    "U,journal-until=": "journal.until",
    "N,journal-namespace=": "journal.namespace",
    "D,directory=": "directory",
    "f,follow": "follow",
    ",lax": "lax",
    "v,version": "version",
    "h,help": "help",
}


def parse(argv: list[str], options: dict[str, str]) -> Given:
    """The settings that argv gives; a bare argument is the file. Raises UsageError.

    By getopt: argparse takes "-S -20min" for two options.
    """
    short, long, names = "", [], {}
    for option, setting in options.items():
        letter, _, word = option.partition(",")
        long.append(word)
        names["--" + word.rstrip("=")] = setting
        if letter:
            names["-" + letter] = setting
            short += letter + ":" * word.endswith("=")
    try:
        pairs, arguments = getopt.gnu_getopt(argv, short, long)
    except getopt.GetoptError as error:
        raise UsageError(f"{printable(error.msg)}; --help lists the options") from None
    given: Given = {}
    matches: list[str] = []
    for name, value in pairs:
        setting = names[name]
        if setting == "journal.match":
            matches.append(value)
            given[setting] = matches
        elif setting in ("speed", "idle_time_limit"):
            given[setting] = _number(name, value)
        else:
            takes_value = setting not in _SWITCHES
            given[setting] = value if takes_value else True
    if len(arguments) > 1:
        raise UsageError(f"one FILE at a time: '{printable(arguments[1])}' is one too many")
    if arguments:
        if "file.path" in given:
            raise UsageError(f"one FILE at a time: '{printable(arguments[0])}' is one too many")
        given["file.path"] = arguments[0]
    return given


_SWITCHES = {
    "follow", "lax", "version", "help", "paused", "persist", "configuration",
}  # fmt: skip
# What is not in play.conf.
_ONLY_HERE = {"directory", "version", "help", "configuration"}


def answered(given: Given, text: str) -> bool:
    """Answer --help and --version, if one of them is given."""
    if "help" in given:
        print(text, end="")
    elif "version" in given:
        from ttyscribe import __version__

        print(f"ttyscribe {__version__}")
    else:
        return False
    return True


def configured(given: Given) -> Play:
    """The settings in effect: play.conf and what is given. Raises ConfigError and UsageError."""
    from ttyscribe.config import load

    reader = _choose_reader(given)
    if reader is not None:
        given["reader"] = reader
    nested: dict[str, object] = {}
    for setting, value in given.items():
        # 0 lifts a configured limit; in a file that is null.
        if setting not in _ONLY_HERE and (setting, value) != ("idle_time_limit", 0.0):
            section, _, name = setting.rpartition(".")
            part = nested.setdefault(section, {}) if section else nested
            assert isinstance(part, dict)
            part[name] = value
    loaded = load("play", environ=os.environ, name=sys.argv[0], command_line=nested)
    for warning in loaded.warnings:
        complain(f"ttyscribe: {printable(warning)}")
    return loaded.values


def open_reader(values: Play, given: Given, rewindable: bool, follow: bool) -> Reader:
    """Open the reader and make sure that it has one recording; several are listed on stderr.

    rewindable is for playing: the recording can be read from the start again. follow
    tells that its end will not be waited for. Raises ReaderError and UsageError.
    """
    from ttyscribe.readers import SeveralRecordings

    reader: Reader
    if values["reader"] == "journal":
        reader = _open_journal(values, given)
    else:
        from ttyscribe.readers.file import FileReader

        path = values["file"]["path"]
        if not path and "file.path" not in given:
            raise UsageError(
                "which recording? Give a FILE, or -M TLOG_REC=REC for one in the journal"
            )
        reader = FileReader(path, values["file"]["match"] or None, rewindable or not follow)
    try:
        reader.check(follow)
    except SeveralRecordings as error:
        for recording in error.recordings:
            complain(str(recording))
        raise
    return reader


def guard_descriptors() -> None:
    """Keep files that are opened later off descriptors 0 and 2 if those are closed."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            if fd == 1:
                raise ReaderError("standard output is closed: nowhere to write to") from None
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free one


def _choose_reader(given: Given) -> object:
    """The reader that the command line means, None if it says nothing of it."""
    of_journal = [name for name in given if name == "directory" or name.startswith("journal.")]
    of_file = [name for name in given if name.startswith("file.")]
    reader = given.get("reader")
    if reader is None:
        if of_journal and of_file:
            raise UsageError("a file and the journal can't both be read; leave one of them out")
        return "journal" if of_journal else "file" if of_file else None
    if reader not in ("file", "journal"):
        raise UsageError(f"no such reader: '{reader}'; there are file and journal")
    if reader == "file" and of_journal:
        raise UsageError("-M, -S, -U, -N and -D are for the journal: use -r journal")
    if reader == "journal" and of_file:
        raise UsageError("a FILE, -i and -m are for files; in the journal, -M TLOG_REC=REC chooses")
    return reader


def _open_journal(values: Play, given: Given) -> Reader:
    from ttyscribe.readers.journal import JournalReader
    from ttyscribe.readers.when import parse_time

    settings = values["journal"]
    since, until = settings["since"], settings["until"]
    namespace = settings["namespace"] or None
    directory = given.get("directory")
    if namespace is not None and directory is not None:
        raise UsageError("a namespace and -D exclude each other")
    return JournalReader(
        settings["match"],
        None if since is None else parse_time(str(since)),
        None if until is None else parse_time(str(until)),
        namespace,
        str(directory) if directory is not None else None,
    )


def _number(name: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1e6:
        raise UsageError(f"{name} must be a number from 0 to 1000000, not '{value}'")
    return number
