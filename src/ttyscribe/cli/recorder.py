# SPDX-License-Identifier: Apache-2.0
"""`ttyscribe recorder`: the privileged recorder service."""

from __future__ import annotations

from ttyscribe.cli.options import Formatter, Parser
from ttyscribe.recorder import privileges, wire

DESCRIPTION = """\
Run the recorder service, which records the sessions of all users whose login
shell is ttyscribe-rec-session, out of their reach: as its own user, one process
for each session. systemd starts it by its socket; by hand, run it as root.

SIGTERM ends the service and lets sessions in progress go on to their end; a new
service takes over the socket. A changed configuration counts for the next
session.
"""


def main(argv: list[str]) -> int:
    """Run `ttyscribe recorder` with the arguments argv; return the exit status."""
    parser = Parser(
        "ttyscribe recorder", description=DESCRIPTION, formatter_class=Formatter, allow_abbrev=False
    )
    parser.add_argument("--socket", metavar="FILE", default=wire.SOCKET,
                        help=f"listen there (default {wire.SOCKET}), unless systemd "
                             "passes a socket")  # fmt: skip
    parser.add_argument("--user", metavar="NAME", default=privileges.USER,
                        help="the user to run as when started by root "
                             f"(default {privileges.USER})")  # fmt: skip
    parser.add_argument("--max-sessions", metavar="NUMBER", type=int, default=4096,
                        help="the most sessions to record at once (default 4096)")  # fmt: skip
    parser.add_argument("--max-sessions-per-user", metavar="NUMBER", type=int, default=256,
                        help="the most of them of one user, root excepted "
                             "(default 256)")  # fmt: skip
    arguments = parser.parse_args(argv)
    from ttyscribe.recorder.service import Limits, run

    limits = Limits(arguments.max_sessions_per_user, arguments.max_sessions)
    return run(arguments.socket, arguments.user, limits)
