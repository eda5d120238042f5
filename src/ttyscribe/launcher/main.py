# SPDX-License-Identifier: Apache-2.0
"""The script that the native launcher runs as `python3 -I -S -X utf8 main.py ARGV0 ARG...`.

Kept small: it is compiled anew at each login. `-S` means that no site module
has run, so it puts the package and its dependencies into sys.path itself.
"""

from __future__ import annotations

import sys
from posix import environ

# The launcher's notes, by their names: SIGPIPE and SIGXFSZ; SIGINT and SIGQUIT.
IGNORED = {b"IGNORED_PIPE": 13, b"IGNORED_XFSZ": 25}
HELD = {b"HELD_INT": 2, b"HELD_QUIT": 3}
LOG = "/dev/log"


def search_path(main: str, executable: str) -> list[str]:
    """The folder of the package, and the one of its environment's dependencies.

    They are the same where ttyscribe is installed, and differ in a checkout.
    Both come from absolute paths compiled into the launcher.
    """
    package = main.rsplit("/", 3)[0]
    prefix = executable.rsplit("/", 2)[0]
    version = sys.version_info
    site = f"{prefix}/lib/python{version[0]}.{version[1]}/site-packages"
    return [package] if package == site else [package, site]


def original(prefixed: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """The environment before the launcher put one '_' in front of each name.

    Other names were set by the interpreter itself. A variable without a name
    can't be handed on by execve's callers in Python, and is left out.
    """
    return {
        name[1:]: value
        for name, value in prefixed.items()
        if len(name) > 1 and name.startswith(b"_")
    }


def ignored(variables: dict[bytes, bytes]) -> list[int]:
    """The signals that the launcher found ignored, of those that Python ignores itself."""
    return [number for name, number in IGNORED.items() if name in variables]


def held(variables: dict[bytes, bytes]) -> list[int]:
    """The signals that the launcher has blocked until there is a shell."""
    return [number for name, number in HELD.items() if name in variables]


def take_input(variables: dict[bytes, bytes]) -> None:
    """Have standard input again, which the launcher kept from the interpreter.

    That does not start with a folder there.
    """
    kept = variables.get(b"STDIN")
    if kept is not None:
        import posix

        posix.dup2(int(kept), 0)
        posix.close(int(kept))


def service(variables: dict[bytes, bytes]) -> str | None:
    """What came of the launcher's asking the recorder service; None if it did not ask.

    "" if the service wants us to record, else why it does not record.
    """
    note = variables.get(b"SERVICE")
    return None if note is None else note.decode("utf-8", "replace")


def is_limited() -> bool:
    """Whether a limit that the caller may have set is lower than a login has it."""
    try:
        import resource as r

        for what in (r.RLIMIT_AS, r.RLIMIT_DATA):
            if r.getrlimit(what)[0] != r.RLIM_INFINITY:
                return True
        # Without a limit it is -1.
        stack, descriptors = r.getrlimit(r.RLIMIT_STACK)[0], r.getrlimit(r.RLIMIT_NOFILE)[0]
        return 0 <= stack < 1 << 20 or 0 <= descriptors < 64
    except Exception:  # it could be the limits that keep us from it
        return True


def alone(argv0: str, arguments: list[str], environ: dict[bytes, bytes], why: str) -> int:
    """The built-in outcome where nothing of ours works: root is let in, and nobody else.

    As alone.h, with as little as there is: one line for the user, one for the log; and root
    is not let in by limits that whoever became root may have brought along.
    """
    import posix

    root = posix.getuid() == 0 and not is_limited()
    what = "login refused, because the session can't be recorded"
    if root:
        what = "this session is not recorded"
    # It may quote anything.
    line = "".join([c if c.isprintable() else "?" for c in f"{what}: {why}"])
    try:
        posix.write(2, f"ttyscribe: {line}\n".encode("utf-8", "replace"))
    except OSError:
        pass
    try:
        import _socket as s

        text = f"<81>ttyscribe: user {posix.getuid()}: {line}".encode("utf-8", "replace")
        for kind, end in ((s.SOCK_DGRAM, b""), (s.SOCK_STREAM, b"\0")):
            log = s.socket(s.AF_UNIX, kind | s.SOCK_NONBLOCK | s.SOCK_CLOEXEC)
            # EPROTOTYPE
            if log.connect_ex(LOG) != 91:
                log.send(text + end)
                break
    except Exception:  # noqa: S110 - there is no log, and nothing to do about it
        pass
    if not root:
        return 126
    import _signal  # type: ignore[import-not-found]  # all of signal that is needed

    for number in IGNORED.values():
        _signal.signal(number, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, held(posix.environ))
    words = ["-bash" if argv0.startswith("-") else "bash", *arguments]
    variables = {**environ, b"SHELL": b"/bin/bash"}
    variables.pop(b"TLOG_REC_SESSION_SHELL", None)
    posix.execve("/bin/bash", words, variables)


def main() -> int:
    """Be the login shell with the launcher's arguments and environment."""
    import _signal

    # A key ends a login as it ends a shell, without a word.
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    # -I keeps this script's own folder out; the standard library stays first.
    sys.path += search_path(sys.argv[0], sys.executable)
    argv0, arguments, variables = sys.argv[1], sys.argv[2:], original(environ)
    take_input(environ)
    why = "the installation is damaged: {}; install it again"
    try:
        from ttyscribe.cli.rec_session import launched

        why = "internal error: {}"
        return launched(
            argv0, arguments, variables, ignored(environ), service(environ), held(environ)
        )
    except MemoryError:
        why = "no memory is left; free some or raise the limit (ulimit -v)"
    except Exception as error:  # in what is there, and in what is not; no session has begun
        why = why.format(f"{type(error).__name__}: {error}")
    return alone(argv0, arguments, variables, why)


if __name__ == "__main__":
    sys.exit(main())
