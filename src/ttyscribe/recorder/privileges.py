# SPDX-License-Identifier: Apache-2.0
"""From root to the service's own user with the fewest capabilities that do the job."""

from __future__ import annotations

import ctypes
import grp
import os
import pwd
import signal

from ttyscribe.errors import TtyscribeError

USER = "ttyscribe"

# linux/capability.h
CAP_CHOWN = 0  # give the pty to the user, and take and give back the outer terminal
CAP_FOWNER = 3  # set the outer terminal's mode when it is the user's again
# Until it is decided whether a session is recorded: read SSSD's rules (0600 root), and open
# the terminal (0620) that sudo or su shows its own on.
CAP_DAC_READ_SEARCH = 2
FOR_SETUP = (CAP_CHOWN, CAP_FOWNER, CAP_DAC_READ_SEARCH)
FOR_SESSION = (CAP_CHOWN, CAP_FOWNER)

# Groups beside the user's own: to write login records, and to see what reached the journal.
GROUPS = ("utmp", "systemd-journal")

BLIND = (
    "the recorder can't see other users' processes in /proc, which is mounted with hidepid;"
    " mount it with gid= as well, of a group that the recorder is in"
)

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_KEEPCAPS = 8
_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def become(user: str) -> None:
    """Change from root to the system user, keeping the capabilities of FOR_SETUP.

    Raises TtyscribeError if there is no such user.
    """
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        raise TtyscribeError(
            f"there is no user '{user}' to run the recorder as; packaging/install makes it, "
            f"or: useradd --system --no-create-home --shell /usr/sbin/nologin {user}"
        ) from None
    _prctl(_PR_SET_KEEPCAPS, 1)
    os.setgroups(existing(GROUPS))
    os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
    os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
    _prctl(_PR_SET_KEEPCAPS, 0)
    keep(FOR_SETUP)
    hide()


def existing(groups: tuple[str, ...]) -> list[int]:
    """The ids of those groups that this machine has."""
    found = []
    for name in groups:
        try:
            found.append(grp.getgrnam(name).gr_gid)
        except KeyError:
            continue
    return found


def keep(capabilities: tuple[int, ...]) -> None:
    """Give up all capabilities but these, of those that are held. Raises OSError."""
    mask = sum(1 << capability for capability in capabilities)
    header = _Header(_VERSION_3, 0)
    data = (_Data * 2)()
    if _libc.capget(ctypes.byref(header), data):
        raise OSError(ctypes.get_errno(), "capget")
    mask &= data[0].permitted
    data[0] = _Data(mask, mask, 0)
    data[1] = _Data(0, 0, 0)
    if _libc.capset(ctypes.byref(header), data):
        raise OSError(ctypes.get_errno(), "capset")


def hide() -> None:
    """Keep other processes of our user from tracing and reading this one."""
    _prctl(_PR_SET_DUMPABLE, 0)


def sees_processes() -> bool:
    """Whether other users' processes are to be seen in /proc."""
    try:
        with open("/proc/1/status", "rb"):
            return True
    except OSError:
        return False


def end_with_parent() -> None:
    """Have SIGTERM end this process when its parent ends; to be called after keep()."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
