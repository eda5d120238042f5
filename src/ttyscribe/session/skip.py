# SPDX-License-Identifier: Apache-2.0
"""Which commands are machine protocols, and are run without recording their contents.

A command is skipped if it is one of the configured ones and nothing else, and if
it can be said for certain what would run. For anything else the answer is None,
and it is recorded in full. To be asked only for a command (-c) without a terminal.

A shell is no part of what runs. The words that a shell would make of the line
are executed directly, because a shell first reads files that its user writes
(~/.bashrc, ~/.zshenv, $BASH_ENV), and these could start anything, or define a
function scp. So these files' changes, of umask or PATH, are not seen by a skipped
command. Skipped commands need:

- a plain shell: one that restricts or replaces commands (rbash, git-shell) decides itself;
- a line of plain and quoted words: nothing that any of these shells expands,
  redirects, assigns, joins or takes for two commands;
- a program that root installed: its file, and each folder and link on the way to
  it, belong to root and are writable to nobody else. The name is looked up in PATH
  as a shell would, and what is found first counts, not the first that is root's;
- an environment in which nothing is set that is meant for these programs, and may load
  or run something else. It has to be in force, so it is recorded in full.

Of the environment a skipped command gets what programs need to know of a login, and
nothing else (environment_of): more variables make some program or library of it read a
file or run a program of the user's choice (OPENSSL_CONF, LOCPATH) than a list can name.

It runs confined (confine.py): whoever writes to a program's memory, its own or another
skipped one's, as rsync and sftp-server can be told to, makes any program of it.

That the program is the genuine one is all this promises. A program that itself runs
what its user has prepared is skipped with all it does, where an admin adds one. Of the
default ones only git's would, and git.py sees to these.
"""

from __future__ import annotations

import os

from ttyscribe.session import confine
from ttyscribe.session.roots import is_roots

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SHELLS = ("ash", "bash", "csh", "dash", "fish", "ksh", "ksh93", "mksh", "sh", "tcsh", "zsh")

# Unquoted, these are themselves in every one of the shells above, as are letters and digits.
_PLAIN = frozenset("_./:@%+,=-")
# In double quotes these, and in single ones the last two (csh, fish), may not be themselves.
_NOT_IN_DOUBLE = frozenset('"$`\\!')
_NOT_IN_SINGLE = frozenset("'\\!")
# At the beginning of a word these may stand for something else: zsh's =ls, a job's %1.
_NOT_FIRST = frozenset("=%")

# scp's letters that take no value, scp(1). Only after such can -t be taken for itself.
_FLAGS = {"scp": frozenset("346BCTdfpqrtv")}
_ENV = "/usr/bin/env"
_GITS = ("git-upload-pack", "git-receive-pack")
# Words by which a genuine rsync --server runs what the user chooses: a daemon's
# configuration names commands; and secluded arguments come unseen, over the connection.
_RSYNC_REFUSED = (
    "--daemon", "--config", "--dparam", "--rsh", "--remote-option", "--secluded-args",
    "--protect-args",
)  # fmt: skip

# What the programs, or what loads them, are told by variables is not to be left out unseen.
_LOADING = (
    b"LD_", b"PYTHON", b"PERL", b"RUBY", b"GIT_", b"BORG_", b"RSYNC_", b"OPENSSL_", b"GCONV_PATH",
)  # fmt: skip
_HARMLESS = (b"GIT_PROTOCOL",)

# What a skipped command gets of the environment. It is the same in launcher/service.h.
KEPT = (
    b"HOME", b"USER", b"LOGNAME", b"SHELL", b"MAIL", b"TERM", b"TMPDIR", b"GIT_PROTOCOL",
    b"SSH_CLIENT", b"SSH_CONNECTION", b"SSH_ORIGINAL_COMMAND", b"XDG_RUNTIME_DIR",
)  # fmt: skip
ADDED = {
    # Only root's programs, whatever a program starts in turn.
    b"PATH": b"/usr/sbin:/usr/bin:/sbin:/bin",
    # Python programs (borg) would run what is in the user's own site-packages.
    b"PYTHONNOUSERSITE": b"1",
    # In its user's configuration git finds commands to run (uploadpack.packObjectsHook),
    # and in a repository's those by which it fetches what is missing.
    b"GIT_CONFIG_GLOBAL": b"/dev/null",
    b"GIT_NO_LAZY_FETCH": b"1",
    # For a git that does not know that: no scheme of a URL is called so.
    b"GIT_ALLOW_PROTOCOL": b"/",
}


class Skip:
    """A command that is not recorded.

    rule is the configured entry that it matches, program what it asks for. path is what
    to execute, argv its argument vector. Its environment is environment_of the login's.
    """

    __slots__ = ("argv", "path", "program", "rule")

    def __init__(self, rule: str, program: str, path: str, argv: list[str]) -> None:
        self.rule = rule
        self.program = program
        self.path = path
        self.argv = argv


def skip_rule(
    command_line: str,
    commands: Sequence[str],
    shell: str,
    environ: Mapping[bytes, bytes],
    is_plain_git: bool = False,
) -> Skip | None:
    """How to run a command that is not recorded; None for one that is recorded in full.

    command_line is what shell, a path, was asked to run by -c. Each of commands is a
    program's name, or its path, and the words that must be its first arguments,
    separated by spaces: "rsync --server". For scp they may stand among other flags,
    or be joined with them: "scp -t" is also `scp -r -t` and `scp -prt`. is_plain_git
    tells that the line may be skipped if it asks for a program of git's: see asks_git.
    """
    if shell.rpartition("/")[2] not in _SHELLS or not _is_plain_environment(environ):
        return None
    words = split(command_line)
    if not words or "=" in words[0]:
        return None
    for rule in commands:
        if _matches(words, rule.split()):
            break
    else:
        return None
    path = _find(words[0], environ)
    if path is None or not is_roots(path):
        return None
    name = words[0].rpartition("/")[2]
    if name in _GITS and not is_plain_git:
        return None
    if not confine.can_confine():
        return None
    if name in _GITS:
        from ttyscribe.session.git import confined

        found = confined(path, words)
        return None if found is None else Skip(rule, path, *found)
    if name == "rsync":
        # There popt finds what to execute in its place: ~/.popt.
        if not is_roots(_ENV):
            return None
        return Skip(rule, path, *confine.confined(_ENV, ["env", "-u", "HOME", path, *words[1:]]))
    return Skip(rule, path, *confine.confined(path, words))


def asks_git(arguments: Sequence[str], environ: Mapping[bytes, bytes]) -> bool:
    """Whether a login asks for a program of git's that may be skipped.

    arguments are the login shell's. To be asked in the login's own process, which git.py
    says what for.
    """
    if len(arguments) != 2 or arguments[0] != "-c":
        return False
    words = split(arguments[1])
    if not words or words[0].rpartition("/")[2] not in _GITS:
        return False
    from ttyscribe.session.git import is_plain

    return is_plain(words, environ)


def environment_of(environ: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """What of a login's environment a skipped command is executed with."""
    kept = {name: value for name, value in environ.items() if _is_kept(name, value)}
    return {**kept, **ADDED}


def split(command_line: str) -> list[str] | None:
    """The words of a line that consists of plain and quoted words; None for any other."""
    words: list[str] = []
    word: str | None = None
    at, end = 0, len(command_line)
    while at < end:
        c = command_line[at]
        at += 1
        if c in " \t":
            if word is not None:
                words.append(word)
                word = None
            continue
        if c in "'\"":
            close = command_line.find(c, at)
            if close < 0:
                return None
            part = command_line[at:close]
            at = close + 1
            refused = _NOT_IN_SINGLE if c == "'" else _NOT_IN_DOUBLE
            if not part.isprintable() or not refused.isdisjoint(part):
                return None
        elif c == "\\":
            part = command_line[at : at + 1]
            at += 1
            # Letters and digits after a backslash are escapes in some shells.
            if not part.isprintable() or not part.isascii() or part.isalnum() or not part:
                return None
        elif c in _PLAIN or c.isalnum():
            if word is None and c in _NOT_FIRST:
                return None
            part = c
        else:
            return None
        word = part if word is None else word + part
    if word is not None:
        words.append(word)
    return words


def _is_plain_environment(environ: Mapping[bytes, bytes]) -> bool:
    return not any(name.startswith(_LOADING) and name not in _HARMLESS for name in environ)


def _is_kept(name: bytes, value: bytes) -> bool:
    if name == b"TZ":
        # Not a path: the name of a file in the system's folder, or a rule (tzset(3)).
        return not value.startswith((b"/", b":")) and b".." not in value
    if name == b"LANG" or name.startswith(b"LC_"):
        # The name of a locale; a path would be one to read it from.
        return b"/" not in value
    return name in KEPT


def _matches(words: list[str], rule: list[str]) -> bool:
    if not rule:
        return False
    program = words[0] if "/" in rule[0] else words[0].rpartition("/")[2]
    if program != rule[0]:
        return False
    name = program.rpartition("/")[2]
    arguments, wanted = words[1:], rule[1:]
    if name == "rsync" and any(_is_refused_by_rsync(word) for word in arguments):
        return False
    flags = _FLAGS.get(name)
    if flags is None or not wanted:
        return arguments[: len(wanted)] == wanted
    given: set[str] = set()
    for word in arguments:
        if len(word) < 2 or word[0] != "-" or not flags.issuperset(word[1:]):
            break
        given.update(word[1:])
    # A rule's own flag that is none of the letters above is never found.
    return all(word[0] == "-" and given.issuperset(word[1:]) for word in wanted)


def _is_refused_by_rsync(word: str) -> bool:
    if word.startswith("--"):
        return word.startswith(_RSYNC_REFUSED)
    # -s is --secluded-args; what follows an e is its value: "-logDtpre.iLsfxCIvu".
    return word.startswith("-") and "s" in word.partition("e")[0]


def _find(program: str, environ: Mapping[bytes, bytes]) -> str | None:
    """The absolute path that a shell would run program from."""
    if "/" in program:
        return program if program.startswith("/") else None
    for folder in os.fsdecode(environ.get(b"PATH", b"")).split(":"):
        # What is in the current folder is nobody's to vouch for.
        if not folder.startswith("/"):
            return None
        path = f"{folder}/{program}"
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None
