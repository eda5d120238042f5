# SPDX-License-Identifier: Apache-2.0
"""A user's name and groups from the name service, which may fail or hang.

It is asked in a child (bounded.py), which tells what it learns in records, each a
letter and a text: u the user's uid, s their shell, n the name, w the groups are wanted, g
a group's name, and e what failed. Only where a file has the whole answer is none needed.
"""

from __future__ import annotations

import os

from ttyscribe import bounded
from ttyscribe.policy.rules import Groups

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

LOOKUP_TIMEOUT = bounded.SECONDS

PASSWD = "/etc/passwd"  # noqa: S105 - a file name
NSSWITCH = "/etc/nsswitch.conf"
_LOCAL_MOST = 1 << 18
# A comment, and what stands for another service's names.
_NO_NAME = (b"", b"#", b"+", b"-")


class Account:
    """What was learned: name is "" if it could not be, and failure says why.

    groups is None where they were not asked for. uid and shell are for whoever is
    asked about by name.
    """

    __slots__ = ("failure", "groups", "name", "shell", "uid")

    def __init__(
        self, name: str, uid: int, shell: str, groups: Groups | None, failure: str = ""
    ) -> None:
        self.name = name
        self.uid = uid
        self.shell = shell
        self.groups = groups
        self.failure = failure


def look_up(
    who: int | str,
    login: str,
    wants_groups: Callable[[str], bool],
    listed: Sequence[str],
    timeout: float,
) -> Account:
    """Look a user up by uid or name, within timeout seconds; what fails is in the answer.

    login is preferred as the name of a uid if it has that uid. The groups are
    looked up if wants_groups(name). listed are the groups that a rule names: if the
    user is in none of them, and one of them can't be found because its service is
    down, the groups count as failed.
    """
    if isinstance(who, int):
        local = _local_name(who, login)
        if local and not wants_groups(local):
            return Account(local, who, "", None)
    records, broken = bounded.ask(_learn(who, login, wants_groups, listed), timeout)
    name = shell = failure = ""
    uid = -1
    groups: list[str] | None = None
    for record in records:
        kind, text = record[:1], record[1:]
        if kind == "u":
            uid = int(text)
        elif kind == "s":
            shell = text
        elif kind == "n":
            name = text
        elif kind == "w":
            groups = []
        elif kind == "g" and groups is not None:
            groups.append(text)
        elif kind == "e":
            failure = text
    if broken:
        failure = f"could not be looked up: {broken}"
    if not name:
        return Account("", -1, "", None, failure)
    if groups is None and not failure:
        return Account(name, uid, shell, None)
    known = Groups(groups or (), f"their groups {failure}" if failure else "")
    return Account(name, uid, shell, known)


def _local_name(uid: int, login: str) -> str:
    """The name of a uid, where /etc/passwd is asked first and has it; else "".

    The answer is the one that the name service gives, without the process that
    guards against its modules: a file does not hang, and it spares a login a
    millisecond.
    """
    if not _files_come_first():
        return ""
    first = ""
    named = not login
    for line in _lines(PASSWD):
        fields = line.strip().split(b":")
        if len(fields) != 7 or not fields[2].isdigit() or fields[0][:1] in _NO_NAME:
            continue
        name = fields[0].decode("utf-8", "surrogateescape")
        if int(fields[2]) == uid:
            first = first or name
            if name == login and not named:
                return name
        named = named or name == login
    # A login name that is not here may be another service's name for the uid.
    return first if named else ""


def _files_come_first() -> bool:
    for line in _lines(NSSWITCH):
        if line.startswith(b"passwd:"):
            return line.split()[1:2] == [b"files"] and b"[" not in line
    return False


def _lines(path: str) -> list[bytes]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        # A larger file is left to the name service.
        data = os.read(fd, _LOCAL_MOST)
    finally:
        os.close(fd)
    return data.splitlines() if len(data) < _LOCAL_MOST else []


def _learn(
    who: int | str, login: str, wants_groups: Callable[[str], bool], listed: Sequence[str]
) -> Iterator[str]:
    """Ask the name service, one record at a time. Runs in the child."""
    import pwd

    try:
        account = pwd.getpwuid(who) if isinstance(who, int) else pwd.getpwnam(_to_os(who))
    except KeyError:
        yield "eis unknown to the name service"
        return
    if login and login != _from_os(account.pw_name):
        try:
            named = pwd.getpwnam(_to_os(login))
        except KeyError:
            named = account
        if named.pw_uid == account.pw_uid:
            account = named
    name = _from_os(account.pw_name)
    yield f"u{account.pw_uid}"
    yield f"s{_from_os(account.pw_shell)}"
    yield f"n{name}"
    if wants_groups(name):
        import grp

        yield "w"
        found = False
        # Unlike its siblings getgrouplist() encodes as UTF-8, whatever the locale.
        for gid in os.getgrouplist(name, account.pw_gid):
            try:
                group = _from_os(grp.getgrgid(gid).gr_name)
            except KeyError:
                yield f"ecould not all be looked up: gid {gid} has no name"
                continue
            found = found or group in listed
            yield f"g{group}"
        if not found:
            yield from _outages(listed)


def _outages(groups: Sequence[str]) -> Iterator[str]:
    """A record for each group that can't be found because its service is down.

    getgrouplist() passes over a service that is down, and the module grp takes
    "down" for "no such group"; only getgrnam_r() tells them apart: its status is
    zero where the last service asked said that there is none.
    """
    import grp

    for group in groups:
        try:
            grp.getgrnam(_to_os(group))
        except KeyError:
            pass
        else:
            continue
        import ctypes

        record, buffer = ctypes.create_string_buffer(256), ctypes.create_string_buffer(65536)
        result = ctypes.c_void_p()
        status = ctypes.CDLL(None).getgrnam_r(
            os.fsencode(_to_os(group)), record, buffer, len(buffer), ctypes.byref(result)
        )
        if status:
            yield (
                "ecould not all be looked up: a name service of /etc/nsswitch.conf is down:"
                f" asked for group '{group}', it answers: {os.strerror(status)}; start it or"
                " take it out of there"
            )


# Names are compared as UTF-8, as configurations are written in; Python decodes
# the name service's by the locale, which the user may have chosen.


def _from_os(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "surrogateescape")


def _to_os(name: str) -> str:
    return os.fsdecode(name.encode("utf-8", "surrogateescape"))
