# SPDX-License-Identifier: Apache-2.0
"""Reads packaging/files and answers where each thing goes; for install and uninstall."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import sys
from collections.abc import Iterable, Iterator
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
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        temporary.rename(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error


def unfinished_environment(place: Place) -> Path:
    """Where the environment is built, and for a moment the one before it."""
    path = place.target(place.one("environment").path)
    return path.with_name(path.name + ".new")


def files(place: Place) -> list[Path]:
    """All files but those in the environment, and the new defaults beside an admin's."""
    environment = place.target(place.one("environment").path)
    found = [
        place.target(entry.path)
        for entry in place.entries("launcher", "command", "tmpfiles", "prefix")
    ]
    for entry in place.entries("file", "unit", "config"):
        paths = [place.target(entry.path) / source.name for source in entry.sources()]
        found += paths
        if entry.kind == "config":
            found += [path.with_name(f"{path.name}.new") for path in paths]
    return [path for path in found if not path.is_relative_to(environment)]


def folders(place: Place) -> list[Path]:
    return [place.target(entry.path) for entry in place.entries("folder", "volatile")]


def unfinished(place: Place, *edited: Path) -> list[Path]:
    """What an installation that was interrupted has left. edited: the system's own files."""
    found = [unfinished_environment(place)]
    for folder in sorted({path.parent for path in (*files(place), *edited)}):
        # compile-launcher's output has one name more until it is whole.
        found += [*folder.glob(f"*{UNFINISHED}"), *folder.glob(f"*{UNFINISHED}.new")]
    return [path for path in found if os.path.lexists(path)]


def remove_unfinished(place: Place, *edited: Path) -> None:
    for path in unfinished(place, *edited):
        remove_tree(path)
        say(f"removed {path}, which an interrupted installation has left")


def need_writable(paths: Iterable[Path], outcome: str, program: str) -> None:
    """Fail where one of these can't be made, replaced or removed."""
    for path in paths:
        folder = path.parent
        while not os.path.lexists(folder):
            folder = folder.parent
        if not folder.is_dir():
            fail(f"{folder}: is not a folder; {outcome}; move it away", program)
        if os.access(folder, os.W_OK | os.X_OK):
            continue
        if os.statvfs(folder).f_flag & os.ST_RDONLY:
            why, remedy = "read-only file system", "mount it writable"
        else:
            why, remedy = "not allowed", "see who may change it"
        fail(f"{folder}: can't be changed: {why}; {outcome}; {remedy}, and run this again", program)


@contextlib.contextmanager
def in_one_line(outcome: str, program: str) -> Iterator[None]:
    """Fail in one line where the system refuses something, or somebody ends us."""

    def end(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, end)
    try:
        yield
    except OSError as error:
        why = f"{error.filename2 or error.filename}: {error.strerror}"
        if isinstance(error, shutil.Error):  # of many files
            _, target, reason = error.args[0][0]
            why = f"{target}: {reason}"
        fail(f"{why}; {outcome}; correct that, and run this again", program)
    except KeyboardInterrupt:
        fail(f"interrupted; {outcome}", program)


def remove_tree(path: Path) -> None:
    """Remove a folder and what is in it, or a link or file, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):  # a read-only file system refuses even if there is none
        path.unlink()


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
