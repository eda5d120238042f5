# SPDX-License-Identifier: Apache-2.0
"""Reads packaging/files and answers where each thing goes; for install and uninstall."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from pathlib import Path
from typing import NamedTuple, NoReturn

CHECKOUT = Path(__file__).resolve().parent.parent
TABLE = CHECKOUT / "packaging" / "files"
SHELLS = "/etc/shells"
# What a file is called until it is whole.
UNFINISHED = ".ttyscribe-new"
# It is there where systemd is the machine's init, sd_booted(3).
SYSTEMD = "/run/systemd/system"


class Entry(NamedTuple):
    """One line of the table, its path complete but for the destdir."""

    kind: str
    mode: int
    owner: str
    group: str
    path: str
    source: str  # a pattern relative to the checkout, or ""

    def sources(self) -> list[Path]:
        return sorted(CHECKOUT.glob(self.source)) if self.source else []


class Place:
    """Where an installation goes: /usr or another prefix, below / or a destdir."""

    def __init__(self, prefix: str, destdir: str) -> None:
        for option, value in (("--prefix", prefix), ("--destdir", destdir or "/")):
            if not value.startswith("/"):
                fail(f"{option} {value}: must be an absolute path")
        self.prefix = prefix.rstrip("/")
        self.destdir = destdir.rstrip("/")

    @property
    def staged(self) -> bool:
        """Files go below a destdir: nothing of the running machine is touched."""
        return bool(self.destdir)

    def target(self, path: str) -> Path:
        """Where a path of the installed system is now."""
        return Path(self.destdir + path)

    def entries(self, *kinds: str) -> list[Entry]:
        """The table's entries of these kinds, or all, in its order."""
        found = []
        for number, line in enumerate(TABLE.read_text().splitlines(), 1):
            words = line.split("#")[0].split()
            if not words:
                continue
            if len(words) not in (5, 6):
                fail(f"{TABLE}:{number}: must have five or six columns")
            kind, mode, owner, group, path = words[:5]
            if kinds and kind not in kinds:
                continue
            path = path.format(
                bin=f"{self.prefix}/bin", lib=f"{self.prefix}/lib", share=f"{self.prefix}/share"
            )
            bits = 0 if mode == "-" else int(mode, 8)
            found.append(Entry(kind, bits, owner, group, path, "".join(words[5:])))
        return found

    def one(self, kind: str) -> Entry:
        """The only entry of a kind."""
        (entry,) = self.entries(kind)
        return entry


def need_root(place: Place, program: str) -> None:
    if not place.staged and os.geteuid() != 0:
        fail("must be root, or be given a --destdir", program)


def replace(path: Path, data: bytes, mode: int) -> None:
    """Write a file in one step, so that no reader meets half of it."""
    temporary = path.with_name(path.name + UNFINISHED)
    temporary.unlink(missing_ok=True)
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        os.fchmod(file.fileno(), mode)
        os.fsync(file.fileno())
    temporary.rename(path)


def unfinished_environment(place: Place) -> Path:
    """Where the environment is built, and for a moment the one before it."""
    path = place.target(place.one("environment").path)
    return path.with_name(path.name + ".new")


def remove_unfinished(place: Place, *edited: Path) -> None:
    """Remove what an installation that was killed has left. edited: the system's own files."""
    found = [unfinished_environment(place)]
    folders = {path.parent for path in edited}
    for entry in place.entries():
        if entry.path.startswith("/") and entry.kind not in ("folder", "volatile", "shell"):
            folders.add(place.target(entry.path if entry.source else os.path.dirname(entry.path)))
    for folder in sorted(folders):
        # compile-launcher's output has one name more until it is whole.
        found += [*folder.glob(f"*{UNFINISHED}"), *folder.glob(f"*{UNFINISHED}.new")]
    for path in found:
        if os.path.lexists(path):
            remove_tree(path)
            say(f"removed {path}, which an interrupted installation has left")


def remove_tree(path: Path) -> None:
    """Remove a folder and what is in it, or a link or file."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def followed(place: Place, path: str) -> Path:
    """The file itself that is to be replaced, where an admin made path a symbolic link.

    Fails where somebody else than root (or than us, below a destdir) could lead it elsewhere.
    """
    target = place.target(path)
    if not target.is_symlink():
        return target
    top = at = Path(place.destdir or "/")
    rest = path.split("/")[::-1]
    links = 0
    while rest:
        name = rest.pop()
        if name in ("", ".", ".."):
            at = at.parent if name == ".." and at != top else at
            continue
        step = at / name
        if not os.path.lexists(step):
            fail(f"{target}: the link leads to {step}, which is not there; correct the link")
        status = step.lstat()
        is_link, mode = stat.S_ISLNK(status.st_mode), status.st_mode
        writable = mode & 0o002 or (mode & 0o020 and status.st_gid != 0)
        if stat.S_ISDIR(mode) and mode & stat.S_ISVTX:
            writable = 0  # what is in it is safe
        if status.st_uid not in (0, os.geteuid()) or (writable and not is_link):
            why = "which not only root can change; correct that"
            fail(f"{target}: the link leads by {step}, {why}")
        if not is_link:
            at = step
            continue
        links += 1
        if links > 40:  # as the kernel's own limit
            fail(f"{target}: too many symbolic links; correct them")
        leads = os.readlink(step)
        rest += leads.split("/")[::-1]
        at = top if leads.startswith("/") else at
    return at


def text_of(path: Path) -> str:
    """A list of the system's, whatever encoding somebody wrote a comment in; "" for none."""
    return path.read_text("utf-8", "surrogateescape") if path.exists() else ""


def replace_text(path: Path, text: str) -> None:
    """Write what text_of has read, changed, in one step."""
    replace(path, text.encode("utf-8", "surrogateescape"), stat.S_IMODE(path.stat().st_mode))


def shell_on(line: str) -> str:
    """The shell on a line of /etc/shells, or "": there may be a comment, getusershell(3)."""
    return line.partition("#")[0].strip()


def say(line: str) -> None:
    print(line, flush=True)


def fail(line: str, program: str = "") -> NoReturn:
    name = program or Path(sys.argv[0]).name
    print(f"{name}: {line}", file=sys.stderr)
    sys.exit(1)
