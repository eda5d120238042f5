# SPDX-License-Identifier: Apache-2.0
"""`ttyscribe config`: check and show what an admin configured, before a login depends on it."""

from __future__ import annotations

import argparse
import json
import os
import pwd
import sys

from ttyscribe.config import FOLDER, PROGRAMS, Loaded, default_file, load, trust
from ttyscribe.config.check import Problem, Problems, examine, notes
from ttyscribe.config.loader import SHELLS, TLOG_FOLDER
from ttyscribe.errors import ConfigError, UsageError, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# Where login shells are named, one at the end of each line.
LISTS = (SHELLS, "/etc/passwd")
# tlog's, which SSSD hands out, and ours.
TLOG_SHELL = "/usr/bin/tlog-rec-session"
SHELL = "ttyscribe-rec-session"

EXAMPLES = """\
examples:
  ttyscribe config check                       are the files in /etc/ttyscribe right?
  ttyscribe config check new/rec-session.conf  is this one, before it is installed?
  ttyscribe config show --origin               what counts, and where is it from?
  ttyscribe config show --user alice           what counts when alice logs in?
  ttyscribe config default rec-session         the commented file with every setting
  ttyscribe config schema rec > rec.json       for an editor that completes and checks

Files: /etc/ttyscribe/rec-session.conf, rec.conf and play.conf, each followed by
NAME.conf.d/*.conf in order; what is read later wins. JSON with // and /* */ comments.
A login shell of the name tlog-rec-session reads /etc/tlog/tlog-rec-session.conf instead.

Exit status: 0 all is right, 1 there are problems, 2 wrong command line.
"""


def main(argv: list[str]) -> int:
    """Run `ttyscribe config` with these arguments; return the exit status."""
    options = parser().parse_args(argv)
    if options.action == "check":
        return check(options.files, options.program, options.json)
    if options.action == "show":
        return show(options)
    if options.action == "schema":
        print(schema_text(options.name), end="")
        return 0
    from ttyscribe.config.generate import default_file as commented

    print(commented(options.name), end="")
    return 0


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="ttyscribe config",
        description="Check and show the configuration.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = top.add_subparsers(dest="action", required=True, metavar="ACTION")
    sub = actions.add_parser(
        "check",
        help="find every problem in the installed files, or in FILE",
        description="Find every problem: file:line:column, key, what is wrong, what is allowed."
        " Without FILE the installed files and their drop-ins are checked, and who could write"
        " to them.",
    )
    sub.add_argument("files", nargs="*", metavar="FILE", help="check this file alone")
    sub.add_argument(
        "--as",
        dest="program",
        choices=PROGRAMS,
        help="whose configuration FILE is, where its name doesn't tell",
    )
    sub.add_argument("--json", action="store_true", help="print the result as JSON")
    sub = actions.add_parser(
        "show",
        help="print the effective configuration",
        description="Print the effective value of every setting, of the login shell unless told"
        " otherwise.",
    )
    sub.add_argument("program", nargs="?", choices=PROGRAMS, default="rec-session")
    sub.add_argument(
        "--origin", action="store_true", help="with the layer, file and line of each value"
    )
    sub.add_argument(
        "--user",
        metavar="NAME",
        help="what counts at this user's login: the name of the login shell, and whether the"
        " user could write to the files; variables of the environment are unknown",
    )
    sub.add_argument(
        "--config",
        metavar="FILE",
        help="read this file instead of the installed ones and their drop-ins",
    )
    sub.add_argument("--json", action="store_true", help="print the result as JSON")
    sub = actions.add_parser(
        "schema",
        help="print the JSON Schema of a configuration file",
        description="Print the JSON Schema of a configuration file, for an editor.",
    )
    sub.add_argument("name", nargs="?", choices=PROGRAMS, default="rec-session", metavar="NAME")
    sub = actions.add_parser(
        "default",
        help="print the commented configuration file with every built-in value",
        description="Print the commented configuration file with every built-in value.",
    )
    sub.add_argument("name", choices=PROGRAMS, metavar="NAME", help=", ".join(PROGRAMS))
    return top


def schema_text(program: str) -> str:
    import ttyscribe.config

    path = os.path.join(os.path.dirname(ttyscribe.config.__file__), f"{program}.schema.json")
    with open(path, encoding="utf-8") as schema:
        return schema.read()


class Report:
    """What was found in one file."""

    def __init__(self, file: str, program: str) -> None:
        self.file = file
        self.program = program
        self.missing = False
        self.problems = Problems()
        self.notes: list[Problem] = []

    def print(self) -> None:
        for problem in self.problems:
            print(problem.line_for(self.file))
        if self.problems.more:
            print(f"{printable(self.file)}: and {self.problems.more} more problems")
        for note in self.notes:
            print("note: " + note.line_for(self.file))
        if self.problems:
            return
        if self.missing:
            print(f"{printable(self.file)}: ok (there is none; built-in values)")
        else:
            print(f"{printable(self.file)}: ok")

    def data(self) -> dict[str, object]:
        return {
            "file": self.file,
            "program": self.program,
            "exists": not self.missing,
            "ok": not self.problems,
            "problems": [as_data(problem) for problem in self.problems],
            "more_problems": self.problems.more,
            "notes": [as_data(note) for note in self.notes],
        }


def as_data(problem: Problem) -> dict[str, object]:
    return {
        "line": problem.line or None,
        "column": problem.column or None,
        "key": problem.key or None,
        "message": problem.message,
        "allowed": problem.allowed or None,
        "suggestion": problem.suggestion or None,
    }


def check(
    files: list[str],
    program: str | None,
    as_json: bool,
    folder: str = FOLDER,
    tlog_folder: str = TLOG_FOLDER,
) -> int:
    """Check the files, or the installed ones; print what was found; return the exit status."""
    if files:
        reports = [check_file(file, program or program_of(file)) for file in files]
        for report in reports:
            if report.missing:
                report.problems.append(
                    Problem(0, 0, "", "can't be read: No such file or directory")
                )
            if not os.path.dirname(os.path.abspath(report.file)).endswith(".conf.d"):
                check_together([report], report.program, [report.file])
    else:
        reports = []
        for name in [program] if program else PROGRAMS:
            reports += check_installed(name, default_file(name, folder))
            if name == "rec-session" and has_tlogs_name():
                reports += check_installed(name, default_file(name, tlog_folder, tlog=True))
    ok = not any(report.problems for report in reports)
    if as_json:
        data = {"ok": ok, "files": [report.data() for report in reports]}
        print(json.dumps(data, indent=2, ensure_ascii=False))
    else:
        for report in reports:
            report.print()
    return 0 if ok else 1


def program_of(file: str) -> str:
    """The program whose configuration a file is, by its name or its folder's. Raises UsageError."""
    path = os.path.abspath(file)
    for name in (os.path.basename(path), os.path.basename(os.path.dirname(path))):
        stem = name.removesuffix(".d").removesuffix(".conf").removeprefix("tlog-")
        if stem in PROGRAMS:
            return stem
    raise UsageError(
        f"{file}: its name doesn't tell whose it is; add --as rec, rec-session or play"
    )


def has_tlogs_name() -> bool:
    """Whether our login shell is somebody's under tlog's name, so that it reads tlog's files."""
    shells = [TLOG_SHELL]
    for path in LISTS:
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as lines:
                shells += [line.strip().rpartition(":")[2] for line in lines]
        except OSError:
            continue
    return any(
        os.path.basename(shell).startswith("tlog-rec-session")
        and os.path.basename(os.path.realpath(shell)) == SHELL
        for shell in shells
    )


def check_installed(program: str, main_file: str) -> list[Report]:
    """Reports of a program's default file and drop-ins, by themselves and together."""
    # A file that anybody could write is refused at every login.
    judge = trust.User(trust.ANYBODY, ()) if program == "rec-session" else None
    try:
        paths = [main_file, *trust.drop_ins(main_file + ".d", judge)]
    except ConfigError as error:
        report = check_file(main_file, program, judge)
        report.problems.append(placeless(error, main_file))
        return [report]
    reports = [check_file(path, program, judge) for path in paths]
    check_together(reports, program, [r.file for r in reports if not r.missing])
    return reports


def check_file(path: str, program: str, judge: trust.User | None = None) -> Report:
    report = Report(path, program)
    try:
        text = trust.read(path, judge)
    except trust.NotText as error:
        report.problems.append(Problem(error.line, error.column, "", error.what))
        return report
    except ConfigError as error:
        report.problems.append(placeless(error, path))
        return report
    if text is None:
        report.missing = True
        return report
    _, report.problems = examine(program, text)
    report.notes = notes(program, text)
    return report


def check_together(reports: list[Report], program: str, files: list[str]) -> None:
    """Add what is wrong only with all files of a program in effect."""
    if any(report.problems for report in reports):
        return
    try:
        load(program, files=files)
    except ConfigError as error:
        at = next((r for r in reports if str(error).startswith(r.file + ":")), reports[0])
        at.problems.append(placeless(error, at.file))


def placeless(error: ConfigError, file: str) -> Problem:
    """A problem from an error that says its place itself, if it has one."""
    text = str(error).removeprefix(file + ":").lstrip()
    line, _, rest = text.partition(":")
    column, _, message = rest.partition(": ")
    if line.isdigit() and column.isdigit():
        return Problem(int(line), int(column), "", message)
    return Problem(0, 0, "", text)


def show(options: argparse.Namespace) -> int:
    """Print the effective configuration; return the exit status."""
    program: str = options.program
    files = None if options.config is None else [options.config]
    user: int | None = None
    name = ""
    environ: Mapping[str, str] = os.environ
    if options.user is not None:
        if program != "rec-session":
            raise UsageError("--user is for the login shell, rec-session")
        user, name = login_of(options.user)
        environ = {}
    loaded = load(program, environ=environ, name=name, user=user, files=files)
    for warning in loaded.warnings:
        print(f"ttyscribe config: warning: {printable(warning)}", file=sys.stderr)
    if options.json:
        print(json.dumps(effective_data(loaded, options.origin), indent=2, ensure_ascii=False))
        return 0
    rows = [
        (path, printable(json.dumps(value, ensure_ascii=False)))
        for path, value in leaves(loaded.values)
    ]
    for path, value in rows:
        if options.origin:
            print(f"{path} = {value}  # {printable(loaded.origin(path))}")
        else:
            print(f"{path} = {value}")
    return 0


def login_of(user: str) -> tuple[int, str]:
    """A user's uid, and the name under which the login shell is started for them."""
    try:
        entry = pwd.getpwnam(user)
    except (KeyError, ValueError):
        raise ConfigError(f"there is no user {user} on this system") from None
    name = os.path.basename(entry.pw_shell)
    if "rec-session" not in name:
        print(
            f"ttyscribe config: note: {printable(user)}'s login shell is"
            f" {printable(entry.pw_shell)}, which does not record; this would count if it did",
            file=sys.stderr,
        )
    return entry.pw_uid, name


def effective_data(loaded: Loaded[dict[str, object]], with_origin: bool) -> dict[str, object]:
    data: dict[str, object] = {
        "program": loaded.program,
        "values": loaded.values,
        "warnings": loaded.warnings,
    }
    if with_origin:
        from ttyscribe.config.origin import origin

        data["origins"] = {path: vars(origin(loaded, path)) for path, _ in leaves(loaded.values)}
    return data


def leaves(values: Mapping[str, object], prefix: str = "") -> list[tuple[str, object]]:
    """Every setting's path and value."""
    found: list[tuple[str, object]] = []
    for key, value in values.items():
        if isinstance(value, dict):
            found += leaves(value, f"{prefix}{key}.")
        else:
            found.append((prefix + key, value))
    return found
