# SPDX-License-Identifier: Apache-2.0
"""Options that stand for settings: their help, type and choices are the settings' own."""

from __future__ import annotations

import argparse
import math

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
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

    def split(self, argv: Sequence[str]) -> tuple[list[str], list[str]]:
        """argv's options, and what follows them: a command, whose words are its own.

        An option whose value may be left out has one only behind a "=": without it,
        --option becomes --option=true.
        """
        options: list[str] = []
        rest = list(argv)
        while rest and rest[0].startswith("-") and rest[0] != "-":
            word = rest.pop(0)
            if word == "--":
                break
            action, has_value = self._last_option(word)
            if action is None or has_value or action.nargs == 0:
                options.append(word)
            elif action.nargs == "?":
                options.append(f"{word}=true")
            else:
                options += [word, *rest[:1]]
                del rest[:1]
        return options, rest

    def _last_option(self, word: str) -> tuple[argparse.Action | None, bool]:
        """The option that a value behind word would go to, and whether word has its value.

        That is the last of a group such as "-qo"; a long one may be abbreviated.
        """
        known = self._option_string_actions
        if word.startswith("--"):
            name, equals, _ = word.partition("=")
            if name in known:
                return known[name], bool(equals)
            found = [option for option in known if option.startswith(name)]
            return (known[found[0]] if len(found) == 1 else None), bool(equals)
        action = None
        for at, letter in enumerate(word[1:], 2):
            action = known.get(f"-{letter}")
            if action is None or action.nargs != 0:
                return action, at < len(word)
        return action, False

    def error(self, message: str) -> NoReturn:
        """Raise UsageError."""
        from ttyscribe.errors import UsageError

        raise UsageError(f"{message}; '{self.prog} --help' explains")


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Help as wide as tlog's, with the description's own line breaks."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=96)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if action.nargs == "?" and action.option_strings:
            # Behind a space it would be the command.
            return f"{', '.join(action.option_strings)}[={action.metavar}]"
        return super()._format_action_invocation(action)


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
            # Its value may be left out; Parser.split puts it in, the help shows it.
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

