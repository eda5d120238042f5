# SPDX-License-Identifier: Apache-2.0
"""Options that stand for settings: their help, type and choices are the settings' own."""

from __future__ import annotations

import argparse
import math

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import NoReturn

    from ttyscribe.config.fast import Schema

# The settings of rec that have an option: path, option names. tlog-rec's names.
REC = (
    ("writer", ("-w", "--writer")),
    ("file.path", ("-o", "--file-path")),
    ("latency", ("--latency",)),
    ("payload", ("--payload",)),
    ("log.input", ("--log-input",)),
    ("log.output", ("--log-output",)),
    ("log.window", ("--log-window",)),
    ("limit.rate", ("--limit-rate",)),
    ("limit.burst", ("--limit-burst",)),
    ("limit.action", ("--limit-action",)),
    ("syslog.facility", ("--syslog-facility",)),
    ("syslog.priority", ("--syslog-priority",)),
    ("journal.priority", ("--journal-priority",)),
    ("journal.augment", ("--journal-augment",)),
)
_METAVARS = {"integer": "NUMBER", "number": "NUMBER", "boolean": "BOOL", "string": "TEXT"}
_BOOLEANS = {
    "true": True, "yes": True, "on": True, "1": True,
    "false": False, "no": False, "off": False, "0": False,
}  # fmt: skip


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, like all others."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError."""
        from ttyscribe.errors import UsageError

        raise UsageError(f"{message}; '{self.prog} --help' explains")


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Help as wide as tlog's, with the description's own line breaks."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=96)


def settings_options(parser: argparse.ArgumentParser) -> None:
    """Add an option for each setting of REC, with the setting's own help."""
    from ttyscribe.config.describe import settings

    parts = dict(settings("rec"))
    for path, names in REC:
        part = parts[path]
        what = str(part["description"]).partition(". ")[0].rstrip(".")
        choices = part.get("enum")
        if isinstance(choices, list):
            what += f" ({'/'.join(choices)})" if len(choices) < 9 else ""
        default = part.get("default")
        if default != "":
            shown = str(default).lower() if isinstance(default, bool) else default
            what += f" (default {shown})"
        added = parser.add_argument(
            *names,
            dest=dest(path),
            metavar="FILE" if path == "file.path" else _METAVARS[str(part["type"])],
            help=what.replace("%", "%%"),
        )
        if part["type"] == "boolean":
            # Its value may be left out; implied_true puts it in, the help shows it.
            added.nargs = "?"


def given_settings(arguments: argparse.Namespace) -> dict[str, object]:
    """The settings that were given as options, nested as in the configuration.

    Raises UsageError for a value that is not of the setting's type.
    """
    from ttyscribe.config.describe import settings

    parts = dict(settings("rec"))
    given: dict[str, object] = {}
    for path, names in REC:
        text = getattr(arguments, dest(path))
        if text is not None:
            put(given, path, convert(names[-1], parts[path], text))
    return given


def convert(option: str, part: Schema, text: str) -> object:
    """An option's text as its setting's type. Raises UsageError naming the option."""
    from ttyscribe.config.describe import allowed
    from ttyscribe.errors import UsageError, printable

    try:
        if part["type"] == "boolean":
            return _BOOLEANS[text.lower()]
        if part["type"] == "integer":
            return int(text)
        choices = part.get("enum")
        if isinstance(choices, list) and text not in choices:
            raise ValueError(text)
    except (KeyError, ValueError):
        raise UsageError(f"{option}: '{printable(text)}' is not {allowed(part)}") from None
    return text


def put(nested: dict[str, object], path: str, value: object) -> None:
    """Set the value at a path such as "log.input" in nested mappings."""
    *sections, name = path.split(".")
    for section in sections:
        inner = nested.setdefault(section, {})
        assert isinstance(inner, dict)
        nested = inner
    nested[name] = value


def dest(path: str) -> str:
    """The attribute of argparse's namespace for a setting."""
    return path.replace(".", "_")


def implied_true(argv: Sequence[str], options: Iterable[str]) -> list[str]:
    """argv with --option written as --option=true, for options whose [=BOOL] may be left out.

    Only as far as the options go: what follows the first word that is none is the
    command's own.
    """
    words: list[str] = []
    rest = iter(argv)
    for word in rest:
        if word == "--" or not word.startswith("-") or word == "-":
            return [*words, word, *rest]
        words.append(f"{word}=true" if word in options else word)
        if word in _WITH_VALUE or takes_next(word):
            words += [value for value in [next(rest, None)] if value is not None]
    return words


def takes_next(word: str) -> bool:
    """Whether word is a group of short options, such as "-qo", whose last one needs a value."""
    if word.startswith("--"):
        return False
    letters = [f"-{letter}" for letter in word[1:]]
    with_value = [name in _WITH_VALUE for name in letters]
    return with_value.index(True) == len(letters) - 1 if any(with_value) else False


_WITH_VALUE = {name for path, names in REC for name in names} | {
    "-c", "--command", "-t", "--title", "-e", "--env", "-i", "--idle-time-limit", "--semaphore",
}  # fmt: skip
_WITH_VALUE -= {"--log-input", "--log-output", "--log-window", "--journal-augment"}


def comma_list(text: str) -> list[str]:
    """ "A,B" as ["A", "B"]; for argparse."""
    return [name for name in (part.strip() for part in text.split(",")) if name]


def positive(text: str) -> float:
    """A finite number above 0; for argparse."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (0 < number < math.inf):
        raise argparse.ArgumentTypeError(f"'{text}' is not a number above 0")
    return number

