# SPDX-License-Identifier: Apache-2.0
"""ttyscribe play: replay a recording on this terminal."""

from __future__ import annotations

import os

from ttyscribe.cli import complain, source
from ttyscribe.errors import UsageError, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ttyscribe.config.views import Play
    from ttyscribe.player.playback import Playback
    from ttyscribe.player.screen import Screen
    from ttyscribe.player.stream import Stream

HELP = """\
Usage: ttyscribe play [OPTIONS] [FILE]
Replay a recording on this terminal, at its own pace.

FILE is a recording of ttyscribe or tlog, a syslog text file that holds some
(/var/log/auth.log), or - for standard input. Where standard output is no terminal,
the exact output bytes are written at once, as ttyscribe cat does.

Which recording:
  -r, --reader file|journal     where to read (default: file)
  -i, --file-path FILE          the same as FILE
  -m, --file-match REC          the recording with the id REC; without it, a file
                                with several recordings lists them
  -M, --journal-match MATCH     FIELD=VALUE as for journalctl, or OR, or AND; may be
                                given several times; implies -r journal
  -S, --journal-since TIME      from then on: epoch seconds, "2019-09-03 10:00:05",
  -U, --journal-until TIME      "yesterday", "-20min" and so on; local time unless
                                the time names a zone ("10:00 UTC")
  -N, --journal-namespace NAME  only a namespace of the journal (default: all)
  -D, --directory DIR           journal files in DIR
      --lax                     play on where messages are missing or broken

How:
  -s, --speed N                 N times as fast (default: 1)
  -g, --goto POSITION           start, end, or [[HH:]MM:]SS[.sss]
  -p, --paused                  start paused
  -f, --follow                  wait for more at the end
      --idle-time-limit N       let nothing happen for N seconds at most; 0 is no limit
      --persist                 ignore q, Ctrl-C, Ctrl-\\ and Ctrl-Z
      --configuration           print the configuration in effect as JSON
  -v, --version                 print the version
  -h, --help                    print this

Keys: space or p pause, { and } half and double speed, Backspace original speed, . next
output now, left and right 5 seconds, up and down a minute, TIME G to a position
("30G", "2:30G", "30:G"), G to the end, ? status line, q quit.

The terminal takes the recorded sizes where it lets itself be resized. Queries, and sequences
that reach clipboard, printer, files or keys, are not sent on to a terminal; it gets
back its colours, cursor, modes and size at the end.

Examples:
  ttyscribe play session.tlog
  ttyscribe play -g 10:00 -s 4 session.tlog
  ttyscribe play /var/log/auth.log -m 6071524bb44d403991a00413ab7c8596-53bd-378c5d9
  ttyscribe play -M TLOG_USER=alice -S yesterday

Exit status: 0 played; 1 the recording can't be read or is damaged (what comes before the
damage is played); 2 wrong command line; 130 Ctrl-C, 143 SIGTERM.
"""

OPTIONS = {
    **source.SOURCE,
    "s,speed=": "speed",
    "g,goto=": "goto",
    "p,paused": "paused",
    ",idle-time-limit=": "idle_time_limit",
    ",persist": "persist",
    ",configuration": "configuration",
}


def main(argv: list[str]) -> int:
    given = source.parse(argv, OPTIONS)
    if source.answered(given, HELP):
        return 0
    values = source.configured(given)
    if "configuration" in given:
        from ttyscribe.config import dump

        print(dump(values))
        return 0
    goto = parse_goto(values["goto"])
    source.guard_descriptors()
    on_terminal = os.isatty(1)
    from ttyscribe.player.stream import Stream

    follow = values["follow"]
    reader = source.open_reader(values, given, rewindable=on_terminal, follow=follow)
    try:
        stream = Stream(reader, follow, values["lax"])
        if on_terminal:
            limit = given.get("idle_time_limit", values["idle_time_limit"])
            _play(stream, values, goto, limit if isinstance(limit, float) else None)
        else:
            from ttyscribe.player.copy import copy_output

            copy_output(stream, 1)
    finally:
        reader.close()
    if stream.warning:
        complain(f"ttyscribe play: {printable(stream.warning)}")
    return 0


def parse_goto(text: str) -> int:
    """Nanoseconds of "start" (or nothing), "end" or [[HH:]MM:]SS[.sss]. Raises UsageError."""
    from ttyscribe.player.clock import END, parse_position

    if text in ("", "start", "end"):
        return END if text == "end" else 0
    try:
        return int(parse_position(text) * 1e9)
    except ValueError:
        raise UsageError(
            f"'{text}' is no position; write start, end, or [[HH:]MM:]SS[.sss]"
        ) from None


def _play(stream: Stream, values: Play, goto: int, idle_limit: float | None) -> None:
    from ttyscribe.player.clock import Clock
    from ttyscribe.player.playback import Playback
    from ttyscribe.player.screen import Screen

    keys = _keyboard(values)
    if keys is None and (values["paused"] or values["speed"] == 0):
        raise UsageError("can't start paused: there is no terminal to take keys from")
    screen = Screen(1, keys)
    clock = Clock(values["speed"], values["paused"])
    playback = Playback(stream, screen, clock, goto, idle_limit, values["persist"])
    _handle_signals(screen, playback, values["persist"])
    screen.enter()
    try:
        playback.run()
    finally:
        screen.leave()
    if playback.advice:
        complain(playback.advice)


def _keyboard(values: Play) -> int | None:
    """The terminal that is typed on: standard input, or else the one we are run from."""
    recording_there = values["reader"] == "file" and values["file"]["path"] == "-"
    if not recording_there and os.isatty(0):
        return 0
    try:
        return os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError:
        return None


def _handle_signals(screen: Screen, playback: Playback, persist: bool) -> None:
    """Have the terminal restored whatever signal ends or stops us."""
    import signal

    def end(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    def stop(_number: int, _frame: object) -> None:
        screen.leave()
        os.kill(os.getpid(), signal.SIGSTOP)
        screen.enter()
        playback.redraw_soon()

    for ending in (
        signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2,
        signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF, signal.SIGXCPU, signal.SIGIO,
        signal.SIGPWR, signal.SIGINT,
    ):  # fmt: skip
        if ending != signal.SIGINT or signal.getsignal(ending) != signal.SIG_IGN:
            signal.signal(ending, end)
    signal.signal(signal.SIGTSTP, stop)
    if persist:
        for keyboard in (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP):
            signal.signal(keyboard, signal.SIG_IGN)
