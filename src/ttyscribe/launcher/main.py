# SPDX-License-Identifier: Apache-2.0
"""The script that the native launcher runs as `python3 -I -S -X utf8 main.py ARGV0 ARG...`.

Kept small: it is compiled anew at each login. `-S` means that no site module
has run, so it puts the package and its dependencies into sys.path itself.
"""

from __future__ import annotations

import sys
from posix import environ

# The launcher's notes, by their names: SIGPIPE and SIGXFSZ.
IGNORED = {b"IGNORED_PIPE": 13, b"IGNORED_XFSZ": 25}


def search_path(main: str, executable: str) -> list[str]:
    """The folder of the package, and the one of its environment's dependencies.

    They are the same where ttyscribe is installed, and differ in a checkout.
    Both come from absolute paths compiled into the launcher.
    """
    package = main.rsplit("/", 3)[0]
    prefix = executable.rsplit("/", 2)[0]
    version = sys.version_info
    site = f"{prefix}/lib/python{version[0]}.{version[1]}/site-packages"
    return [package] if package == site else [package, site]


def original(prefixed: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """The environment before the launcher put one '_' in front of each name.

    Other names were set by the interpreter itself. A variable without a name
    can't be handed on by execve's callers in Python, and is left out.
    """
    return {
        name[1:]: value
        for name, value in prefixed.items()
        if len(name) > 1 and name.startswith(b"_")
    }


def ignored(variables: dict[bytes, bytes]) -> list[int]:
    """The signals that the launcher found ignored, of those that Python ignores itself."""
    return [number for name, number in IGNORED.items() if name in variables]


def service(variables: dict[bytes, bytes]) -> str | None:
    """What came of the launcher's asking the recorder service; None if it did not ask.

    "" if the service wants us to record, else why it does not record.
    """
    note = variables.get(b"SERVICE")
    return None if note is None else note.decode("utf-8", "replace")


if __name__ == "__main__":
    # -I keeps this script's own folder out; the standard library stays first.
    sys.path += search_path(sys.argv[0], sys.executable)

    try:
        from ttyscribe.cli.rec_session import launched
    except ImportError as error:
        # Half an installation; what failed is a module's name, which no user chose.
        print(
            f"ttyscribe-rec-session: the installation is not complete: {error}; install it again",
            file=sys.stderr,
        )
        sys.exit(126)

    sys.exit(
        launched(sys.argv[1], sys.argv[2:], original(environ), ignored(environ), service(environ))
    )
