# SPDX-License-Identifier: Apache-2.0
"""ttyscribe cat: a recording's exact output, at once."""

from __future__ import annotations

from ttyscribe.cli import complain, source
from ttyscribe.errors import printable

HELP = """\
Usage: ttyscribe cat [OPTIONS] [FILE]
Print a recording's exact output bytes at once, for pipes. Nothing is taken out: to look
at a recording on a terminal, use ttyscribe play.

FILE is a recording of ttyscribe or tlog, a syslog text file that holds some, or - for
standard input.

Options, as for play:
  -r, --reader file|journal     where to read (default: file)
  -i, --file-path FILE          the same as FILE
  -m, --file-match REC          the recording with the id REC
  -M, --journal-match MATCH     FIELD=VALUE, OR, or AND; implies -r journal
  -S, --journal-since TIME      from then on, and until then: epoch seconds, or a time
  -U, --journal-until TIME      as journalctl takes it, in local time
  -N, --journal-namespace NAME  only a namespace of the journal (default: all)
  -D, --directory DIR           journal files in DIR
  -f, --follow                  wait for more at the end
      --lax                     go on where messages are missing or broken
  -v, --version                 print the version
  -h, --help                    print this

Examples:
  ttyscribe cat session.tlog | grep -a 'permission denied'
  ttyscribe cat -M TLOG_REC=6071524bb44d403991a00413ab7c8596-53bd-378c5d9 >output

Exit status: 0 printed; 1 the recording can't be read or is damaged (what comes before the
damage is printed); 2 wrong command line.
"""


def main(argv: list[str]) -> int:
    given = source.parse(argv, source.SOURCE)
    if source.answered(given, HELP):
        return 0
    values = source.configured(given)
    source.guard_descriptors()
    from ttyscribe.player.copy import copy_output
    from ttyscribe.player.stream import Stream

    follow = "follow" in given
    reader = source.open_reader(values, given, rewindable=False, follow=follow)
    try:
        stream = Stream(reader, follow, values["lax"])
        copy_output(stream, 1)
    finally:
        reader.close()
    if stream.warning:
        complain(f"ttyscribe cat: {printable(stream.warning)}")
    return 0
