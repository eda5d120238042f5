# SPDX-License-Identifier: Apache-2.0
"""ttyscribe recover: complete the recordings whose recorder or writer failed."""

from __future__ import annotations

import argparse
import contextlib
import grp
import itertools
import json
import os
from collections.abc import Iterator

from ttyscribe.cli.options import Formatter, Parser
from ttyscribe.errors import SpoolError, printable
from ttyscribe.session.arrival import check
from ttyscribe.session.recovery import WRITTEN, Recovered, recover
from ttyscribe.session.spoolfolder import SERVICE_FOLDER, user_folder

DESCRIPTION = """\
Complete the recordings whose recorder was killed, or whose writer was down until
the end. What they had captured lies in the spool; it is written to where each
recording went, in order, and nothing twice (syslog can't be asked what it has, so
there the last messages may be doubled). A recording that was cut off gets an end
that says "recovered". Recordings that are going on are left alone.

What the recorder service sent to the journal and is not there, because journald
dropped it or removed it to make room, is named as missing each time, until its
note in the spool folder (REC.missing) is removed.

Each new recording of a user does this by itself, and the recorder service when it
starts. Without --spool it is done for your own recordings
($XDG_STATE_HOME/ttyscribe/spool, default ~/.local/state/ttyscribe/spool), and by
root for the service's in /var/spool/ttyscribe too.
"""
EPILOG = """\
Examples:
  ttyscribe recover                             your own recordings
  ttyscribe recover --json | jq .state          what became of each
  ttyscribe recover --spool ~alice/.local/state/ttyscribe/spool

Exit status: 0 nothing is left; 1 a recording waits for its writer, can't be read or
has gaps; 2 wrong command line.
"""


def main(argv: list[str]) -> int:
    """Run `ttyscribe recover`; return the exit status."""
    arguments = parser().parse_args(argv)
    folders = [arguments.spool]
    if arguments.spool is None:
        folders = [user_folder(os.environb)]
        if os.geteuid() == 0 and os.path.isdir(SERVICE_FOLDER):
            folders.append(SERVICE_FOLDER)
    elif not os.path.isdir(arguments.spool):
        raise SpoolError(f"{printable(arguments.spool)}: there is no such folder")
    done: list[Recovered] = []
    for folder in folders:
        with owner_of(folder):
            for one in itertools.chain(recover(folder), check(folder, again=True)):
                done.append(one)
                print(as_json(one) if arguments.json else one, flush=True)
    if not done and not arguments.json:
        print("nothing to recover")
    return 0 if all(one.state == WRITTEN for one in done) else 1


def parser() -> argparse.ArgumentParser:
    """The command line of recover."""
    p = Parser(
        "ttyscribe recover",
        usage="ttyscribe recover [--spool FOLDER] [--json]",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=Formatter,
        allow_abbrev=False,
    )
    p.add_argument("--spool", metavar="FOLDER", help="another spool folder; root takes on "
                   "the rights of the folder's owner for it")  # fmt: skip
    p.add_argument("--json", action="store_true", help="one JSON object a line for each recording")
    return p


def as_json(one: Recovered) -> str:
    """What became of a recording, for a script: state is "written", "waiting", "missing" or
    "unreadable".
    """
    return json.dumps({name: getattr(one, name) for name in sorted(Recovered.__slots__)})


@contextlib.contextmanager
def owner_of(folder: str) -> Iterator[None]:
    """Have root act with the rights of the folder's owner, who may have put anything there."""
    if os.geteuid() != 0:
        yield
        return
    try:
        status = os.stat(folder)
    except OSError:
        yield
        return
    if status.st_uid == 0:
        yield
        return
    groups, group = os.getgroups(), os.getegid()
    try:
        # To see what the journal has already.
        os.setgroups([status.st_gid, *journal_group()])
        os.setegid(status.st_gid)
        os.seteuid(status.st_uid)
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


def journal_group() -> list[int]:
    """The group that may read all of the journal, if there is one."""
    try:
        return [grp.getgrnam("systemd-journal").gr_gid]
    except KeyError:
        return []
