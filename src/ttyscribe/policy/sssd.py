# SPDX-License-Identifier: Apache-2.0
"""The rules from SSSD's own configuration: sssd.conf, then conf.d/*.conf.

What SSSD's parser makes of a file we make of it too, or refuse the file; the
standard library's configparser can't be told to: it folds an indented
"users = x" into the value above, keeps no line numbers, and takes ":" for "=".
As SSSD reads them (sssd.conf(5); its parser, libini_config 0.6, asked):

- a section's "[" and a comment's "#", ";" or "//" stand in the first column;
- "key = value", where the key may be indented; no continuation lines, no
  comments after a value, no quotes;
- names of sections and keys in any case, repeated ones merged, the later value
  wins, within a file and from file to file; an empty value takes one back;
- snippets in order of their names, those that begin with a dot left out.

Refused although SSSD takes it: "/* ... */", zero bytes, text before the first
section, an empty or unknown scope.
"""

from __future__ import annotations

import os

from ttyscribe.errors import PolicyError, printable, reason
from ttyscribe.policy.rules import SCOPES, Rules

SECTION = "session_recording"
OPTIONS = ("scope", "users", "groups", "exclude_users", "exclude_groups")
SIZE_LIMIT = 1 << 20  # bytes in a file; a real one has a few thousand

# As C's isspace() has it: other spaces may be part of a name.
BLANK = " \t\r\n\f\v"


def read(conf: str, snippets: str) -> Rules:
    """The rules in the file conf and in the *.conf files of the folder snippets.

    A file or folder that doesn't exist holds nothing, but something must exist.
    Without a [session_recording] section SSSD's default is scope none. Raises
    PolicyError naming the file, and the line where there is one.
    """
    found: dict[str, tuple[str, str]] = {}  # option: (value, "file:line")
    warnings: list[str] = []
    files = 0
    for path in (conf, *_snippets(snippets)):
        text = _text(path)
        if text is None:
            continue
        files += 1
        for line, key, value in _options(path, text):
            where = f"{printable(path)}:{line}"
            if key in OPTIONS:
                found[key] = (value, where)
            elif key != "description":
                warnings.append(f"{where}: SSSD has no option '{printable(key)}' in [{SECTION}]")
    if not files:
        raise PolicyError(
            f"{conf}: neither it nor a snippet in {snippets} exists, so SSSD says nothing of who"
            ' is recorded; configure SSSD, or take "source" out of session_recording'
        )
    scope = "none"
    if "scope" in found:
        value, where = found["scope"]
        scope = value.lower()
        if scope not in SCOPES:
            raise PolicyError(f"{where}: scope is '{value}'; it must be none, some or all")

    def names(option: str) -> list[str]:
        items = (item.strip(BLANK) for item in found.get(option, ("", ""))[0].split(","))
        return [item for item in items if item]

    def origin(option: str) -> str:
        option = option.partition("[")[0]  # an option's names stand on one line
        if option in found:
            return found[option][1]
        return f"SSSD's default, as {conf} and {snippets} don't set {option} in [{SECTION}]"

    return Rules(
        scope=scope,
        users=names("users"),
        groups=names("groups"),
        exclude_users=names("exclude_users"),
        exclude_groups=names("exclude_groups"),
        origin=origin,
        warnings=warnings,
    )


def _snippets(folder: str) -> list[str]:
    """The paths of a folder's snippets, in the order in which they count."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise PolicyError(f"{folder}: can't be read: {reason(error)}") from None
    names = [name for name in names if name.endswith(".conf") and not name.startswith(".")]
    return [os.path.join(folder, name) for name in sorted(names, key=os.fsencode)]


def _text(path: str) -> str | None:
    """A file's text, None if there is no such file; only one that SSSD would trust."""
    try:
        # O_NONBLOCK: a fifo in its place must not hang a login.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except FileNotFoundError:
        return None
    except PermissionError as error:
        hint = (
            "let a recorder service that may read it decide, or put the rules in rec-session.conf"
        )
        raise PolicyError(f"{path}: can't be read: {reason(error)}; {hint}") from None
    except OSError as error:
        raise PolicyError(f"{path}: can't be read: {reason(error)}") from None
    try:
        _check_trusted(path, os.fstat(descriptor))
        data = os.read(descriptor, SIZE_LIMIT + 1)
    except OSError as error:
        raise PolicyError(f"{path}: can't be read: {reason(error)}") from None
    finally:
        os.close(descriptor)
    if not data:
        raise PolicyError(f"{path}: is empty, which SSSD refuses; was it cut off?")
    if len(data) > SIZE_LIMIT:
        raise PolicyError(f"{path}: has more than {SIZE_LIMIT} bytes; is it the right file?")
    zero = data.find(b"\0")
    if zero >= 0:
        line = data.count(b"\n", 0, zero) + 1
        raise PolicyError(f"{path}:{line}: has a zero byte; it must be UTF-8 text")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise PolicyError(f"{path}:{line}: is not UTF-8 text") from None


def _check_trusted(path: str, status: os.stat_result) -> None:
    """Raise PolicyError unless a file's type, owner and mode are as SSSD demands.

    Since 2.10 SSSD may run as a user of its own, who may own the files; their
    group may then read them.
    """
    import stat

    if not stat.S_ISREG(status.st_mode):
        raise PolicyError(f"{path}: is not a regular file, which SSSD demands")
    if status.st_uid != 0 and status.st_uid != _sssd_uid():
        raise PolicyError(
            f"{path}: belongs to uid {status.st_uid}, but SSSD demands root; run: chown root {path}"
        )
    if status.st_mode & 0o027:
        raise PolicyError(
            f"{path}: has mode {stat.S_IMODE(status.st_mode):04o}, but SSSD demands that only its"
            f" owner may use it; run: chmod 600 {path}"
        )


def _sssd_uid() -> int:
    """The uid of the user that SSSD may run as; root's where there is none.

    Only an account of this machine counts, and asking the name service could
    hang: hence the file.
    """
    try:
        with open("/etc/passwd", "rb") as passwd:
            for line in passwd:
                fields = line.split(b":")
                if fields[0] == b"sssd" and len(fields) == 7 and fields[2].isdigit():
                    return int(fields[2])
    except OSError:
        pass
    return 0


def _options(path: str, text: str) -> list[tuple[int, str, str]]:
    """(line, key, value) of each option in the section; the key in lower case.

    Raises PolicyError at the first line that is not of the syntax, in any section.
    """
    options = []
    section = ""
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip(BLANK)
        if not stripped or line.startswith(("#", ";", "//")):
            continue
        problem = ""
        key, equals, value = (part.strip(BLANK) for part in stripped.partition("="))
        if line.startswith("["):
            section = stripped[1:-1].strip(BLANK).lower()
            if not stripped.endswith("]"):
                problem = "the section's ']' is missing"
            elif not section:
                problem = "the section has no name"
            elif not section.isascii():
                problem = "the section's name is not ASCII"
        elif line.startswith("/*"):
            problem = "a comment must begin with '#' or ';'"
        elif not equals:
            problem = "'=' is missing: neither an option nor a section nor a comment"
        elif not key:
            problem = "there is no name before '='"
        elif not key.isascii():
            problem = "the option's name is not ASCII"
        elif not section:
            problem = "the option stands before the first section"
        elif section == SECTION:
            options.append((number, key.lower(), value))
        if problem:
            raise PolicyError(f"{path}:{number}: {problem}")
    return options
