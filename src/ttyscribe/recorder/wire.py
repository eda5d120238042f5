# SPDX-License-Identifier: Apache-2.0
"""What passes between the login shell's client and the recorder service.

The native launcher has a client of its own (launcher/service.h), for the usual
login: what changes here changes there.

A SOCK_SEQPACKET socket, so that a packet is a message: one letter, then fields
without NULs, joined by NUL. Descriptors travel with the packet that names them.

    client                             service
                                       ACCEPTED            it is there and listens; to one that
                                         does not say so, no descriptor is sent
    HELLO version argv0 name whole     (descriptors: those of 0, 1, 2 that are open,
      variables n                        which name says: "012", "02", ...; whole is "0", "1"
                                         if something is cut, "2" if not and it is_plain_git)
      n times "NAME=value"  arguments...
                                       RECORD shell notice layout [program arguments...]
                                         (the shell's descriptors)
                                       BARE shell          become the real shell
                                       DIRECT              record in your own process
                                       FAILED outcome shell why
                                       FULL why            no session is begun: as without a
                                         service that answers, the client decides
                                       VERSION version     yours is not spoken here
    FAILED_START status                the shell could not be started
    WINDOW                             the terminal has another size
    SIGNAL number                      the client was told to end
    STOPPED                            the shell has suspended itself
                                       MODE change         of the terminal's own mode: to be
                                                             made when it is left now
                                                             (terminal/mode.py)
                                       HELD          the keyboard is not read: stop as well
    RESUMED output                     both go on, and the keyboard is to be read: the client
                                         has taken the terminal (output is "1" if the shell's
                                         pty is to process output, for the terminal does not)
    BEHIND                             both go on, but the terminal is another job's now: the
                                         keyboard is left to that (the client says one of
                                         these before it starts the shell)
    JOB group                          where its pty controls the shell: that starts in this group
                                         of processes there, and while it has the pty, the keys
                                         that send signals are for all of the login's own job (0:
                                         it may take the pty for itself, which can't be told). A
                                         command's keyboard is not read before
                                       KEYS keys           the terminal is to send signals for
                                                             these keys (as terminal/raw.py's
                                                             keys_of has them); only where
                                                             terminal/job.py's shares_keys holds
    TYPED number                       a key sent us this signal (INT, QUIT, TSTP): type it at the
                                         shell's pty
                                       SYNC                something was read from the terminal: say
                                                             so, too, when all is told that its
                                                             keys have sent before
    SYNC                               so it is
    TO_JOB number                      all of our job was sent this signal (INT, QUIT): send it to
                                         all of the shell's
                                       LEAVE numbers       the output of these descriptors ("1",
                                                             "12") has ended: close them
    ENDED wait-status                  the shell has ended
                                       MODE change         as above
                                       END                 nothing more can be recorded: end the
                                                             shell (it was hung up)
                                       DONE line           all is delivered (line: a complaint)

The end of the socket is the other side's death: for the service that is the
user's hang-up, for the client the end of the session.
"""

from __future__ import annotations

VERSION = 3
SOCKET = "/run/ttyscribe/recorder.sock"

ACCEPTED = b"A"
HELLO = b"H"
RECORD = b"R"
BARE = b"B"
DIRECT = b"I"
FAILED = b"E"
FULL = b"L"
OTHER_VERSION = b"V"
FAILED_START = b"F"
WINDOW = b"W"
SIGNAL = b"S"
STOPPED = b"T"
MODE = b"M"
HELD = b"P"
RESUMED = b"C"
BEHIND = b"G"
JOB = b"J"
KEYS = b"Y"
TYPED = b"Q"
TO_JOB = b"O"
SYNC = b"Z"
ENDED = b"X"
LEAVE = b"N"
END = b"K"
DONE = b"D"

# The largest packet, well below what a socket's buffer holds by default.
PACKET_MAX = 65536
# Room for arguments in a HELLO. They are for the record; the shell gets its own.
ARGUMENTS_MAX = 49152
# The environment that the recorder needs to know. What names or holds a
# configuration is not among it, for the service would open it with its own rights:
# where that counts, the client is to record (DIRECT).
ENVIRONMENT = (
    b"TERM", b"LANG", b"LC_ALL", b"LOGNAME", b"SSH_CONNECTION", b"SSH_CLIENT", b"REMOTEHOST",
    b"PATH", b"TLOG_REC_SESSION_SHELL",
)  # fmt: skip
_VALUE_MAX = 4096
_VARIABLES_MAX = 8192

# What each of the shell's standard descriptors is, in a RECORD's layout: a
# descriptor passed along (the pty's slave or a pipe), the user's own, or closed.
PASSED = ord("p")
OWN = ord("o")
CLOSED = ord("-")


def pack(kind: bytes, *fields: bytes) -> bytes:
    """One packet."""
    return kind + b"\0".join(fields)


def unpack(packet: bytes) -> tuple[bytes, list[bytes]]:
    """A packet's kind and fields."""
    return packet[:1], packet[1:].split(b"\0")


def within(most: int, field: bytes) -> int:
    """A number in a client's packet. Raises ValueError for one that is none, or too great."""
    number = int(field)
    if not 0 <= number <= most:
        raise ValueError("out of bounds")
    return number


class Hello:
    """What a client says of itself. names are the user's open descriptors, as b"012".

    cut tells that something was too long to be sent whole. variables are the names
    of all of the user's environment. is_plain_git is what session/skip.py's asks_git said.
    Who the user is, is not asked.
    """

    __slots__ = ("arguments", "argv0", "cut", "environ", "is_plain_git", "names", "variables")

    def __init__(
        self,
        argv0: bytes,
        names: bytes,
        cut: bool,
        environ: dict[bytes, bytes],
        arguments: list[bytes],
        variables: list[bytes],
        is_plain_git: bool = False,
    ) -> None:
        self.argv0 = argv0
        self.names = names
        self.cut = cut
        self.environ = environ
        self.arguments = arguments
        self.variables = variables
        self.is_plain_git = is_plain_git

    def packed(self) -> bytes:
        """The packet, with what is too long cut off."""
        environ = [
            b"%b=%b" % (name, self.environ[name])
            for name in ENVIRONMENT
            if name in self.environ and len(self.environ[name]) <= _VALUE_MAX
        ]
        arguments: list[bytes] = []
        left = ARGUMENTS_MAX
        # No name holds an equals sign.
        variables = b"=".join(self.environ)
        cut = len(variables) > _VARIABLES_MAX
        for word in self.arguments:
            if len(word) + 1 > left:
                arguments.append(word[: max(left - 1, 0)])
                cut = True
                break
            arguments.append(word)
            left -= len(word) + 1
        return pack(
            HELLO,
            b"%d" % VERSION,
            self.argv0[:1024],
            self.names,
            b"1" if cut else b"2" if self.is_plain_git else b"0",
            variables[:_VARIABLES_MAX],
            b"%d" % len(environ),
            *environ,
            *arguments,
        )

    @classmethod
    def unpacked(cls, fields: list[bytes]) -> Hello:
        """From the fields behind the version. Raises ValueError for what is no HELLO."""
        argv0, names, whole, variables, number = fields[:5]
        count = int(number)
        if not 0 <= count <= len(ENVIRONMENT) or names not in _NAMES:
            raise ValueError("not a HELLO")
        environ = {}
        for entry in fields[5 : 5 + count]:
            name, _, value = entry.partition(b"=")
            if name in ENVIRONMENT:
                environ[name] = value
        arguments = fields[5 + count :]
        cut, is_plain_git = whole not in (b"0", b"2"), whole == b"2"
        listed = variables.split(b"=")
        return cls(argv0, names, cut, environ, arguments, listed, is_plain_git)


_NAMES = (b"", b"0", b"1", b"2", b"01", b"02", b"12", b"012")
