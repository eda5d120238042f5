# SPDX-License-Identifier: Apache-2.0
"""When git's server programs may be skipped, and how: so that they run nothing but git.

git-receive-pack runs what the pushing user may have prepared: hooks, and commands
that configurations name. Nor does it, or git-upload-pack, get the user's own
configuration when it is skipped (skip.py). So neither is skipped where any of that
would make a difference: is_plain() looks for it, as the login's user, in the process
of the login shell.

What is looked at can be changed before git reads it, and while it runs. So it is told what
was found (_AS_FOUND), and not to fetch what is missing (skip.ADDED); and it runs confined:
the kernel lets it execute git's programs, their loader, and nothing else (launcher/confine.c).
The loader would execute any other program, so no word that git executes may be the user's:
that is what the settings are for. Where it can't be confined, it is recorded in full.
"""

from __future__ import annotations

import _stat as stat
import os

from ttyscribe.session import confine
from ttyscribe.session.roots import is_roots

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# A home or a repository may be on a server that is away; git itself would wait longer.
_SECONDS = 2.0
_CONFIGURATION_MAX = 65536
_SYSTEM = "/etc/gitconfig"

_GIT = "/usr/bin/git"
# The minor number of the newest git 2 whose source was read for what a push can make it run.
_NEWEST = 53
_EXEC_PATHS = ("/usr/lib/git-core", "/usr/libexec/git-core")

# The sections of git-config(1) that are nothing to either program, with all their keys (None)
# or those named.
_NO_MATTER: dict[str, tuple[str, ...] | None] = {
    **dict.fromkeys(
        (
            "advice", "alias", "apply", "author", "blame", "branch", "browser", "color",
            "column", "commit", "committer", "credential", "diff", "difftool", "fetch",
            "filter", "format", "gitweb", "gpg", "grep", "gui", "guitool", "help", "init",
            "instaweb", "interactive", "log", "man", "merge", "mergetool", "notes", "pager",
            "pretty", "pull", "push", "rebase", "rerere", "sendemail", "sequence", "stash",
            "status", "svn", "tag", "url", "user", "versionsort", "web",
        )
    ),
    "core": (
        "abbrev", "askpass", "attributesfile", "autocrlf", "commentchar", "editor", "eol",
        "excludesfile", "pager", "quotepath", "safecrlf", "sshcommand", "whitespace",
    ),
}  # fmt: skip
# With those of a bare repository that git-receive-pack obeys by itself.
_PLAIN: dict[str, tuple[str, ...] | None] = {
    **_NO_MATTER,
    "core": (
        *(_NO_MATTER["core"] or ()), "bare", "bigfilethreshold", "compression", "filemode",
        "fsync", "fsyncmethod", "ignorecase", "precomposeunicode", "repositoryformatversion",
        "sharedrepository", "symlinks",
    ),
    "daemon": None,
    "extensions": ("objectformat",),
    "gc": ("auto", "autodetach", "autopacklimit", "pruneexpire", "reflogexpire"),
    "http": None,
    "pack": None,
    "receive": (
        "advertiseatomic", "advertisepushoptions", "autogc", "denycurrentbranch",
        "denydeletecurrent", "denydeletes", "denynonfastforwards", "fsckobjects", "hiderefs",
        "keepalive", "maxinputsize", "unpacklimit", "updateserverinfo",
    ),
    "remote": ("fetch", "mirror", "push", "pushurl", "tagopt", "url"),
    "transfer": ("fsckobjects", "hiderefs", "unpacklimit"),
    "uploadpack": (
        "allowanysha1inwant", "allowfilter", "allowreachablesha1inwant", "allowrefinwant",
        "allowsidebandall", "allowtipsha1inwant", "hiderefs", "keepalive",
    ),
}  # fmt: skip

# What is_plain() found, for git to believe whatever the files say by then.
_AS_FOUND = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    # The objects that arrive have the repository's own for an alternate, whose references are
    # asked for: a program of git's that says nothing.
    "core.alternateRefsCommand=git-check-ref-format",
    # By the name of a remote helper, which an alias could then be taken for.
    "help.autocorrect=never",
    "receive.denyCurrentBranch=refuse",
    # To prune, git 2.42 and later run what gc.recentObjectsHook names.
    "gc.pruneExpire=never",
    *(f"gpg.{kind}program=false" for kind in ("", "openpgp.", "x509.", "ssh.")),
)


def is_plain(words: Sequence[str], environ: Mapping[bytes, bytes]) -> bool:
    """Whether git-upload-pack or git-receive-pack, as words ask for it, may be skipped.

    environ is the login's. To be asked as the login's user, in the folder that the
    program would start in. There is an answer within _SECONDS, or it is no.
    """
    from ttyscribe.bounded import ask

    found, failure = ask(_look(words, environ), _SECONDS)
    return bool(found) and not failure


def confined(path: str, words: Sequence[str]) -> tuple[str, list[str]] | None:
    """The program to execute for words that are is_plain(), and its arguments.

    path is the program that was asked for. None if it is another git's than the system's,
    or can't be confined here.
    """
    if os.path.realpath(path) != os.path.realpath(_GIT):
        return None
    loader = _loader(_GIT)
    folders = [folder for folder in _EXEC_PATHS if is_roots(f"{folder}/git")]
    if not folders or not is_roots(_GIT) or not is_roots(loader):
        return None
    told = [word for setting in _AS_FOUND for word in ("-c", setting)]
    command = words[0].rpartition("/")[2].removeprefix("git-")
    argv = ["git", *told, command, words[1]]
    return confine.confined(_GIT, argv, only=[_GIT, *folders, loader])


def _look(words: Sequence[str], environ: Mapping[bytes, bytes]) -> Iterator[str]:
    """One record if it is plain, none if not. Raises OSError for what can't be read."""
    # Options may do anything: --help runs a viewer that a configuration names.
    if len(words) != 2 or words[1].startswith("-"):
        return
    home = os.fsdecode(environ.get(b"HOME", b""))
    config = os.fsdecode(environ.get(b"XDG_CONFIG_HOME", b"")) or f"{home}/.config"
    if not home.startswith("/") or not config.startswith("/"):
        return
    for path in (f"{home}/.gitconfig", f"{config}/git/config"):
        if not _keeps_to(_settings(path), _NO_MATTER):
            return
    if not _keeps_to(_settings(_SYSTEM), _PLAIN):
        return
    if words[0].rpartition("/")[2] == "git-receive-pack":
        folder = _folder_of(words[1], home)
        if not _is_known(_version()) or folder is None or not _is_plain_folder(folder):
            return
    yield "plain"


def _is_known(version: str) -> bool:
    """Whether a git of this version runs what is told here, and nothing else, for a push.

    Each may bring new words of its user's to run; 2.54 runs hooks that a configuration names.
    """
    numbers = version.split(".")
    return (
        len(numbers) > 1
        and numbers[0] == "2"
        and numbers[1].isdecimal()
        and (int(numbers[1]) <= _NEWEST)
    )


def _version() -> str:
    """The system's git's, as "2.39.5"; "" if it does not tell."""
    reader, writer = os.pipe()
    actions = [(os.POSIX_SPAWN_DUP2, writer, 1)]
    pid = os.posix_spawn(_GIT, ["git", "version"], {}, file_actions=actions)
    os.close(writer)
    told = os.read(reader, 256).decode("ascii", "replace")
    os.close(reader)
    os.waitpid(pid, 0)
    return told.removeprefix("git version ").strip()


def _folder_of(name: str, home: str) -> str | None:
    """Git's folder for a repository's name, found as git finds it; None if in doubt."""
    if name.startswith("~/"):
        name = home + name[1:]
    if name.startswith("~"):
        return None
    for suffix in ("/.git", "", ".git/.git", ".git"):
        path = name.rstrip("/") + suffix
        try:
            status = os.stat(path)
        except OSError:
            continue
        if not stat.S_ISDIR(status.st_mode):
            return None  # a file that names the folder
        if all(os.path.exists(f"{path}/{part}") for part in ("HEAD", "objects", "refs")):
            return path
    return None


def _is_plain_folder(folder: str) -> bool:
    """Whether it is of a bare repository that names nothing to run. Raises OSError."""
    # A reflog tells the user's name, which is in the configuration that is not read.
    for part in ("commondir", "worktrees", "config.worktree", "objects/info/alternates", "logs"):
        if os.path.lexists(f"{folder}/{part}"):
            return False
    try:
        hooks = os.listdir(f"{folder}/hooks")
    except FileNotFoundError:
        hooks = []
    settings = _settings(f"{folder}/config")
    return (
        all(name.endswith(".sample") for name in hooks)
        and _keeps_to(settings, _PLAIN)
        and settings is not None
        and settings.get("core.bare") == "true"
    )


def _keeps_to(
    settings: Mapping[str, str] | None, known: Mapping[str, tuple[str, ...] | None]
) -> bool:
    """Whether there is no setting but the known ones."""
    if settings is None:
        return False
    for name in settings:
        section, _, key = name.partition(".")
        keys = known.get(section, ())
        if keys is not None and key not in keys:
            return False
    return True


def _settings(path: str) -> dict[str, str] | None:
    """The settings in a file of git's, by "section.key", none if it is missing.

    None for a file that is not written as git itself writes it. A setting's subsection
    is left out. Raises OSError if the file can't be read.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    try:
        fd = os.open(path, flags)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        data = os.read(fd, _CONFIGURATION_MAX)
    finally:
        os.close(fd)
    if len(data) == _CONFIGURATION_MAX:
        return None
    settings: dict[str, str] = {}
    section = ""
    for line in data.decode("utf-8", "replace").split("\n"):
        text = line.strip()
        if not text or text[0] in "#;":
            continue
        if text[-1] == "\\":
            return None  # it goes on in the next line
        if text[0] == "[":
            section, _, name = text[1:-1].partition(" ")
            section = section.lower()
            if text[-1] != "]" or not section.replace("-", "").isalnum():
                return None
            if name and (len(name) < 2 or name[0] + name[-1] != '""' or '"' in name[1:-1]):
                return None
            continue
        key, given, value = text.partition("=")
        key = key.strip().lower()
        # Without a value it is true, or nothing to go on with.
        if not section or not given or not key.replace("-", "").isalnum():
            return None
        settings[f"{section}.{key}"] = value.strip()
    return settings


def _loader(path: str) -> str:
    """The dynamic loader that an executable asks for; "" if it asks for none."""
    from _struct import unpack_from

    with open(path, "rb") as file:
        head = file.read(4096)
        if head[:5] != b"\x7fELF\x02":
            return ""
        order = "<" if head[5] == 1 else ">"
        (table,) = unpack_from(f"{order}Q", head, 32)
        size, number = unpack_from(f"{order}HH", head, 54)
        for at in range(table, table + size * number, size):
            kind, _, offset, _, _, length = unpack_from(f"{order}IIQQQQ", head, at)
            if kind == 3:  # PT_INTERP
                file.seek(offset)
                return os.fsdecode(file.read(length).rstrip(b"\0"))
    return ""
