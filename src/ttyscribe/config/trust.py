# SPDX-License-Identifier: Apache-2.0
"""Open configuration files, and tell whether a user could have written them.

A login shell's configuration decides what is recorded of the user who logs in, so
that user must not be able to change it: neither the file, nor any folder or
symbolic link on the way to it. Each step of the path is opened relative to the one
before, and the descriptor that was judged is the one that is read.
"""

from __future__ import annotations

import errno
import os
import stat

from ttyscribe import bounded
from ttyscribe.errors import ConfigError, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# The largest configuration that is read, in bytes: room for twenty thousand names, and
# what the full parser still judges in a fraction of a second.
LIMIT = 1 << 18

# A user id that owns nothing and is in no group, to ask whether anybody could write.
ANYBODY = 2**32 - 2

MOST_LINKS = 40  # as the kernel's own limit
READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
STEP = os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW

# Entries of an access control list, linux/posix_acl_xattr.h: after 4 bytes of version each
# has 2 of these tags, 2 of permissions, and 4 of a user's or group's id.
ACL = "system.posix_acl_access"
ACL_USER, ACL_GROUP_OBJ, ACL_GROUP = 0x02, 0x04, 0x08


class NotText(ConfigError):
    """A file is not UTF-8; line and column (from 1) and what is wrong there."""

    def __init__(self, path: str, line: int, column: int, what: str) -> None:
        super().__init__(f"{path}:{line}:{column}: {what}")
        self.line = line
        self.column = column
        self.what = what


class User:
    """Whom a file is judged for; the groups are looked up only when a mode asks for them."""

    def __init__(self, uid: int, groups: Iterable[int] | None = None) -> None:
        self.uid = uid
        self.known = None if groups is None else frozenset(groups)
        self.failure = ""

    def could_change(self, fd: int, adding: bool = False) -> str:
        """How the user could change what fd is, as words; empty if not.

        adding: a file more in a folder is a change of it. A sticky one's files are safe
        from others, but anybody who can write to it can add to them.
        """
        status = os.fstat(fd)
        uid, mode = self.uid, status.st_mode
        if uid and status.st_uid == uid:
            return f"belongs to uid {uid}"
        if stat.S_ISLNK(mode):  # has no mode of its own
            return ""
        if stat.S_ISDIR(mode) and mode & stat.S_ISVTX and not adding:
            return ""
        why = ""
        if mode & stat.S_IWOTH:
            why = "anybody can write to it"
        elif uid and mode & stat.S_IWGRP:
            why = self.could_write(fd, status.st_gid)
        return f"has mode {stat.S_IMODE(mode):04o}, so {why}" if why else ""

    def could_write(self, fd: int, group: int) -> str:
        """How the user could write to what its mode lets a group write to, as words.

        With an access control list, the mode has the most that any of its entries allows.
        """
        try:
            entries = acl(fd)
        except OSError as error:
            return f"its access control list, which can't be read ({reason(error)}), counts"
        if not entries:
            return self.may_be_in(group)
        for tag, writes, who in entries:
            if not writes:
                continue
            if tag == ACL_USER and who == self.uid:
                return f"uid {who} can write to it by its access control list"
            if tag in (ACL_GROUP_OBJ, ACL_GROUP):
                why = self.may_be_in(group if tag == ACL_GROUP_OBJ else who)
                if why:
                    return why
        return ""

    def may_be_in(self, group: int) -> str:
        """How the user is in a group that can write, as words; empty if not.

        Whoever's groups can't be told may be in any.
        """
        if self.known is None:
            self.known, self.failure = groups_of(self.uid)
        if group in self.known:
            return f"its group {group} can write to it"
        if self.failure:
            return (
                f"its group {group} can write to it, which uid {self.uid} may be in: the user's"
                f" groups could not be looked up: {self.failure}"
            )
        return ""


def read(path: str, user: User | None) -> str | None:
    """The text of a configuration file, or None if there is none.

    With a user, a file that this user could have changed is refused. Raises
    ConfigError for that, for what can't be read (a link that leads nowhere, too),
    for more than LIMIT bytes, and for what is not UTF-8.
    """
    try:
        fd = os.open(path, READ) if user is None else open_trusted(path, user)
    except FileNotFoundError:
        refuse_dangling(path)
        return None
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {reason(error)}") from error
    try:
        data = read_all(fd, path)
    finally:
        os.close(fd)
    return decode(data, path)


def decode(data: bytes, path: str) -> str:
    """The text of data. Raises NotText with the place of what is not UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise NotText(path, 1, 1, "this is UTF-16; save the file as UTF-8") from None
        before = data[: error.start]
        line = before.count(b"\n") + 1
        column = len(before[before.rfind(b"\n") + 1 :].decode()) + 1
        what = f"the byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8"
        raise NotText(path, line, column, what) from None


def drop_ins(folder: str, user: User | None) -> list[str]:
    """The paths of folder's *.conf files in lexical order; [] if there is no folder.

    Raises ConfigError if the folder can't be read (a link that leads nowhere, too), or
    the user could have changed it.
    """
    try:
        fd = (
            os.open(folder, READ | os.O_DIRECTORY)
            if user is None
            else open_trusted(folder, user, os.O_DIRECTORY)
        )
    except FileNotFoundError:
        refuse_dangling(folder)
        return []
    except OSError as error:
        raise ConfigError(f"{folder}: can't be read: {reason(error)}") from error
    try:
        # Names beginning with a dot are editors' and package managers' leftovers.
        names = [n for n in os.listdir(fd) if n.endswith(".conf") and not n.startswith(".")]
    finally:
        os.close(fd)
    return [os.path.join(folder, name) for name in sorted(names)]


def refuse_dangling(path: str) -> None:
    """Raise ConfigError if path is not there because a symbolic link on it leads nowhere.

    Who made the link meant a configuration to be there, so that it is not the same as none.
    """
    at = path
    while at and not os.path.lexists(at):
        at = os.path.dirname(at)
    # It may have come since it was looked for.
    if os.path.islink(at) and not os.path.exists(at):
        raise ConfigError(
            f"{path}: can't be read: the link {at} leads to {os.readlink(at)}, which is not there;"
            " restore that, or remove the link"
        )


def open_trusted(path: str, user: User, flags: int = 0) -> int:
    """Open path for reading if the user could change nothing on the way to it.

    Raises ConfigError naming what the user could change, and OSError.
    """
    rest = parts(os.path.abspath(path))
    links = 0
    # Where each open folder is, for messages and for "..".
    trail: list[tuple[int, str]] = [(os.open("/", STEP | os.O_DIRECTORY), "/")]
    try:
        judge(path, "/", trail[0][0], user)
        while True:
            name = rest.pop() if rest else "."
            if name == "..":
                if len(trail) > 1:
                    os.close(trail.pop()[0])
                if rest:
                    continue
                name = "."
            at = os.path.join(trail[-1][1], name)
            fd = os.open(name, STEP, dir_fd=trail[-1][0])
            status = os.fstat(fd)
            if stat.S_ISLNK(status.st_mode):
                try:
                    judge(path, at, fd, user)
                    target = os.readlink("", dir_fd=fd)
                finally:
                    os.close(fd)
                links += 1
                if links > MOST_LINKS:
                    raise ConfigError(f"{path}: can't be read: too many symbolic links")
                if target.startswith("/"):
                    while len(trail) > 1:
                        os.close(trail.pop()[0])
                rest += parts(target)
                continue
            if rest:
                trail.append((fd, at))
                judge(path, at, fd, user)
                continue
            os.close(fd)
            # Nothing so far is the user's to exchange, so this opens what was looked at;
            # and the descriptor itself is judged once more.
            opened = os.open(name, READ | os.O_NOFOLLOW | flags, dir_fd=trail[-1][0])
            try:
                judge(path, at, opened, user, bool(flags & os.O_DIRECTORY))
            except ConfigError:
                os.close(opened)
                raise
            return opened
    finally:
        for fd, _ in trail:
            os.close(fd)


def judge(path: str, at: str, fd: int, user: User, adding: bool = False) -> None:
    """Raise ConfigError if the user could change what fd is, which lies at `at`."""
    why = user.could_change(fd, adding)
    if why:
        what = "it" if at == path else at
        remedy = f"run: chown root {at} && chmod go-w {at}"
        raise ConfigError(
            f"{path}: refused, because the recorded user could change it: {what} {why}; {remedy}"
        )


def read_all(fd: int, path: str) -> bytes:
    """What a regular file holds. Raises ConfigError for anything else and above LIMIT."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise ConfigError(f"{path}: can't be read: it is {kind}")
    if status.st_size > LIMIT:
        raise too_large(path)
    parts: list[bytes] = []
    size = 0
    while data := os.read(fd, LIMIT + 1 - size):
        parts.append(data)
        size += len(data)
        if size > LIMIT:
            raise too_large(path)
    return b"".join(parts)


def too_large(path: str) -> ConfigError:
    return ConfigError(f"{path}: larger than {LIMIT} bytes, which no configuration needs")


def parts(path: str) -> list[str]:
    """The names in a path, last first."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]


def acl(fd: int) -> list[tuple[int, bool, int]]:
    """The access control list of what fd is: tag, whether it lets write, and id; [] for none.

    Raises OSError.
    """
    try:
        # By this name, as a descriptor that is only a path has no attributes.
        data = os.getxattr(f"/proc/self/fd/{fd}", ACL)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return []
        raise
    numbers = [
        int.from_bytes(data[at : at + size], "little")
        for entry in range(4, len(data) - 7, 8)
        for at, size in ((entry, 2), (entry + 2, 2), (entry + 4, 4))
    ]
    return [
        (numbers[n], bool(numbers[n + 1] & stat.S_IWOTH), numbers[n + 2])
        for n in range(0, len(numbers), 3)
    ]


def groups_of(uid: int) -> tuple[frozenset[int], str]:
    """The groups the name service knows for a user, and those this process has of it.

    The second says why some may be missing, or is empty.
    """
    groups = {*os.getgroups(), os.getgid()} if uid == os.getuid() else set()
    records, failure = bounded.ask(_groups_by_name_service(uid))
    return frozenset(groups.union(map(int, records))), failure


def _groups_by_name_service(uid: int) -> Iterator[str]:
    """Runs in a child."""
    import pwd

    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        raise LookupError("the name service does not know the user") from None
    for group in os.getgrouplist(entry.pw_name, entry.pw_gid):
        yield str(group)
